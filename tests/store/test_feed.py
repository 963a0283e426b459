"""The event feed of a whole store, over real connections."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
from msgspec.structs import replace

from imagestore.config import Config
from imagestore.errors import InvalidArgument
from imagestore.events import reader
from imagestore.events.feed import Feed
from imagestore.events.selection import Filter, Selector
from imagestore.http import events as http_events
from imagestore.http.shims import BoundedStream
from imagestore.model import (
    EventsRequest,
    GuestRequest,
    ImageRequest,
    SnapshotRequest,
    TokenRequest,
    VolumeRequest,
)
from imagestore.service import LOCAL, Caller
from imagestore.store import Store, Surroundings
from tests.http.wire import Wire, request_bytes
from tests.imageservice import ImageService
from tests.store.conftest import Run, raw_image, running
from tests.store.test_fetch import Gate

Address = tuple[str, int]


@asynccontextmanager
async def served(run: Run, **settings: Any) -> AsyncIterator[tuple[Store, Address]]:
    async with run(**settings) as store, trio.open_nursery() as nursery:
        yield store, await nursery.start(store.run_http, 0)
        store.stop_http()


class Event:
    """One server-sent event, or what came instead (a comment)."""

    def __init__(self, text: str) -> None:
        fields = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith(":"))
        self.comments = [line for line in text.splitlines() if line.startswith(":")]
        self.id = int(fields["id"]) if "id" in fields else 0
        self.type = fields.get("event", "")
        self.data: dict[str, Any] = json.loads(fields["data"]) if "data" in fields else {}


class Listener:
    """A client of the feed on its own connection."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._h11 = h11.Connection(h11.CLIENT)
        self._text = ""
        self.ended = False

    @classmethod
    @asynccontextmanager
    async def open(cls, address: Address, query: str = "", **headers: str) -> AsyncIterator["Listener"]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with await Wire.open(address) as wire:
            await wire.send(request_bytes("GET", f"/events{query}", named, b""))
            yield cls(wire)

    async def next(self) -> Event | None:
        """The next block; None at the end of the answer."""
        if self._h11.states[h11.CLIENT] is not h11.DONE:
            self._h11.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
            self._h11.send(h11.EndOfMessage())
        while "\n\n" not in self._text:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self._wire.stream.receive_some(1 << 20))
            elif isinstance(event, h11.Response):
                assert event.status_code == 200
            elif isinstance(event, h11.Data):
                self._text += bytes(event.data).decode()
            else:
                assert isinstance(event, h11.EndOfMessage)
                self.ended = True
                return None
        block, _, self._text = self._text.partition("\n\n")
        return Event(block)

    async def take(self, count: int) -> list[Event]:
        """The next ``count`` events."""
        found: list[Event] = []
        while len(found) < count:
            block = await self.next()
            assert block is not None
            if block.data:
                found.append(block)
        return found


async def make(store: Store, *numbers: int, who: str = "local") -> None:
    for number in numbers:
        await store.create_volume(VolumeRequest(id=f"v{number}", size=1), Caller(principal=who))


def seq_of(store: Store) -> int:
    return reader.head(store.config.journal)[0]


async def test_a_feed_begins_in_the_past_and_goes_on_into_the_present(run: Run) -> None:
    async with run() as store:
        await make(store, 1, 2)
    async with served(run) as (store, address), Listener.open(address, "?from=1") as listener:
        await make(store, 3)
        before = await listener.take(seq_of(store))
        await make(store, 4)
        events = [*before, *await listener.take(seq_of(store) - len(before))]
        written = list(reader.read(store.config.journal))
    assert [event.id for event in events] == list(range(1, len(written) + 1))
    assert [event.data["id"] for event in events] == [envelope.id for envelope in written]
    assert [event.type for event in events] == [event.data["event"]["event"] for event in events]


async def test_without_a_place_a_feed_begins_now(run: Run) -> None:
    async with served(run) as (store, address):
        await make(store, 1)
        now = seq_of(store)
        async with Listener.open(address) as listener:
            first = await listener.next()
            assert first is not None
            assert first.comments == [f": after seq {now}"]
            await make(store, 2)
            assert (await listener.take(1))[0].id == now + 1


async def test_whoever_comes_back_again_and_again_gets_each_event_once(run: Run) -> None:
    async with served(run) as (store, address):
        got: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make, store, *range(15))
            last = 0
            while len(got) < 42:
                async with Listener.open(address, "?from=1", Last_Event_ID=str(last)) as listener:
                    got += [event.id for event in await listener.take(7)]
                    last = got[-1]
        assert got == list(range(1, len(got) + 1))


