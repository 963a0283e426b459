"""Unpacks the compressed blocks of send streams: lz4, zstd, gzip, lzjb, zle.

Every function knows how long the block must become and gives exactly that
many bytes or refuses; none allocates more, whatever the payload claims.
The codecs' libraries are imported when a block needs them.
"""

import struct
import zlib
from collections.abc import Callable

from imagestore.errors import StreamError
from imagestore.streams import records
from imagestore.streams.records import Write, WriteEmbedded

_LENGTH = struct.Struct(">I")
_ZSTD_HEADER_BYTES = 8
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZLE_LITERALS = 64


def decompress(compression: int, payload: memoryview, size: int) -> bytes | memoryview:
    """The ``size`` bytes that ``payload`` unpacks to.

    ``compression`` is the record's number (0 and 2: none, ``payload`` itself).

    Raises:
        StreamError: the payload is damaged, or the number means no algorithm.
    """
    if compression in {0, 2}:
        block: bytes | memoryview = payload
    else:
        block = _codec(compression)(payload, size)
    if len(block) != size:
        raise StreamError(
            f"{records.COMPRESSION_NAMES[compression]} block unpacks to {len(block)} bytes, not to {size}"
        )
    return block


def unpack(record: Write | WriteEmbedded, payload: memoryview) -> bytes | memoryview:
    """The block that a data record carries. Raises StreamError."""
    if isinstance(record, WriteEmbedded):
        payload = payload[: record.stored_bytes]
    return decompress(record.compression, payload, record.logical_bytes)


def is_known(compression: int) -> bool:
    """Whether blocks so compressed can be unpacked."""
    return compression in records.COMPRESSION_NAMES


def _codec(compression: int) -> Callable[[memoryview, int], bytes]:
    if compression in records.COMPRESSION_GZIP:
        return _gzip
    try:
        return _CODECS[compression]
    except KeyError:
        raise StreamError(f"compression {compression} is unknown") from None


def _counted(payload: memoryview, header_bytes: int, name: str) -> memoryview:
    """What follows the header, as long as its big-endian length says."""
    if len(payload) < header_bytes:
        raise StreamError(f"{name} block of {len(payload)} bytes is shorter than its header")
    (length,) = _LENGTH.unpack_from(payload)
    if not 0 < length <= len(payload) - header_bytes:
        raise StreamError(f"{name} block claims {length} of the {len(payload) - header_bytes} bytes it has")
    return payload[header_bytes : header_bytes + length]


def _lz4(payload: memoryview, size: int) -> bytes:
    import lz4.block  # type: ignore[import-untyped]  # lz4 ships no types

    packed = _counted(payload, _LENGTH.size, "lz4")
    try:
        return bytes(lz4.block.decompress(packed, uncompressed_size=size))
    except (lz4.block.LZ4BlockError, ValueError, MemoryError) as error:
        raise StreamError(f"lz4 block is damaged: {error}") from None


def _zstd(payload: memoryview, size: int) -> bytes:
    import zstandard

    frame = _ZSTD_MAGIC + bytes(_counted(payload, _ZSTD_HEADER_BYTES, "zstd"))
    try:
        claimed = zstandard.get_frame_parameters(frame).content_size
        if claimed not in {size, zstandard.CONTENTSIZE_UNKNOWN}:
            raise StreamError(f"zstd block claims to unpack to {claimed} bytes, not to {size}")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError, MemoryError) as error:
        raise StreamError(f"zstd block is damaged: {error}") from None


def _gzip(payload: memoryview, size: int) -> bytes:
    codec = zlib.decompressobj()
    try:
        block = codec.decompress(payload, size)
        # A full output buffer says nothing about the trailer, which holds the checksum
        if not codec.eof:
            block += codec.decompress(codec.unconsumed_tail, 1)
    except zlib.error as error:
        raise StreamError(f"gzip block is damaged: {error}") from None
    if not codec.eof:
        raise StreamError(f"gzip block is cut or unpacks to more than {size} bytes")
    return block


def _lzjb(payload: memoryview, size: int) -> bytes:
    source = bytes(payload)
    block = bytearray()
    at = 0
    try:
        while len(block) < size:
            control = source[at]
            at += 1
            for bit in range(8):
                if len(block) >= size:
                    break
                if control >> bit & 1:
                    first, second = source[at], source[at + 1]
                    at += 2
                    _copy_back(block, (first << 8 | second) & 1023, min((first >> 2) + 3, size - len(block)))
                else:
                    block.append(source[at])
                    at += 1
    except IndexError:
        raise StreamError(f"lzjb block ends after {len(block)} of {size} bytes") from None
    return bytes(block)


def _copy_back(block: bytearray, distance: int, length: int) -> None:
    """Append ``length`` bytes from ``distance`` back; they may overlap what is being appended."""
    if not 0 < distance <= len(block):
        raise StreamError(f"lzjb block refers {distance} bytes back at byte {len(block)}")
    start = len(block) - distance
    pattern = bytes(block[start : start + length])
    block += (pattern * (length // len(pattern) + 1))[:length]


def _zle(payload: memoryview, size: int) -> bytes:
    source = bytes(payload)
    block = bytearray()
    at = 0
    while len(block) < size:
        if at >= len(source):
            raise StreamError(f"zle block ends after {len(block)} of {size} bytes")
        count = source[at] + 1
        at += 1
        if count <= _ZLE_LITERALS:
            literal = source[at : at + count]
            if len(literal) < count:
                raise StreamError(f"zle block ends inside {count} literal bytes")
            block += literal
            at += count
        else:
            block += bytes(count - _ZLE_LITERALS)
    return bytes(block)


_CODECS: dict[int, Callable[[memoryview, int], bytes]] = {
    records.COMPRESSION_LZJB: _lzjb,
    records.COMPRESSION_ZLE: _zle,
    records.COMPRESSION_LZ4: _lz4,
    records.COMPRESSION_ZSTD: _zstd,
}
