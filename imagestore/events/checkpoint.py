"""A checkpoint: the folded state at one place of the journal, so that start-up reads the tail only.

Owns the layout of the file.  Pure.  While all segments are there a checkpoint
is only a cache: one that cannot be read, is of another format, of another
journal, or does not fit the log is ignored with a warning.
"""

import struct
from typing import Literal
from zlib import crc32

import msgspec
from msgspec import Struct

from imagestore.events.state import State

MAGIC = b"IMGCKPT\n"
VERSION = 2
"""Counts up whenever a fold of the same events may give another state than before."""

_HEADER = struct.Struct("<8sIIQ16sQQQ32sII")
HEADER_BYTES = _HEADER.size
_CHECKED_BYTES = HEADER_BYTES - 4

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(State)


class Anchor(Struct, frozen=True, kw_only=True):
    """The last frame that a checkpoint covers: where it stands, its last seq and its hash."""

    journal: bytes
    segment: int
    offset: int
    seq: int
    hash: bytes


class Checkpoint(Struct, frozen=True, kw_only=True):
    anchor: Anchor
    state: State


class Unusable(Struct, frozen=True):
    """Why a checkpoint is ignored, in one line."""

    reason: str
    kind: Literal["unreadable", "old"] = "unreadable"


def encode_state(state: State) -> bytes:
    return _encoder.encode(state)


def encode(anchor: Anchor, state: bytes) -> bytes:
    """``state`` as :func:`encode_state` gave it."""
    packed = _HEADER.pack(
        MAGIC,
        VERSION,
        crc32(state),
        len(state),
        anchor.journal,
        anchor.segment,
        anchor.offset,
        anchor.seq,
        anchor.hash,
        0,
        0,
    )[:_CHECKED_BYTES]
    return b"".join((packed, crc32(packed).to_bytes(4, "little"), state))


def decode(data: bytes) -> Checkpoint | Unusable:
    """The checkpoint in ``data``, whole, or why there is none."""
    if len(data) < HEADER_BYTES or data[:8] != MAGIC:
        return Unusable("it does not begin like a checkpoint")
    _, version, body_crc, length, journal, segment, offset, seq, hash_, _, crc = _HEADER.unpack_from(data)
    if crc != crc32(data[:_CHECKED_BYTES]):
        return Unusable("its header does not have its checksum")
    if version != VERSION:
        return Unusable(f"it is of version {version}, this imagestore reads {VERSION}", "old")
    body = data[HEADER_BYTES:]
    if len(body) != length or crc32(body) != body_crc:
        return Unusable("its body does not have its checksum")
    try:
        state = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        return Unusable(f"its state cannot be read: {error}", "old")
    if state.seq != seq:
        return Unusable(f"its state is of seq {state.seq}, its header of seq {seq}")
    anchor = Anchor(journal=journal, segment=segment, offset=offset, seq=seq, hash=hash_)
    return Checkpoint(anchor=anchor, state=state)
