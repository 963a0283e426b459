"""Checkpoints are a cache: row 19 of the fault table, and fold(checkpoint + tail) == fold(all)."""

import random
from collections.abc import Sequence

import msgspec
import pytest
import trio

from imagestore.events import checkpoint as checkpoints
from imagestore.events import recovery
from imagestore.events.catalogue import DatasetKind, DatasetRenamed, Envelope, Event
from imagestore.events.checkpoint import Anchor, Checkpoint, Unusable
from imagestore.events.expectation import Expectation
from imagestore.events.journal import JournalSettings
from imagestore.events.segment import checkpoint_name
from imagestore.events.state import DatasetRecord, State, apply
from tests.events.disk import MemoryDisk
from tests.events.history import (
    DIRECTORY,
    NEW_JOURNAL,
    events_on,
    finished,
    opened,
    record,
    same,
    started,
)
from tests.events.random_history import RandomHistory

SETTINGS = JournalSettings(segment_bytes=4096, checkpoint_events=10, threads=False)


def recovered(disk: MemoryDisk) -> recovery.Recovered:
    return recovery.recover(disk, DIRECTORY, NEW_JOURNAL)


def checkpoints_on(disk: MemoryDisk) -> list[str]:
    return sorted(name for name in disk.names if name.startswith("checkpoint"))


def without_checkpoints(disk: MemoryDisk) -> MemoryDisk:
    return MemoryDisk(
        contents={name: data for name, data in disk.contents().items() if "checkpoint" not in name}
    )


@pytest.mark.parametrize("seed", range(12))
async def test_checkpoint_plus_tail_folds_to_what_everything_folds_to(seed: int) -> None:
    disk = MemoryDisk()
    chance = random.Random(seed)
    settings = JournalSettings(
        segment_bytes=chance.choice([2048, 8192]), checkpoint_events=chance.randrange(5, 40), threads=False
    )
    history = RandomHistory(seed)
    for life in range(3):
        async with opened(disk, settings, seed=life) as journal:
            for batch in history.batches(40):
                await journal.append(batch)
                if chance.random() < 0.05:
                    await journal.checkpoint()
            killed = disk.copy()
            live = msgspec.json.encode(journal.state)
        with_checkpoint = recovered(killed.copy())
        from_nothing = recovered(without_checkpoints(killed))
        assert with_checkpoint.replayed < from_nothing.replayed
        assert same(with_checkpoint.state, from_nothing.state)
        assert msgspec.json.encode(from_nothing.state) == live
        assert with_checkpoint.cursor == from_nothing.cursor


@pytest.mark.parametrize("seed", range(6))
def test_what_is_expected_to_follow_is_what_the_fold_accepts(seed: int) -> None:
    """The check before the write and the fold agree on batches taken out of order and out of context."""
    chance = random.Random(seed)
    batches = [batch for other in range(6) for batch in RandomHistory(seed * 10 + other).batches(40)]
    chance.shuffle(batches)
    state = State()
    accepted = refused = 0
    for start in range(0, len(batches), 4):
        expectation = Expectation(state)
        admitted: list[list[tuple[str, Event]]] = []
        for batch in batches[start : start + 4]:
            events = [(entry.operation, entry.event) for entry in batch]
            try:
                expectation.admit(events)
            except ValueError:
                refused += 1
                trial = msgspec.json.decode(msgspec.json.encode(state), type=State)
                for earlier in admitted:
                    fold_batch(trial, earlier)
                with pytest.raises(ValueError, match=r"no |never"):
                    fold_batch(trial, events)
            else:
                accepted += 1
                admitted.append(events)
        for events in admitted:
            fold_batch(state, events)
    assert accepted > 20
    assert refused > 20


def fold_batch(state: State, events: Sequence[tuple[str, Event]]) -> None:
    for operation, event in events:
        apply(state, Envelope(id="", seq=state.seq + 1, time_ns=0, operation=operation, event=event))


async def a_life(seed: int = 1) -> MemoryDisk:
    disk = MemoryDisk()
    await record(disk, range(20), SETTINGS, seed=seed)
    return disk


async def test_only_the_newest_two_are_kept_and_start_up_reads_the_tail_only() -> None:
    disk = await a_life()
    assert len(checkpoints_on(disk)) == 2
    newest = recovered(disk.copy())
    assert newest.replayed == 0
    contents = disk.contents()
    del contents[checkpoints_on(disk)[-1]]
    older = recovered(MemoryDisk(contents=contents))
    assert 0 < older.replayed < 30
    assert same(older.state, newest.state)


