"""``/volumes/receive`` and ``/images/upload``: how bodies come in, what is refused, slow and lost clients."""

import json

import pytest
import trio
import trio.testing
from hypercorn.typing import ASGIReceiveEvent

from imagestore import errors
from imagestore.http.settings import HttpSettings
from imagestore.http.shims import BodyTooSlow
from imagestore.http.uploads import PacedBody
from imagestore.model import ReceiveResponse
from imagestore.service import Upload
from tests.http.conftest import Start
from tests.http.memory_store import MemoryStore, MemoryUpload
from tests.http.wire import Wire

PATH = "/volumes/receive"
Address = tuple[str, int]


def head(length: int, *more: str) -> bytes:
    """The beginning of an upload of ``length`` bytes."""
    lines = [f"POST {PATH}?id=v HTTP/1.1", "Host: x", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


BODY = bytes(range(251)) * 20_000


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_any_length_comes_in_whole(
    chunked: bool, store: MemoryStore, address: Address
) -> None:
    async with await Wire.open(address) as wire:
        for name in ("a", "b"):
            reply = await wire.ask("POST", f"{PATH}?id={name}%2Fv", {}, BODY, chunked=chunked)
            assert (reply.status, reply.whole) == (200, True)
            assert json.loads(reply.body) == {
                "volume": {"id": f"mem/{name}/v", "size": 1, "device": f"/mem/mem/{name}/v"},
                "snapshots": [{"id": f"mem/{name}/v@s", "size": 0}],
            }
        assert (await wire.ask("GET", "/healthz")).body == b"ok\n"
    assert store.received == {"a/v": BODY, "b/v": BODY}
    assert [caller.principal for caller in store.callers] == ["127.0.0.1"] * 2
    assert store.open_uploads == 0


@pytest.mark.parametrize(
    ("method", "query", "status", "title", "error"),
    [
        ("POST", "", 400, "need an id", "InvalidArgument"),
        ("POST", "?id=", 400, "need an id", "InvalidArgument"),
        ("POST", "?id=v&force=perhaps", 400, "force is true or false, not perhaps", "InvalidArgument"),
        ("POST", "?id=../v", 400, "not a valid dataset", "NotValid"),
        ("POST", "?id=taken", 409, "dataset already exists: taken", "AlreadyExists"),
        ("POST", "?id=taken&force=false", 409, "dataset already exists: taken", "AlreadyExists"),
        ("GET", "?id=v", 405, "POST method required", None),
    ],
)
async def test_a_refusal_is_a_problem_with_its_status(
    method: str, query: str, status: int, title: str, error: str | None, store: MemoryStore, address: Address
) -> None:
    store.received["taken"] = b"older"
    async with await Wire.open(address) as wire:
        reply = await wire.ask(method, PATH + query, {}, BODY)
    problem = json.loads(reply.body)
    assert (reply.status, problem["status"], problem["title"]) == (status, status, title)
    assert problem.get("error") == error
    assert problem.get("detail", "").count("\n") == 0
    assert reply.headers["content-type"] == "application/problem+json"
    assert store.received == {"taken": b"older"}


@pytest.mark.parametrize("force", ["", "=", "=1", "=true", "=True"])
async def test_force_is_passed_on(force: str, store: MemoryStore, address: Address) -> None:
    store.received["taken"] = b"older"
    async with await Wire.open(address) as wire:
        assert (await wire.ask("POST", f"{PATH}?id=taken&force{force}", {}, b"new")).status == 200
    assert store.received == {"taken": b"new"}


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_image_of_any_length_comes_in_whole(
    chunked: bool, store: MemoryStore, address: Address
) -> None:
    async with await Wire.open(address) as wire:
        path = "/images/upload?id=deb&type=kvm"
        reply = await wire.ask("POST", path, {}, BODY, chunked=chunked)
        assert (reply.status, json.loads(reply.body)["images"][0]["type"]) == (200, "kvm")
        again = await wire.ask("POST", path, {}, BODY)
    assert (again.status, json.loads(again.body)["title"]) == (409, "image already exists: deb")
    assert store.sent == {"deb": BODY}
    assert store.announced == [None if chunked else len(BODY)]


@pytest.mark.parametrize(("query", "title"), [("", "need an id"), ("?id=../x", "not a valid dataset")])
async def test_an_image_needs_an_id(query: str, title: str, store: MemoryStore, address: Address) -> None:
    async with await Wire.open(address) as wire:
        reply = await wire.ask("POST", f"/images/upload{query}", {}, BODY)
    assert (reply.status, json.loads(reply.body)["title"]) == (400, title)
    assert store.sent == {}


class Failing(MemoryStore):
    """Uploads fail, with ``error``, when they are ``fed`` or when they are finished."""

    def __init__(self, error: Exception, *, fed: bool) -> None:
        super().__init__()
        self.error = error
        self.fed = fed

    def upload(self, name: str) -> Upload[ReceiveResponse]:
        return FailingUpload(self, name)


class FailingUpload(MemoryUpload):
    store: Failing

    async def feed(self, data: bytes) -> None:
        if self.store.fed:
            raise self.store.error

    async def finish(self) -> ReceiveResponse:
        raise self.store.error


@pytest.mark.parametrize("fed", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (errors.StreamError("checksum\nmismatch"), 422, "checksum mismatch"),
        (errors.NoSpace(), 507, "no space left on device"),
        (errors.Modified.since("v", "v@a"), 409, "dataset has been modified: v since v@a"),
        (errors.TemporarilyUnavailable(), 503, "resource temporarily unavailable"),
        (ZeroDivisionError("secret"), 500, "internal error"),
    ],
    ids=lambda case: type(case).__name__,
)
async def test_what_fails_on_the_way_is_told_even_before_the_body_has_ended(
    error: Exception, status: int, title: str, fed: bool, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    store = Failing(error, fed=fed)
    server = await start(store)
    async with await Wire.open(server.address) as wire:
        reply = await wire.ask("POST", f"{PATH}?id=v", {}, BODY)
    problem = json.loads(reply.body)
    server.shutdown.set()
    await server.ended.wait()
    assert (reply.status, problem["title"]) == (status, title)
    assert store.open_uploads == 0
    assert "secret" not in reply.body.decode()


class Gated(MemoryStore):
    """The first piece is not taken before the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = trio.Event()
        self.gate = trio.Event()
        self.closed = trio.Event()

    def upload(self, name: str) -> Upload[ReceiveResponse]:
        return GatedUpload(self, name)


class GatedUpload(MemoryUpload):
    store: Gated

    async def feed(self, data: bytes) -> None:
        self.store.entered.set()
        await self.store.gate.wait()
        await super().feed(data)


async def test_a_store_that_takes_nothing_stops_the_client_and_costs_no_memory(start: Start) -> None:
    store = Gated()
    async with await Wire.open((await start(store)).address) as wire, trio.open_nursery() as nursery:
        await wire.send(head(1 << 30))
        sent = 0

        async def pour() -> None:
            nonlocal sent
            while True:
                await wire.send(bytes(1 << 20))
                sent += 1 << 20

        nursery.start_soon(pour)
        await store.entered.wait()
        await trio.testing.wait_all_tasks_blocked(0.2)
        # What the kernel's buffers and a few messages hold.
        assert sent <= 32 << 20
        nursery.cancel_scope.cancel()


async def test_a_client_that_hangs_up_midway_leaves_nothing_open(
    store: MemoryStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(MemoryUpload):
        async def feed(self, data: bytes) -> None:
            await super().feed(data)
            fed.set()

    fed = trio.Event()
    monkeypatch.setattr(store, "upload", lambda name: Told(store, name))
    async with await Wire.open((await start(store)).address) as wire:
        await wire.send(head(1_000_000) + b"x" * 1000)
        await fed.wait()
        assert store.open_uploads == 1
    while store.open_uploads:
        await trio.lowlevel.checkpoint()
    assert store.received == {}


async def test_a_client_that_stalls_is_refused(store: MemoryStore, start: Start) -> None:
    server = await start(store, HttpSettings(stall_seconds=0.05))
    async with await Wire.open(server.address) as wire:
        await wire.send(head(9) + b"abc")
        reply = await wire.reply()
    assert reply.status == 408
    assert json.loads(reply.body)["title"] == "less than 65536 bytes came in 0.05 seconds"
    assert (store.received, store.open_uploads) == ({}, 0)


class Trickle:
    """An ASGI receive that gives ``size`` bytes each ``seconds``."""

    def __init__(self, size: int, seconds: float) -> None:
        self.size = size
        self.seconds = seconds

    async def __call__(self) -> ASGIReceiveEvent:
        await trio.sleep(self.seconds)
        return {"type": "http.request", "body": bytes(self.size), "more_body": True}


async def test_a_client_that_trickles_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    settings = HttpSettings(stall_seconds=30, least_upload_bytes=1000)
    body = PacedBody(Trickle(10, 1), settings)
    with pytest.raises(BodyTooSlow):
        await take(body, 100)


@pytest.mark.parametrize(("size", "seconds"), [(1000, 29.9), (40, 1), (1, 0.001)])
async def test_a_client_that_sends_enough_may_take_its_time(
    size: int, seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    body = PacedBody(Trickle(size, seconds), HttpSettings(stall_seconds=30, least_upload_bytes=1000))
    await take(body, 2500)


async def test_a_client_that_waits_for_the_store_is_not_slow(autojump_clock: trio.testing.MockClock) -> None:
    body = PacedBody(Trickle(10, 0.1), HttpSettings(stall_seconds=30, least_upload_bytes=1000))
    for _ in range(200):
        await body.next_piece()
        await trio.sleep(60)


async def take(body: PacedBody, pieces: int) -> None:
    for _ in range(pieces):
        await body.next_piece()


async def test_a_client_may_ask_before_it_sends(store: MemoryStore, address: Address) -> None:
    async with await Wire.open(address) as wire:
        await wire.send(head(3, "Expect: 100-continue"))
        assert (await wire.stream.receive_some(1 << 16)).startswith(b"HTTP/1.1 100")
        await wire.send(b"abc")
        assert (await wire.reply()).status == 200
    assert store.received == {"v": b"abc"}
