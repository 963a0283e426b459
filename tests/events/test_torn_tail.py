"""What a crash leaves at the end of the journal: rows 1, 2, 5, 7, 9, 18 of the fault table."""

import contextlib
import random
import struct
import zlib

import pytest
import trio

from imagestore.events.catalogue import Envelope, JournalCut
from imagestore.events.frame import HEADER
from imagestore.events.journal import JournalSettings
from imagestore.events.segment import segment_name
from tests.events.disk import MemoryDisk
from tests.events.history import (
    SMALL,
    events_on,
    finished,
    frames_of,
    is_prefix,
    opened,
    ours,
    record,
    recover,
    refusal,
    started,
)

ONE = segment_name(1)


async def unclosed(operations: int, settings: JournalSettings = SMALL) -> MemoryDisk:
    """A disk as a kill -9 leaves it: without the empty group that closing writes."""
    disk = MemoryDisk()
    async with opened(disk, settings) as journal:
        for number in range(operations):
            await journal.append([started(str(number))])
            await journal.append(finished(str(number)))
        return disk.copy()


async def test_row_1_a_file_truncated_at_every_byte_keeps_what_stood_before() -> None:
    disk = await unclosed(2)
    contents = disk.contents()
    whole = events_on(disk)
    frames = frames_of(disk)
    for length in range(frames[-1][2] + 16):
        cut = MemoryDisk(contents={**contents, ONE: contents[ONE][:length]})
        complete = sum(1 for _, _, end, _ in frames if end <= length)
        events = recover(cut)
        assert is_prefix(events, whole)
        assert len(events) == sum((1, 1, 2, 1, 2)[:complete])


async def crashed_life(
    seed: int,
) -> tuple[MemoryDisk | None, list[Envelope], list[Envelope]]:
    """Four callers at work, and power lost at some system call.

    Returns the disk that is left (None: the life was too short), what had been
    acknowledged by then, and all events of the life had it gone on.
    """
    settings = JournalSettings(segment_bytes=6144, checkpoint_events=7, threads=False)
    chance = random.Random(seed)
    disk = MemoryDisk()
    acknowledged: list[Envelope] = []
    left: list[MemoryDisk] = []
    crash_at = chance.randrange(20, 120)

    def fault(call: int, name: str, path: str) -> None:
        if call == crash_at:
            left.append(disk.crash(chance))

    disk.fault = fault
    async with opened(disk, settings, seed=seed) as journal:

        async def caller(first: int) -> None:
            for number in range(first, 40, 4):
                for batch in ([started(str(number))], finished(str(number))):
                    envelopes = await journal.append(batch)
                    if not left:
                        acknowledged.extend(envelopes)

        async with trio.open_nursery() as nursery:
            for first in range(4):
                nursery.start_soon(caller, first)
    return (left[0] if left else None), acknowledged, ours(events_on(disk))


async def test_row_2_any_unsynced_sectors_lost_zeroed_or_stale_leave_a_prefix() -> None:
    crashes = within_a_group = 0
    for seed in range(300):
        left, acknowledged, everything = await crashed_life(seed)
        if left is None:
            continue
        crashes += 1
        events = ours(recover(left))
        assert is_prefix(events, everything), f"seed {seed}"
        known = {event.seq for event in events}
        assert {event.seq for event in acknowledged} <= known, f"seed {seed}: acknowledged events are gone"
        within_a_group += any(".cut-" in name for name in left.names)
    assert crashes > 200
    assert within_a_group > 3


def header_with(data: bytes, offset: int, *, length: int) -> bytes:
    """The frame header at ``offset`` with another length and the checksum that makes it believable."""
    fields = list(HEADER.unpack_from(data, offset))
    fields[2] = length & 0xFFFFFFFF
    packed = bytearray(HEADER.pack(*fields))
    struct.pack_into("<I", packed, 4, zlib.crc32(packed[8:]))
    return bytes(packed)


@pytest.mark.parametrize("length", [0, 1 << 31, (1 << 63) & 0xFFFFFFFF, 0xFFFFFFF0, 4096, (32 << 20) + 1])
async def test_row_5_a_lying_length_is_torn_at_the_tail_and_corrupt_elsewhere(length: int) -> None:
    disk = await unclosed(2)
    contents = disk.contents()
    frames = frames_of(disk)
    for index, (_, offset, _, _) in enumerate(frames):
        data = bytearray(contents[ONE])
        data[offset : offset + HEADER.size] = header_with(contents[ONE], offset, length=length)
        damaged = MemoryDisk(contents={**contents, ONE: bytes(data)})
        if index == len(frames) - 1:
            assert len(recover(damaged)) == 5
        else:
            assert refusal(damaged).startswith("Corrupt")


@pytest.mark.parametrize("offset_from_end", [0, 8, 100])
@pytest.mark.parametrize("garbage", [b"\0" * 64, b"\x01", b"garbage " * 90, b"IJFR" * 40])
async def test_row_7_what_trails_the_last_frame_is_cut_off_and_kept(
    garbage: bytes, offset_from_end: int
) -> None:
    disk = await unclosed(1)
    contents = disk.contents()
    end = frames_of(disk)[-1][2]
    place = end + offset_from_end
    data = contents[ONE][:place] + garbage + contents[ONE][place + len(garbage) :]
    damaged = MemoryDisk(contents={**contents, ONE: data})
    assert len(recover(damaged)) == 4
    kept = [name for name in damaged.names if ".cut-" in name]
    if garbage.strip(b"\0"):
        assert kept == [f"{ONE}.cut-{end}"]
        assert damaged.contents()[kept[0]] == (bytes(offset_from_end) + garbage).rstrip(b"\0")
        assert not any(damaged.contents()[ONE][end:])
    else:
        assert kept == []


