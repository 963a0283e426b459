"""Receiving into a directory pool: the way of a stream or a raw image from its first byte to its last.

What comes goes into a data file that nothing names; when the end was verified
and all is on the disk, one transaction makes it visible.  A *destination* says
where it begins (an empty file, or a copy of the base's) and what that
transaction is: a new volume here, a new state of one that exists in
``pools/receivingonto.py``.  What the bytes mean is a sink's matter.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol

import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore import names
from imagestore.pools.base import Dataset, Receiver, Tags, Target
from imagestore.pools.directory import rules
from imagestore.pools.directory.catalog import Entry
from imagestore.pools.directory.datafile import SNAPSHOT_MODE, changed_bytes, extents
from imagestore.pools.directory.ground import Ground
from imagestore.pools.directory.groupcommit import Step
from imagestore.pools.directory.links import check_name
from imagestore.pools.directory.sinks import Brought, OpenSink, Sink, StreamSink
from imagestore.streams.snapshot import SnapshotInfo

HOP_BYTES = 256 << 10
"""Shorter pieces are gathered to this length before they are handed to a worker thread."""


class Arrived(Struct, frozen=True, kw_only=True):
    """What came and is on the disk: the volume's data file, its snapshots, and all files that are new."""

    file: str
    brought: Sequence[Brought]
    made: list[str]


class Destination(Protocol):
    """Where what comes is to be."""

    def begin(self, made: list[str]) -> int:
        """Open the volume's new data file, which is added to ``made``; in a worker thread."""

    async def publish(self, arrived: Arrived) -> tuple[Dataset, ...]:
        """Make it visible, durably: the volume, then the snapshots that came."""


@asynccontextmanager
async def receive_new(
    ground: Ground,
    volume: "NewVolume",
    open_sink: OpenSink,
    *,
    snapshot: str = "",
    read_only: bool = False,
) -> AsyncIterator[Receiver]:
    """See ``PoolDriver.receive_raw``; ``snapshot`` is the name the caller gave, if he did."""

    def check() -> None:
        volume.check()
        if snapshot:
            check_name(f"{volume.name}@{snapshot}")

    await ground.look("receiving a volume", check)
    async with reception(ground, volume, open_sink, read_only=read_only) as receiver:
        yield receiver


@asynccontextmanager
async def receive_stream(
    ground: Ground, volume: "NewVolume", origin: Target | None, *, read_only: bool
) -> AsyncIterator[Receiver]:
    """See ``PoolDriver.receive_stream``."""
    base: SnapshotInfo | None = None
    if origin is not None:
        volume.origin = await ground.look(
            "receiving a clone", partial(rules.check_origin, ground.catalog, origin)
        )
        base = snapshot_info(ground, volume.origin)
    async with receive_new(ground, volume, partial(StreamSink, base), read_only=read_only) as receiver:
        yield receiver


@asynccontextmanager
async def reception(
    ground: Ground, destination: Destination, open_sink: OpenSink, *, read_only: bool = False
) -> AsyncIterator[Receiver]:
    """A receiver for ``destination``; what it made and nobody published is gone when the block ends."""
    receiver = _Reception(ground, destination, open_sink, read_only)
    try:
        yield receiver
    finally:
        await receiver.abort()


def snapshot_info(ground: Ground, snapshot: Entry) -> SnapshotInfo:
    """A snapshot as the base of a stream."""
    return SnapshotInfo(
        name=names.full(snapshot.dataset.name, ground.layout.name),
        guid=snapshot.dataset.guid,
        volsize=snapshot.dataset.volsize,
        volblocksize=snapshot.block_size,
        creation_seconds=snapshot.dataset.creation,
    )


def open_copy(ground: Ground, snapshot: Entry, made: list[str]) -> int:
    """A new data file with a snapshot's content, open for reading and writing; in a worker thread."""
    return os.open(ground.files.path(ground.copy(snapshot, made)), os.O_RDWR | os.O_CLOEXEC)


