"""A disk that fails, fills or hangs under the writer: rows 10, 11, 12, 17 of the fault table."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from imagestore.errors import ImageStoreError, OutcomeUnknown, ReadOnly, Rejected
from imagestore.events.catalogue import Envelope, OperationFinished
from imagestore.events.files import SystemFiles
from imagestore.events.journal import Entry, Journal, JournalSettings, open_journal
from imagestore.events.segment import RESERVE, segment_name
from tests.events.disk import Fault, MemoryDisk, errors_at
from tests.events.history import (
    SMALL,
    deletion,
    events_on,
    finished,
    is_prefix,
    opened,
    ours,
    recover,
    started,
)

SETTINGS = JournalSettings(segment_bytes=2048, checkpoint_events=5, threads=False, idle_seconds=1e9)


async def busy(disk: MemoryDisk, acknowledged: list[Envelope]) -> ImageStoreError | None:
    """Open and append until something fails; return what it was."""
    try:
        async with opened(disk, SETTINGS) as journal:
            for number in range(6):
                acknowledged += await journal.append([started(str(number))])
                acknowledged += await journal.append(finished(str(number)))
    except ImageStoreError as error:
        return error
    return None


async def calls_of_a_busy_life() -> int:
    disk = MemoryDisk()
    assert await busy(disk, []) is None
    return disk.calls


def short_write_at(disk: MemoryDisk, call: int) -> Fault:
    def fault(current: int, name: str, path: str) -> None:
        if current == call:
            disk.short_write = 100

    return fault


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR], ids=os.strerror)
async def test_row_10_whichever_system_call_fails_what_was_acknowledged_is_there(number: int) -> None:
    for call in range(1, await calls_of_a_busy_life() + 1):
        disk = MemoryDisk()
        disk.fault = errors_at(call, number)
        acknowledged: list[Envelope] = []
        with trio.fail_after(60):
            await busy(disk, acknowledged)
        assert is_prefix(acknowledged, ours(recover(disk.copy()))), f"call {call}"


async def test_row_10_a_short_write_goes_on_where_it_ended() -> None:
    for call in range(1, await calls_of_a_busy_life() + 1):
        disk = MemoryDisk()
        disk.fault = short_write_at(disk, call)
        acknowledged: list[Envelope] = []
        assert await busy(disk, acknowledged) is None, f"call {call}"
        assert ours(recover(disk.copy())) == acknowledged


def failing_once(name: str, path: str) -> Fault:
    left = [1]

    def fault(call: int, current: str, file: str) -> None:
        if current == name and file.startswith(path) and left:
            left.pop()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return fault


@pytest.mark.parametrize("call", ["sync_data", "write"])
async def test_row_11_after_one_failed_flush_nothing_is_acknowledged_until_a_restart(call: str) -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        acknowledged = await journal.append([started("1")])
        before = dict(journal.state.operations)
        disk.fault = failing_once(call, segment_name(1))
        with pytest.raises(OutcomeUnknown, match="Input/output error"):
            await journal.append([started("2")])
        assert journal.failed is not None
        assert journal.failed.seq == acknowledged[-1].seq
        assert (await journal.wait_failed()).reason == "Input/output error"
        assert "read-only" in journal.trouble()
        with pytest.raises(ReadOnly):
            await journal.append([started("3")])
        assert journal.state.operations == before
    events = ours(recover(disk))
    assert is_prefix(acknowledged, events)
    assert "3" not in {event.operation for event in events}
    async with opened(disk, seed=2) as journal:
        assert journal.failed is None
        await journal.append([started("3")])


async def test_nothing_is_acknowledged_into_a_segment_that_somebody_deleted() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        await journal.append([started("1")])
        disk.remove(segment_name(1))
        with pytest.raises(OutcomeUnknown, match="somebody deleted the segment"):
            await journal.append([started("2")])
        assert "read-only" in journal.trouble()
        with pytest.raises(ReadOnly):
            await journal.append([started("3")])


async def test_row_11_those_who_wait_behind_a_failed_flush_are_told_that_nothing_was_written() -> None:
    disk = MemoryDisk()
    outcomes: dict[str, str] = {}
    async with opened(disk) as journal:

        async def caller(operation: str) -> None:
            try:
                await journal.append([started(operation)])
            except ImageStoreError as error:
                outcomes[operation] = type(error).__name__

        disk.fault = failing_once("sync_data", segment_name(1))
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(caller, str(number))
    assert sorted(outcomes.values()) == ["OutcomeUnknown", *["ReadOnly"] * 4]
    known = {event.operation for event in ours(recover(disk))}
    assert known <= {operation for operation, outcome in outcomes.items() if outcome == "OutcomeUnknown"}


class BlockingDisk(SystemFiles):
    """The real disk, whose flush of data waits while ``open`` is cleared."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def sync_data(self, descriptor: int) -> None:
        self.entered.set()
        self.gate.wait()
        super().sync_data(descriptor)


