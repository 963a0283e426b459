"""The ZFS driver: a pool of OpenZFS, through the ``zfs`` and ``zpool`` commands.

How changes are made is in ``changing``, how content comes and goes in
``arriving`` and ``sending``.  New file systems are never mounted
(``canmount=off``): a channel program refuses those that are; others' are
unmounted before they are destroyed.  New volumes are sparse unless they are to
be thick, lz4, ``volmode=dev`` unless told otherwise, and have a
``volblocksize`` for the pool's geometry.

What differs from a directory pool: nothing overrides an open volume, ``force``
included; snapshots of open disks are always taken; ``list`` shows ``written``
of volumes as of now.  The pool is watched (``watch``) for what others do to it.
"""

import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from imagestore.errors import PoolError
from imagestore.pipes import InPipe
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
from imagestore.pools.zfs import arriving, changing, devices, opening, programs, sending
from imagestore.pools.zfs.commands import CHANGE_SECONDS, Commands
from imagestore.pools.zfs.ground import Compression, VolumeMode, ZfsGround
from imagestore.pools.zfs.programs import Setting
from imagestore.pools.zfs.rows import PREFIX, create_command, retag_commands, unsigned
from imagestore.pools.zfs.texts import ZfsTexts
from imagestore.pools.zfs.watch import Watch

_JOURNAL = f"{PREFIX}journal"
_EPOCH = f"{PREFIX}epoch"

LOCK_SECONDS = 60.0
"""How long a store that starts waits for children of an earlier one."""


