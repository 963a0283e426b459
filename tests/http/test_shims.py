"""One test for each shim, which fails without it: when it passes without, the shim goes."""

from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

from imagestore.errors import StreamError
from imagestore.http.settings import HttpSettings
from imagestore.http.shims import FAST_BYTES, BoundedStream
from tests.http.conftest import Start
from tests.http.gated_store import EndlessStore, StreamingStore
from tests.http.memory_store import MemoryStore, MemoryUpload
from tests.http.piped_store import Piped, copied
from tests.http.wire import RPC_PATH, Wire, request_bytes

JSON = {"Content-Type": "application/json"}
LIST = b'{"method":"ListImages","params":[{}],"id":1}'
DOWNLOAD = b"GET /snapshots/download?id=v@s HTTP/1.1\r\nHost: x\r\n\r\n"
Address = tuple[str, int]


# --- shield_final_send


async def test_an_answer_of_quart_leaves_no_connection_behind(address: Address) -> None:
    async with await Wire.open(address) as wire:
        assert (await wire.ask("GET", "/healthz", {"Connection": "close"})).body == b"ok\n"
        assert await wire.rest() == b""


async def test_a_connection_serves_on_after_an_answer_of_quart(address: Address) -> None:
    async with await Wire.open(address) as wire:
        for _ in range(3):
            assert (await wire.ask("GET", "/healthz")).body == b"ok\n"


# --- BoundedStream


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /heal"])
async def test_a_client_that_has_hung_up_keeps_no_connection(sent: bytes, address: Address) -> None:
    async with await Wire.open(address) as wire:
        await wire.send(sent)
        await wire.stream.send_eof()
        with trio.fail_after(10):
            await wire.rest()


@pytest.mark.parametrize("carried", [copied, Piped])
async def test_a_client_that_stops_reading_is_cut_off(
    carried: Callable[[StreamingStore], StreamingStore], start: Start
) -> None:
    store = carried(EndlessStore(bytes(1 << 20)))
    server = await start(store, HttpSettings(stall_seconds=0.1))
    async with await Wire.open(server.address) as wire:
        await wire.send(DOWNLOAD)
        await store.closed.wait()
        with pytest.raises(trio.BrokenResourceError):
            await read_to_the_end(wire)


@pytest.mark.parametrize("carried", [copied, Piped])
async def test_a_client_that_stops_reading_does_not_block_the_end(
    carried: Callable[[StreamingStore], StreamingStore], start: Start
) -> None:
    store = carried(EndlessStore(bytes(1 << 20)))
    server = await start(store, HttpSettings(grace_seconds=0.1))
    async with await Wire.open(server.address) as wire:
        await wire.send(DOWNLOAD)
        await wire.stream.receive_some(1)
        server.shutdown.set()
        await server.ended.wait()
        assert store.closed.is_set()


async def read_to_the_end(wire: Wire) -> None:
    while await wire.stream.receive_some(1 << 20):
        pass


# --- read_body


