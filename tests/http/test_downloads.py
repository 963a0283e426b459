"""``/snapshots/download``: what is refused, what is sent, and how a stream ends."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from imagestore import errors
from imagestore.http.downloads import LARGEST_PIECE_BYTES, SMALLEST_PIECE_BYTES, regroup
from imagestore.model import SnapshotRequest
from imagestore.service import Download
from tests.http.conftest import Start
from tests.http.gated_store import POOL_FAILED, EndlessStore, FailingStore, SilentStore, StreamingStore
from tests.http.memory_store import MemoryStore
from tests.http.piped_store import Piped, copied
from tests.http.wire import Reply, Wire, request_bytes

PATH = "/snapshots/download"
Address = tuple[str, int]


async def get(address: Address, query: str = "", body: bytes = b"", method: str = "GET") -> Reply:
    async with await Wire.open(address) as wire:
        return await wire.ask(method, PATH + query, {}, body)


@pytest.mark.parametrize(
    ("method", "query", "body", "status", "text"),
    [
        ("GET", "", "", 400, "need an id\n"),
        ("GET", "?id=", "", 400, "need an id\n"),
        ("POST", "", "", 400, "EOF\n"),
        ("POST", "", "{}", 400, "need an id\n"),
        ("POST", "", "null", 400, "need an id\n"),
        ("POST", "", '{"id":', 400, "unexpected EOF\n"),
        ("POST", "", "[]", 400, "json: cannot unmarshal array into Go value of type rpc.SnapshotRequest\n"),
        (
            "POST",
            "",
            '{"id":5}',
            400,
            "json: cannot unmarshal number into Go struct field SnapshotRequest.id of type string\n",
        ),
        ("GET", "?id=v", "", 400, "not a snapshot\n"),
        ("GET", "?id=../v@s", "", 400, "not a valid dataset\n"),
        ("GET", "?id=v@gone", "", 404, "not found\n"),
        ("PUT", "?id=v@s", "", 405, "GET or POST method required\n"),
    ],
)
async def test_what_cannot_be_downloaded_is_refused_in_a_line(
    method: str, query: str, body: str, status: int, text: str, address: Address
) -> None:
    reply = await get(address, query, body.encode(), method)
    assert (reply.status, reply.body.decode()) == (status, text)
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (errors.PoolError("pool is\nsuspended"), 500, "pool is suspended\n"),
        (errors.Stopping(), 500, "store is shutting down\n"),
        (ZeroDivisionError("secret"), 500, "internal error\n"),
    ],
    ids=lambda case: type(case).__name__,
)
async def test_other_errors_before_the_stream_are_500(
    error: Exception, status: int, text: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(MemoryStore):
        def _find_snapshot(self, text: str) -> str:
            raise error

    reply = await get((await start(Refusing())).address, "?id=v@s")
    assert (reply.status, reply.body.decode()) == (status, text)


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [
        ("GET", "?id=v@s", b""),
        ("GET", "?id=v%40s&id=other", b""),
        ("POST", "", b'{"id":"v@s","recursive":false}'),
        ("POST", "", b'{"ID":"mem/v@s"} trailing'),
        ("GET", "?id=other@s", b'{"id":"v@s"}'),
    ],
)
async def test_a_snapshot_is_streamed_in_chunks(
    method: str, query: str, body: bytes, store: MemoryStore, address: Address
) -> None:
    store.snapshots["v@s"] = bytes(range(256)) * 12_345
    reply = await get(address, query, body, method)
    assert (reply.status, reply.whole) == (200, True)
    assert reply.body == store.snapshots["v@s"]
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.headers["etag"] == '"1f2e3d4c5b6a7988"'
    assert reply.headers["content-disposition"] == 'attachment; filename="v@s.zfs"'
    assert store.open_downloads == 0


async def test_a_stream_is_not_compressed(store: MemoryStore, address: Address) -> None:
    store.snapshots["v@s"] = bytes(1000)
    async with await Wire.open(address) as wire:
        reply = await wire.ask("GET", f"{PATH}?id=v@s", {"Accept-Encoding": "gzip"})
    assert "content-encoding" not in reply.headers
    assert reply.raw_body == bytes(1000)


async def test_an_empty_stream_is_whole(store: MemoryStore, address: Address) -> None:
    store.snapshots["v@s"] = b""
    reply = await get(address, "?id=v@s")
    assert (reply.status, reply.body, reply.whole) == (200, b"", True)


async def test_the_connection_serves_on_after_a_download(store: MemoryStore, address: Address) -> None:
    store.snapshots["v@s"] = bytes(3 << 20)
    async with await Wire.open(address) as wire:
        for _ in range(3):
            assert (await wire.ask("GET", f"{PATH}?id=v@s")).body == bytes(3 << 20)
            assert (await wire.ask("GET", "/healthz")).body == b"ok\n"


# --- streams that break


@pytest.mark.parametrize("error", [POOL_FAILED, ZeroDivisionError("secret")], ids=lambda e: type(e).__name__)
async def test_a_stream_that_fails_midway_ends_without_its_last_chunk(
    error: Exception, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    store = FailingStore(bytes(SMALLEST_PIECE_BYTES), error)
    server = await start(store)
    with caplog.at_level(logging.WARNING, "imagestore"):
        async with await Wire.open(server.address) as wire:
            await wire.send(f"GET {PATH}?id=v@s HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = await wire.rest()
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b"%x\r\n%b\r\n" % (SMALLEST_PIECE_BYTES, bytes(SMALLEST_PIECE_BYTES))
    assert [record.name for record in caplog.records] != []
    assert store.open_downloads == 0


async def read_to_the_end(wire: Wire) -> None:
    while await wire.stream.receive_some(1 << 20):
        pass


async def test_a_client_without_chunks_sees_a_broken_stream_by_a_reset(start: Start) -> None:
    server = await start(FailingStore(bytes(SMALLEST_PIECE_BYTES), POOL_FAILED))
    async with await Wire.open(server.address) as wire:
        await wire.send(f"GET {PATH}?id=v@s HTTP/1.0\r\n\r\n".encode())
        with pytest.raises(trio.BrokenResourceError):
            await read_to_the_end(wire)


@pytest.mark.parametrize("carried", [copied, Piped])
async def test_a_client_that_hangs_up_leaves_nothing_running(
    carried: Callable[[StreamingStore], StreamingStore], start: Start
) -> None:
    store = carried(SilentStore(bytes(SMALLEST_PIECE_BYTES)))
    server = await start(store)
    async with await Wire.open(server.address) as wire:
        await wire.send(f"GET {PATH}?id=v@s HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await wire.stream.receive_some(1)
        assert store.open_downloads == 1
    await store.closed.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert store.open_downloads == 0


@pytest.mark.parametrize("carried", [copied, Piped])
async def test_a_client_that_hangs_up_while_much_is_sent_leaves_nothing_running(
    carried: Callable[[StreamingStore], StreamingStore], start: Start
) -> None:
    store = carried(EndlessStore(bytes(LARGEST_PIECE_BYTES)))
    server = await start(store)
    async with await Wire.open(server.address) as wire:
        await wire.send(f"GET {PATH}?id=v@s HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await wire.stream.receive_some(1)
    await store.closed.wait()


# --- pieces


@pytest.mark.parametrize(
    ("chunk_bytes", "count"),
    [(1, 3), (1000, 700), (SMALLEST_PIECE_BYTES, 3), (300_000, 5), (LARGEST_PIECE_BYTES, 2), (5_000_001, 2)],
)
def test_pieces_are_neither_small_nor_large(chunk_bytes: int, count: int) -> None:
    gathered = bytearray()
    sent: list[bytes] = []
    for number in range(count):
        reused = bytearray([number % 251]) * chunk_bytes
        sent += regroup(gathered, memoryview(reused))
        reused[:] = bytes(chunk_bytes)  # the store may use it again
    assert all(
        SMALLEST_PIECE_BYTES <= len(piece) <= LARGEST_PIECE_BYTES + SMALLEST_PIECE_BYTES for piece in sent
    )
    whole = b"".join([*sent, gathered])
    assert whole == b"".join(bytes([number % 251]) * chunk_bytes for number in range(count))


async def test_a_file_name_cannot_break_out_of_its_header(start: Start) -> None:
    class Odd(StreamingStore):
        @asynccontextmanager
        async def _download(self, request: SnapshotRequest, offset: int = 0) -> AsyncIterator[Download]:
            async with super()._download(request) as download:
                yield Download(
                    content_type="application/x-tar",
                    filename='a"b\r\nX: y/é.tar',
                    etag="",
                    chunks=download.chunks,
                )

    reply = await get((await start(Odd(b"tar"))).address, "?id=v@s")
    assert reply.headers["content-disposition"] == 'attachment; filename="a_b__X: y__.tar"'
    assert reply.headers["content-type"] == "application/x-tar"
    assert "etag" not in reply.headers
    assert reply.body == b"tar"


# --- parts

ETAG = '"1f2e3d4c5b6a7988"'
CONTENT = bytes(range(251)) * 4000


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-", 0, len(CONTENT)),
        ("bytes=0-0", 0, 1),
        ("bytes=99999-", 99_999, len(CONTENT)),
        ("bytes=100000-499999", 100_000, 500_000),
        (f"bytes={len(CONTENT) - 1}-", len(CONTENT) - 1, len(CONTENT)),
        ("bytes=5-99999999999", 5, len(CONTENT)),
        (" Bytes = 7-9 ", 7, 10),
    ],
)
@pytest.mark.parametrize("if_range", [{}, {"If-Range": ETAG}])
async def test_a_part_is_the_very_bytes_and_says_where_they_stand(
    wanted: str, first: int, end: int, if_range: dict[str, str], store: MemoryStore, address: Address
) -> None:
    store.snapshots["v@s"] = CONTENT
    async with await Wire.open(address) as wire:
        reply = await wire.ask("GET", f"{PATH}?id=v@s", {"Range": wanted, **if_range})
        assert (reply.status, reply.whole) == (206, True)
        assert reply.body == CONTENT[first:end]
        assert reply.headers["content-range"] == f"bytes {first}-{end - 1}/{len(CONTENT)}"
        assert reply.headers["content-length"] == str(end - first)
        assert reply.headers["etag"] == ETAG
        assert (await wire.ask("GET", "/healthz")).body == b"ok\n"
    assert store.open_downloads == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=5-", "If-Range": '"another"'},
        {"Range": "bytes=5-", "If-Range": f"W/{ETAG}"},
        {"Range": "bytes=5-", "If-Range": "Wed, 21 Oct 2026 07:28:00 GMT"},
        {"Range": "bytes=99999999-", "If-Range": '"another"'},
        {"Range": "bytes=0-4,9-12"},
        {"Range": "bytes=-5"},
        {"Range": "bytes=9-5"},
        {"Range": "lines=1-2"},
        {"Range": "bytes=1-2x"},
        {"Range": "bytes=9999999999999999999999-"},
        {"If-Range": ETAG},
    ],
)
async def test_a_part_of_something_else_gets_the_whole(
    headers: dict[str, str], store: MemoryStore, address: Address
) -> None:
    store.snapshots["v@s"] = CONTENT
    async with await Wire.open(address) as wire:
        reply = await wire.ask("GET", f"{PATH}?id=v@s", headers)
    assert (reply.status, reply.whole, reply.body) == (200, True, CONTENT)
    assert reply.headers["accept-ranges"] == "bytes"
    assert store.open_downloads == 0


@pytest.mark.parametrize("first", [len(CONTENT), len(CONTENT) + 1])
async def test_a_part_behind_the_end_is_refused_with_the_length(
    first: int, store: MemoryStore, address: Address
) -> None:
    store.snapshots["v@s"] = CONTENT
    async with await Wire.open(address) as wire:
        reply = await wire.ask("GET", f"{PATH}?id=v@s", {"Range": f"bytes={first}-"})
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")
    assert store.open_downloads == 0


async def test_what_has_no_etag_has_no_parts(start: Start) -> None:
    class Archive(MemoryStore):
        @asynccontextmanager
        async def _download(self, request: SnapshotRequest, offset: int = 0) -> AsyncIterator[Download]:
            async with super()._download(request) as download:
                yield Download(content_type="x/y", filename="", etag="", chunks=download.chunks)

    store = Archive()
    store.snapshots["v@s"] = CONTENT
    async with await Wire.open((await start(store)).address) as wire:
        reply = await wire.ask("GET", f"{PATH}?id=v@s", {"Range": "bytes=5-"})
    assert (reply.status, reply.body) == (200, CONTENT)
    assert "accept-ranges" not in reply.headers


@pytest.mark.parametrize(
    ("query", "body"),
    [("?id=v@s&from=%40a", b""), ("", b'{"id":"v@s","from":"@a"}'), ("", b'{"id":"v@s","FROM":"@a"}')],
)
async def test_the_base_is_named_by_from(
    query: str, body: bytes, store: MemoryStore, address: Address
) -> None:
    store.snapshots["v@s"] = CONTENT
    reply = await get(address, query, body, "POST" if body else "GET")
    assert reply.headers["etag"] == '"1f2e3d4c5b6a7988-@a"'


async def test_a_part_that_ends_too_soon_breaks_off(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    class Short(MemoryStore):
        @asynccontextmanager
        async def _download(self, request: SnapshotRequest, offset: int = 0) -> AsyncIterator[Download]:
            async def measure() -> int:
                return len(CONTENT) + 1

            async with super()._download(request, offset) as download:
                yield msgspec.structs.replace(download, measure=measure)

    store = Short()
    store.snapshots["v@s"] = CONTENT
    async with await Wire.open((await start(store)).address) as wire:
        await wire.send(request_bytes("GET", f"{PATH}?id=v@s", {"Range": "bytes=5-"}, b""))
        received = await wire.rest()
    assert received.startswith(b"HTTP/1.1 206")
    assert f"content-length: {len(CONTENT) - 4}".encode() in received
    assert "broke off" in caplog.text
