"""The directory driver: a pool of sparse files on any Linux file system, without root.

Owns the order of effects of every change.  The catalog (one SQLite file) is
the truth about what exists; data files have random names that never change;
the tree of links is derived.  See ``pools/opening.py`` for the layout.

Every change is: make new data files → fsync them → one transaction → links →
unlink old data files.  What a crash leaves, by the last step that was done:

===========================  ================================================================
data files made              orphans; removed at the next open
links made, not committed    links without a dataset; removed at the next open (an empty
                             directory may stay, and is taken over by the next of that name)
committed                    the change has happened; old links are mended and old data
                             files removed at the next open
links replaced               old data files are removed at the next open
===========================  ================================================================

A rollback makes a new data file, a copy of the snapshot's; one transaction
gives it to the volume, removes the newer snapshots and tags the volume; then
the link is replaced by rename and the old files are unlinked.  A resize notes
the new size, changes the file, and notes that it is done; a crash in between
is finished at the next open.

What ZFS does and this does too: clones depend on their origin, children must
be destroyed with their parents, a rollback names newer snapshots, guids are
random, createtxg only grows.  What differs:

* ``written`` of a snapshot is recorded when it is made.  With reflinks it is
  exact to the file system's extents (FIEMAP against the snapshot before it,
  or the origin); elsewhere it is all the data of the copy, since that is what
  the copy cost.
* ``written`` of a volume is what its file has allocated beyond what it had
  when it was last snapshotted, cloned or rolled back.  Overwriting in place
  allocates nothing, so it is never too high for a space ledger that promises
  ``volsize - written``.  ``list`` stats nothing: it gives what was last
  measured, in turns of 256 volumes with each call of ``generation``, to
  within 16 MiB; methods about single datasets measure.
* A disk that is open for writing is snapshotted only where FICLONE makes a
  copy in one step.  Of several disks with a writer the snapshot is of one
  instant all the same: it is taken again until none of them was written
  between the first copy and the last, and refused (InUse) if that never
  happens.  Stores through a shared memory mapping are not seen by this.
* Destroying or rolling back a disk by force leaves a process that has it open
  with the old file, which is gone when it closes it.  An open for writing
  that comes while a disk is destroyed waits (a lease); the change is refused
  if it came before the commit, else the opener gets such an old file.
"""

import contextlib
import os
import shlex
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeVar

import trio
from msgspec.structs import replace

from imagestore.errors import NoSpace, NotFound
from imagestore.pools.base import (
    Creation,
    Dataset,
    Mark,
    NewFilesystem,
    Receiver,
    Retagging,
    Space,
    Tags,
    Target,
)
from imagestore.pools.directory import (
    altering,
    creating,
    destroying,
    receiving,
    receivingonto,
    sending,
    snapshotting,
)
from imagestore.pools.directory.ground import Ground, guarded, seen_writers, written_bytes
from imagestore.pools.directory.intake import DirectoryIntake
from imagestore.pools.directory.opening import busy, open_parts, prepare_directories, spend_reserve, try_lock
from imagestore.pools.directory.sinks import RawSink
from imagestore.pools.directory.texts import DirectoryTexts
from imagestore.pools.inuse import is_open_for_writing, written_to

_LOCK_POLL_SECONDS = 0.05
_MEASURED_AT_ONCE = 256
_MUCH_BYTES = 16 << 20

T = TypeVar("T")


def no_checkpoint(_point: str) -> None:
    """The crash tests' hook, unused."""


