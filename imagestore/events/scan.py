"""What the bytes of a segment mean: whole frames, then its end, a torn tail, or damage.

Owns that decision, and it is pure: bytes in, verdict out.

The proof.  A commit group is first written after the flush of the group before
it returned.  So behind a damaged frame, an intact header of a *later* group
(its ``group_offset`` lies behind the damage) proves that the damaged frame had
once been durable: that is corruption, and nothing may be cut.  Without such a
header the damage is what a crash leaves of a group that nobody was told about:
a torn tail.  A frame that is intact but does not follow from the one before it
(hash, seq or group) cannot come from a crash at all.
"""

import hashlib
from collections.abc import Iterator
from zlib import crc32

from msgspec import Struct

from imagestore.events import frame as frames

_HEADER_BYTES = frames.HEADER.size
_ALIGNMENT = frames.ALIGNMENT
_HASH_BYTES = frames.HASH_BYTES
_MAGIC = frames.MAGIC
_MAX_BODY_BYTES = frames.MAX_BODY_BYTES
_PADDING = tuple(bytes(length) for length in range(_ALIGNMENT))
_unpack = frames.HEADER.unpack_from
_blake2b = hashlib.blake2b
_NO_HEADER = "no frame header with a right checksum"
_ZEROS = bytes(1 << 20)


class Cursor(Struct, frozen=True, kw_only=True):
    """A place between two frames of a segment.

    ``offset`` is where the next frame begins, ``seq`` the last event's before
    it, ``group`` and ``group_offset`` the last frame's commit group, ``hash``
    the last frame's hash.
    """

    offset: int
    seq: int
    group: int
    group_offset: int
    hash: bytes


class Frame(Struct, frozen=True, gc=False):
    """A whole frame that follows the one before it."""

    offset: int
    seq: int
    count: int
    group: int
    body: bytes
    hash: bytes


class Damage(Struct, frozen=True, kw_only=True):
    """Why a walk stopped before the end of the data.  ``seq`` is the next event's.

    ``torn`` tells that it can be what a crash left of a group that was never acknowledged.
    """

    offset: int
    seq: int
    reason: str
    torn: bool


class Walk:
    """Walks the frames in ``data``, which begins at offset ``base`` of a segment.

    Iterate once; when it is exhausted, ``cursor`` is behind the last whole
    frame and ``damage`` says why it ended there (None: nothing but zeros follows).
    """

    def __init__(self, data: bytes, cursor: Cursor, *, base: int = 0) -> None:
        self.cursor = cursor
        self.damage: Damage | None = None
        self._data = data
        self._base = base

    def __iter__(self) -> Iterator[Frame]:
        # Replay spends most of its time here: no calls but those that hash.
        data, base = self._data, self._base
        place = self.cursor.offset - base
        seq, group, group_offset = self.cursor.seq, self.cursor.group, self.cursor.group_offset
        previous = self.cursor.hash
        last_header = len(data) - _HEADER_BYTES
        reason = _NO_HEADER
        torn = True
        while place <= last_header:
            magic, crc, length, body_crc, first, count, zero, its_group, its_offset, before = _unpack(
                data, place
            )
            body_at = place + _HEADER_BYTES
            if magic != _MAGIC or crc != crc32(data[place + 8 : body_at]) or zero or length > _MAX_BODY_BYTES:
                break
            body_end = body_at + length
            following = body_end + -length % _ALIGNMENT
            body = data[body_at:body_end]
            if (
                len(data) < following
                or crc32(body) != body_crc
                or data[body_end:following] != _PADDING[following - body_end]
            ):
                reason = "the frame's body does not have its checksum"
                break
            continues = its_group == group and its_offset == group_offset
            begins = its_group == group + 1 and its_offset == base + place
            if before != previous or first != seq + 1 or not (continues or begins):
                torn = False
                reason = _misfit(before == previous, first, seq + 1, its_group, group)
                break
            previous = _blake2b(data[place:body_end], digest_size=_HASH_BYTES).digest()
            seq += count
            group, group_offset = its_group, its_offset
            offset, place = base + place, following
            yield Frame(offset, first, count, group, body, previous)
        self.cursor = Cursor(
            offset=base + place, seq=seq, group=group, group_offset=group_offset, hash=previous
        )
        if not torn:
            self.damage = Damage(offset=base + place, seq=seq + 1, reason=reason, torn=False)
        elif not is_zero(data, place):
            self.damage = _judge(data, place, base, seq + 1, reason)


def _misfit(hash_fits: bool, first: int, expected: int, group: int, last_group: int) -> str:
    """Why an intact frame cannot stand where it stands."""
    if not hash_fits:
        return "the frame does not follow the one before it: its hash of that one differs"
    if first != expected:
        return f"the frame begins with seq {first}, expected {expected}"
    return f"the frame is of commit group {group}, which cannot stand here after group {last_group}"


def _judge(data: bytes, place: int, base: int, seq: int, reason: str) -> Damage:
    later = later_group(data, place, base)
    if later is None:
        return Damage(offset=base + place, seq=seq, reason=reason, torn=True)
    return Damage(
        offset=base + place,
        seq=seq,
        reason=f"{reason}, and it had been durable: a later commit group begins at offset {later}",
        torn=False,
    )


def later_group(data: bytes, place: int, base: int = 0) -> int | None:
    """Where the first group begins that proves that what stood at ``place`` had been durable."""
    found = data.find(frames.MAGIC, place + 1)
    while found != -1:
        if (base + found) % _ALIGNMENT == 0:
            header = frames.decode_header(data, found)
            if header is not None and header.group_offset > base + place:
                return header.group_offset
        found = data.find(frames.MAGIC, found + 1)
    return None


def is_zero(data: bytes, place: int) -> bool:
    """Whether nothing but zero bytes stands in ``data`` from ``place`` on."""
    for start in range(place, len(data), len(_ZEROS)):
        piece = data[start : start + len(_ZEROS)]
        if piece != _ZEROS[: len(piece)]:
            return False
    return True


def last_nonzero(data: bytes) -> int:
    """The length of ``data`` without the zero bytes at its end."""
    end = len(data)
    while end >= len(_ZEROS) and data[end - len(_ZEROS) : end] == _ZEROS:
        end -= len(_ZEROS)
    return len(data[:end].rstrip(b"\0"))