@pytest.mark.parametrize("path", [RPC_PATH, "/snapshots/download", "/healthz", "/nowhere"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_and_the_refusal_arrives(
    path: str, chunked: bool, start: Start, store: MemoryStore
) -> None:
    server = await start(store, HttpSettings(max_body_bytes=100_000))
    async with await Wire.open(server.address) as wire:
        reply = await wire.ask("POST", path, JSON, b" " * 4_000_000, chunked=chunked)
        assert reply.status == 413
        assert reply.headers["connection"] == "close"
        assert reply.whole
        assert await wire.rest() == b""


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(
    expect: str, start: Start, store: MemoryStore
) -> None:
    server = await start(store, HttpSettings(max_body_bytes=10))
    async with await Wire.open(server.address) as wire:
        await wire.send(f"POST / HTTP/1.1\r\nHost: x\r\n{expect}Content-Length: 11\r\n\r\n".encode())
        assert (await wire.reply()).status == 413
        await wire.send(b"12345678901")
        await wire.stream.send_eof()
        assert await wire.rest() == b""


async def test_hypercorns_reader_may_read_while_a_refused_body_is_dropped() -> None:
    ours, theirs = trio.socket.socketpair()
    stream = BoundedStream(trio.SocketStream(ours), stall_seconds=60)
    stream.lingers = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.aclose)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(trio.SocketStream(theirs).aclose)
        assert await stream.receive_some(1000) == b""


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_just_the_limit_is_taken(chunked: bool, start: Start, store: MemoryStore) -> None:
    server = await start(store, HttpSettings(max_body_bytes=100_000))
    async with await Wire.open(server.address) as wire:
        reply = await wire.ask("POST", RPC_PATH, JSON, LIST.ljust(100_000), chunked=chunked)
        assert reply.status == 200
        assert (await wire.ask("POST", RPC_PATH, JSON, LIST.ljust(100_001))).status == 413


async def test_a_verb_or_type_that_is_refused_is_refused_first(start: Start, store: MemoryStore) -> None:
    server = await start(store, HttpSettings(max_body_bytes=10))
    for method, content_type, status in [("PUT", "application/json", 405), ("POST", "text/plain", 415)]:
        async with await Wire.open(server.address) as wire:
            reply = await wire.ask(method, RPC_PATH, {"Content-Type": content_type}, b" " * 1000)
            assert reply.status == status


async def test_a_body_of_many_pieces_over_the_limit_is_refused_too(start: Start, store: MemoryStore) -> None:
    server = await start(store, HttpSettings(max_body_bytes=10))
    async with await Wire.open(server.address) as wire:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await wire.send(head + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
        assert (await wire.reply()).status == 413
        assert await wire.rest() == b""


async def test_an_endless_body_is_refused_though_the_client_goes_on_sending(
    start: Start, store: MemoryStore, nursery: trio.Nursery
) -> None:
    server = await start(store, HttpSettings(max_body_bytes=1000))
    async with await Wire.open(server.address) as wire:
        await wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        with pytest.raises(trio.BrokenResourceError):
            await send_for_ever(wire, chunk)


async def send_for_ever(wire: Wire, data: bytes) -> None:
    while True:
        await wire.send(data)


@pytest.mark.parametrize("path", [RPC_PATH, "/snapshots/download", "/healthz"])
async def test_a_body_that_trickles_in_is_cut_off(path: str, start: Start, store: MemoryStore) -> None:
    server = await start(store, HttpSettings(body_seconds=0.05))
    async with await Wire.open(server.address) as wire:
        request = request_bytes("POST", path, JSON, LIST)
        await wire.send(request[:-10])
        for byte in request[-10:-1]:
            await wire.send(bytes([byte]))
        reply = await wire.reply()
        assert reply.status == 408
        assert reply.body == b"request body took over 0.05 seconds\n"
        assert await wire.rest() == b""


async def test_a_client_that_hangs_up_within_its_body_is_forgotten(start: Start, store: MemoryStore) -> None:
    server = await start(store)
    async with await Wire.open(server.address) as wire:
        await wire.send(request_bytes("POST", RPC_PATH, JSON, LIST)[:-5])
        await trio.testing.wait_all_tasks_blocked()
    server.shutdown.set()
    await server.ended.wait()
    assert store.callers == []


# --- uploads


async def test_a_body_that_comes_fast_is_read_in_large_pieces(
    store: MemoryStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Measured(MemoryUpload):
        async def feed(self, data: bytes) -> None:
            sizes.append(len(data))
            await trio.lowlevel.checkpoint()

    sizes: list[int] = []
    monkeypatch.setattr(store, "upload", lambda name: Measured(store, name))
    async with await Wire.open((await start(store)).address) as wire:
        assert (await wire.ask("POST", "/volumes/receive?id=v", {}, bytes(16 << 20))).status == 200
    assert 64 << 10 < max(sizes) <= FAST_BYTES
    assert sum(sizes) == 16 << 20


async def test_a_request_that_is_refused_with_a_full_queue_holds_neither_its_connection_nor_the_end(
    store: MemoryStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(MemoryUpload):
        async def feed(self, data: bytes) -> None:
            await gate.wait()
            raise StreamError("no")

    gate = trio.Event()
    monkeypatch.setattr(store, "upload", lambda name: Refusing(store, name))
    server = await start(store, HttpSettings(grace_seconds=1000))
    async with await Wire.open(server.address) as wire, trio.open_nursery() as nursery:
        await wire.send(b"POST /volumes/receive?id=v HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")

        async def pour() -> None:
            with suppress(trio.BrokenResourceError):
                await wire.send(bytes(99_999_999))

        nursery.start_soon(pour)
        await trio.testing.wait_all_tasks_blocked(0.05)
        gate.set()
        assert (await wire.reply()).status == 422
        server.shutdown.set()
        await server.ended.wait()
