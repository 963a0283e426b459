"""Downloads whose bytes go from a pipe to the socket: what arrives, and how such a stream ends."""

import pytest

from tests.http.conftest import Start
from tests.http.gated_store import POOL_FAILED, FailingStore, StreamingStore
from tests.http.piped_store import PIECE_BYTES, Piped
from tests.http.wire import Wire

CONTENT = bytes(range(251)) * 4000
DOWNLOAD = b"GET /snapshots/download?id=v@s HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("size", [None, len(CONTENT)])
async def test_what_arrives_is_what_was_in_the_pipe(size: int | None, start: Start) -> None:
    store = Piped(StreamingStore(CONTENT))
    if size is not None:
        store.known["v@s"] = size
    async with await Wire.open((await start(store)).address) as wire:
        for _ in range(2):
            reply = await wire.ask("GET", "/snapshots/download?id=v@s")
            assert (reply.status, reply.whole, reply.body) == (200, True, CONTENT)
            assert reply.headers.get("content-length") == (None if size is None else str(size))
            assert (await wire.ask("GET", "/healthz")).body == b"ok\n"
    assert store.went_through_pipe
    assert store.open_downloads == 0


async def test_chunks_are_as_long_as_what_was_in_the_pipe(start: Start) -> None:
    store = Piped(StreamingStore(bytes(PIECE_BYTES + 1)))
    async with await Wire.open((await start(store)).address) as wire:
        await wire.send(DOWNLOAD.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        _, _, body = (await wire.rest()).partition(b"\r\n\r\n")
    assert body == b"%x\r\n%b\r\n1\r\n\0\r\n0\r\n\r\n" % (PIECE_BYTES, bytes(PIECE_BYTES))


async def test_a_client_without_chunks_gets_the_bytes_and_the_end(start: Start) -> None:
    store = Piped(StreamingStore(CONTENT))
    async with await Wire.open((await start(store)).address) as wire:
        await wire.send(DOWNLOAD.replace(b"1.1", b"1.0"))
        _, _, body = (await wire.rest()).partition(b"\r\n\r\n")
    assert body == CONTENT


async def test_a_part_does_not_come_through_the_pipe(start: Start) -> None:
    store = Piped(StreamingStore(CONTENT))
    async with await Wire.open((await start(store)).address) as wire:
        reply = await wire.ask("GET", "/snapshots/download?id=v@s", {"Range": "bytes=7-"})
    assert (reply.status, reply.body) == (206, CONTENT[7:])
    assert not store.went_through_pipe


async def test_a_stream_that_fails_midway_ends_without_its_last_chunk(start: Start) -> None:
    store = Piped(FailingStore(bytes(PIECE_BYTES), POOL_FAILED))
    async with await Wire.open((await start(store)).address) as wire:
        await wire.send(DOWNLOAD)
        received = await wire.rest()
    assert received.startswith(b"HTTP/1.1 200")
    assert not received.endswith(b"0\r\n\r\n")
    assert store.open_downloads == 0
