"""The index: it finds what a look through the whole journal finds, and is never trusted."""

import os
import random
import sqlite3
from pathlib import Path

import pytest
import trio

from imagestore.events import index as indexing
from imagestore.events import reader
from imagestore.events.catalogue import Envelope, OperationFinished, OperationStarted
from imagestore.events.follow import Follower
from imagestore.events.index import Index, IndexLost, open_index
from imagestore.events.indexqueries import Wanted
from imagestore.events.journal import JournalSettings, open_journal
from imagestore.events.selection import Filter, Selector, select, short
from tests.events.random_history import RandomHistory

SETTINGS = JournalSettings(segment_bytes=16384, threads=False)


async def grow(directory: str, seed: int, batches: int) -> None:
    """Let a history begin, or go on, in ``directory``."""
    async with open_journal(directory, settings=SETTINGS) as journal:
        for batch in RandomHistory(seed).batches(batches):
            await journal.append(batch)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("index") / "journal")
    trio.run(grow, directory, 1, 400)
    return directory


@pytest.fixture(scope="module")
def events(directory: str) -> list[Envelope]:
    return list(reader.read(directory))


def test_a_follower_gives_every_event_once_whatever_it_takes_at_a_time(
    directory: str, events: list[Envelope]
) -> None:
    chance = random.Random(1)
    for from_seq in (1, 2, 137, len(events), len(events) + 1):
        follower = Follower(directory, from_seq)
        found: list[Envelope] = []
        while piece := follower.more(most=chance.randrange(1, 50)):
            found += piece
        assert found == events[from_seq - 1 :]


def test_a_follower_sees_nothing_behind_its_bound(directory: str, events: list[Envelope]) -> None:
    follower = Follower(directory)
    found: list[Envelope] = []
    for bound in range(0, len(events) + 1, 7):
        while piece := follower.more(up_to=bound):
            found += piece
        assert all(event.seq <= bound for event in found)
    assert follower.more() == events[len(found) :]


