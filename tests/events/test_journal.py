"""Appending: order, group commit, cancelling, a second writer, odd clocks: rows 14, 15, 16 and more."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from imagestore.errors import JournalError, JournalLocked, Rejected, Stopping
from imagestore.events import reader
from imagestore.events.catalogue import (
    DatasetDestroyed,
    Envelope,
    ImageDeleted,
    ImageRequested,
    JournalOpened,
    OperationFinished,
)
from imagestore.events.journal import Entry, JournalSettings, open_journal
from tests.events.disk import MemoryDisk
from tests.events.history import (
    events_on,
    finished,
    frames_of,
    opened,
    ours,
    record,
    recover,
    started,
)

REAL = JournalSettings(segment_bytes=1 << 16)


async def test_an_append_returns_its_envelopes_after_they_were_applied() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        (envelope,) = await journal.append([started("1")])
        assert (envelope.seq, envelope.operation, envelope.principal) == (2, "1", "local")
        assert journal.state.seq == 2
        assert list(journal.state.operations) == ["1"]
        made, ended = await journal.append(finished("1"))
        assert (made.seq, ended.seq) == (3, 4)
        assert list(journal.state.datasets) == ["vol-1"]
        assert journal.head[0] == 4
    assert events_on(disk)[1:] == [envelope, made, ended]


async def test_each_opening_is_a_new_epoch_of_the_same_journal() -> None:
    disk = MemoryDisk()
    names = set()
    for epoch in (1, 2, 3):
        async with opened(disk, seed=epoch) as journal:
            assert journal.epoch == epoch
            names.add(journal.uuid)
    assert len(names) == 1
    openings = [event.event for event in events_on(disk)]
    assert openings == [
        JournalOpened(epoch=epoch, version="test", pid=os.getpid(), host="host") for epoch in (1, 2, 3)
    ]


async def test_waiting_appends_share_one_flush() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(journal.append, [started(str(number))])
        statistics = journal.statistics()
        assert statistics.appends == 21
        assert statistics.groups == 3
    groups = [group for *_, group in frames_of(disk)]
    assert groups == [1, 2, *[3] * 19, 4]


async def test_applied_in_the_order_of_seq_before_any_caller_is_woken() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:

        async def caller(number: int) -> None:
            envelopes = await journal.append([started(str(number))])
            assert str(number) in journal.state.operations
            assert journal.state.seq >= envelopes[-1].seq

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(caller, number)
        seqs = [record.seq for record in journal.state.operations.values()]
        assert seqs == sorted(seqs)


async def test_a_batch_that_does_not_follow_is_refused_alone_and_never_written() -> None:
    disk = MemoryDisk()
    refused: list[str] = []
    async with opened(disk) as journal:
        await journal.append([started("1")])

        async def bad(entry: Entry) -> None:
            try:
                await journal.append([entry])
            except ValueError as error:
                refused.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, [started("2")])
            nursery.start_soon(bad, Entry(operation="7", event=OperationFinished(outcome="failed")))
            nursery.start_soon(bad, Entry(event=ImageDeleted(image="none")))
            nursery.start_soon(bad, Entry(event=ImageRequested(image="x\ud800")))
            nursery.start_soon(bad, Entry(event=DatasetDestroyed(name="x", guid=-1, createtxg=1)))
            nursery.start_soon(journal.append, [started("3")])
        assert len(refused) == 4
        with pytest.raises(ValueError, match="at least one entry"):
            await journal.append([])
    assert {event.operation for event in ours(recover(disk))} == {"1", "2", "3"}


async def test_a_bug_before_the_write_fails_those_appends_alone_and_nobody_hangs() -> None:
    disk = MemoryDisk()
    broken = False

    def clock() -> int:
        if broken:
            raise ZeroDivisionError
        return 1

    outcomes: list[str] = []
    settings = JournalSettings(segment_bytes=4096, threads=False)
    async with open_journal("/journal", now_ns=clock, files=disk, settings=settings) as journal:

        async def caller(number: int) -> None:
            try:
                await journal.append([started(str(number))])
            except (ZeroDivisionError, RuntimeError) as error:
                outcomes.append(type(error).__name__)

        broken = True
        with trio.fail_after(30):
            await caller(1)
        broken = False
        await caller(2)
        assert outcomes == ["ZeroDivisionError"]
        assert list(journal.state.operations) == ["2"]


async def test_a_new_directory_is_made_with_all_that_is_missing_above_it(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b" / "journal"
    async with open_journal(str(directory), settings=REAL) as journal:
        assert journal.directory == str(directory)
    assert directory.stat().st_mode & 0o777 == 0o700


async def test_an_append_over_the_maximum_is_rejected() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        with pytest.raises(Rejected, match="is over"):
            await journal.append([Entry(event=ImageRequested(image="x" * (32 << 20)))])
        await journal.append([Entry(event=ImageRequested(image="y"))])
        assert list(journal.state.images) == ["y"]


async def test_a_batch_larger_than_a_segment_gets_a_segment_of_its_size() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        await journal.append([Entry(event=ImageRequested(image="x" * 10_000))])
        await journal.append([Entry(event=ImageRequested(image="y"))])
    async with opened(disk, seed=2) as journal:
        assert [len(image) for image in journal.state.images] == [10_000, 1]


async def test_the_journal_goes_on_in_new_segments() -> None:
    disk = MemoryDisk()
    acknowledged = await record(disk, range(60))
    assert len([name for name in disk.names if name.startswith("segment")]) > 5
    assert ours(recover(disk)) == acknowledged


async def test_a_new_segment_is_durable_before_its_name_and_its_name_before_its_frames() -> None:
    disk = MemoryDisk()
    calls: list[str] = []
    disk.fault = lambda call, name, path: calls.append(f"{name} {path.removesuffix('.new')}")
    async with opened(disk) as journal:
        for number in range(12):
            await journal.append([started(str(number))])
        before, after = "segment-0000000001", "segment-0000000002"
        made = calls.index(f"open {after}")
        assert calls[made - 1] == f"sync_data {before}"
        assert calls[made + 1 : made + 8] == [
            f"allocate {after}",
            f"write {after}",
            f"sync {after}",
            f"rename {after}",
            "sync_directory journal",
            f"write {after}",
            f"sync_data {after}",
        ]


async def test_an_empty_group_proves_the_last_one_after_idle_time(autojump_clock: trio.abc.Clock) -> None:
    disk = MemoryDisk()
    settings = JournalSettings(segment_bytes=4096, threads=False, idle_seconds=2.0)
    async with opened(disk, settings) as journal:
        await journal.append([started("1")])
        await trio.sleep(1.0)
        assert len(frames_of(disk)) == 2
        await trio.sleep(5.0)
        assert [group for *_, group in frames_of(disk)] == [1, 2, 3]
        await trio.sleep(100.0)
        assert len(frames_of(disk)) == 3
    assert len(frames_of(disk)) == 3
    assert len(events_on(disk)) == 2


async def test_closing_proves_the_last_group_and_writes_a_checkpoint() -> None:
    disk = MemoryDisk()
    acknowledged = await record(disk, [1])
    assert [group for *_, group in frames_of(disk)] == [1, 2, 3, 4]
    async with opened(disk, seed=2) as journal:
        assert journal.replayed == 0
        assert journal.state.seq == acknowledged[-1].seq + 1


async def test_no_append_is_taken_while_closing() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        pass
    with pytest.raises(Stopping):
        await journal.append([started("1")])


async def test_the_bodys_own_error_comes_out_as_itself() -> None:
    with pytest.raises(KeyError):
        async with opened(MemoryDisk()):
            raise KeyError


async def test_appends_wait_for_room_in_a_full_queue() -> None:
    disk = MemoryDisk()
    settings = JournalSettings(segment_bytes=1 << 16, threads=False, queue_limit=2)
    async with opened(disk, settings) as journal:
        async with trio.open_nursery() as nursery:
            for number in range(25):
                nursery.start_soon(journal.append, [started(str(number))])
        assert len(journal.state.operations) == 25
        assert journal.statistics().groups > 8


async def test_others_can_wait_for_events() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        seen: list[int] = []

        async def follow() -> None:
            await journal.wait_past(journal.state.seq)
            seen.append(journal.state.seq)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            await journal.append([started("1")])
        assert seen == [2]


async def test_row_14_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    program = (
        "import sys, trio\n"
        "from imagestore.errors import JournalLocked\n"
        "from imagestore.events.journal import open_journal\n"
        "async def main():\n"
        "    try:\n"
        "        async with open_journal(sys.argv[1]):\n"
        "            print('opened')\n"
        "    except JournalLocked as error:\n"
        "        print(error)\n"
        "trio.run(main)\n"
    )

    async def second() -> str:
        done = await trio.run_process([sys.executable, "-c", program, directory], capture_stdout=True)
        return done.stdout.decode().strip()

    async with open_journal(directory, settings=REAL):
        assert await second() == f"journal {directory} is in use by process {os.getpid()}"
        assert reader.head(directory)[0] == 1
    assert await second() == "opened"


async def test_row_14_within_one_process_too(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    async with open_journal(directory, settings=REAL):
        with pytest.raises(JournalLocked):
            async with open_journal(directory, settings=REAL):
                raise AssertionError("unreachable")


async def test_row_15_a_clock_that_steps_back_changes_no_order() -> None:
    disk = MemoryDisk()
    first = await record(disk, range(3))
    async with opened(disk, seed=2, start_ns=5) as journal:
        second = await journal.append([started("10")])
        third = await journal.append(finished("10"))
    assert second[0].time_ns < first[0].time_ns
    events = recover(disk)
    assert ours(events) == [*first, *second, *third]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("passes", range(12))
async def test_row_16_a_caller_cancelled_at_any_await_leaves_no_half(passes: int) -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        acknowledged: list[tuple[Envelope, ...]] = []

        async def victim() -> None:
            acknowledged.append(await journal.append([started("7"), *finished("7")]))

        async with trio.open_nursery() as crowd:
            for number in range(4):
                crowd.start_soon(journal.append, [started(str(number))])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(victim)
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await journal.append([started("8")])
        events = [event for event in events_on(disk) if event.operation == "7"]
        assert len(events) in (0, 3)
        assert ("vol-7" in journal.state.datasets) == bool(events)
        if acknowledged:
            assert list(acknowledged[0]) == events
    assert {event.operation for event in recover(disk)} >= {"0", "1", "2", "3", "8"}


async def test_row_16_cancelled_while_queued_nothing_is_written() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, [started("1")])
            nursery.start_soon(journal.append, [started("2")])
            nursery.cancel_scope.cancel()
        assert journal.statistics().queued == 0
    assert ours(recover(disk)) == []


@pytest.mark.parametrize("seed", range(6))
async def test_row_16_callers_cancelled_at_random_on_the_real_disk(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    directory = str(tmp_path / "journal")
    acknowledged: list[Envelope] = []
    async with open_journal(directory, settings=REAL) as journal:

        async def caller(number: int, patience: int) -> None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(impatient, scope, patience)
                    acknowledged.extend(await journal.append([started(str(number)), *finished(str(number))]))
                    nursery.cancel_scope.cancel()

        async def impatient(scope: trio.CancelScope, patience: int) -> None:
            for _ in range(patience):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(caller, number, chance.randrange(400))
    events = ours(list(reader.read(directory)))
    assert all(event in events for event in acknowledged)
    assert len(events) % 3 == 0
    assert journal.state.seq == len(events) + 1
    assert set(journal.state.datasets) == {f"vol-{event.operation}" for event in events}


async def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(JournalError, match="cannot be opened for writing: Not a directory"):
        async with open_journal(str(blocker / "journal"), settings=REAL):
            raise AssertionError("unreachable")


async def test_a_killed_process_loses_nothing_that_it_printed(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    program = (
        "import sys, trio\n"
        "from imagestore.events.catalogue import ImageRequested\n"
        "from imagestore.events.journal import Entry, open_journal\n"
        "async def main():\n"
        "    async with open_journal(sys.argv[1]) as journal:\n"
        "        async def caller(name):\n"
        "            for number in range(10**6):\n"
        "                image = f'{name}-{number}'\n"
        "                await journal.append([Entry(event=ImageRequested(image=image))])\n"
        "                print(image, flush=True)\n"
        "        async with trio.open_nursery() as nursery:\n"
        "            for name in range(4):\n"
        "                nursery.start_soon(caller, name)\n"
        "trio.run(main)\n"
    )
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", program, directory], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    printed = b""
    while printed.count(b"\n") < 200:
        printed += await process.stdout.receive_some()
    process.kill()
    await process.wait()
    while more := await process.stdout.receive_some():
        printed += more
    await process.stdout.aclose()
    said = printed.decode().rpartition("\n")[0].split()
    async with open_journal(directory) as journal:
        assert set(said) <= set(journal.state.images)
        assert len(journal.state.images) <= len(said) + 8
    assert reader.verify(directory).whole
