"""A segment: its header as bytes, and the names in a journal's directory.

Owns the layout of the segment header and which file names belong to a journal.
Pure: it opens nothing.
"""

import re
import struct
from zlib import crc32

from msgspec import Struct

MAGIC = b"IMGJRNL\n"
VERSION = 1
"""The format that this imagestore writes."""

HEADER_BYTES = 96
_HEADER = struct.Struct("<8sII16sQQQ32sII")
_CHECKED_BYTES = HEADER_BYTES - 4

LOCK = "lock"
RESERVE = "reserve"
ARCHIVED = "archived"
"""Says which segments were moved away on purpose (:mod:`imagestore.events.archive`)."""
TEMPORARY = ".new"
"""What is being made ends in this; left over after a crash, it is thrown away."""

IGNORED = frozenset({"README.md", ".gitignore", LOCK, RESERVE, ARCHIVED})

_SEGMENT = re.compile(r"segment-(\d{10})\Z")
_CUT = re.compile(r"segment-(\d{10})\.cut-(\d+)(?:\.\d+)?\Z")
_CHECKPOINT = re.compile(r"checkpoint-(\d{20})\Z")


class SegmentHeader(Struct, frozen=True, kw_only=True):
    """What a segment says of itself and of the one before it.

    ``first_seq`` is the seq of its first event; ``last_group`` and
    ``previous`` are group number and hash of the last frame before it.
    ``oldest_reader`` is the lowest format version whose readers understand it.
    """

    version: int = VERSION
    oldest_reader: int = VERSION
    journal: bytes
    number: int
    first_seq: int
    last_group: int
    previous: bytes


def encode_header(header: SegmentHeader) -> bytes:
    packed = _HEADER.pack(
        MAGIC,
        header.version,
        header.oldest_reader,
        header.journal,
        header.number,
        header.first_seq,
        header.last_group,
        header.previous,
        0,
        0,
    )[:_CHECKED_BYTES]
    return packed + crc32(packed).to_bytes(4, "little")


def decode_header(data: bytes) -> SegmentHeader | None:
    """The header at the start of ``data``, or None if there is no intact one.

    A header of a newer format is returned too, as long as its checksum, which
    stays where it is in every version, is right; look at ``oldest_reader``.
    """
    if len(data) < HEADER_BYTES or data[:8] != MAGIC:
        return None
    _, version, oldest, journal, number, first_seq, last_group, previous, _, crc = _HEADER.unpack_from(data)
    if crc != crc32(data[:_CHECKED_BYTES]):
        return None
    return SegmentHeader(
        version=version,
        oldest_reader=oldest,
        journal=journal,
        number=number,
        first_seq=first_seq,
        last_group=last_group,
        previous=previous,
    )


def segment_name(number: int) -> str:
    return f"segment-{number:010d}"


def checkpoint_name(seq: int) -> str:
    return f"checkpoint-{seq:020d}"


def cut_name(number: int, offset: int, attempt: int) -> str:
    """Where bytes cut off a segment are kept; ``attempt`` counts cuts at one place from 1."""
    name = f"{segment_name(number)}.cut-{offset}"
    return name if attempt == 1 else f"{name}.{attempt}"


class Cut(Struct, frozen=True, kw_only=True, order=True):
    """A file of cut bytes, by its name."""

    number: int
    offset: int
    name: str


class Names(Struct, frozen=True, kw_only=True):
    """A directory's names, sorted out.  Each tuple ascends by number, seq or place."""

    segments: tuple[int, ...]
    checkpoints: tuple[int, ...]
    cuts: tuple[Cut, ...]
    temporary: tuple[str, ...]
    stray: tuple[str, ...]


def sort_names(names: list[str]) -> Names:
    """Say what each name in a journal's directory is; ``stray`` ones do not belong there."""
    segments: list[int] = []
    checkpoints: list[int] = []
    cuts: list[Cut] = []
    temporary: list[str] = []
    stray: list[str] = []
    for name in sorted(names):
        stem = name.removesuffix(TEMPORARY)
        if stem != name and (_known(stem) or stem in (RESERVE, ARCHIVED)):
            temporary.append(name)
        elif match := _SEGMENT.match(name):
            segments.append(int(match[1]))
        elif match := _CHECKPOINT.match(name):
            checkpoints.append(int(match[1]))
        elif match := _CUT.match(name):
            cuts.append(Cut(number=int(match[1]), offset=int(match[2]), name=name))
        elif name not in IGNORED:
            stray.append(name)
    return Names(
        segments=tuple(segments),
        checkpoints=tuple(checkpoints),
        cuts=tuple(sorted(cuts)),
        temporary=tuple(temporary),
        stray=tuple(stray),
    )


def _known(stem: str) -> bool:
    return any(pattern.match(stem) for pattern in (_SEGMENT, _CUT, _CHECKPOINT))
