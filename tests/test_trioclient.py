"""The client for trio against a whole store in process: every method, both ways of streaming, cancelling."""

import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from imagestore.config import Config
from imagestore.errors import NotFound, Unreachable
from imagestore.model import OperationRequest
from imagestore.operationclient import OperationClient
from imagestore.store import Store
from imagestore.trioclient import TrioClient

OF_THE_WIRE = {"call", "once", "exchange", "connected"}
"""What is no method of a store, but carries them."""


@pytest.fixture
async def client(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[TrioClient]:
    config = Config(
        pool=f"dir:{tmp_path}/pool", journal=f"{tmp_path}/journal", image_service="127.0.0.1:1", port=0
    )
    store = Store(config)
    await nursery.start(store.run)
    host, port = await nursery.start(store.run_http)
    yield TrioClient(f"http://{host}:{port}")
    with trio.CancelScope(shield=True):
        await store.destroy()


def test_it_has_every_method_of_the_other_client() -> None:
    theirs = {name for name, _ in inspect.getmembers(OperationClient, inspect.isfunction) if name[0] != "_"}
    ours = {name for name, _ in inspect.getmembers(TrioClient, inspect.isfunction)}
    assert theirs - OF_THE_WIRE - ours == set(), "add NAME = _awaited(OperationClient.NAME)"


async def test_methods_are_awaited_and_have_the_answers_and_errors_of_the_other(client: TrioClient) -> None:
    volume = await client.create_volume("a/b", size_mib=2)
    assert (volume.id, volume.size) == ("pool/a/b", 2)
    assert [each.id for each in await client.list_volumes()] == ["pool/a/b"]
    (operation,) = (await client.list_operations(OperationRequest(limit=1))).operations
    assert (await client.wait_operation(operation.id, seconds=1)).status == "succeeded"
    with pytest.raises(NotFound):
        await client.get_volume("a/c")


async def test_calls_run_side_by_side(client: TrioClient) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(lambda name: client.create_volume(name, size_mib=1), f"v{number}")
    assert len(await client.list_volumes()) == 5


async def test_a_stream_comes_in_pieces_and_goes_back_in(client: TrioClient) -> None:
    await client.create_volume("a", size_mib=1)
    await client.create_snapshot("a", "s")
    async with client.download("a@s") as stream:
        pieces = [bytes(piece) async for piece in stream]
    assert stream.etag
    received = await client.receive("b", pieces)
    assert [each.id for each in received.snapshots] == ["pool/b@s"]
    async with client.download("a@s") as given_up:
        async for _ in given_up:
            break
    assert await client.ready()


async def test_the_feed_tells_what_happens_while_it_is_followed(client: TrioClient) -> None:
    async with client.events({"dataset": "a"}, after=0) as told:
        await client.create_volume("a", size_mib=1)
        async for event in told:
            assert event.type == "operation-started"
            break


async def test_a_cancelled_call_returns_at_once_and_leaves_no_thread_waiting() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        port = listener.socket.getsockname()[1]
        client = TrioClient(f"http://127.0.0.1:{port}", most_calls=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.list_volumes)
            stream = await listener.accept()
            assert await stream.receive_some()
            nursery.cancel_scope.cancel()
        # What the client sends after its request is its end: the thread has let go.
        with trio.fail_after(20):
            while await stream.receive_some():
                pass
        await stream.aclose()


async def test_a_cancelled_feed_ends(client: TrioClient) -> None:
    with trio.move_on_after(0.1) as scope:
        async with client.events({}) as told:
            async for _ in told:
                raise AssertionError("nothing happens")
    assert scope.cancelled_caught
    assert await client.ready()


async def test_where_nobody_is_says_so() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(Unreachable, match="no store answers"):
        await TrioClient(f"http://127.0.0.1:{port}").list_images()
