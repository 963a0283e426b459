"""Content on its way into a memory pool: raw images and send streams, new volumes and onto old ones."""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import trio
from msgspec.structs import replace

from imagestore.errors import AlreadyExists, Modified
from imagestore.pools.base import Dataset, Tags, Target
from imagestore.pools.directory import rules
from imagestore.pools.directory.catalog import Entry
from imagestore.pools.directory.sinks import Brought, KeepCopy, RawSink, Sink, StreamSink
from imagestore.streams.snapshot import SnapshotInfo
from tests.simulation.poolground import NOTHING, Blocks, PoolGround, as_blocks, pieces


class Host(Protocol):
    """What a reception needs of its pool."""

    @property
    def ground(self) -> PoolGround: ...

    async def look(self, call: str) -> None: ...
    async def change(self, call: str, change: Callable[[], tuple[Dataset, ...]]) -> tuple[Dataset, ...]: ...
    def info_of(self, entry: Entry) -> SnapshotInfo: ...
    def check_unused(self, entries: Sequence[Entry]) -> None: ...
    def load(self, volume: Dataset) -> None: ...
    def store(self, volume: Dataset) -> None: ...
    def now(self) -> int: ...


@contextmanager
def memory_file(blocks: Blocks, size: int) -> Iterator[int]:
    """A file that holds ``blocks``, for what works on descriptors."""
    file = os.memfd_create("content")
    try:
        os.ftruncate(file, size)
        for offset, block in pieces(blocks):
            os.pwrite(file, block[: max(0, size - offset)], offset)
        yield file
    finally:
        os.close(file)


def blocks_of(file: int) -> Blocks:
    return as_blocks(os.pread(file, os.fstat(file).st_size, 0))


@asynccontextmanager
async def receive_raw(
    host: Host, name: str, tags: Tags, snapshot: str, snapshot_tags: Tags
) -> AsyncIterator["Reception"]:
    await host.look("receive")
    rules.check_new(host.ground.as_catalog(), name, {})
    new = _New(host, name, tags, snapshot_tags, None)
    with memory_file(NOTHING, 0) as file:
        reception = Reception(host, file, new.publish)
        reception.sink = RawSink(snapshot, file, reception.keep)
        yield reception


@asynccontextmanager
async def receive_stream(
    host: Host, name: str, tags: Tags, snapshot_tags: Tags, origin: Target | None
) -> AsyncIterator["Reception"]:
    await host.look("receive")
    catalog = host.ground.as_catalog()
    base = None if origin is None else rules.check_origin(catalog, origin)
    rules.check_new(catalog, name, {})
    new = _New(host, name, tags, snapshot_tags, base)
    with _based_on(host, base) as (info, file):
        reception = Reception(host, file, new.publish)
        reception.sink = StreamSink(info, file, reception.keep)
        yield reception


@asynccontextmanager
async def receive_onto(
    host: Host, volume: Target, base: Target, snapshot_tags: Tags, operation: str, force: bool
) -> AsyncIterator["Reception"]:
    await host.look("receive")
    onto = _Onto(host, volume, base, snapshot_tags, operation, force)
    _, before = onto.check()
    with _based_on(host, before) as (info, file):
        reception = Reception(host, file, onto.publish)
        reception.sink = StreamSink(info, file, reception.keep)
        yield reception


@contextmanager
def _based_on(host: Host, base: Entry | None) -> Iterator[tuple[SnapshotInfo | None, int]]:
    if base is None:
        with memory_file(NOTHING, 0) as file:
            yield None, file
        return
    blocks = host.ground.blocks[base.dataset.createtxg]
    with memory_file(blocks, base.dataset.volsize) as file:
        yield host.info_of(base), file


Publish = Callable[[Sequence[Brought], Sequence[Blocks]], tuple[Dataset, ...]]


