"""Too many, too slow, too large: all are answered or cut off in time, and the store ends when it is told."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio

from imagestore.http.rpc import PATH
from tests.hostile.conftest import Target
from tests.http.wire import Wire, request_bytes

SECONDS = 30.0
JSON = {"Content-Type": "application/json"}
DESCRIPTORS_OF_OUR_OWN = 200


def call(method: str, **params: object) -> bytes:
    body = json.dumps({"method": method, "params": [params], "id": 1}).encode()
    return request_bytes("POST", PATH, JSON, body)


async def ask(target: Target, method: str, **params: object) -> tuple[object, object]:
    """Result and error."""
    async with await Wire.open(target.address) as wire:
        await wire.send(call(method, **params))
        said = json.loads((await wire.reply()).body)
        return said["result"], said["error"]


@asynccontextmanager
async def idle_connections(target: Target, number: int) -> AsyncIterator[list[trio.SocketStream]]:
    """So many connections on which nothing is said."""
    async with AsyncExitStack() as stack:
        streams: list[trio.SocketStream] = []
        room = trio.CapacityLimiter(100)

        async def connect() -> None:
            async with room:
                streams.append(await trio.open_tcp_stream(*target.address))

        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(connect)
        for stream in streams:
            stack.push_async_callback(trio.aclose_forcefully, stream)
        yield streams


async def test_five_hundred_calls_at_once_are_all_answered(target: Target) -> None:
    answers: list[tuple[object, object]] = []

    async def one(number: int) -> None:
        disks = [{"size": 16}, {"size": 32}]
        guest = {"id": f"g{number % 100}", "disks": disks}
        match number % 5:
            case 0:
                answers.append(await ask(target, "CreateGuestDisks", guest=guest))
            case 1:
                answers.append(await ask(target, "CreateVolume", id=f"v{number}", size=8))
            case 2:
                answers.append(await ask(target, "ListVolumes"))
            case 3:
                answers.append(await ask(target, "DeleteGuestsDisks", guest={"id": f"g{number % 100}"}))
            case _:
                answers.append(await ask(target, "RequestImage", id=f"i{number}"))

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(one, number)
    assert len(answers) == 500
    assert [error for _, error in answers if error == "internal error"] == []


@pytest.mark.parametrize("number", [1500, pytest.param(10_000, marks=pytest.mark.system)])
async def test_among_idle_connections_a_call_is_still_answered(
    number: int, target: Target, many_files: int
) -> None:
    assert many_files > number + DESCRIPTORS_OF_OUR_OWN, "raise the hard limit of open files"
    async with idle_connections(target, number):
        with trio.fail_after(SECONDS):
            assert await ask(target, "ListVolumes") == ({"volumes": []}, None)
        target.check()
        with trio.fail_after(SECONDS):
            assert await trio.to_thread.run_sync(target.stop) == 0
    target.begin()


async def test_slow_and_stuck_clients_hold_nobody_up_and_end_with_the_store(target: Target) -> None:
    for number in range(60):
        assert (await ask(target, "CreateVolume", id=f"volume-with-a-long-name-{number}", size=1))[1] is None
    assert (await ask(target, "CreateSnapshot", id="volume-with-a-long-name-0", dest="s"))[1] is None
    stuck = [
        call("ListVolumes") * 200,  # and never reads the answers
        b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
        request_bytes("POST", PATH, JSON, b"{" * 1000)[:-1],
        request_bytes("GET", "/snapshots/download?id=volume-with-a-long-name-0@s", {}, b""),
        request_bytes("GET", "/events?from=1", {"Accept": "text/event-stream"}, b""),
        b"POST /volumes/receive?id=new HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        b"GET / HTTP/1.1\r\n",
    ]
    async with idle_connections(target, len(stuck) * 20) as streams:
        for number, stream in enumerate(streams):
            await stream.send_all(stuck[number % len(stuck)])
        with trio.fail_after(SECONDS):
            result, _ = await ask(target, "ListVolumes")
        assert isinstance(result, dict)
        assert len(result["volumes"]) == 60
        target.check()
        with trio.fail_after(SECONDS):
            assert await trio.to_thread.run_sync(target.stop) == 0
    target.begin()


async def test_what_is_oversized_is_refused_and_not_kept(target: Target) -> None:
    huge = b"x" * (64 << 20)
    before = target.memory_bytes()
    for sent in (
        request_bytes("POST", PATH, JSON, huge),
        request_bytes("POST", PATH, JSON, huge, chunked=True),
        request_bytes("GET", "/snapshots/download?id=" + "a" * (1 << 20), {}, b""),
        request_bytes("POST", PATH, {**JSON, "X": "y" * (1 << 20)}, b"{}"),
        call("ListVolumes", id="z" * (2 << 20)),
        b"\0" * (8 << 20),
    ):
        with trio.fail_after(SECONDS):
            async with await Wire.open(target.address) as wire, trio.open_nursery() as nursery:
                nursery.start_soon(send_what_goes, wire, sent)
                said = await wire.rest()
                nursery.cancel_scope.cancel()
        assert said == b"" or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
    assert target.memory_bytes() < before + (64 << 20)


async def send_what_goes(wire: Wire, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await wire.send(data)