async def open_zfs_pool(
    name: str,
    *,
    lock_directory: str = opening.LOCK_DIRECTORY,
    lock_deadline: float = LOCK_SECONDS,
    compression: Compression = "lz4",
    volmode: VolumeMode = "dev",
    change_seconds: float = CHANGE_SECONDS,
    clock: Callable[[], float] = time.time,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> "ZfsPool":
    """Open pool ``name`` and lock it against other stores and children of earlier ones.

    ``lock_deadline``, in seconds, is how long those are waited for, ``change_seconds``
    how long a change may take before the pool counts as stuck;
    ``compression`` and ``volmode`` are those of new volumes.

    Raises:
        ConfigError: ``name`` cannot be a pool.
        PoolBusy: a store or a child of one still has it after ``lock_deadline``.
        PoolError: there is no such pool, it does not work, or there is no OpenZFS.
    """
    lock = await opening.take_lock(name, lock_directory, lock_deadline)
    try:
        commands = Commands(name, lock, change_seconds=change_seconds)
        sector_bytes = await opening.check_pool(commands)
        block_bytes = await opening.block_bytes(commands, sector_bytes)
        watch = Watch(commands)
    except BaseException:
        os.close(lock)
        raise
    ground = ZfsGround(
        commands,
        watch,
        lock,
        block_bytes=block_bytes,
        compression=compression,
        volmode=volmode,
        clock=clock,
        entropy=entropy,
    )
    try:
        await arriving.undo_broken_off(ground)
    except BaseException:
        await ground.close()
        raise
    return ZfsPool(ground)


class ZfsPool:
    """An OpenZFS pool; implements :class:`imagestore.pools.base.PoolDriver`."""

    def __init__(self, ground: ZfsGround) -> None:
        self._ground = ground

    @property
    def name(self) -> str:
        return self._ground.pool

    @property
    def intake(self) -> None:
        return None

    async def close(self) -> None:
        await self._ground.close()

    # -- whose pool it is -------------------------------------------------------

    async def mark(self) -> Mark | None:
        found = await self._ground.properties("", _JOURNAL, _EPOCH)
        if _JOURNAL not in found:
            return None
        epoch = found.get(_EPOCH, "0")
        if not epoch.isdecimal():
            raise PoolError(f"pool {self.name} carries a mark that is not understood: {_EPOCH}={epoch!r}")
        return Mark(journal=found[_JOURNAL], epoch=int(epoch))

    async def set_mark(self, mark: Mark | None) -> None:
        root = await self.get("")
        pairs = [(_JOURNAL, mark.journal if mark else ""), (_EPOCH, str(mark.epoch) if mark else "")]
        with self._ground.changing([""]) as done:
            await programs.set_properties(self._ground.commands, [Setting(root.target, pairs)])
            done()

    # -- looking ----------------------------------------------------------------

    async def list(self) -> Sequence[Dataset]:
        watch = self._ground.watch
        txg = watch.synced()
        rows = await self._ground.under("")
        watch.listed(txg)
        return rows

    async def get(self, name: str) -> Dataset:
        return await self._ground.get(name)

    async def existing(self, wanted: Sequence[str]) -> Sequence[Dataset]:
        return await self._ground.existing(wanted)

    async def generation(self) -> int:
        watch = self._ground.watch
        self._ground.commands.check_alive()
        watch.take(await trio.to_thread.run_sync(watch.poll))
        return watch.generation

    async def changes(self) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return self._ground.watch.changes()

    def trouble(self) -> str:
        return self._ground.commands.trouble()

    async def space(self) -> Space:
        found = await self._ground.properties("", "used", "available")
        used, available = unsigned(found["used"]), unsigned(found["available"])
        return Space(total=used + available, available=available)

    def mountpoint(self, name: str) -> str:
        return devices.mountpoint(self._ground.full(name))

    def device(self, name: str) -> str:
        return self._ground.device(name)

    async def users(self, name: str) -> Sequence[str]:
        row = await self.get(name)
        return await self._ground.users(name) if row.kind == "volume" else ()

    async def those_in_use(self, wanted: Sequence[str]) -> Sequence[str]:
        paths = {self.device(name): name for name in wanted}
        used = await trio.to_thread.run_sync(devices.used, tuple(paths))
        return [name for path, name in paths.items() if path in used]

    # -- changing ---------------------------------------------------------------

    async def create(self, creations: Sequence[Creation]) -> Sequence[Dataset]:
        return await changing.create(self._ground, creations)

    async def snapshot(self, volumes: Sequence[Target], snapshot: str, tags: Tags) -> Sequence[Dataset]:
        return await changing.snapshot(self._ground, volumes, snapshot, tags)

    async def destroy(self, targets: Sequence[Target], *, force: bool = False) -> None:
        await changing.destroy(self._ground, targets)

    async def rollback(
        self, snapshots: Sequence[Target], *, destroy: Sequence[Target], operation: str, force: bool = False
    ) -> Sequence[Dataset]:
        return await changing.rollback(self._ground, snapshots, destroy, operation)

    async def rename(self, target: Target, name: str) -> Sequence[Dataset]:
        return await changing.rename(self._ground, target, name)

    async def resize(self, volume: Target, size: int) -> Dataset:
        return await changing.resize(self._ground, volume, size)

    async def retag(self, changes: Sequence[Retagging]) -> Sequence[Dataset]:
        return await changing.retag(self._ground, changes)

    def retag_commands(
        self, changes: Sequence[Retagging], *, parents: Sequence[NewFilesystem] = ()
    ) -> Sequence[str]:
        native = ["-o", "canmount=off", "-o", f"volmode={self._ground.volmode}"]
        made = [create_command(parent, self.name, native) for parent in parents]
        return [*made, *(command for change in changes for command in retag_commands(change, self.name))]

    @property
    def texts(self) -> ZfsTexts:
        return ZfsTexts(
            pool=self.name,
            compression=self._ground.compression,
            volmode=self._ground.volmode,
            block_bytes=self._ground.block_bytes,
        )

    # -- streams ----------------------------------------------------------------

    def send(
        self, snapshot: Target, *, base: Target | None = None, skip: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | memoryview]]:
        return sending.send(self._ground, snapshot, base, skip)

    def send_in_pipe(
        self, snapshot: Target, *, base: Target | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[InPipe]]:
        return sending.send_in_pipe(self._ground, snapshot, base)

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
        return arriving.receive_stream(self._ground, name, tags, snapshot_tags, origin)

    def receive_onto(
        self, volume: Target, *, base: Target, snapshot_tags: Tags, operation: str, force: bool = False
    ) -> AbstractAsyncContextManager[Receiver]:
        return arriving.receive_onto(self._ground, volume, base, snapshot_tags, operation, force)

    def receive_raw(
        self, name: str, tags: Tags, *, snapshot: str, snapshot_tags: Tags, read_only: bool = False
    ) -> AbstractAsyncContextManager[Receiver]:
        return arriving.receive_raw(self._ground, name, tags, snapshot, snapshot_tags)