@pytest.mark.parametrize("length", [0, 1, 50, 95])
async def test_row_7_an_empty_file_or_half_a_header_is_torn_and_kept(length: int) -> None:
    disk = MemoryDisk()
    acknowledged = await record(disk, range(8))
    contents = disk.contents()
    last = segment_name(max(number for number, *_ in frames_of(disk)) + 1)
    contents[last] = contents[ONE][:length]
    damaged = MemoryDisk(contents=contents)
    assert ours(recover(damaged)) == acknowledged
    assert damaged.contents()[f"{last}.cut-0"] == contents[ONE][:length].rstrip(b"\0")
    more = await record(damaged, range(100, 103), seed=2)
    assert ours(recover(damaged)) == acknowledged + more
    assert [e.event.saved_as for e in events_on(damaged) if isinstance(e.event, JournalCut)] == [
        f"{last}.cut-0"
    ]


async def test_row_7_a_journal_whose_only_segment_is_half_a_header_starts_anew() -> None:
    disk = MemoryDisk(contents={ONE: b"IMGJRNL\n\x01"})
    acknowledged = await record(disk, range(2))
    assert ours(recover(disk)) == acknowledged
    assert disk.contents()[f"{ONE}.cut-0"] == b"IMGJRNL\n\x01"


async def test_row_9_stale_bytes_never_resurface_when_appending_after_a_recovery() -> None:
    disk = await unclosed(3)
    contents = disk.contents()
    frames = frames_of(disk)
    whole = events_on(disk)
    for length in range(96, frames[-1][2], 37):
        torn = MemoryDisk(contents={**contents, ONE: contents[ONE][:length] + b"x" * 700})
        before = recover(torn.copy())
        assert is_prefix(before, whole)
        more = await record(torn, range(50, 52), seed=3)
        events = events_on(torn)
        assert ours(events) == ours(before) + more
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        cuts = [e.event for e in events if isinstance(e.event, JournalCut)]
        assert [cut.saved_as for cut in cuts] == [name for name in torn.names if ".cut-" in name]
        again = await record(torn, range(60, 61), seed=4)
        assert ours(recover(torn)) == ours(before) + more + again


class Crash(Exception):
    """Power is gone."""


async def test_row_18_crashing_in_recovery_fifty_times_over_converges() -> None:
    disk = await unclosed(4)
    end = frames_of(disk)[-1][2]
    contents = disk.contents()
    data = contents[ONE][:end] + b"torn" * 30 + contents[ONE][end + 120 :]
    current = MemoryDisk(contents={**contents, ONE: data})
    expected = events_on(disk)
    chance = random.Random(18)
    for attempt in range(50):
        stop = chance.randrange(1, 24)

        def fault(call: int, name: str, path: str, stop: int = stop) -> None:
            if call >= stop:
                raise Crash

        current.fault = fault
        with contextlib.suppress(Crash):
            recover(current)
        current = current.crash(random.Random(attempt))
    assert recover(current) == expected
    more = await record(current, range(70, 72), seed=5)
    assert ours(recover(current)) == ours(expected) + more
    kept = [current.contents()[name] for name in current.names if ".cut-" in name]
    assert b"torn" * 30 in kept


async def test_a_cut_that_was_not_recorded_before_a_crash_is_recorded_at_the_next_opening() -> None:
    disk = await unclosed(1)
    end = frames_of(disk)[-1][2]
    contents = disk.contents()
    torn = MemoryDisk(contents={**contents, ONE: contents[ONE][:end] + b"half a frame"})
    recover(torn)
    assert not [e for e in events_on(torn) if isinstance(e.event, JournalCut)]
    await record(torn, [7], seed=2)
    await record(torn, [8], seed=3)
    cuts = [e.event for e in events_on(torn) if isinstance(e.event, JournalCut)]
    assert cuts == [JournalCut(segment=ONE, offset=end, length=12, saved_as=f"{ONE}.cut-{end}")]


async def test_recovery_flushes_what_it_read_before_anything_follows() -> None:
    disk = await unclosed(1)
    calls: list[tuple[str, str]] = []
    disk.fault = lambda call, name, path: calls.append((name, path))
    recover(disk)
    assert ("sync", ONE) in calls


async def test_recovery_writes_the_last_group_again_whose_flush_may_have_failed() -> None:
    """A failed flush leaves pages clean: after a kill another flush alone would write nothing (seed 337)."""
    disk = await unclosed(2)
    calls: list[tuple[str, str]] = []
    disk.fault = lambda call, name, path: calls.append((name, path))
    before = disk.contents()
    recover(disk)
    in_segment = [name for name, path in calls if path == ONE and name in {"write", "sync"}]
    assert in_segment == ["write", "sync"]
    assert disk.contents()[ONE] == before[ONE]
