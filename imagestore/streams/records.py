"""The send stream's records: numbers, layouts, decoding and encoding of one header.

A stream is a sequence of records: a 312-byte header, then a payload whose
length follows from the header.  All integers are little-endian.  The last 32
bytes of every header but BEGIN's hold the running Fletcher-4 checksum of
everything before them.

Pure: knows no files, no checksums, no order of records.  :func:`decode` takes
any 312 bytes and refuses only what would make the payload's length a lie; the
rules about fields and their order are in ``rules``.
"""

import struct
from typing import Final

from msgspec import Struct

from imagestore.errors import StreamError

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

_BEGIN = struct.Struct("<IIQQQIIQQ256s")
_OBJECT = struct.Struct("<IIQIIIIBBBBIQ16s")
_FREEOBJECTS = struct.Struct("<IIQQQ")
_WRITE = struct.Struct("<IIQIIQQQBBBxxxxx40sQ36s")
_FREE = struct.Struct("<IIQQQQ")
_END = struct.Struct("<II4QQ")
_EMBEDDED = struct.Struct("<IIQQQQBBxxxxxxII")
_TYPE = struct.Struct("<II")

_REFUSED: Final = {
    WRITE_BYREF: "WRITE_BYREF records (a stream of zfs send -D) are refused; convert it with zstream redup",
    SPILL: "SPILL records never occur in a volume's stream",
    OBJECT_RANGE: "OBJECT_RANGE records are of raw (encrypted) streams, which are refused; send without -w",
    REDACT: "REDACT records are of redacted streams, which are refused; send the whole snapshot",
}


def type_name(record: Record) -> str:
    """``WRITE_EMBEDDED`` and so on."""
    return _NAMES[type(record)]


def feature_names(features: int) -> tuple[str, ...]:
    """The names of the feature bits set, unknown ones as ``bit N``."""
    return tuple(FEATURE_NAMES.get(bit, f"bit {bit}") for bit in range(56) if features >> bit & 1)


def decode(buffer: memoryview, at: int) -> Record:
    """The record whose 312-byte header begins at ``at``.

    Raises:
        StreamError: the type is unknown or refused, or a length is over its limit.
    """
    kind, payload_bytes = _TYPE.unpack_from(buffer, at)
    if kind in _REFUSED:
        raise StreamError(_REFUSED[kind])
    if kind >= len(_DECODERS):
        raise StreamError(f"no record has type {kind}; this is no send stream, or a damaged one")
    if payload_bytes and kind != BEGIN:
        raise StreamError(
            f"{TYPE_NAMES[kind]} has a payload length of {payload_bytes}; only BEGIN may have one"
        )
    decoder = _DECODERS[kind]
    assert decoder is not None, kind
    return decoder(buffer, at)


def _decode_begin(buffer: memoryview, at: int) -> Begin:
    _, payload_bytes, magic, version, creation, objset, flags, toguid, fromguid, toname = _BEGIN.unpack_from(
        buffer, at
    )
    if magic != MAGIC:
        if magic == int.from_bytes(MAGIC_BIG, "little"):
            raise StreamError("big-endian send streams are refused; send from a little-endian machine")
        raise StreamError("BEGIN has no magic number; this is no send stream")
    if payload_bytes > MAX_BEGIN_PAYLOAD:
        raise StreamError(
            f"BEGIN claims {payload_bytes} bytes of payload; at most {MAX_BEGIN_PAYLOAD} may be"
        )
    if payload_bytes % 4:
        raise StreamError(f"BEGIN's payload of {payload_bytes} bytes is no multiple of 4")
    return Begin(
        payload_bytes=payload_bytes,
        header_type=version & 3,
        features=version >> 2,
        creation_seconds=creation,
        objset_type=objset,
        flags=flags,
        toguid=toguid,
        fromguid=fromguid,
        toname=toname,
    )


def _decode_object(buffer: memoryview, at: int) -> Object:
    (
        _,
        _,
        number,
        kind,
        bonus_type,
        block,
        bonus,
        checksum,
        compress,
        slots,
        flags,
        raw_bonus,
        toguid,
        rest,
    ) = _OBJECT.unpack_from(buffer, at)
    if bonus or raw_bonus:
        raise StreamError(
            f"OBJECT {number} has {bonus or raw_bonus} bytes of bonus; a volume's objects have none"
        )
    return Object(
        payload_bytes=0,
        object=number,
        type=kind,
        bonus_type=bonus_type,
        block_bytes=block,
        bonus_bytes=bonus,
        checksum_type=checksum,
        compression=compress,
        dnode_slots=slots,
        flags=flags,
        raw_bonus_bytes=raw_bonus,
        toguid=toguid,
        reserved=rest,
    )


