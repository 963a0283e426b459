"""Packs blocks as ZFS packs them, for streams that tests build."""

import lz4.block  # type: ignore[import-untyped]  # lz4 ships no types
import zstandard


def lz4_payload(data: bytes) -> bytes:
    packed: bytes = lz4.block.compress(data, store_size=False)
    return len(packed).to_bytes(4, "big") + packed


def zstd_payload(data: bytes, *, content_size: bool = True) -> bytes:
    frame = zstandard.ZstdCompressor(write_content_size=content_size).compress(data)[4:]
    return len(frame).to_bytes(4, "big") + bytes(4) + frame


def lzjb_payload(data: bytes) -> bytes:
    """Literals and, where the last 3 bytes repeat, copies."""
    out = bytearray()
    at = 0
    while at < len(data):
        control, items = 0, bytearray()
        for bit in range(8):
            if at >= len(data):
                break
            length = 0
            distance = 34
            while (
                at >= distance
                and length < 66
                and data[at + length : at + length + 1]
                == (data[at + length - distance : at + length - distance + 1])
            ):
                length += 1
                if at + length >= len(data):
                    break
            if length >= 3:
                control |= 1 << bit
                items += bytes([(length - 3) << 2 | distance >> 8, distance & 255])
                at += length
            else:
                items.append(data[at])
                at += 1
        out += bytes([control]) + items
    return bytes(out)
