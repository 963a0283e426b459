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

from collections.abc import Iterator
from zlib import crc32

from msgspec import Struct

from imagestore.events import frame as frames

_HEADER_BYTES = frames.HEADER.size
_ALIGNMENT = frames.ALIGNMENT
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
        data, base = self._data, self._base
        place = self.cursor.offset - base
        seq, group, group_offset = self.cursor.seq, self.cursor.group, self.cursor.group_offset
        previous = self.cursor.hash
        reason = ""
        whole = True
        while True:
            header = frames.decode_header(data, place)
            if header is None:
                whole = False
                reason = "no frame header with a right checksum"
                break
            body_at = place + _HEADER_BYTES
            body_end = body_at + header.body_bytes
            body = data[body_at:body_end]
            padding = data[body_end : body_end + -header.body_bytes % _ALIGNMENT]
            if (
                len(body) + len(padding) != frames.padded(header.body_bytes)
                or crc32(body) != header.body_crc
                or (padding and any(padding))
            ):
                whole = False
                reason = "the frame's body does not have its checksum"
                break
            offset = base + place
            reason = _misfit(header, offset, seq, group, group_offset, previous)
            if reason:
                break
            previous = frames.frame_hash(data[place:body_end])
            seq += header.count
            group, group_offset = header.group, header.group_offset
            place = body_end + len(padding)
            yield Frame(offset, header.seq, header.count, group, body, previous)
        self.cursor = Cursor(
            offset=base + place, seq=seq, group=group, group_offset=group_offset, hash=previous
        )
        if whole:
            self.damage = Damage(offset=base + place, seq=seq + 1, reason=reason, torn=False)
        elif not is_zero(data, place):
            self.damage = _judge(data, place, base, seq + 1, reason)


def _misfit(
    header: frames.FrameHeader, offset: int, seq: int, group: int, group_offset: int, previous: bytes
) -> str:
    """Why an intact frame cannot stand where it stands, "" if it can."""
    if header.previous != previous:
        return "the frame does not follow the one before it: its hash of that one differs"
    if header.seq != seq + 1:
        return f"the frame begins with seq {header.seq}, expected {seq + 1}"
    if header.group == group + 1 and header.group_offset == offset:
        return ""
    if header.group == group and header.group_offset == group_offset:
        return ""
    return f"the frame is of commit group {header.group}, which cannot follow group {group}"


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