def _decode_freeobjects(buffer: memoryview, at: int) -> FreeObjects:
    _, _, first, count, toguid = _FREEOBJECTS.unpack_from(buffer, at)
    return FreeObjects(first=first, count=count, toguid=toguid)


def _decode_write(buffer: memoryview, at: int) -> Write:
    (_, _, number, kind, _, offset, logical, toguid, _, flags, compression, _, compressed, crypt) = (
        _WRITE.unpack_from(buffer, at)
    )
    if not 0 < logical <= MAX_BLOCK or logical % 512:
        raise StreamError(f"WRITE of {logical} bytes; a block has 512 to {MAX_BLOCK}, in steps of 512")
    payload_bytes = logical
    if compression:
        if not 0 < compressed <= logical or compressed % 512:
            raise StreamError(
                f"WRITE of {logical} bytes compressed to {compressed}; "
                f"allowed is 512 to {logical}, in steps of 512"
            )
        payload_bytes = compressed
    elif compressed:
        raise StreamError(f"WRITE has a compressed size of {compressed} without being compressed")
    return Write(
        payload_bytes=payload_bytes,
        object=number,
        type=kind,
        offset=offset,
        logical_bytes=logical,
        toguid=toguid,
        flags=flags,
        compression=compression,
        compressed_bytes=compressed,
        crypt=crypt,
    )


def _decode_free(buffer: memoryview, at: int) -> Free:
    _, _, number, offset, length, toguid = _FREE.unpack_from(buffer, at)
    return Free(object=number, offset=offset, length=length, toguid=toguid)


def _decode_end(buffer: memoryview, at: int) -> End:
    _, _, a, b, c, d, toguid = _END.unpack_from(buffer, at)
    rest = buffer[at + 4 : at + HEADER_BYTES]
    return End(checksum=(a, b, c, d), toguid=toguid, is_blank=not any(rest))


def _decode_embedded(buffer: memoryview, at: int) -> WriteEmbedded:
    _, _, number, offset, length, toguid, compression, embedded_type, logical, stored = _EMBEDDED.unpack_from(
        buffer, at
    )
    if not 0 < stored <= MAX_EMBEDDED:
        raise StreamError(f"WRITE_EMBEDDED of {stored} stored bytes; allowed are 1 to {MAX_EMBEDDED}")
    return WriteEmbedded(
        payload_bytes=(stored + 7) & ~7,
        object=number,
        offset=offset,
        length=length,
        toguid=toguid,
        compression=compression,
        embedded_type=embedded_type,
        logical_bytes=logical,
        stored_bytes=stored,
    )


_DECODERS = (
    _decode_begin,
    _decode_object,
    _decode_freeobjects,
    _decode_write,
    _decode_free,
    _decode_end,
    None,
    None,
    _decode_embedded,
)


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
    return _BEGIN.pack(
        BEGIN, payload_bytes, MAGIC, version, creation_seconds, objset_type, flags, toguid, fromguid, toname
    )


def encode_object(*, number: int, kind: int, block_bytes: int, toguid: int) -> bytes:
    """An OBJECT header without its checksum."""
    return _header(_OBJECT.pack(OBJECT, 0, number, kind, 0, block_bytes, 0, 0, 0, 1, 0, 0, toguid, bytes(16)))


def encode_freeobjects(*, first: int, count: int, toguid: int) -> bytes:
    """A FREEOBJECTS header without its checksum."""
    return _header(_FREEOBJECTS.pack(FREEOBJECTS, 0, first, count, toguid))


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
        _WRITE.pack(
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
    return _header(_FREE.pack(FREE, 0, number, offset, length, toguid))


def encode_end(*, checksum: tuple[int, int, int, int] = (0, 0, 0, 0), toguid: int = 0) -> bytes:
    """An END header without its checksum; blank (all zero but the type) by default."""
    return _header(_END.pack(END, 0, *checksum, toguid))
