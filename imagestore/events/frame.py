"""One frame: one append's events, as bytes.

Owns the layout of a frame; ``journal/README.md`` specifies it for readers in
other languages.  Pure: no file, no clock.  Knows nothing of where a frame
stands or what comes before it; :mod:`imagestore.events.scan` judges that.

A frame's header carries its own checksum, so a length is never trusted
unchecked; the body has another; and each frame carries the hash of the one
before, so that no frame can be left out, doubled or moved unnoticed.
"""

import hashlib
import struct
from collections.abc import Callable, Sequence
from zlib import crc32

import msgspec

from imagestore.events.catalogue import Envelope

MAGIC = b"IJFR"
HASH_BYTES = 32
ALIGNMENT = 8
MAX_BODY_BYTES = 32 << 20
"""The largest body that is ever written or believed."""

HEADER = struct.Struct("<4sIIIQIIQQ32s")
"""magic, header crc, body length, body crc, first seq, count, 0, group, group offset, previous hash."""

_CHECKED = struct.Struct("<IIQIIQQ32s")
"""What the header's checksum covers: everything after itself."""

_CHECKED_AT = HEADER.size - _CHECKED.size
_PADDING = tuple(bytes(length) for length in range(ALIGNMENT))

encode_body: Callable[[Sequence[Envelope]], bytes] = msgspec.json.Encoder().encode

decode_body: Callable[[bytes], list[Envelope]] = msgspec.json.Decoder(list[Envelope]).decode
"""Raises msgspec.ValidationError (an unknown event or field) or DecodeError."""


class FrameHeader(msgspec.Struct, frozen=True, gc=False):
    """A frame's header whose checksum was right.

    ``seq`` is that of the first event, ``count`` how many there are (0 in an
    empty group).  ``group_offset`` is where in the segment the commit group
    ``group`` begins.
    """

    body_bytes: int
    body_crc: int
    seq: int
    count: int
    group: int
    group_offset: int
    previous: bytes


def padded(length: int) -> int:
    """``length`` rounded up to the alignment."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def frame_hash(header_and_body: bytes) -> bytes:
    """The chain's link: BLAKE2b-256 of a frame without its padding."""
    return hashlib.blake2b(header_and_body, digest_size=HASH_BYTES).digest()


def first_hash(journal: bytes) -> bytes:
    """What the first frame of a journal carries as the hash before it."""
    return hashlib.blake2b(journal, digest_size=HASH_BYTES).digest()


def encode_frame(
    body: bytes, *, seq: int, count: int, group: int, group_offset: int, previous: bytes
) -> tuple[bytes, bytes]:
    """Return the frame's bytes, padding included, and its hash."""
    length = len(body)
    assert length <= MAX_BODY_BYTES
    checked = _CHECKED.pack(length, crc32(body), seq, count, 0, group, group_offset, previous)
    whole = b"".join((MAGIC, crc32(checked).to_bytes(4, "little"), checked, body))
    return whole + _PADDING[-length % ALIGNMENT], frame_hash(whole)


def decode_header(data: bytes, offset: int) -> FrameHeader | None:
    """The header at ``offset`` in ``data``, or None if there is no intact one."""
    if len(data) - offset < HEADER.size:
        return None
    magic, crc, length, body_crc, seq, count, zero, group, group_offset, previous = HEADER.unpack_from(
        data, offset
    )
    if magic != MAGIC or crc != crc32(data[offset + _CHECKED_AT : offset + HEADER.size]):
        return None
    if length > MAX_BODY_BYTES or zero != 0:
        return None
    return FrameHeader(length, body_crc, seq, count, group, group_offset, previous)
