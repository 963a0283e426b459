"""The ground that every change of a ZFS pool stands on.

Owns an open pool's commands, its lock, its watch, and what all changes share:
looking a dataset up by name and by identity, trying again what is busy,
waiting for device nodes.  Knows nothing of what a change is.
"""

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, Literal, TypeVar

import trio

from imagestore import names
from imagestore.errors import AlreadyExists, Held, InUse, InvalidArgument, NotFound, PoolError
from imagestore.pools.base import Dataset, Identity, Target
from imagestore.pools.zfs import devices
from imagestore.pools.zfs.commands import Commands
from imagestore.pools.zfs.failures import in_use, locked, relative
from imagestore.pools.zfs.rows import FEW, GET, LIST, LOOK, all_rows, listed_rows, rows
from imagestore.pools.zfs.watch import Watch

NODE_SECONDS = 30.0
"""How long a device node may take to appear."""

HIDINGS = 3
HIDING_SECONDS = 2.0
"""How often a volume's node is told to go, and how long each time it is waited for."""

BUSY_SECONDS = 10.0
"""How long "busy" is tried again for when no process is seen: udev, blkid and LVM look at new volumes."""

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5

SECTOR_BYTES = 512
MAX_SIZE_BYTES = (1 << 63) - SECTOR_BYTES

Compression = Literal["lz4", "off"]

VolumeMode = Literal["dev", "full", "geom", "none", "default"]
"""How the host shows a volume: its node alone; with its partitions (``full``, once ``geom``); not at
all; or as the kernel module's parameter says."""

COMPRESSIONS: Final[dict[Compression, int]] = {"lz4": 15, "off": 2}
VOLMODES: Final[dict[VolumeMode, int]] = {"default": 0, "full": 1, "geom": 1, "dev": 2, "none": 3}
"""Values of native properties, as commands and as libzfs_core have them."""

_PROPERTIES: Final = """
args = ...
argv = args["argv"]
local found = {}
if zfs.exists(argv[1]) then
    for i = 2, #argv do
        local value, source = zfs.get_prop(argv[1], argv[i])
        if value ~= nil and (source == argv[1] or string.find(argv[i], ":", 1, true) == nil) then
            found[argv[i]] = tostring(value)
        end
    end
end
return found
"""

T = TypeVar("T")