async def test_filters_tell_whole_operations(run: Run, service: ImageService) -> None:
    gate = Gate(raw_image())
    service.download("golden", gate)
    async with served(run, image_service=service.address) as (store, address):
        await make(store, 1, who="alice")
        await store.create_guest_disks(GuestRequest(guest={"id": "vm1", "disks": [{"size": 1}]}))

        async def types(query: str, count: int) -> list[str]:
            async with Listener.open(address, query) as listener:
                return [event.type for event in await listener.take(count)]

        volume = ["operation-started", "dataset-created", "operation-finished"]
        assert await types("?from=1&dataset=v1", 3) == volume
        assert await types("?from=1&dataset=pool/v1", 3) == volume
        assert await types("?from=1&who=alice", 3) == volume
        guest = ["operation-started", "dataset-created", "dataset-created", "operation-finished"]
        assert await types("?from=1&guest=vm1", 4) == guest
        assert await types("?from=1&type=operation-finished,journal-opened", 3) == [
            "journal-opened",
            "operation-finished",
            "operation-finished",
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.request_image, ImageRequest(id="golden"))
            await gate.reached.wait()
            # Beginning in the midst of the fetch, and told of its end.
            after = seq_of(store)
            async with Listener.open(address, f"?after={after}&image=golden") as listener:
                gate.open.set()
                found = [event.type for event in await listener.take(4)]
        assert found[-2:] == ["image-completed", "operation-finished"]


async def test_when_nothing_comes_a_comment_does_and_the_place(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_events.Feeds.__init__, "__kwdefaults__", {"comment_seconds": 0.05})
    async with (
        served(run) as (store, address),
        Listener.open(address, "?from=1&guest=nobody") as listener,
    ):
        while (block := await listener.next()) is not None:
            assert not block.data
            if block.id:
                break
        assert block is not None
        assert block.comments == [": nothing new"]
        assert block.id == seq_of(store)


async def test_a_feed_ends_as_a_whole_answer_when_the_store_stops(run: Run) -> None:
    async with run() as store, trio.open_nursery() as nursery:
        address = await nursery.start(store.run_http, 0)
        async with Listener.open(address) as listener:
            await listener.next()
            store.stop_http()
            block = await listener.next()
            assert block is not None
            assert block.comments == [": the store is stopping"]
            assert await listener.next() is None


@pytest.mark.parametrize(
    ("query", "header", "status", "says"),
    [
        ("?from=tomorrow", "", 400, "from is the seq"),
        ("?from=-1", "", 400, "from is the seq"),
        ("", "1e3", 400, "Last-Event-ID is the seq"),
        ("?after=1000000", "", 400, "the journal ends at seq"),
        ("?last=many", "", 400, "last is how many events"),
        ("?since=yesterday", "", 400, "invalid argument"),
        ("?latest=2001-01-01", "", 400, "invalid argument"),
        ("?user=x", "", 400, "unknown filter: user"),
        ("?from=" + "9" * 30, "", 400, "from is the seq"),
    ],
)
async def test_what_cannot_be_told_is_refused_as_a_problem(
    run: Run, query: str, header: str, status: int, says: str
) -> None:
    async with served(run) as (_, address), await Wire.open(address) as wire:
        headers = {"Last-Event-ID": header} if header else {}
        reply = await wire.ask("GET", f"/events{query}", headers)
        assert reply.status == status
        assert reply.headers["content-type"] == "application/problem+json"
        assert says in json.loads(reply.body)["title"]
        assert (await wire.ask("POST", "/events")).status == 405


async def test_readers_over_the_most_are_turned_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_events, "MOST_READERS", 1)
    async with served(run) as (_, address), Listener.open(address) as listener:
        await listener.next()
        async with await Wire.open(address) as wire:
            assert (await wire.ask("GET", "/events")).status == 503


async def test_a_reader_that_takes_nothing_is_cut_off_and_can_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is to be sent than the system's buffers between the two take."""
    cut = trio.Event()
    abort = BoundedStream.abort

    def aborted(stream: BoundedStream) -> None:
        cut.set()
        abort(stream)

    monkeypatch.setattr(BoundedStream, "abort", aborted)
    monkeypatch.setattr(http_events, "SLOW_SECONDS", 0.2)
    async with served(run) as (store, address):
        await make(store, 1)
        seq = seq_of(store)
        last = list(reader.read(store.config.journal))[-1]
        async with Listener.open(address, "?from=1") as listener:
            assert [event.id for event in await listener.take(seq)] == list(range(1, seq + 1))
            large = [replace(last, seq=seq + number, principal="x" * 500_000) for number in range(1, 41)]
            store._running().feed.observe(large)
            await cut.wait()
        async with Listener.open(address, Last_Event_ID=str(seq)) as again:
            assert [event.id for event in await again.take(40)] == [each.seq for each in large]


async def test_a_hundred_readers_share_one_tail(run: Run) -> None:
    async with run() as store:
        got: list[list[int]] = [[] for _ in range(100)]

        async def read(number: int) -> None:
            events = await store.events(EventsRequest(after=number % 3))
            while len(got[number]) < 40 and (page := await events.next()) is not None:
                got[number] += [told.seq for told in page]

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(read, number)
            await make(store, *range(15))
        for number, seqs in enumerate(got):
            assert seqs == list(range(number % 3 + 1, number % 3 + 1 + len(seqs)))