class Reception:
    """Implements ``Receiver``: a sink of the directory driver on a file in memory."""

    sink: Sink

    def __init__(self, host: Host, file: int, publish: Publish) -> None:
        self._host = host
        self._file = file
        self._publish = publish
        self._kept: list[Blocks] = []
        self._usable = True
        self.keep: KeepCopy = self._keep

    def _keep(self, is_last: bool) -> str:
        self._kept.append(blocks_of(self._file))
        return str(len(self._kept))

    def _use(self) -> None:
        if not self._usable:
            raise RuntimeError("the receiver has failed, or was finished or aborted")
        self._usable = False

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._use()
        await trio.lowlevel.checkpoint()
        self.sink.feed(memoryview(data).cast("B"))
        self._usable = True

    async def finish(self) -> tuple[Dataset, ...]:
        self._use()
        brought = self.sink.finish()
        return await self._host.change("receive", lambda: self._publish(brought, self._kept))

    async def abort(self) -> None:
        self._usable = False
        await trio.lowlevel.cancel_shielded_checkpoint()


class _New:
    """A new volume; a clone when it has an origin."""

    def __init__(self, host: Host, name: str, tags: Tags, snapshot_tags: Tags, origin: Entry | None) -> None:
        self._host = host
        self._name = name
        self._tags = tags
        self._snapshot_tags = snapshot_tags
        self._origin = origin

    def publish(self, brought: Sequence[Brought], kept: Sequence[Blocks]) -> tuple[Dataset, ...]:
        ground, origin = self._host.ground, self._origin
        rules.check_new(ground.as_catalog(), self._name, {})
        if origin is not None:
            ground.require(origin.dataset.target)
        volume = ground.add(
            self._name,
            "volume",
            self._tags,
            self._host.now(),
            volsize=brought[-1].volsize,
            blocks=kept[-1],
            baseline=kept[-1],
            origin=origin,
            block_size=brought[-1].block_size,
        )
        return volume, *_snapshots(self._host, self._name, self._snapshot_tags, brought, kept)


class _Onto:
    """A volume with a newest snapshot."""

    def __init__(
        self,
        host: Host,
        volume: Target,
        base: Target,
        snapshot_tags: Tags,
        operation: str,
        force: bool,
    ) -> None:
        self._host = host
        self._volume = volume
        self._base = base
        self._snapshot_tags = snapshot_tags
        self._operation = operation
        self._force = force

    def check(self) -> tuple[Entry, Entry]:
        """Raises NotFound, NotVolume, Blocked, InUse, Modified."""
        host = self._host
        volume, base = rules.check_onto(host.ground.as_catalog(), self._volume, self._base)
        if not self._force:
            host.check_unused([volume])
            host.load(volume.dataset)
            blocks = host.ground.blocks
            same = blocks[volume.dataset.createtxg] == blocks[base.dataset.createtxg]
            if not same or volume.dataset.volsize != base.dataset.volsize:
                raise Modified.since(volume.dataset.name, base.dataset.name)
        return volume, base

    def publish(self, brought: Sequence[Brought], kept: Sequence[Blocks]) -> tuple[Dataset, ...]:
        volume, _ = self.check()
        ground, name = self._host.ground, volume.dataset.name
        for new in brought:
            if ground.find(f"{name}@{new.snapshot}") is not None:
                raise AlreadyExists.named(f"{name}@{new.snapshot}")
        tags = replace(volume.dataset.tags, last=self._operation)
        changed = ground.set_content(volume, kept[-1], brought[-1].volsize, tags)
        self._host.store(changed)
        return changed, *_snapshots(self._host, name, self._snapshot_tags, brought, kept)


def _snapshots(
    host: Host, volume: str, tags: Tags, brought: Sequence[Brought], kept: Sequence[Blocks]
) -> list[Dataset]:
    return [
        host.ground.add(
            f"{volume}@{new.snapshot}",
            "snapshot",
            tags,
            new.creation_seconds if new.guid else host.now(),
            volsize=new.volsize,
            blocks=blocks,
            written=len(blocks) * 4096,
            guid=new.guid,
            block_size=new.block_size,
        )
        for new, blocks in zip(brought, kept, strict=True)
    ]
