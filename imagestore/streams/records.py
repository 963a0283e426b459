"""The send stream's records: numbers, layouts, and the encoding of headers.

A stream is a sequence of records: a 312-byte header, then a payload whose
length follows from the header.  All integers are little-endian.  The last 32
bytes of every header but BEGIN's hold the running Fletcher-4 checksum of
everything before them.

Encoded headers have no checksum yet, and zero wherever plain streams have
nothing to say, as strict receivers want it.  Pure: knows no files and no order
of records; ``decoding`` reads headers, ``rules`` judges them.
"""

import struct
from typing import Final

from msgspec import Struct

HEADER_BYTES: Final = 312
CHECKSUM_AT: Final = 280
"""Where a header's running checksum begins; it covers all bytes before it."""

MAGIC: Final = 0x2F5BACBAC
MAGIC_LITTLE: Final = MAGIC.to_bytes(8, "little")
MAGIC_BIG: Final = MAGIC.to_bytes(8, "big")

U64_MAX: Final = (1 << 64) - 1
TO_THE_END: Final = U64_MAX
"""A FREE's length that means: all that follows."""

BEGIN, OBJECT, FREEOBJECTS, WRITE, FREE, END = range(6)
WRITE_BYREF, SPILL, WRITE_EMBEDDED, OBJECT_RANGE, REDACT = range(6, 11)

TYPE_NAMES: Final = (
    "BEGIN",
    "OBJECT",
    "FREEOBJECTS",
    "WRITE",
    "FREE",
    "END",
    "WRITE_BYREF",
    "SPILL",
    "WRITE_EMBEDDED",
    "OBJECT_RANGE",
    "REDACT",
)

PLAIN: Final = 1
PACKAGE: Final = 2

OBJSET_FILESYSTEM: Final = 2
OBJSET_ZVOL: Final = 3

FLAG_CLONE: Final = 0x1
FLAG_FREERECORDS: Final = 0x4
FLAG_SPILL_BLOCK: Final = 0x8
FLAGS_ALWAYS: Final = FLAG_FREERECORDS | FLAG_SPILL_BLOCK
"""What every sender since OpenZFS 2.0 sets."""

FEATURE_NAMES: Final = {
    0: "DEDUP",
    1: "DEDUPPROPS",
    2: "SA_SPILL",
    16: "EMBED_DATA",
    17: "LZ4",
    19: "LARGE_BLOCKS",
    20: "RESUMING",
    21: "REDACTED",
    22: "COMPRESSED",
    23: "LARGE_DNODE",
    24: "RAW",
    25: "ZSTD",
    26: "HOLDS",
    27: "SWITCH_TO_LARGE_BLOCKS",
    28: "LONGNAME",
    29: "LARGE_MICROZAP",
}
FEATURE_EMBED_DATA: Final = 1 << 16
FEATURE_LZ4: Final = 1 << 17
FEATURE_LARGE_BLOCKS: Final = 1 << 19
FEATURE_COMPRESSED: Final = 1 << 22
FEATURE_ZSTD: Final = 1 << 25

TYPE_ZVOL: Final = 23
TYPE_ZVOL_PROP: Final = 24
OBJECT_DATA: Final = 1
OBJECT_PROPERTIES: Final = 2
PROPERTIES_BLOCK_BYTES: Final = 512

COMPRESSION_NAMES: Final = {
    0: "off",
    2: "off",
    3: "lzjb",
    **{level + 4: f"gzip-{level}" for level in range(1, 10)},
    14: "zle",
    15: "lz4",
    16: "zstd",
}
COMPRESSION_LZJB: Final = 3
COMPRESSION_GZIP: Final = range(5, 14)
COMPRESSION_ZLE: Final = 14
COMPRESSION_LZ4: Final = 15
COMPRESSION_ZSTD: Final = 16

MAX_BEGIN_PAYLOAD: Final = 16 << 20
"""Longest package header in bytes. (ZFS allows 64 MiB; 16 MiB already name 100,000 snapshots,
and the store reads any stream within 64 MiB of memory.)"""

MAX_BLOCK: Final = 16 << 20
"""Largest block in bytes, before or after compression (SPA_MAXBLOCKSIZE)."""

MAX_EMBEDDED: Final = 112
"""Most bytes that an embedded block pointer can hold (BPE_PAYLOAD_SIZE)."""

MAX_OFFSET: Final = 1 << 63
MAX_BLOCK_WITHOUT_FEATURE: Final = 128 << 10
"""Largest block of a stream without LARGE_BLOCKS."""


class Begin(Struct, frozen=True, kw_only=True, gc=False):
    """Start of a plain stream (one snapshot) or of a package of them."""

    payload_bytes: int
    header_type: int
    features: int
    creation_seconds: int
    objset_type: int
    flags: int
    toguid: int
    fromguid: int
    toname: bytes


class Object(Struct, frozen=True, kw_only=True, gc=False):
    """Announces an object and its block size. ``reserved`` holds what only raw streams use."""

    payload_bytes: int
    object: int
    type: int
    bonus_type: int
    block_bytes: int
    bonus_bytes: int
    checksum_type: int
    compression: int
    dnode_slots: int
    flags: int
    raw_bonus_bytes: int
    toguid: int
    reserved: bytes