async def test_row_12_while_a_flush_hangs_callers_get_their_deadline_and_reads_go_on(tmp_path: Path) -> None:
    disk = BlockingDisk()
    settings = JournalSettings(segment_bytes=1 << 16, checkpoint_events=10**9)
    outcomes: dict[str, str] = {}
    async with open_journal(str(tmp_path / "journal"), files=disk, settings=settings) as journal:
        await journal.append([started("1")])

        async def caller(operation: str, seconds: float) -> None:
            try:
                await journal.append([started(operation)], timeout=seconds)
                outcomes[operation] = "acknowledged"
            except ImageStoreError as error:
                outcomes[operation] = type(error).__name__

        disk.gate.clear()
        disk.entered.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller, "2", 0.05)
            await trio.to_thread.run_sync(disk.entered.wait)
            async with trio.open_nursery() as behind:
                behind.start_soon(caller, "3", 0.05)
            assert "1" in journal.state.operations
            assert "does not answer" in journal.trouble(stalled_after_seconds=0.0)
            disk.gate.set()
        await journal.append([started("4")])
        assert journal.trouble() == ""
        assert outcomes == {"2": "OutcomeUnknown", "3": "Rejected"}
        assert list(journal.state.operations) == ["1", "2", "4"]


async def fill(journal: Journal, make: Callable[[str], Entry], first: int) -> list[str]:
    """Append until the disk is full; return the operations that were acknowledged."""
    done: list[str] = []
    for number in range(first, first + 1000):
        try:
            await journal.append([make(str(number))])
        except Rejected:
            return done
        done.append(str(number))
    raise AssertionError("the disk never filled")


async def test_row_17_a_full_disk_takes_deletions_and_nothing_else() -> None:
    disk = MemoryDisk()
    async with opened(disk) as journal:
        disk.free = 0
        accepted = await fill(journal, started, 0)
        assert journal.failed is None
        assert RESERVE in disk.names
        await journal.append([deletion("9001")])
        await journal.append([Entry(operation="9001", event=OperationFinished(outcome="succeeded"))])
        await journal.append(finished(accepted[-1]))
        assert RESERVE not in disk.names
        with pytest.raises(Rejected, match="no space left on device"):
            await journal.append([started("9002")])
        await journal.append([deletion("9003")])
        disk.free = 1 << 20
        await journal.append([started("9002")])
        assert RESERVE in disk.names
    known = {event.operation for event in ours(events_on(disk))}
    assert known == {*accepted, "9001", "9002", "9003"}
    assert len(recover(disk)) == len(events_on(disk))


async def test_row_17_of_a_group_that_finds_no_room_only_what_takes_space_is_rejected() -> None:
    disk = MemoryDisk()
    outcomes: dict[str, str] = {}
    async with opened(disk) as journal:
        disk.free = 0
        accepted = await fill(journal, started, 0)

        async def caller(entry: Entry) -> None:
            try:
                await journal.append([entry])
                outcomes[entry.operation] = "acknowledged"
            except ImageStoreError as error:
                outcomes[entry.operation] = type(error).__name__

        async with trio.open_nursery() as nursery:
            for number in range(100, 106):
                nursery.start_soon(caller, started(str(number)))
                nursery.start_soon(caller, deletion(str(number + 100)))
    assert {outcomes[str(number)] for number in range(100, 106)} == {"Rejected"}
    assert {outcomes[str(number)] for number in range(200, 206)} == {"acknowledged"}
    known = {event.operation for event in ours(events_on(disk))}
    assert known == {*accepted, *(str(number) for number in range(200, 206))}


async def test_a_disk_full_at_the_first_opening_is_a_plain_rejection() -> None:
    disk = MemoryDisk()
    disk.free = 100
    with pytest.raises(Rejected, match="no space left on device"):
        async with opened(disk, SMALL):
            raise AssertionError("unreachable")
    disk.free = None
    async with opened(disk) as journal:
        await journal.append([started("1")])


async def test_a_checkpoint_that_cannot_be_written_stops_nothing() -> None:
    disk = MemoryDisk()
    settings = JournalSettings(segment_bytes=4096, checkpoint_events=3, threads=False)
    async with opened(disk, settings) as journal:

        def fault(call: int, name: str, path: str) -> None:
            if path.startswith("checkpoint"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        disk.fault = fault
        for number in range(10):
            await journal.append([started(str(number))])
        assert journal.failed is None
    assert not [name for name in disk.names if name.startswith("checkpoint") and not name.endswith(".new")]
    disk.fault = lambda call, name, path: None
    async with opened(disk, settings, seed=2) as journal:
        assert len(journal.state.operations) == 10
    assert [name for name in disk.names if name.endswith(".new")] == []
