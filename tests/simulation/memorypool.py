"""A pool in memory: a driver like the others, for simulations on a virtual clock.

Implements ``PoolDriver``; the conformance suite runs against it.  A change is
one synchronous step in which it is judged and done, so it happens or does not;
``pace`` says how long things take around that step, and may fail or crash there.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import trio
from msgspec.structs import replace

from imagestore import names
from imagestore.errors import InUse, NotSnapshot, NotValid, NotVolume, PoolError
from imagestore.pools.base import (
    Creation,
    Dataset,
    Mark,
    NewClone,
    NewFilesystem,
    NewVolume,
    Receiver,
    Retagging,
    Space,
    Tags,
    Target,
)
from imagestore.pools.directory import rules
from imagestore.pools.directory.catalog import Entry
from imagestore.pools.directory.creating import BLOCK_SIZE_BYTES
from imagestore.pools.directory.texts import DirectoryTexts
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.writer import write_stream
from tests.simulation.memoryreceiver import memory_file, receive_onto, receive_raw, receive_stream
from tests.simulation.poolground import NOTHING, PoolGround

T = TypeVar("T")
Rows = list[Dataset]

PIECE_BYTES = 256 << 10


class Pace(Protocol):
    """What happens around the one step of a change."""

    async def begin(self, call: str, change: Callable[[], object]) -> None:
        """Before ``change`` is made; may raise what a pool refuses with."""

    def commit(self, call: str, change: Callable[[], T]) -> T:
        """Make it."""

    def partly(self) -> None:
        """Between two datasets of one ``create``."""

    async def look(self, call: str) -> None:
        """Before something is looked up."""


class AtOnce:
    """No time passes, nothing fails."""

    async def begin(self, call: str, change: Callable[[], object]) -> None:
        await trio.lowlevel.checkpoint()

    def commit(self, call: str, change: Callable[[], T]) -> T:
        return change()

    def partly(self) -> None:
        pass

    async def look(self, call: str) -> None:
        await trio.lowlevel.checkpoint()


class MemoryPool:
    """See the module."""

    def __init__(self, ground: PoolGround, *, clock: Callable[[], float], pace: Pace | None = None) -> None:
        self.ground = ground
        self._catalog = ground.as_catalog()
        self._clock = clock
        self.pace: Pace = pace if pace is not None else AtOnce()
        self._held: dict[int, int] = {}
        self._closed = False

    @property
    def name(self) -> str:
        return self.ground.name

    @property
    def intake(self) -> None:
        return None

    async def close(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()

    # -- steps ----------------------------------------------------------------------

    async def change(self, call: str, change: Callable[[], T]) -> T:
        self._check_open()
        await self.pace.begin(call, change)
        return self.pace.commit(call, change)

    async def look(self, call: str) -> None:
        self._check_open()
        await self.pace.look(call)

    def _check_open(self) -> None:
        if self._closed:
            raise PoolError(f"pool {self.name} is closed")

    # -- whose pool it is -------------------------------------------------------------

    async def mark(self) -> Mark | None:
        await self.look("mark")
        return self.ground.mark

    async def set_mark(self, mark: Mark | None) -> None:
        def change() -> None:
            self.ground.mark = mark

        await self.change("set_mark", change)

    # -- looking ------------------------------------------------------------------------

    async def list(self) -> Sequence[Dataset]:
        await self.look("list")
        return self.ground.all()

    async def get(self, name: str) -> Dataset:
        await self.look("get")
        return self.ground.measured(self.ground.existing(name))

    async def existing(self, wanted: Sequence[str]) -> Sequence[Dataset]:
        await self.look("existing")
        return [self.ground.measured(entry) for name in wanted if (entry := self.ground.find(name))]

    async def generation(self) -> int:
        await self.look("generation")
        return 0

    async def changes(self) -> Sequence[str]:
        await self.look("changes")
        changed, self.ground.changed = self.ground.changed, []
        return changed

    def trouble(self) -> str:
        return ""

    def mountpoint(self, name: str) -> str:
        return self.device(name)

    async def space(self) -> Space:
        await self.look("space")
        return Space(total=self.ground.total_bytes, available=self.ground.available_bytes())

    def now(self) -> int:
        """Seconds since 1970."""
        return int(self._clock())

    def device(self, name: str) -> str:
        return f"/memory/{name}"

    def writers(self, name: str) -> Sequence[str]:
        """Who has a volume open for writing."""
        return ()

    async def users(self, name: str) -> Sequence[str]:
        await self.look("users")
        return self.writers(name) if self.ground.existing(name).dataset.kind == "volume" else ()

    async def those_in_use(self, wanted: Sequence[str]) -> Sequence[str]:
        await self.look("those_in_use")
        return [name for name in wanted if self.writers(name)]

    def check_unused(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.dataset.kind == "volume":
                users = self.writers(entry.dataset.name)
                if users:
                    raise InUse.by(entry.dataset.name, users)

    # -- changing -----------------------------------------------------------------------

    async def create(self, creations: Sequence[Creation]) -> Sequence[Dataset]:
        def change() -> Rows:
            origins = rules.check_creations(self._catalog, creations)
            made: Rows = []
            for creation, origin in zip(creations, origins, strict=True):
                if made:
                    self.pace.partly()
                made.append(self._make(creation, origin))
            return made

        return await self.change("create", change)

    def _make(self, creation: Creation, origin: Entry | None) -> Dataset:
        ground, now = self.ground, self.now()
        match creation:
            case NewFilesystem():
                return ground.add(creation.name, "filesystem", creation.tags, now)
            case NewVolume():
                if creation.thick:
                    ground.check_room(creation.size)
                return ground.add(
                    creation.name,
                    "volume",
                    creation.tags,
                    now,
                    volsize=creation.size,
                    blocks=NOTHING,
                    sparse=not creation.thick,
                    block_size=BLOCK_SIZE_BYTES,
                )
            case NewClone():
                assert origin is not None
                blocks = ground.blocks[origin.dataset.createtxg]
                return ground.add(
                    creation.name,
                    "volume",
                    creation.tags,
                    now,
                    volsize=origin.dataset.volsize,
                    blocks=blocks,
                    baseline=blocks,
                    origin=origin,
                    block_size=origin.block_size,
                )

    async def snapshot(self, volumes: Sequence[Target], snapshot: str, tags: Tags) -> Sequence[Dataset]:
        def change() -> Rows:
            entries = rules.check_snapshot(self._catalog, volumes, snapshot)
            return [self._take(entry, snapshot, tags) for entry in entries]

        return await self.change("snapshot", change)

    def _take(self, entry: Entry, snapshot: str, tags: Tags) -> Dataset:
        ground, dataset = self.ground, entry.dataset
        name = f"{dataset.name}@{snapshot}"
        if not entry.file:
            return ground.add(name, "snapshot", tags, self.now())
        self.load(dataset)
        measured = ground.measured(entry)
        blocks = ground.blocks[dataset.createtxg]
        ground.baselines[dataset.createtxg] = blocks
        return ground.add(
            name,
            "snapshot",
            tags,
            self.now(),
            volsize=dataset.volsize,
            blocks=blocks,
            written=measured.written,
            block_size=entry.block_size,
        )

    def load(self, volume: Dataset) -> None:
        """Take over what was written to the volume past us; nothing is."""

    def store(self, volume: Dataset) -> None:
        """Show a volume's new content to those who look past us; nobody does."""

    async def destroy(self, targets: Sequence[Target], *, force: bool = False) -> None:
        def change() -> None:
            entries = rules.check_destroy(self._catalog, targets, self._held)
            if not force:
                self.check_unused(entries)
            for entry in entries:
                self.ground.remove(entry)

        await self.change("destroy", change)

    async def rollback(
        self, snapshots: Sequence[Target], *, destroy: Sequence[Target], operation: str, force: bool = False
    ) -> Sequence[Dataset]:
        def change() -> Rows:
            plans, doomed = rules.check_rollback(self._catalog, snapshots, destroy, self._held)
            if not force:
                self.check_unused([plan.dataset for plan in plans])
            for entry in doomed:
                self.ground.remove(entry)
            return [self._go_back(plan, operation) for plan in plans]

        return await self.change("rollback", change)

    def _go_back(self, plan: rules.Rollback, operation: str) -> Dataset:
        snapshot, dataset = plan.snapshot.dataset, plan.dataset.dataset
        tags = replace(dataset.tags, last=operation)
        if not plan.dataset.file:
            return self.ground.set(plan.dataset, replace(dataset, tags=tags))
        blocks = self.ground.blocks[snapshot.createtxg]
        rolled = self.ground.set_content(plan.dataset, blocks, snapshot.volsize, tags)
        self.store(rolled)
        return rolled

    async def rename(self, target: Target, name: str) -> Sequence[Dataset]:
        def change() -> Rows:
            moves = rules.check_rename(self._catalog, target, name)
            return [self.ground.set(entry, replace(entry.dataset, name=to)) for entry, to in moves]

        return await self.change("rename", change)

    async def resize(self, volume: Target, size: int) -> Dataset:
        def change() -> Dataset:
            rules.check_size(size)
            entry = self.ground.require(volume)
            if entry.dataset.kind != "volume":
                raise NotVolume(detail=volume.name)
            if size < entry.dataset.volsize:
                self.check_unused([entry])
            self.load(entry.dataset)
            if not entry.dataset.sparse:
                self.ground.check_room(size - entry.dataset.volsize)
            resized = self.ground.set(entry, replace(entry.dataset, volsize=size))
            self.store(resized)
            return resized

        return await self.change("resize", change)

    async def retag(self, changes: Sequence[Retagging]) -> Sequence[Dataset]:
        def change() -> Rows:
            entries = [self.ground.require(change.target) for change in changes]
            return [
                self.ground.set(entry, replace(entry.dataset, tags=change.tags))
                for entry, change in zip(entries, changes, strict=True)
            ]

        return await self.change("retag", change)

    def retag_commands(
        self, changes: Sequence[Retagging], *, parents: Sequence[NewFilesystem] = ()
    ) -> Sequence[str]:
        made = [f"make {parent.name}" for parent in parents]
        return [*made, *(f"retag {change.target.name} {change.tags}" for change in changes)]

    @property
    def texts(self) -> DirectoryTexts:
        return DirectoryTexts(path=self.mountpoint)

    # -- streams ------------------------------------------------------------------------

    @asynccontextmanager
    async def send(
        self, snapshot: Target, *, base: Target | None = None, skip: int = 0
    ) -> AsyncIterator[AsyncIterator[bytes | memoryview]]:
        held = [target.createtxg for target in (snapshot, base) if target is not None]
        for createtxg in held:
            self._held[createtxg] = self._held.get(createtxg, 0) + 1
        try:
            await self.look("send")
            data = self._stream(snapshot, base)[skip:]
            yield _Pieces(data)
        finally:
            for createtxg in held:
                self._held[createtxg] -= 1
                if not self._held[createtxg]:
                    del self._held[createtxg]

    def send_in_pipe(
        self, snapshot: Target, *, base: Target | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | memoryview]]:
        return self.send(snapshot, base=base)

    async def send_bytes(self, snapshot: Target, *, base: Target | None = None) -> int:
        await self.look("send_bytes")
        return len(self._stream(snapshot, base))

    def _stream(self, snapshot: Target, base: Target | None) -> bytes:
        entry = self._sendable(snapshot)
        with memory_file(self.ground.blocks[entry.dataset.createtxg], entry.dataset.volsize) as file:
            if base is None:
                return b"".join(map(bytes, write_stream(file, self.info_of(entry))))
            before = self._base(entry, base)
            info = replace(
                self.info_of(entry),
                from_guid=before.dataset.guid,
                is_clone=names.parent(base.name) != names.parent(snapshot.name),
            )
            size = before.dataset.volsize
            with memory_file(self.ground.blocks[before.dataset.createtxg], size) as base_file:
                stream = write_stream(file, info, base=self.info_of(before), base_fd=base_file)
                return b"".join(map(bytes, stream))

    def _sendable(self, target: Target) -> Entry:
        entry = self.ground.require(target)
        if entry.dataset.kind != "snapshot":
            raise NotSnapshot(detail=target.name)
        if not entry.file:
            raise NotVolume(detail=target.name)
        return entry

    def _base(self, snapshot: Entry, target: Target) -> Entry:
        base = self._sendable(target)
        volume = self.ground.existing(names.parent(snapshot.dataset.name))
        is_earlier = (
            names.parent(target.name) == volume.dataset.name
            and base.dataset.createtxg < snapshot.dataset.createtxg
        )
        if not is_earlier and volume.origin_txg != base.dataset.createtxg:
            raise NotValid(detail=f"{target.name} is no earlier snapshot, nor the origin")
        return base

    def info_of(self, entry: Entry) -> SnapshotInfo:
        dataset = entry.dataset
        return SnapshotInfo(
            name=names.full(dataset.name, self.name),
            guid=dataset.guid,
            volsize=dataset.volsize,
            volblocksize=entry.block_size,
            creation_seconds=dataset.creation,
        )

    def receive_stream(
        self,
        name: str,
        tags: Tags,
        *,
        snapshot_tags: Tags,
        origin: Target | None = None,
        read_only: bool = False,
    ) -> AbstractAsyncContextManager[Receiver]:
        return receive_stream(self, name, tags, snapshot_tags, origin)

    def receive_onto(
        self, volume: Target, *, base: Target, snapshot_tags: Tags, operation: str, force: bool = False
    ) -> AbstractAsyncContextManager[Receiver]:
        return receive_onto(self, volume, base, snapshot_tags, operation, force)

    def receive_raw(
        self, name: str, tags: Tags, *, snapshot: str, snapshot_tags: Tags, read_only: bool = False
    ) -> AbstractAsyncContextManager[Receiver]:
        return receive_raw(self, name, tags, snapshot, snapshot_tags)


class _Pieces(AsyncIterator[bytes | memoryview]):
    """A stream in pieces; unlike a generator, nothing is left behind by who stops reading."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    async def __anext__(self) -> bytes | memoryview:
        await trio.lowlevel.checkpoint()
        piece = self._data[self._at : self._at + PIECE_BYTES]
        if not piece:
            raise StopAsyncIteration
        self._at += len(piece)
        return piece
