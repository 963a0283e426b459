"""Decodes the header of one record.

Takes any 312 bytes and refuses only kinds of records that are refused and
lengths that would be a lie; the rules about fields and their order are in
``rules``.  Pure.
"""

import struct
from typing import Final

from imagestore.errors import StreamError
from imagestore.streams.records import (
    BEGIN,
    BEGIN_LAYOUT,
    EMBEDDED_LAYOUT,
    END_LAYOUT,
    FREE_LAYOUT,
    FREEOBJECTS_LAYOUT,
    HEADER_BYTES,
    MAGIC,
    MAGIC_BIG,
    MAX_BEGIN_PAYLOAD,
    MAX_BLOCK,
    MAX_EMBEDDED,
    OBJECT_LAYOUT,
    OBJECT_RANGE,
    REDACT,
    SPILL,
    TYPE_NAMES,
    WRITE_BYREF,
    WRITE_LAYOUT,
    Begin,
    End,
    Free,
    FreeObjects,
    Object,
    Record,
    Write,
    WriteEmbedded,
)

_TYPE = struct.Struct("<II")

_REFUSED: Final = {
    WRITE_BYREF: "WRITE_BYREF records (a stream of zfs send -D) are refused; convert it with zstream redup",
    SPILL: "SPILL records never occur in a volume's stream",
    OBJECT_RANGE: "OBJECT_RANGE records are of raw (encrypted) streams, which are refused; send without -w",
    REDACT: "REDACT records are of redacted streams, which are refused; send the whole snapshot",
}


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
    _, payload_bytes, magic, version, creation, objset, flags, toguid, fromguid, toname = (
        BEGIN_LAYOUT.unpack_from(buffer, at)
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
    ) = OBJECT_LAYOUT.unpack_from(buffer, at)
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
    _, _, first, count, toguid = FREEOBJECTS_LAYOUT.unpack_from(buffer, at)
    return FreeObjects(first=first, count=count, toguid=toguid)


def _decode_write(buffer: memoryview, at: int) -> Write:
    (_, _, number, kind, _, offset, logical, toguid, _, flags, compression, _, compressed, crypt) = (
        WRITE_LAYOUT.unpack_from(buffer, at)
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
    _, _, number, offset, length, toguid = FREE_LAYOUT.unpack_from(buffer, at)
    return Free(object=number, offset=offset, length=length, toguid=toguid)


def _decode_end(buffer: memoryview, at: int) -> End:
    _, _, a, b, c, d, toguid = END_LAYOUT.unpack_from(buffer, at)
    rest = buffer[at + 4 : at + HEADER_BYTES]
    return End(checksum=(a, b, c, d), toguid=toguid, is_blank=not any(rest))


def _decode_embedded(buffer: memoryview, at: int) -> WriteEmbedded:
    _, _, number, offset, length, toguid, compression, embedded_type, logical, stored = (
        EMBEDDED_LAYOUT.unpack_from(buffer, at)
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
