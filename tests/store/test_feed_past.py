"""What a filter asks of the past: found by the journal's index, and the same as the files hold."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from imagestore.actors import archive as archive_module
from imagestore.actors.archive import Archive
from imagestore.events import feed as feed_module
from imagestore.events import reader
from imagestore.events.catalogue import Envelope
from imagestore.events.feed import Feed, FeedReader, Past
from imagestore.events.selection import Filter, Selector
from imagestore.model import EventsRequest, GuestRequest
from imagestore.store import Store
from tests.store.conftest import Run
from tests.store.test_feed import make, seq_of

WANTED = [
    EventsRequest(after=0, dataset="v3"),
    EventsRequest(after=4, dataset="pool/v3"),
    EventsRequest(after=0, dataset="v1", types=("operation-finished",)),
    EventsRequest(after=0, guest="vm1"),
    EventsRequest(after=0, guest="vm2"),
    EventsRequest(after=0, who="alice"),
    EventsRequest(after=0, who="alice", dataset="v4", types=("operation-started", "operation-finished")),
    EventsRequest(after=0, types=("dataset-created",)),
    EventsRequest(after=0, since="2001-01-01T00:00:00Z", latest="2100-01-01T00:00:00+01:00"),
    EventsRequest(after=0, since="2100-01-01T00:00:00Z"),
    EventsRequest(after=0, latest="2001-01-01T00:00:00Z"),
]


@asynccontextmanager
async def with_a_past(run: Run) -> AsyncIterator[Store]:
    """A store that has nothing of all that happened at hand: it was restarted."""
    async with run() as store:
        await make(store, 1, 2, 3, who="alice")
        await store.create_guest_disks(GuestRequest(guest={"id": "vm1", "disks": [{"size": 1}]}))
        await make(store, 4, 5, 6)
        await make(store, 7, 8, who="alice")
    async with run() as store:
        yield store


async def read_on(store: Store, request: EventsRequest) -> list[int]:
    """The seqs of all that a reader is told, up to the end as it is now."""
    events = await store.events(request)
    got: list[int] = []
    while events.position < seq_of(store):
        page = await events.next()
        assert page is not None
        got += [told.seq for told in page]
    return got


class FilesRead(AssertionError):
    """The journal's files were read whole."""


class Waited(AssertionError):
    """The index was asked though it is being built."""


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: str(WANTED.index(wanted)))
@pytest.mark.parametrize("found_events", [1, 2, feed_module.FOUND_EVENTS])
async def test_what_a_filter_asks_of_the_past_is_found_by_the_index_and_is_what_the_files_hold(
    run: Run, wanted: EventsRequest, found_events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FOUND_EVENTS", found_events)
    async with with_a_past(run) as store:
        with monkeypatch.context() as patch:
            patch.setattr(archive_module, "BEHIND_EVENTS", -1)
            patch.setattr(Archive, "find", raising(Waited()))
            held = await read_on(store, wanted)
        with monkeypatch.context() as patch:
            patch.setattr(FeedReader, "_read_files", raising(FilesRead()))
            assert await read_on(store, wanted) == held
            last = [await read_on(store, replace(wanted, last=most)) for most in (1, 2, 1000)]
    assert last == [held[-1:], held[-2:], held]


def raising(error: Exception) -> Callable[..., Awaitable[object]]:
    async def fail(*_: object) -> object:
        raise error

    return fail


class Under(Past):
    """An index that finds nothing, and knows of one operation that is under way."""

    is_behind = False

    def __init__(self, started: Envelope) -> None:
        self._started = started

    async def find(self, wanted: Filter, *, first: int) -> list[int]:
        return []

    async def read(self, seqs: Sequence[int]) -> list[Envelope]:
        raise AssertionError

    async def beginnings(self, seq: int) -> Sequence[Envelope]:
        assert seq == self._started.seq
        return [self._started]


async def test_what_was_under_way_in_the_past_is_told_to_its_end(run: Run) -> None:
    """Though a filter on the type of events kept its beginning from being found."""
    async with run() as store:
        await make(store, 1)
        started, _, finished = list(reader.read(store.config.journal))[-3:]
    feed = Feed(store.config.journal, started.seq, past=Under(started))
    events = feed.reader(0, Selector(Filter(dataset="v1", types=("operation-finished",))))
    assert await events.next() == []
    assert events.position == started.seq
    feed.observe([replace(finished, seq=started.seq + 1)])
    page = await events.next()
    assert page is not None
    assert [told.type for told in page] == ["operation-finished"]


async def test_the_last_without_a_filter_are_told_before_the_index_is_built(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_a_past(run) as store:
        monkeypatch.setattr(Archive, "_ask", raising(Waited()))
        end = seq_of(store)
        assert await read_on(store, EventsRequest(last=3)) == [end - 2, end - 1, end]
        assert await read_on(store, EventsRequest(after=end - 1, last=3)) == [end]


async def test_the_pool_is_no_dataset_of_the_journal_and_no_word_for_everything(run: Run) -> None:
    async with with_a_past(run) as store:
        assert await read_on(store, EventsRequest(after=0, dataset="pool")) == []
