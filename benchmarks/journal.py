"""The journal against what bounds it: SQLite, a bare write and flush, the decoder alone.

Each pair is measured in turns in one run, in one temporary directory (set
TMPDIR for another file system), and the medians are compared.
"""

import gc
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import msgspec
import trio
from msgspec import Struct

from benchmarks.rows import Row
from imagestore.events import checkpoint, frame, reader
from imagestore.events.catalogue import (
    CreateIntent,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DestroyIntent,
    Envelope,
    NewBlank,
    OperationFinished,
    OperationStarted,
)
from imagestore.events.commitgroup import End, Request, Stamp, compose, prepare
from imagestore.events.files import SYSTEM_FILES, Files, SystemFiles
from imagestore.events.journal import Entry, JournalSettings, open_journal
from imagestore.events.log import LogWalk, survey
from imagestore.events.scan import Cursor
from imagestore.events.segment import encode_header, segment_name
from imagestore.events.state import State, apply
from imagestore.identifiers import uuid7_maker

ROUNDS = 5
CALLERS = 64
APPENDS_EACH = 120
SINGLE_APPENDS = 1500
REPLAYED_EVENTS = 1_000_000
LIVE_DATASETS = 20_000
STALL_DATASETS = 100_000
SETTINGS = JournalSettings(checkpoint_events=10**9)


def operation_batches(number: int, operation: str) -> tuple[list[Entry], list[Entry]]:
    """The two appends of an operation that makes a volume, or (later) destroys an earlier one."""
    name, guid = f"guests/guest-{number % LIVE_DATASETS}/disk-0", 1 << 40 | number % LIVE_DATASETS
    if number % (2 * LIVE_DATASETS) < LIVE_DATASETS:
        intent: CreateIntent | DestroyIntent = CreateIntent(
            datasets=(NewBlank(name=name, size_bytes=10 << 30, disk="0"),)
        )
        fact: DatasetCreated | DatasetDestroyed = DatasetCreated(
            name=name, kind="volume", role="disk", guid=guid, createtxg=number, size_bytes=10 << 30
        )
    else:
        target = DatasetId(name=name, guid=guid, createtxg=number - LIVE_DATASETS)
        intent = DestroyIntent(datasets=(target,))
        fact = DatasetDestroyed(name=name, guid=guid, createtxg=target.createtxg)
    start = OperationStarted(method="CreateVolume", subject=name, intent=intent)
    return (
        [Entry(event=start, operation=operation, principal="bench")],
        [
            Entry(event=fact, operation=operation),
            Entry(event=OperationFinished(outcome="succeeded"), operation=operation),
        ],
    )


class Appended(Struct, frozen=True, kw_only=True):
    """Acknowledged appends a second, and the processor's time for one of them in microseconds."""

    per_second: float
    processor_us: float