async def test_row_19_a_corrupt_checkpoint_is_ignored_with_a_warning() -> None:
    disk = await a_life()
    expected = recovered(disk.copy())
    contents = disk.contents()
    name = checkpoints_on(disk)[-1]
    whole = contents[name]
    for offset in [*range(checkpoints.HEADER_BYTES), *range(checkpoints.HEADER_BYTES, len(whole), 97)]:
        data = bytearray(whole)
        data[offset] ^= 0x40
        found = recovered(MemoryDisk(contents={**contents, name: bytes(data)}))
        assert same(found.state, expected.state)
        assert name in found.warnings[0]
    for length in range(0, len(whole), 101):
        found = recovered(MemoryDisk(contents={**contents, name: whole[:length]}))
        assert same(found.state, expected.state)
        assert found.warnings


async def test_row_19_a_checkpoint_newer_than_the_log_is_ignored() -> None:
    disk = await a_life()
    earlier = MemoryDisk()
    async with opened(earlier, SETTINGS) as journal:
        for number in range(3):
            await journal.append([started(str(number))])
            await journal.append(finished(str(number)))
        short = without_checkpoints(earlier.copy()).contents()
    name = checkpoints_on(disk)[-1]
    found = recovered(MemoryDisk(contents={**short, name: disk.contents()[name]}))
    assert found.state.seq == len(events_on(MemoryDisk(contents=short)))
    assert "newer than the log" in found.warnings[0]


async def test_row_19_a_checkpoint_of_another_journal_is_ignored() -> None:
    disk, foreign = await a_life(), await a_life(seed=9)
    name = checkpoints_on(foreign)[-1]
    contents = without_checkpoints(disk).contents()
    found = recovered(MemoryDisk(contents={**contents, name: foreign.contents()[name]}))
    assert "another journal" in found.warnings[0]
    assert same(found.state, recovered(disk).state)


async def test_row_19_a_checkpoint_of_a_log_that_went_another_way_is_ignored() -> None:
    disk = await a_life()
    name = checkpoints_on(disk)[-1]
    decoded = checkpoints.decode(disk.contents()[name])
    assert isinstance(decoded, Checkpoint)
    anchor = msgspec.structs.replace(decoded.anchor, hash=bytes(32))
    forged = checkpoints.encode(anchor, checkpoints.encode_state(decoded.state))
    found = recovered(MemoryDisk(contents={**disk.contents(), name: forged}))
    assert "goes another way" in found.warnings[0]


async def test_a_checkpoint_that_cannot_be_read_from_the_disk_is_ignored() -> None:
    disk = await a_life()
    expected = recovered(disk.copy())
    disk.read_errors = {checkpoints_on(disk)[-1]}
    assert same(recovered(disk).state, expected.state)


async def test_a_checkpoint_is_taken_while_appends_go_on() -> None:
    disk = MemoryDisk()
    async with opened(disk, SETTINGS) as journal:
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(journal.append, [started(str(number))])
        await trio.testing.wait_all_tasks_blocked()
        assert journal.statistics().checkpoints >= 1
        assert recovered(disk.copy()).state == journal.state


def test_a_checkpoint_reads_back_what_was_written() -> None:
    anchor = Anchor(journal=NEW_JOURNAL, segment=3, offset=96, seq=0, hash=bytes(range(32)))
    state = State(pool="tank", driver="zfs")
    assert checkpoints.decode(checkpoints.encode(anchor, checkpoints.encode_state(state))) == Checkpoint(
        anchor=anchor, state=state
    )
    assert isinstance(checkpoints.decode(b"IMGCKPT\n"), Unusable)
    assert checkpoint_name(7) == "checkpoint-00000000000000000007"


def test_what_moved_along_with_a_dataset_is_told_beside_it() -> None:
    """As recovery tells of a volume that somebody renamed, whose snapshot has another name then, too."""
    state = State()
    for name, guid in (("a", 1), ("a@s", 2)):
        kind: DatasetKind = "snapshot" if "@" in name else "volume"
        state.datasets[name] = DatasetRecord(name=name, kind=kind, role="volume", guid=guid, createtxg=guid)
    moved: list[tuple[str, Event]] = [
        ("", DatasetRenamed(name="a", new_name="b", guid=1, createtxg=1)),
        ("", DatasetRenamed(name="a@s", new_name="b@s", guid=2, createtxg=2)),
    ]
    Expectation(state).admit(moved)
    fold_batch(state, moved)
    assert list(state.datasets) == ["b", "b@s"]