async def open_directory_pool(
    path: str,
    *,
    create: bool,
    lock_deadline: float = 10.0,
    clock: Callable[[], float] = time.time,
    entropy: Callable[[int], bytes] = os.urandom,
    checkpoint: Callable[[str], None] = no_checkpoint,
) -> "DirectoryPool":
    """Open the pool in the directory ``path``, whose last component is its name.

    ``create`` makes a pool, and the directory itself, if there is none.  If
    another process has the pool, its end is waited for, at most
    ``lock_deadline`` seconds.  ``clock`` gives seconds since 1970,
    ``entropy`` random bytes; ``checkpoint`` is called at each named point of
    a change, in a worker thread.

    Raises:
        ConfigError: the path cannot be a pool's.
        PoolBusy: another process has the pool; names its pid.
        PoolError, NoSpace: the pool cannot be opened, or is not there.
    """
    limiter = trio.CapacityLimiter(1)

    async def step(function: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(guarded, "opening the pool", function, limiter=limiter)

    layout = await step(partial(prepare_directories, path, create=create))
    deadline = trio.current_time() + lock_deadline
    while (lock := await step(partial(try_lock, layout))) is None:
        if trio.current_time() >= deadline:
            raise await step(partial(busy, layout))
        await trio.sleep(_LOCK_POLL_SECONDS)
    parts = partial(open_parts, layout, create=create, clock=clock, entropy=entropy, checkpoint=checkpoint)
    try:
        try:
            opened = await step(parts)
        except NoSpace:
            # Only an open pool can be emptied.
            await step(partial(spend_reserve, layout))
            opened = await step(parts)
    except BaseException:
        os.close(lock)
        raise
    return DirectoryPool(Ground(opened, lock, clock=clock, entropy=entropy, checkpoint=checkpoint))


class DirectoryPool:
    """A directory pool; implements :class:`imagestore.pools.base.PoolDriver`."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._measured_up_to = 0
        self._generation = 0

    @property
    def name(self) -> str:
        return self._ground.layout.name

    @property
    def intake(self) -> DirectoryIntake:
        return DirectoryIntake(self._ground)

    @property
    def reflink(self) -> bool:
        """Whether copies share blocks here (FICLONE works)."""
        return self._ground.files.reflink

    async def close(self) -> None:
        await self._ground.close()

    # -- whose pool it is -------------------------------------------------------

    async def mark(self) -> Mark | None:
        return await self._ground.look("reading the pool's mark", self._ground.catalog.mark)

    async def set_mark(self, mark: Mark | None) -> None:
        await self._ground.change(lambda step: step.catalog.set_mark(mark))

    # -- looking ----------------------------------------------------------------

    async def list(self) -> Sequence[Dataset]:
        return await self._ground.scan("listing the pool", self._list)

    def _list(self) -> Sequence[Dataset]:
        datasets = list(self._ground.catalog.all())
        if self._ground.measured:
            for index, dataset in enumerate(datasets):
                measured = self._ground.measured.get(dataset.createtxg)
                if measured is not None:
                    datasets[index] = replace(dataset, written=measured[0], referenced=measured[1])
        return datasets

    async def get(self, name: str) -> Dataset:
        ground = self._ground
        return await ground.look("looking up a dataset", lambda: ground.measure(ground.existing(name)))

    async def existing(self, wanted: Sequence[str]) -> Sequence[Dataset]:
        found = []
        for name in wanted:
            with contextlib.suppress(NotFound):
                found.append(await self.get(name))
        return found

    async def changes(self) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return ()  # nobody else can change the catalog

    def trouble(self) -> str:
        return ""

    async def generation(self) -> int:
        # Nobody else can change the catalog: only what was measured differs from what was answered.
        if await self._ground.look("measuring volumes", self._measure_next):
            self._generation += 1
        return self._generation

    def _measure_next(self) -> bool:
        """Measure the next few volumes, for ``list``; whether one has changed by much."""
        volumes = self._ground.catalog.volumes(self._measured_up_to, _MEASURED_AT_ONCE)
        self._measured_up_to = volumes[-1][0] if len(volumes) == _MEASURED_AT_ONCE else 0
        changed = False
        for createtxg, file, baseline, volsize in volumes:
            with contextlib.suppress(FileNotFoundError):
                allocated = self._ground.files.allocated(file)
                written = written_bytes(allocated, baseline, volsize)
                listed, _ = self._ground.measured.get(createtxg, (0, 0))
                if abs(written - listed) >= _MUCH_BYTES:
                    self._ground.measured[createtxg] = (written, allocated)
                    changed = True
        return changed

    async def space(self) -> Space:
        def look() -> Space:
            status = os.statvfs(self._ground.layout.data)
            used = status.f_blocks - status.f_bfree
            available = status.f_bavail * status.f_frsize
            return Space(total=used * status.f_frsize + available, available=available)

        return await self._ground.look("asking for free space", look)

    def mountpoint(self, name: str) -> str:
        return self._ground.tree.path(name)

    def device(self, name: str) -> str:
        return self._ground.tree.path(name)

    async def users(self, name: str) -> Sequence[str]:
        def look() -> Sequence[str]:
            entry = self._ground.existing(name)
            if entry.dataset.kind != "volume":
                return ()
            path = self._ground.files.path(entry.file)
            try:
                return seen_writers(path) if is_open_for_writing(path) else ()
            except FileNotFoundError:  # a data file that is missing has no writer
                return ()

        return await self._ground.work("looking for users of a disk", look)

    async def those_in_use(self, wanted: Sequence[str]) -> Sequence[str]:
        def look() -> Sequence[str]:
            found = {name: self._ground.catalog.find(name) for name in wanted}
            paths = {
                name: self._ground.files.path(entry.file)
                for name, entry in found.items()
                if entry is not None and entry.dataset.kind == "volume"
            }
            written = written_to(paths.values())
            return [name for name, path in paths.items() if path in written]

        return await self._ground.work("looking for users of disks", look)

    # -- changing ---------------------------------------------------------------

    async def create(self, creations: Sequence[Creation]) -> Sequence[Dataset]:
        return await creating.create(self._ground, creations)

    async def snapshot(self, volumes: Sequence[Target], snapshot: str, tags: Tags) -> Sequence[Dataset]:
        return await snapshotting.snapshot(self._ground, volumes, snapshot, tags)

    async def destroy(self, targets: Sequence[Target], *, force: bool = False) -> None:
        await destroying.destroy(self._ground, targets, force)

    async def rollback(
        self, snapshots: Sequence[Target], *, destroy: Sequence[Target], operation: str, force: bool = False
    ) -> Sequence[Dataset]:
        return await destroying.rollback(self._ground, snapshots, destroy, operation, force)

    async def rename(self, target: Target, name: str) -> Sequence[Dataset]:
        return await altering.rename(self._ground, target, name)

    async def resize(self, volume: Target, size: int) -> Dataset:
        return await altering.resize(self._ground, volume, size)

    async def retag(self, changes: Sequence[Retagging]) -> Sequence[Dataset]:
        return await altering.retag(self._ground, changes)

    def retag_commands(
        self, changes: Sequence[Retagging], *, parents: Sequence[NewFilesystem] = ()
    ) -> Sequence[str]:
        made = [f"mkdir {shlex.quote(self._ground.tree.path(parent.name))}" for parent in parents]
        return [*made, *(altering.retag_command(self._ground, change) for change in changes)]

    @property
    def texts(self) -> DirectoryTexts:
        return DirectoryTexts(path=self._ground.tree.path)

    # -- streams ----------------------------------------------------------------

    def send(
        self, snapshot: Target, *, base: Target | None = None, skip: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | memoryview]]:
        return sending.send(self._ground, snapshot, base, skip)

    def send_in_pipe(
        self, snapshot: Target, *, base: Target | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | memoryview]]:
        return self.send(snapshot, base=base)

    async def send_bytes(self, snapshot: Target, *, base: Target | None = None) -> int:
        return await sending.send_bytes(self._ground, snapshot, base)

    def receive_stream(
        self,
        name: str,
        tags: Tags,
        *,
        snapshot_tags: Tags,
        origin: Target | None = None,
        read_only: bool = False,
    ) -> AbstractAsyncContextManager[Receiver]:
        volume = receiving.NewVolume(self._ground, name, tags, snapshot_tags)
        return receiving.receive_stream(self._ground, volume, origin, read_only=read_only)

    def receive_onto(
        self, volume: Target, *, base: Target, snapshot_tags: Tags, operation: str, force: bool = False
    ) -> AbstractAsyncContextManager[Receiver]:
        return receivingonto.receive_onto(self._ground, volume, base, snapshot_tags, operation, force)

    def receive_raw(
        self, name: str, tags: Tags, *, snapshot: str, snapshot_tags: Tags, read_only: bool = False
    ) -> AbstractAsyncContextManager[Receiver]:
        volume = receiving.NewVolume(self._ground, name, tags, snapshot_tags)
        sink = partial(RawSink, snapshot)
        return receiving.receive_new(self._ground, volume, sink, snapshot=snapshot, read_only=read_only)