async def append_ours(
    directory: str,
    callers: int,
    appends_each: int,
    settings: JournalSettings = SETTINGS,
    files: Files = SYSTEM_FILES,
) -> Appended:
    new_id = uuid7_maker()
    async with open_journal(directory, settings=settings, files=files) as journal:

        async def caller(batches: list[list[Entry]]) -> None:
            for batch in batches:
                await journal.append(batch)

        prepared = [
            [batch for number in range(appends_each // 2) for batch in operation_batches(number, new_id())]
            for _ in range(callers)
        ]
        begin, begin_processor = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for batches in prepared:
                nursery.start_soon(caller, batches)
        taken, processor = time.perf_counter() - begin, time.process_time() - begin_processor
        appends = callers * appends_each
        return Appended(per_second=appends / taken, processor_us=processor / appends * 1e6)


class NoDisk(SystemFiles):
    """What a journal costs without a disk: nothing is written or flushed."""

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        return len(data)

    def sync_data(self, descriptor: int) -> None:
        pass

    def is_named(self, descriptor: int) -> bool:
        return True


async def suspend_and_wake_us(tasks: int, times: int) -> float:
    """What trio takes to suspend one of ``tasks`` callers and to wake it, in microseconds."""
    token = trio.lowlevel.current_trio_token()
    waiting: list[trio.lowlevel.Task] = []

    def wake() -> None:
        woken = waiting.copy()
        waiting.clear()
        for task in woken:
            trio.lowlevel.reschedule(task)

    def abort(_: object) -> trio.lowlevel.Abort:
        return trio.lowlevel.Abort.FAILED

    async def wait() -> None:
        waiting.append(trio.lowlevel.current_task())
        if len(waiting) == tasks:
            token.run_sync_soon(wake)
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def caller() -> None:
        for _ in range(times):
            await wait()

    begin = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(caller)
    return (time.process_time() - begin) / (tasks * times) * 1e6


def bodies_like_ours(count: int) -> list[bytes]:
    """The bodies of ``count`` appends of the same mix."""
    stamp = Stamp(now_ns=time.time_ns, new_id=uuid7_maker())
    state = State()
    cursor = Cursor(offset=96, seq=0, group=0, group_offset=0, hash=bytes(32))
    requests = [
        Request(batch) for number in range(count // 2) for batch in operation_batches(number, stamp.new_id())
    ]
    return [request.body for request in prepare(requests, state, cursor, stamp)]


def sqlite_per_second(directory: str, count: int) -> float:
    """Transactions a second, each one body, WAL and synchronous=FULL."""
    bodies = bodies_like_ours(count)
    connection = sqlite3.connect(os.path.join(directory, "appends.sqlite"), isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, body BLOB)")
    begin = time.perf_counter()
    for body in bodies:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO events (body) VALUES (?)", (body,))
        connection.execute("COMMIT")
    taken = time.perf_counter() - begin
    connection.close()
    return len(bodies) / taken


def plain_per_second(directory: str, count: int) -> float:
    """Frames a second in a loop of write and fdatasync into an allocated file."""
    bodies = bodies_like_ours(count)
    path = os.path.join(directory, "plain")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.posix_fallocate(descriptor, 0, SETTINGS.segment_bytes)
        os.fsync(descriptor)
        offset = 0
        begin = time.perf_counter()
        for body in bodies:
            length = frame.padded(frame.HEADER.size + len(body))
            os.pwrite(descriptor, body.ljust(length, b"\0"), offset)
            os.fdatasync(descriptor)
            offset += length
        return len(bodies) / (time.perf_counter() - begin)
    finally:
        os.close(descriptor)
        os.unlink(path)


def write_history(directory: str, events: int) -> None:
    """A journal of ``events`` events in frames of their own, without a flush for each."""
    os.mkdir(directory)
    stamp = Stamp(now_ns=time.time_ns, new_id=uuid7_maker())
    state = State()
    journal = bytes(range(16))
    cursor = Cursor(offset=0, seq=0, group=0, group_offset=0, hash=frame.first_hash(journal))
    end = End(journal=journal, number=0, cursor=cursor, last_frame=0, capacity=0)
    number = 0
    descriptor = -1
    while end.cursor.seq < events:
        requests = []
        for _ in range(50):
            requests += [Request(batch) for batch in operation_batches(number, stamp.new_id())]
            number += 1
        ready = prepare(requests, state, end.cursor, stamp)
        composed = compose(ready, end, SETTINGS.segment_bytes)
        if composed.group.header is not None:
            if descriptor != -1:
                os.close(descriptor)
            descriptor = os.open(
                os.path.join(directory, segment_name(composed.number)), os.O_RDWR | os.O_CREAT
            )
            os.posix_fallocate(descriptor, 0, SETTINGS.segment_bytes)
            os.pwrite(descriptor, encode_header(composed.group.header), 0)
        os.pwrite(descriptor, composed.group.data, composed.group.offset)
        for request in ready:
            for envelope in request.envelopes:
                apply(state, envelope)
        end = End(
            journal=journal,
            number=composed.number,
            cursor=composed.cursor,
            last_frame=composed.last_frame,
            capacity=SETTINGS.segment_bytes,
        )
    os.close(descriptor)


def bodies_of(directory: str) -> Iterator[bytes]:
    for _, found in LogWalk(SYSTEM_FILES, survey(SYSTEM_FILES, directory)):
        yield found.body


def decode_seconds(bodies: list[bytes]) -> float:
    decode = msgspec.json.Decoder(list[Envelope]).decode
    gc.collect()
    begin = time.perf_counter()
    for body in bodies:
        decode(body)
    return time.perf_counter() - begin


def replay_seconds(directory: str) -> float:
    gc.collect()
    begin = time.perf_counter()
    state = reader.replay(directory)
    taken = time.perf_counter() - begin
    assert state.seq >= REPLAYED_EVENTS
    return taken


def many_appends_row() -> Row:
    ours: list[Appended] = []
    against: list[float] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as directory:
            ours.append(trio.run(append_ours, os.path.join(directory, "journal"), CALLERS, APPENDS_EACH))
            against.append(sqlite_per_second(directory, SINGLE_APPENDS))
    processor_us = statistics.median(one.processor_us for one in ours)
    waking_us = trio.run(suspend_and_wake_us, CALLERS, 500)
    needed_us = 1e6 / (10 * statistics.median(against))
    return Row(
        name=f"durable appends, {CALLERS} callers",
        ours=statistics.median(one.per_second for one in ours),
        unit="1/s",
        against=statistics.median(against),
        against_name="SQLite, WAL, FULL",
        target=10,
        note=f"bounded by Python: an append takes {processor_us:.1f} us of a processor, {waking_us:.1f} of "
        f"them trio's to suspend and wake the caller; 10 x is {needed_us:.1f} us in all, flush included; "
        f"Python {platform.python_version()} of {sys.base_prefix} (Debian's own build is a fifth faster than "
        f"one without profile-guided optimization, as pyenv makes it)",
    )


def one_caller_per_second(
    directory: str, name: str, settings: JournalSettings = SETTINGS, files: Files = SYSTEM_FILES
) -> float:
    path = os.path.join(directory, name)
    return trio.run(append_ours, path, 1, SINGLE_APPENDS, settings, files).per_second


def single_append_row() -> Row:
    ours: list[float] = []
    without_hop: list[float] = []
    without_disk: list[float] = []
    against: list[float] = []
    on_trio = msgspec.structs.replace(SETTINGS, threads=False)
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as directory:
            ours.append(one_caller_per_second(directory, "journal"))
            without_hop.append(one_caller_per_second(directory, "without-hop", on_trio))
            without_disk.append(one_caller_per_second(directory, "without-disk", on_trio, NoDisk()))
            against.append(plain_per_second(directory, SINGLE_APPENDS))
    plain = statistics.median(against)
    waking_us = trio.run(suspend_and_wake_us, 1, SINGLE_APPENDS)
    bound = statistics.median(without_hop) / plain
    return Row(
        name="durable append, 1 caller",
        ours=statistics.median(ours),
        unit="1/s",
        against=plain,
        against_name="write + fdatasync",
        target=0.9,
        note=f"bounded by Python: {1e6 / statistics.median(without_disk):.0f} us an append on a disk that "
        f"does nothing, {waking_us:.0f} of them trio's to suspend and wake it, beside {1e6 / plain:.0f} "
        f"us of write and flush; {bound:.2f} x with the flush on trio's own thread, without a hop, but then "
        f"a blocked disk would stop the store",
    )


def replay_row() -> Row:
    with tempfile.TemporaryDirectory() as directory:
        journal = os.path.join(directory, "journal")
        write_history(journal, REPLAYED_EVENTS)
        bodies = list(bodies_of(journal))
        decoding = [decode_seconds(bodies) for _ in range(2)]
        del bodies
        replaying = [replay_seconds(journal) for _ in range(2)]
    return Row(
        name="replay of 1 M events",
        ours=REPLAYED_EVENTS / min(replaying),
        unit="1/s",
        against=REPLAYED_EVENTS / min(decoding),
        against_name="msgspec decoding",
        target=0.15,
        note="checksums, chain and fold included; two frames an operation",
    )


def stall_row() -> Row:
    """How long a checkpoint of a large state keeps trio's thread."""
    state = State()
    for number in range(STALL_DATASETS):
        event = DatasetCreated(
            name=f"guests/g{number}/disk-0",
            kind="volume",
            role="disk",
            guid=1 << 60 | number,
            createtxg=number,
            size_bytes=10 << 30,
            origin=DatasetId(name="images/debian@image", guid=1 << 61, createtxg=5),
            guest=f"g{number}",
        )
        apply(state, Envelope(id="", seq=number + 1, time_ns=0, event=event))
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        checkpoint.encode_state(state)
        times.append(time.perf_counter() - begin)
    return Row(
        name="appends wait for a checkpoint, 100,000 datasets",
        ours=1000 * statistics.median(times),
        unit="ms",
        target=100,
        better="lower",
    )


def run() -> list[Row]:
    rows: list[Callable[[], Row]] = [
        many_appends_row,
        single_append_row,
        replay_row,
        stall_row,
    ]
    return [row() for row in rows]