@pytest.mark.parametrize("tail_events", [1, 2, 5, 1000])
async def test_a_reader_goes_from_files_to_the_tail_and_back(run: Run, tail_events: int) -> None:
    """However short the tail is: each event once, in order."""
    async with run() as store:
        await make(store, *range(10))
        actors = store._running()
        feed = Feed(store.config.journal, seq_of(store), tail_events=tail_events)
        store._journal.watch(feed.observe)  # type: ignore[union-attr]  # it runs
        readers = [feed.reader(after, Selector(Filter())) for after in (0, 7, seq_of(store))]
        starts = [each.position for each in readers]
        got: list[list[int]] = [[], [], []]
        for number in range(10, 20):
            await make(store, number)
            for each, seqs in zip(readers, got, strict=True):
                if number % 3:
                    page = await each.next()
                    assert page is not None
                    seqs += [told.seq for told in page]
        for start, each, seqs in zip(starts, readers, got, strict=True):
            while each.position < feed.seq:
                page = await each.next()
                assert page is not None
                seqs += [told.seq for told in page]
            assert seqs == list(range(start + 1, actors.operations.state.seq + 1))


async def test_the_last_come_before_those_to_come_and_whoever_comes_back_knows_better(run: Run) -> None:
    async with served(run) as (store, address):
        await make(store, 1, 2, 3)
        query = "?dataset=v2&type=dataset-created,operation-finished&last=1"
        async with Listener.open(address, query) as listener:
            (finished,) = await listener.take(1)
            assert finished.type == "operation-finished"
            await store.create_snapshot(SnapshotRequest(id="v2", dest="s"))
            created, again = await listener.take(2)
            assert (created.type, again.type) == ("dataset-created", "operation-finished")
        until = f"&until={again.id}"
        async with Listener.open(address, query + until, Last_Event_ID=str(finished.id)) as listener:
            assert [event.id for event in await listener.take(2)] == [created.id, again.id]
        until = f"&until={finished.id}"
        async with Listener.open(address, query + until) as listener:
            assert [event.id for event in await listener.take(1)] == [finished.id]


async def test_a_place_after_the_end_is_refused(run: Run) -> None:
    async with run() as store:
        with pytest.raises(InvalidArgument, match="the journal ends at seq"):
            await store.events(EventsRequest(after=10**6), LOCAL)


async def with_token(store: Store, **settings: int) -> str:
    request = TokenRequest(name="ci", role="reader", **settings)
    made = await store.create_token(request, Caller(principal="local", role="admin"))
    return f"Bearer {made.secret}"


@pytest.mark.parametrize("query", ["", "?type=volume-never"])
async def test_a_feed_ends_with_the_token_that_opened_it(run: Run, query: str) -> None:
    async with served(run) as (store, address):
        authorization = await with_token(store)
        async with Listener.open(address, query, Authorization=authorization) as listener:
            assert await listener.next() is not None
            await store.revoke_token(TokenRequest(name="ci"), Caller(principal="local", role="admin"))
            last = None
            while (block := await listener.next()) is not None:
                last = block
            assert last is not None
            assert last.comments == [": the token is not good any more"]
        async with Listener.open(address) as listener:  # who is let in without one stays
            assert await listener.next() is not None
            await make(store, 1)
            assert (await listener.take(1))[0].type == "operation-started"


async def test_a_feed_ends_when_its_token_expires(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_events.Feeds.__init__, "__kwdefaults__", {"comment_seconds": 0.05})
    now = [time.time_ns()]
    surroundings = Surroundings(now_ns=lambda: now[0])
    async with running(config, surroundings=surroundings) as store, trio.open_nursery() as nursery:
        address = await nursery.start(store.run_http, 0)
        authorization = await with_token(store, expiresSeconds=60)
        async with Listener.open(address, Authorization=authorization) as listener:
            assert await listener.next() is not None
            now[0] += 60_000_000_000
            blocks = []
            while (block := await listener.next()) is not None:
                blocks.append(block)
            assert blocks[-1].comments == [": the token is not good any more"]
        store.stop_http()


async def test_a_feed_that_is_to_end_somewhere_ends_there(run: Run) -> None:
    async with served(run) as (store, address):
        await make(store, 1, 2)
        end = seq_of(store)
        for query, wanted in ((f"?from=1&until={end}", end), ("?from=3&until=4", 2), ("?after=9&until=5", 0)):
            async with Listener.open(address, query) as listener:
                blocks = []
                while (block := await listener.next()) is not None:
                    blocks.append(block)
                got = [block.id for block in blocks if block.data]
                assert len(got) == wanted
                assert blocks[-1].comments == [f": after seq {max(got, default=9)}"]
        async with Listener.open(address, f"?from=1&until={end}&type=volume-never") as listener:
            blocks = []
            while (block := await listener.next()) is not None:
                blocks.append(block)
            assert [each.comments for each in blocks] == [[": after seq 0"], [f": after seq {end}"]]
