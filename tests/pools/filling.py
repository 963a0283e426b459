"""A child that changes a directory pool on a disk without a byte of room.

``python -m tests.pools.filling POOL SEED``: opens a pool of its own, fills the
file system around it, and goes on at random: every change happens, or is
refused with NoSpace and has not happened.  At the end there is room again, and
everything works.  Exits 0 if all that was so; run in a process of its own,
since a file system without room answers a store to a mapping with SIGBUS.
"""

import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import trio

from imagestore.errors import NoSpace
from imagestore.pools.base import NewClone, NewFilesystem, NewVolume
from imagestore.pools.directory.driver import DirectoryPool, open_directory_pool
from tests.pools.harness import DISK, MIB, PARENT, SNAPSHOT, VOLUME, listed, snapshot, volume

ACTIONS = ("create", "create", "snapshot", "destroy", "reopen", "refill")
STEPS = 80
GUESTS = 20


def fill(directory: Path) -> None:
    """Take every byte that the file system still gives: in a long file, then in small ones."""
    directory.mkdir(exist_ok=True)
    with (directory / "long").open("ab", buffering=0) as file:
        for size in (MIB, 4096, 512):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass
            with suppress(OSError):
                os.fsync(file.fileno())
    # Where small files live with the names, the long one has left room for them.
    with suppress(OSError):
        for number in range(len(list(directory.iterdir())), 1 << 20):
            (directory / str(number)).write_bytes(b"x" * 1500)
    os.sync()


class Full:
    """A pool on a full disk, and what must be in it; ``outcomes`` counts what came of the actions."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.ballast = path.parent / "ballast"
        self.random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.names: set[str] = set()
        self.serial = 0

    async def run(self) -> None:
        self.pool = await open_directory_pool(str(self.path), create=True)
        await snapshot(self.pool, await volume(self.pool, "image", size=MIB, content=b"i" * MIB), "s")
        for _ in range(GUESTS):
            await self.create()
        self.names = set(await listed(self.pool))
        fill(self.ballast)
        for _ in range(STEPS):
            await self.attempt(self.random.choice(ACTIONS))
        assert self.outcomes["create refused"], "the disk was never full"
        shutil.rmtree(self.ballast)
        os.sync()
        for action in (self.reopen, self.create, self.snapshot, self.destroy, self.reopen):
            await action()
            await self.check()
        await self.pool.close()

    async def attempt(self, action: str) -> None:
        """Perform it. Refused, it must have changed nothing."""
        perform: Callable[[], Awaitable[None]] = getattr(self, action)
        try:
            await perform()
        except NoSpace:
            action = f"{action} refused"
        self.outcomes[action] += 1
        await self.check()

    async def check(self) -> None:
        assert set(await listed(self.pool)) == self.names

    async def create(self) -> None:
        self.serial += 1
        guest = f"g{self.serial}"
        origin = await self.pool.get("image@s")
        made = await self.pool.create(
            [
                NewFilesystem(name=guest, tags=PARENT),
                NewClone(name=f"{guest}/disk", origin=origin.target, tags=DISK),
                NewVolume(name=f"{guest}/blank", size=MIB, tags=VOLUME),
            ]
        )
        self.names.update(dataset.name for dataset in made)

    async def snapshot(self) -> None:
        self.serial += 1
        disks = [await self.pool.get(name) for name in sorted(self.names) if name.endswith("/disk")]
        if disks:
            chosen = self.random.sample(disks, min(3, len(disks)))
            made = await self.pool.snapshot([d.target for d in chosen], f"s{self.serial}", SNAPSHOT)
            self.names.update(dataset.name for dataset in made)

    async def destroy(self) -> None:
        guests = sorted(name for name in self.names if name.startswith("g") and "/" not in name)
        if guests:
            guest = self.random.choice(guests)
            below = [d for d in await self.pool.list() if d.name == guest or d.name.startswith(f"{guest}/")]
            await self.pool.destroy([dataset.target for dataset in below])
            self.names.difference_update(dataset.name for dataset in below)

    async def reopen(self) -> None:
        await self.pool.close()
        self.pool = await self.opened()

    async def opened(self) -> DirectoryPool:
        """The pool, opened; if that is refused, once more with some room."""
        try:
            return await open_directory_pool(str(self.path), create=False)
        except NoSpace:
            self.outcomes["open refused"] += 1
        os.truncate(self.ballast / "long", (self.ballast / "long").stat().st_size // 2)
        os.sync()
        return await open_directory_pool(str(self.path), create=False)

    async def refill(self) -> None:
        await trio.to_thread.run_sync(fill, self.ballast)


async def main(*arguments: str) -> None:
    path, seed = arguments
    full = Full(Path(path), int(seed))
    await full.run()
    print(*(f"{count} {name}" for name, count in sorted(full.outcomes.items())), sep=", ")


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:3])