class FreeObjects(Struct, frozen=True, kw_only=True, gc=False):
    """The receiver frees objects ``first`` to ``first + count - 1``."""

    first: int
    count: int
    toguid: int
    payload_bytes: int = 0


class Write(Struct, frozen=True, kw_only=True, gc=False):
    """One block; its payload is ``payload_bytes`` long, ``logical_bytes`` when unpacked."""

    payload_bytes: int
    object: int
    type: int
    offset: int
    logical_bytes: int
    toguid: int
    flags: int
    compression: int
    compressed_bytes: int
    crypt: bytes


class Free(Struct, frozen=True, kw_only=True, gc=False):
    """A hole from ``offset``, ``length`` bytes long (TO_THE_END: all that follows)."""

    object: int
    offset: int
    length: int
    toguid: int
    payload_bytes: int = 0


class End(Struct, frozen=True, kw_only=True, gc=False):
    """End of a stream; ``checksum`` is of all before the record, ``is_blank`` if every field is 0."""

    checksum: tuple[int, int, int, int]
    toguid: int
    is_blank: bool
    payload_bytes: int = 0


class WriteEmbedded(Struct, frozen=True, kw_only=True, gc=False):
    """One block small enough to have lived in its block pointer."""

    payload_bytes: int
    object: int
    offset: int
    length: int
    toguid: int
    compression: int
    embedded_type: int
    logical_bytes: int
    stored_bytes: int


Record = Begin | Object | FreeObjects | Write | Free | End | WriteEmbedded

_NAMES: Final[dict[type[Record], str]] = {
    Begin: "BEGIN",
    Object: "OBJECT",
    FreeObjects: "FREEOBJECTS",
    Write: "WRITE",
    Free: "FREE",
    End: "END",
    WriteEmbedded: "WRITE_EMBEDDED",
}

BEGIN_LAYOUT = struct.Struct("<IIQQQIIQQ256s")
OBJECT_LAYOUT = struct.Struct("<IIQIIIIBBBBIQ16s")
FREEOBJECTS_LAYOUT = struct.Struct("<IIQQQ")
WRITE_LAYOUT = struct.Struct("<IIQIIQQQBBBxxxxx40sQ36s")
FREE_LAYOUT = struct.Struct("<IIQQQQ")
END_LAYOUT = struct.Struct("<II4QQ")
EMBEDDED_LAYOUT = struct.Struct("<IIQQQQBBxxxxxxII")


def type_name(record: Record) -> str:
    """``WRITE_EMBEDDED`` and so on."""
    return _NAMES[type(record)]


def feature_names(features: int) -> tuple[str, ...]:
    """The names of the feature bits set, unknown ones as ``bit N``."""
    return tuple(FEATURE_NAMES.get(bit, f"bit {bit}") for bit in range(56) if features >> bit & 1)


def _header(packed: bytes) -> bytes:
    return packed.ljust(HEADER_BYTES, b"\0")


def encode_begin(
    *,
    toname: bytes,
    toguid: int = 0,
    fromguid: int = 0,
    creation_seconds: int = 0,
    flags: int = 0,
    features: int = 0,
    header_type: int = PLAIN,
    objset_type: int = OBJSET_ZVOL,
    payload_bytes: int = 0,
) -> bytes:
    """A BEGIN header; it carries no checksum."""
    version = header_type | features << 2
    return BEGIN_LAYOUT.pack(
        BEGIN, payload_bytes, MAGIC, version, creation_seconds, objset_type, flags, toguid, fromguid, toname
    )


def encode_object(*, number: int, kind: int, block_bytes: int, toguid: int) -> bytes:
    """An OBJECT header without its checksum."""
    return _header(
        OBJECT_LAYOUT.pack(OBJECT, 0, number, kind, 0, block_bytes, 0, 0, 0, 1, 0, 0, toguid, bytes(16))
    )


def encode_freeobjects(*, first: int, count: int, toguid: int) -> bytes:
    """A FREEOBJECTS header without its checksum."""
    return _header(FREEOBJECTS_LAYOUT.pack(FREEOBJECTS, 0, first, count, toguid))


def encode_write(
    *,
    number: int,
    kind: int,
    offset: int,
    logical_bytes: int,
    toguid: int,
    compression: int = 0,
    compressed_bytes: int = 0,
) -> bytes:
    """A WRITE header without its checksum; the block's own checksum is "off" (2), its key zero."""
    return _header(
        WRITE_LAYOUT.pack(
            WRITE,
            0,
            number,
            kind,
            0,
            offset,
            logical_bytes,
            toguid,
            2,
            0,
            compression,
            bytes(40),
            compressed_bytes,
            bytes(36),
        )
    )


def encode_free(*, number: int, offset: int, length: int, toguid: int) -> bytes:
    """A FREE header without its checksum."""
    return _header(FREE_LAYOUT.pack(FREE, 0, number, offset, length, toguid))


def encode_end(*, checksum: tuple[int, int, int, int] = (0, 0, 0, 0), toguid: int = 0) -> bytes:
    """An END header without its checksum; blank (all zero but the type) by default."""
    return _header(END_LAYOUT.pack(END, 0, *checksum, toguid))