async def test_a_follower_goes_on_as_the_journal_grows_over_segments(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    found: list[Envelope] = []
    async with open_journal(directory, settings=SETTINGS) as journal:
        follower = Follower(directory)
        for batch in RandomHistory(2).batches(200):
            await journal.append(batch)
            found += follower.more(up_to=journal.state.seq)
            assert found[-1].seq == journal.state.seq
    assert found == list(reader.read(directory))[: len(found)]


@pytest.mark.parametrize("cached", [False, True])
def test_the_index_reads_every_event_in_any_order(
    directory: str, events: list[Envelope], tmp_path: Path, cached: bool
) -> None:
    index = open_index(directory, str(tmp_path / "cache") if cached else "")
    assert index.catch_up() == len(events)
    chance = random.Random(3)
    for _ in range(30):
        seqs = sorted(chance.sample(range(1, len(events) + 1), 5))
        assert list(index.read(seqs)) == [events[seq - 1] for seq in seqs]
    index.close()


FILTERS = [
    Filter(),
    Filter(who="local"),
    Filter(dataset="guests/g1"),
    Filter(dataset="guests/g1/disk-0"),
    Filter(guest="g2"),
    Filter(image="debian"),
    Filter(image="zürich-✓", who="token:ops"),
    Filter(dataset="vol", guest="g1"),
    Filter(types=("image-failed", "operation-finished")),
    Filter(from_seq=300, types=("dataset-created",)),
    Filter(dataset="nothing'; DROP TABLE events; --"),
]


@pytest.mark.parametrize("common", [indexing.COMMON, 1])
@pytest.mark.parametrize("wanted", FILTERS, ids=lambda wanted: str(FILTERS.index(wanted)))
def test_a_search_finds_what_a_look_through_all_finds(
    directory: str, events: list[Envelope], wanted: Filter, common: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "COMMON", common)
    index = open_index(directory)
    index.catch_up()
    found = list(index.read(index.search(wanted)))
    expected = list(select(events, wanted))
    assert [envelope for envelope in found if envelope in expected] == expected
    if wanted.who is None:  # else what tells that an operation is about it may be somebody else's
        assert list(filter(Selector(wanted).takes, found)) == expected
    seqs = [envelope.seq for envelope in found]
    assert index.search(wanted, last=3) == seqs[-3:]
    assert index.search(wanted, first=3) == seqs[:3]
    assert index.first_of_last(wanted, 3) == next(iter(seqs[-3:]), None)


def test_an_operation_is_found_by_its_short_form(directory: str, events: list[Envelope]) -> None:
    index = open_index(directory)
    index.catch_up()
    for operation in {envelope.operation for envelope in events if envelope.operation}:
        wanted = Filter(operation=short(operation))
        assert index.search(wanted) == [envelope.seq for envelope in select(events, wanted)]


def test_operations_are_found_by_id_and_listed_newest_first(directory: str, events: list[Envelope]) -> None:
    index = open_index(directory)
    index.catch_up()
    started = {e.operation: e.seq for e in events if isinstance(e.event, OperationStarted)}
    ended = {e.operation: e.seq for e in events if isinstance(e.event, OperationFinished)}
    listed = index.operations(Wanted(limit=10_000))
    assert listed == [(id_, seq, ended.get(id_)) for id_, seq in reversed(started.items())]
    for operation in started:
        seqs = [e.seq for e in events if e.operation == operation]
        assert index.operation(operation) == seqs
    assert index.operation("unknown") == []
    page = index.operations(Wanted(limit=5, before=listed[9][1]))
    assert page == listed[10:15]
    running = [id_ for id_, _, _ in index.operations(Wanted(outcome="running", limit=10_000))]
    assert set(running) == set(started) - set(ended)
    middle = len(events) // 2
    under_way = [seq for id_, seq in started.items() if seq <= middle < ended.get(id_, len(events) + 1)]
    assert index.under_way(middle) == under_way


def test_a_second_process_reads_what_the_first_wrote(directory: str, tmp_path: Path) -> None:
    first = open_index(directory, str(tmp_path / "cache"))
    first.catch_up()
    second = open_index(directory, str(tmp_path / "cache"))
    assert not second.writable
    assert second.catch_up() == first.seq
    assert second.search(Filter(guest="g1")) == first.search(Filter(guest="g1"))
    first.close()
    second.close()


def test_an_index_goes_on_where_it_ended(directory: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    half = open_index(directory, cache)
    half.catch_up(up_to=200)
    assert 0 < half.seq <= 200
    half.close()
    whole, other = open_index(directory, cache), open_index(directory)
    whole.catch_up()
    other.catch_up()
    for wanted in FILTERS:
        assert whole.search(wanted) == other.search(wanted)
    assert whole.operations(Wanted(limit=1000)) == other.operations(Wanted(limit=1000))
    whole.close()


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def other_schema(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE about SET value = 99 WHERE name = 'schema'")
    database.close()


def lose_a_table(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE places")
    database.close()


def other_text(path: Path) -> None:
    path.write_text("no database")


@pytest.mark.parametrize("harm", [overwrite, truncate, other_schema, lose_a_table, other_text, Path.unlink])
def test_a_harmed_index_is_made_anew(
    directory: str, events: list[Envelope], tmp_path: Path, harm: object
) -> None:
    cache = tmp_path / "cache"
    index = open_index(directory, str(cache))
    index.catch_up(up_to=300)
    index.close()
    assert callable(harm)
    harm(cache / "index.sqlite")
    index = open_index(directory, str(cache))
    index.catch_up()
    try:
        found = index.search(Filter())
    except IndexLost:
        index.rebuild()
        index.catch_up()
        found = index.search(Filter())
    assert found == [envelope.seq for envelope in events]
    index.close()


def test_an_index_of_another_history_is_made_anew(directory: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    old = open_index(directory, cache)
    old.catch_up()
    old.close()
    other = str(tmp_path / "other")
    trio.run(grow, other, 7, 100)
    index: Index = open_index(other, cache)
    assert index.catch_up() == len(list(reader.read(other)))
    assert list(index.read([1, 50])) == [e for e in reader.read(other) if e.seq in (1, 50)]
    index.close()


def test_an_index_that_cannot_be_written_is_kept_in_memory(
    directory: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    index = open_index(directory, str(tmp_path / "file" / "cache"))
    index.catch_up()
    assert index.search(Filter(), last=1) == [index.seq]
    assert "kept in memory" in caplog.text
