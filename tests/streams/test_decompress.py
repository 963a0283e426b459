"""Compressed blocks unpack to what they were, or are refused; nothing is larger than it may be."""

import tracemalloc
import zlib

import pytest

from imagestore.errors import StreamError
from imagestore.streams.decompress import decompress
from tests.streams.packing import lz4_payload, lzjb_payload, zstd_payload

SIZE = 8192
TEXT = (b"an image store keeps disk images, " * 300)[:SIZE]


def zle_payload() -> tuple[bytes, bytes]:
    return bytes([3]) + b"abcd" + bytes([255]) + bytes([64 + 9]) + bytes([0]) + b"z", (
        b"abcd" + bytes(192) + bytes(10) + b"z"
    )


PACKED = {
    "lz4": (15, lz4_payload(TEXT)),
    "zstd": (16, zstd_payload(TEXT)),
    "zstd without a content size": (16, zstd_payload(TEXT, content_size=False)),
    "gzip-1": (5, zlib.compress(TEXT, 1)),
    "gzip-9": (13, zlib.compress(TEXT, 9)),
    "lzjb": (3, lzjb_payload(TEXT)),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("padding", [0, 7, 300])
def test_a_block_unpacks_whatever_padding_follows(name: str, padding: int) -> None:
    number, payload = PACKED[name]
    assert bytes(decompress(number, memoryview(payload + bytes(padding)), SIZE)) == TEXT


def test_zle_unpacks() -> None:
    payload, expected = zle_payload()
    assert decompress(14, memoryview(payload), len(expected)) == expected


@pytest.mark.parametrize("number", [0, 2])
def test_an_uncompressed_block_is_itself(number: int) -> None:
    assert decompress(number, memoryview(TEXT), SIZE) == TEXT


@pytest.mark.parametrize("name", PACKED)
def test_a_cut_block_is_refused(name: str) -> None:
    number, payload = PACKED[name]
    for length in (0, 1, 4, 9, len(payload) // 2, len(payload) - 1):
        with pytest.raises(StreamError):
            decompress(number, memoryview(payload[:length]), SIZE)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("size", [512, SIZE - 512, SIZE + 512])
def test_a_block_of_another_size_is_refused(name: str, size: int) -> None:
    number, payload = PACKED[name]
    if name == "lzjb" and size < SIZE:
        # lzjb has no end of its own: what is asked for is taken
        assert decompress(number, memoryview(payload), size) == TEXT[:size]
        return
    with pytest.raises(StreamError):
        decompress(number, memoryview(payload), size)


@pytest.mark.parametrize(
    ("number", "payload"),
    [
        (15, b"\xff\xff\xff\xff" + bytes(100)),
        (16, b"\xff\xff\xff\xff" + bytes(100)),
        (16, zstd_payload(bytes(64 << 20))),
        (16, zstd_payload(bytes(64 << 20), content_size=False)),
        (5, zlib.compress(bytes(64 << 20))),
        (15, lz4_payload(bytes(8 << 20))),
    ],
    ids=["lz4 length", "zstd length", "zstd bomb", "zstd bomb of unknown size", "gzip bomb", "lz4 bomb"],
)
def test_a_bomb_is_refused_without_a_large_allocation(number: int, payload: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(StreamError):
        decompress(number, memoryview(payload), SIZE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("payload", [b"\1\0\1", b"\1\x04\xff", b"\1\0\0"])
def test_lzjb_never_looks_before_its_beginning(payload: bytes) -> None:
    with pytest.raises(StreamError, match="refers"):
        decompress(3, memoryview(payload), SIZE)


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(StreamError, match="compression 4"):
        decompress(4, memoryview(TEXT), SIZE)
