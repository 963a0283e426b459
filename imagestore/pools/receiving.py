"""Receiving volumes into a directory pool: raw disk images and send streams.

What comes goes into a data file that nothing names; when the end was verified
and all is on the disk, one transaction makes the volume and its snapshots.
The two formats differ in their sink: what takes the bytes, and says at the end
which snapshots they brought.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol

import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore.errors import ContentRefused, ImageStoreError, StreamError
from imagestore.pools import rules
from imagestore.pools.base import Dataset, Receiver, Tags
from imagestore.pools.catalog import Entry
from imagestore.pools.creating import BLOCK_SIZE_BYTES
from imagestore.pools.datafile import SNAPSHOT_MODE, changed_bytes, extents
from imagestore.pools.ground import Ground
from imagestore.pools.groupcommit import Step
from imagestore.pools.links import check_name
from imagestore.streams import files as sparse
from imagestore.streams.snapshot import SnapshotInfo

HOP_BYTES = 256 << 10
"""Shorter pieces are gathered to this length before they are handed to a worker thread."""

_BLOCK_BYTES = 4096


class Brought(Struct, frozen=True, kw_only=True):
    """A snapshot that came, and its data file.  Sizes in bytes; ``guid`` 0: a new one is to be given."""

    snapshot: str
    file: str
    volsize: int
    block_size: int
    guid: int = 0
    creation_seconds: int = 0


class Sink(Protocol):
    """Takes a format's bytes, in a worker thread.  Raises ContentRefused, NoSpace, OSError."""

    def feed(self, data: memoryview) -> None: ...

    def finish(self) -> Sequence[Brought]:
        """Verify the end; the volume's file then has the content of the last of what is returned."""


OpenSink = Callable[[int, Callable[[], str]], Sink]
"""Makes a sink from the volume's open data file and a function that copies it as it is, durably."""


class RawSink:
    """A raw disk image; runs of zeros become holes."""

    def __init__(self, snapshot: str, file: int, copy: Callable[[], str]) -> None:
        self._snapshot = snapshot
        self._file = file
        self._copy = copy
        self._size = 0
        self._rest = bytearray()

    def feed(self, data: memoryview) -> None:
        """Blocks are those of the image: what is left over waits for the rest of its block."""
        if self._rest:
            missing = _BLOCK_BYTES - len(self._rest)
            self._rest += data[:missing]
            data = data[missing:]
            if len(self._rest) < _BLOCK_BYTES:
                return
            self._write(memoryview(bytes(self._rest)))
            self._rest.clear()
        whole = len(data) - len(data) % _BLOCK_BYTES
        self._write(data[:whole])
        self._rest += data[whole:]

    def _write(self, data: memoryview) -> None:
        """Write whole blocks, but those of zeros."""
        import numpy as np

        from imagestore.streams.zeros import stretches, zero_rows

        if not len(data):
            return
        blocks = np.frombuffer(data, dtype=np.uint8).reshape(-1, _BLOCK_BYTES)
        offsets = np.arange(0, len(data), _BLOCK_BYTES, dtype=np.uint64)
        for first, last in stretches(offsets, _BLOCK_BYTES, zero_rows(blocks)):
            start, end = first * _BLOCK_BYTES, last * _BLOCK_BYTES
            sparse.write_all(self._file, self._size + start, [data[start:end]])
        self._size += len(data)

    def finish(self) -> Sequence[Brought]:
        if self._rest:
            sparse.write_all(self._file, self._size, [memoryview(self._rest)])
            self._size += len(self._rest)
        if self._size == 0 or self._size % rules.SECTOR_BYTES:
            raise ContentRefused(
                f"a raw disk image of {self._size} bytes: the length must be a nonzero multiple of "
                f"{rules.SECTOR_BYTES}"
            )
        sparse.set_size(self._file, self._size)
        return [
            Brought(
                snapshot=self._snapshot,
                file=self._copy(),
                volsize=self._size,
                block_size=BLOCK_SIZE_BYTES,
            )
        ]