class NewVolume:
    """The destination that is a new volume; a clone when ``origin`` is set."""

    def __init__(self, ground: Ground, name: str, tags: Tags, snapshot_tags: Tags) -> None:
        self.name = name
        self.origin: Entry | None = None
        self._ground = ground
        self._tags = tags
        self._snapshot_tags = snapshot_tags

    def check(self) -> None:
        """Raises AlreadyExists, NotFound (parent), NotValid, PoolError (something is in the way)."""
        with self._ground.catalog.lock:
            rules.check_new(self._ground.catalog, self.name, {})
        self._ground.tree.check_free(self.name, directory=False)

    def begin(self, made: list[str]) -> int:
        if self.origin is not None:
            return open_copy(self._ground, self.origin, made)
        name, file = self._ground.files.begin()
        made.append(name)
        return file

    async def publish(self, arrived: Arrived) -> tuple[Dataset, ...]:
        return await self._ground.change(partial(self._record, arrived), arrived.made)

    def _record(self, arrived: Arrived, step: Step) -> tuple[Dataset, ...]:
        rules.check_new(step.catalog, self.name, {})
        ground, origin = self._ground, self.origin
        if origin is not None:
            step.catalog.require(origin.dataset.target)
        last = arrived.brought[-1]
        allocated = ground.files.allocated(arrived.file)
        dataset = replace(
            ground.new_dataset(self.name, "volume", self._tags),
            volsize=last.volsize,
            referenced=allocated,
            origin=origin.dataset.name if origin is not None else "",
        )
        volume = ground.publish(
            Entry(
                dataset=dataset,
                file=arrived.file,
                origin_txg=origin.dataset.createtxg if origin is not None else None,
                baseline=allocated,
                block_size=last.block_size,
            ),
            step,
        )
        base = origin.file if origin is not None else ""
        snapshots = record_snapshots(ground, self.name, self._snapshot_tags, arrived.brought, base, step)
        return volume.dataset, *snapshots


def record_snapshots(
    ground: Ground, volume: str, tags: Tags, brought: Sequence[Brought], base: str, step: Step
) -> Sequence[Dataset]:
    """Add the snapshots that came, in a change; ``base`` is the data file that the first is from, if any."""
    datasets = []
    for arrived in brought:
        fresh = ground.new_dataset(f"{volume}@{arrived.snapshot}", "snapshot", tags)
        dataset = replace(
            fresh,
            guid=arrived.guid or fresh.guid,
            creation=arrived.creation_seconds if arrived.guid else fresh.creation,
            volsize=arrived.volsize,
            written=_written(ground, base, arrived.file),
            referenced=ground.files.allocated(arrived.file),
        )
        entry = Entry(dataset=dataset, file=arrived.file, block_size=arrived.block_size)
        datasets.append(step.catalog.insert(entry).dataset)
        base = arrived.file
    return datasets


def _written(ground: Ground, before: str, file: str) -> int:
    files = ground.files
    if not before or not files.reflink:
        return files.allocated(file)
    return changed_bytes(extents(files.path(before)), extents(files.path(file)))


class _Reception:
    """Content on its way in; a :class:`imagestore.pools.base.Receiver`."""

    def __init__(
        self, ground: Ground, destination: Destination, open_sink: OpenSink, read_only: bool
    ) -> None:
        self._ground = ground
        self._destination = destination
        self._open_sink = open_sink
        self._read_only = read_only
        self._limiter = trio.CapacityLimiter(1)
        self._buffer = bytearray()
        self._made: list[str] = []
        self._file = -1
        self._sink: Sink | None = None
        self._usable = True

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        if len(self._buffer) + len(view) < HOP_BYTES:
            self._buffer += view
        else:
            await self._hop(partial(self._take, view))

    async def finish(self) -> tuple[Dataset, ...]:
        brought = await self._hop(self._finish)
        self._usable = False
        try:
            return await self._destination.publish(
                Arrived(file=self._made[0], brought=brought, made=self._made)
            )
        finally:
            await self.abort()

    async def abort(self) -> None:
        self._usable = False
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._discard, limiter=self._limiter)

    async def _hop(self, function: Callable[[], "Sequence[Brought]"]) -> "Sequence[Brought]":
        """Run a step in the reception's own thread; after any error nothing but abort goes on."""
        if not self._usable:
            raise RuntimeError("the receiver has failed, or was finished or aborted")
        self._usable = False
        result = await self._ground.streaming("receiving a volume", function, self._limiter)
        self._usable = True
        return result

    def _opened_sink(self) -> Sink:
        if self._sink is None:
            self._file = self._destination.begin(self._made)
            self._sink = self._open_sink(self._file, self._keep)
        return self._sink

    def _take(self, data: memoryview) -> Sequence[Brought]:
        """Feed what was gathered, then ``data``, without a copy."""
        sink = self._opened_sink()
        if self._buffer:
            with memoryview(self._buffer) as gathered:
                sink.feed(gathered)
            self._buffer.clear()
        if len(data):
            sink.feed(data)
        return ()

    def _finish(self) -> Sequence[Brought]:
        self._take(memoryview(b""))
        brought = self._opened_sink().finish()
        os.fsync(self._file)
        self._ground.checkpoint("received")
        return brought

    def _keep(self, is_last: bool) -> str:
        """A snapshot's data file: the volume's file as it is now."""
        os.fsync(self._file)
        files = self._ground.files
        if self._read_only and is_last and not files.reflink:
            file = files.link(self._made[0], mode=SNAPSHOT_MODE)
        else:
            progress = trio.from_thread.check_cancelled
            file = files.copy(self._made[0], mode=SNAPSHOT_MODE, progress=progress)
        self._made.append(file)
        return file

    def _discard(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._sink = None
        self._buffer = bytearray()
        with suppress(OSError):
            self._ground.discard(self._made)