class ZfsGround:
    """An open pool.  ``block_bytes`` is the volblocksize of new volumes; ``sending`` counts, by
    identity, the sends that keep a snapshot."""

    def __init__(
        self,
        commands: Commands,
        watch: Watch,
        lock: int,
        *,
        block_bytes: int,
        compression: Compression,
        volmode: VolumeMode,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.pool = commands.pool
        self.watch = watch
        self.block_bytes = block_bytes
        self.compression = compression
        self.volmode = volmode
        self.clock = clock
        self.entropy = entropy
        self.sending: Counter[Identity] = Counter()
        self._commands = commands
        self._lock: int | None = lock

    async def close(self) -> None:
        lock, self._lock = self._lock, None
        if lock is None:
            return
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self.watch.close)
        # Not unlocked: a child that still runs keeps it.
        os.close(lock)

    @property
    def commands(self) -> Commands:
        """Raises PoolError when the pool is closed."""
        if self._lock is None:
            raise PoolError(f"pool {self.pool} is closed")
        return self._commands

    def full(self, name: str) -> str:
        return names.full(name, self.pool)

    def device(self, name: str) -> str:
        return devices.node(self.pool, name)

    def changing(self, names: Iterable[str]) -> AbstractContextManager[Callable[[], None]]:
        """While the store itself changes ``names``; see ``Watch.changing``."""
        return self.watch.changing(list(names))

    # -- looking ----------------------------------------------------------------

    async def look(self, *words: str) -> str:
        return await self.commands.look(*words)

    async def under(self, name: str) -> Sequence[Dataset]:
        """A dataset, its snapshots, and all that is in it, in listing order. Raises NotFound."""
        text = await self.look(*LIST, self.full(name))
        found = await trio.to_thread.run_sync(listed_rows, text, self.pool)
        if not found:
            raise NotFound(detail=f"{name}: no such dataset")
        return found

    async def existing(self, wanted: Sequence[str]) -> Sequence[Dataset]:
        """The rows of those of ``wanted`` that exist, in listing order."""
        if not wanted:
            return ()
        asked = [self.full(name) for name in dict.fromkeys(wanted)]
        if len(asked) <= FEW:
            return rows(await self.commands.program(LOOK, asked, changes=False), self.pool)
        text = await self.commands.look(*GET, *asked, may_lack=True)
        return await trio.to_thread.run_sync(listed_rows, text, self.pool)

    async def received(self, wanted: Sequence[str]) -> Sequence[Target]:
        """Datasets on their way in, which nothing else shows."""
        answer = await self.commands.program(LOOK, [self.full(name) for name in wanted], changes=False)
        return [row.target for row in all_rows(answer, self.pool)]

    async def rows(self, wanted: Sequence[str]) -> Sequence[Dataset]:
        """Rows in the order of ``wanted``. Raises NotFound."""
        found = {row.name: row for row in await self.existing(wanted)}
        missing = [name for name in wanted if name not in found]
        if missing:
            raise NotFound(detail=f"{', '.join(missing)}: no such dataset")
        return [found[name] for name in wanted]

    async def get(self, name: str) -> Dataset:
        (row,) = await self.rows([name])
        return row

    async def meant(self, targets: Sequence[Target]) -> Sequence[Dataset]:
        """The rows of ``targets``. Raises NotFound if one is another dataset now."""
        found = await self.rows([target.name for target in targets])
        for target, row in zip(targets, found, strict=True):
            if row.identity != target.identity:
                raise NotFound(detail=f"{target.name} is another dataset than was meant")
        return found

    async def users(self, name: str) -> Sequence[str]:
        """Who has the volume open for writing."""
        return await trio.to_thread.run_sync(devices.users, self.device(name))

    async def properties(self, name: str, *wanted: str) -> dict[str, str]:
        """Properties of one dataset as a channel program has them; those that are not there are left out.

        Of user properties only what stands on the dataset itself.
        """
        answer = await self.commands.program(_PROPERTIES, [self.full(name), *wanted], changes=False)
        if not isinstance(answer, dict):
            raise PoolError(f"a look at {name} gave an answer that is not understood: {answer!r}")
        return {key: value for key, value in answer.items() if isinstance(value, str)}

    async def has_volmode(self, parent: str) -> bool:
        """Whether what is made in ``parent`` has the right ``volmode`` of itself.

        Setting it makes a volume's node come, go and come again; inheriting it does not.
        """
        found = (await self.properties(parent, "volmode")).get("volmode")
        return found == ("full" if self.volmode == "geom" else self.volmode)

    # -- changing ---------------------------------------------------------------

    async def change(self, *words: str) -> str:
        """Run a command that changes the pool; see ``Commands.change``."""
        return await self.commands.change(*words)

    async def call(self, doing: str, name: str, function: Callable[[], int]) -> None:
        """Change the pool through libzfs_core; see ``Commands.call``."""
        await self.commands.call(doing, name, function)

    async def rename(self, volume: str, name: str) -> None:
        """Give a volume another name; whatever its nodes. Raises AlreadyExists, NotFound."""
        rename = partial(self.commands.core.rename, self.full(volume), self.full(name))
        await self.commands.call("renaming to", name, rename)

    async def retry_busy(self, volumes: Sequence[str], change: Callable[[], Awaitable[T]]) -> T:
        """Try again while nobody can be named that has one of ``volumes`` open.

        Raises:
            InUse: naming who has it, or at the end of the bound nobody.
        """
        deadline = trio.current_time() + BUSY_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await change()
            except InUse:
                for name in volumes:
                    if "@" not in name and (users := await self.users(name)):
                        raise in_use(name, users) from None
                if trio.current_time() >= deadline:
                    raise
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def check_not_sending(self, targets: Iterable[Target]) -> None:
        """Raises Held, naming those of ``targets`` that are being sent."""
        kept = sorted(target.name for target in targets if self.sending[target.identity] > 0)
        if kept:
            raise Held.named(kept)

    async def wait_for_nodes(self, volumes: Iterable[str], *, flickers: bool = False) -> None:
        """See ``devices.wait_for_nodes``. Volumes that are not to be shown have none."""
        if devices.are_shown(self.volmode):
            paths = [self.device(name) for name in volumes]
            await devices.wait_for_nodes(paths, NODE_SECONDS, flickers=flickers)
        elif flickers:
            await self._hide(volumes)

    async def _hide(self, volumes: Iterable[str]) -> None:
        """Until they have no nodes, which appear before the mode is set that was given with a volume.

        OpenZFS removes none that is open, and udev looks into each: such a one goes when the mode is
        set again.  One that stays harms nobody.
        """
        left = {self.device(name): name for name in volumes}
        for _ in range(HIDINGS):
            shown = await devices.wait_until_hidden(list(left), HIDING_SECONDS)
            if not shown:
                return
            left = {path: left[path] for path in shown}
            for name in left.values():
                await self.change("zfs", "set", f"volmode={self.volmode}", self.full(name))

    async def check_unlocked(self, volumes: Sequence[str]) -> None:
        """Raises PoolError for one that is encrypted without its key: it can be cloned, and has no node."""
        full = [self.full(name) for name in volumes]
        text = await self.look("zfs", "get", "-Hp", "-o", "name,value", "keystatus", *full)
        for line in text.splitlines():
            name, status = line.split("\t")
            if status == "unavailable":
                raise locked(relative(name, self.pool), self.pool)

    async def wait_until_gone(self, volumes: Iterable[str]) -> None:
        paths = [self.device(name) for name in volumes if "@" not in name]
        await devices.wait_until_gone(paths, NODE_SECONDS)


async def uncancelled(function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """What was begun is brought to its end, whatever is cancelled meanwhile."""
    result: list[T] = []
    with trio.CancelScope(shield=True):
        result.append(await function(*arguments))
    return result[0]


def check_name(name: str, pool: str) -> None:
    """Raises AlreadyExists (the root), InvalidArgument unless a dataset can be made as ``name``."""
    if name == "":
        raise AlreadyExists.named(name)
    if "@" in name:
        raise InvalidArgument(detail=f"{name}: snapshots are not made like this")
    if len(names.full(name, pool).encode()) > names.MAX_NAME_BYTES:
        raise InvalidArgument(
            detail=f"{name}: with the pool's name it is over {names.MAX_NAME_BYTES} bytes long"
        )


def check_size(size: int) -> None:
    """Raises InvalidArgument unless ``size``, in bytes, can be a volume's."""
    if size <= 0 or size % SECTOR_BYTES or size > MAX_SIZE_BYTES:
        raise InvalidArgument(
            detail=f"a volume's size is a multiple of {SECTOR_BYTES} from {SECTOR_BYTES} to {MAX_SIZE_BYTES}"
            f" bytes, not {size}"
        )