class StreamSink:
    """A full send stream of one volume, or a package of one volume's snapshots."""

    def __init__(self, file: int, copy: Callable[[], str]) -> None:
        from imagestore.streams.applier import StreamApplier

        self._copy = copy
        self._brought: list[Brought] = []
        self._applier = StreamApplier(file, on_snapshot=self._take)

    def feed(self, data: memoryview) -> None:
        self._applier.feed(data)

    def finish(self) -> Sequence[Brought]:
        self._applier.finish()
        return self._brought

    def _take(self, info: SnapshotInfo) -> None:
        """Called when the volume's file is whole as one more snapshot."""
        try:
            check_name(f"@{info.snapshot}")
            rules.check_size(info.volsize)
        except ImageStoreError as error:
            raise StreamError(f"the stream's snapshot cannot be stored: {error.detail}") from error
        if any(earlier.snapshot == info.snapshot for earlier in self._brought):
            raise StreamError(f"the stream has two snapshots named {info.snapshot}")
        self._brought.append(
            Brought(
                snapshot=info.snapshot,
                file=self._copy(),
                volsize=info.volsize,
                block_size=info.volblocksize,
                guid=info.guid,
                creation_seconds=info.creation_seconds,
            )
        )


@asynccontextmanager
async def receive(
    ground: Ground, name: str, tags: Tags, snapshot_tags: Tags, snapshot: str, open_sink: OpenSink
) -> AsyncIterator[Receiver]:
    """See ``PoolDriver.receive_raw`` and ``receive_stream``; ``snapshot`` is the name the caller gave."""

    def check() -> None:
        with ground.catalog.lock:
            rules.check_new(ground.catalog, name, {})
        if snapshot:
            check_name(f"{name}@{snapshot}")
        ground.tree.check_free(name, directory=False)

    await ground.look("receiving a volume", check)
    reception = _Reception(ground, name, tags, snapshot_tags, open_sink)
    try:
        yield reception
    finally:
        await reception.abort()


class _Reception:
    """One volume on its way in; a :class:`imagestore.pools.base.Receiver`."""

    def __init__(
        self, ground: Ground, name: str, tags: Tags, snapshot_tags: Tags, open_sink: OpenSink
    ) -> None:
        self._ground = ground
        self._name = name
        self._tags = tags
        self._snapshot_tags = snapshot_tags
        self._open_sink = open_sink
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
            return await self._ground.change(partial(self._record, brought), self._made)
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
            name, self._file = self._ground.files.begin()
            self._made.append(name)
            self._sink = self._open_sink(self._file, self._copy)
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

    def _copy(self) -> str:
        """A snapshot's data file: the volume's file as it is now."""
        os.fsync(self._file)
        progress = trio.from_thread.check_cancelled
        file = self._ground.files.copy(self._made[0], mode=SNAPSHOT_MODE, progress=progress)
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

    def _record(self, brought: Sequence[Brought], step: Step) -> tuple[Dataset, ...]:
        rules.check_new(step.catalog, self._name, {})
        ground = self._ground
        last = brought[-1]
        allocated = ground.files.allocated(self._made[0])
        volume = ground.publish(
            Entry(
                dataset=replace(
                    ground.new_dataset(self._name, "volume", self._tags),
                    volsize=last.volsize,
                    referenced=allocated,
                ),
                file=self._made[0],
                baseline=allocated,
                block_size=last.block_size,
            ),
            step,
        )
        return volume.dataset, *self._record_snapshots(brought, step)

    def _record_snapshots(self, brought: Sequence[Brought], step: Step) -> Sequence[Dataset]:
        datasets = []
        before = ""
        for arrived in brought:
            fresh = self._ground.new_dataset(
                f"{self._name}@{arrived.snapshot}", "snapshot", self._snapshot_tags
            )
            dataset = replace(
                fresh,
                guid=arrived.guid or fresh.guid,
                creation=arrived.creation_seconds if arrived.guid else fresh.creation,
                volsize=arrived.volsize,
                written=self._written(before, arrived.file),
                referenced=self._ground.files.allocated(arrived.file),
            )
            entry = Entry(dataset=dataset, file=arrived.file, block_size=arrived.block_size)
            datasets.append(step.catalog.insert(entry).dataset)
            before = arrived.file
        return datasets

    def _written(self, before: str, file: str) -> int:
        files = self._ground.files
        if not before or not files.reflink:
            return files.allocated(file)
        return changed_bytes(extents(files.path(before)), extents(files.path(file)))
