"""ZFS pools on sparse files, for tests in the machine."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from imagestore.pools.zfs.devices import wait_for_nodes
from imagestore.pools.zfs.driver import ZfsPool, open_zfs_pool
from imagestore.pools.zfs.ground import NODE_SECONDS
from tests.pools.harness import MIB


def command(*words: str, data: bytes | None = None) -> str:
    """Run a command that must succeed; its output."""
    finished = subprocess.run(words, input=data, capture_output=True)
    assert finished.returncode == 0, f"{' '.join(words)}: {finished.stderr.decode()}"
    return finished.stdout.decode()


@contextmanager
def pool_on_file(name: str, directory: Path, *, size_bytes: int = 4096 * MIB) -> Iterator[str]:
    """A new pool on one sparse file; destroyed at the end, whatever is in it."""
    disk = directory / f"{name}.disk"
    with disk.open("wb") as file:
        file.truncate(size_bytes)
    command("zpool", "create", "-f", "-o", "ashift=12", "-O", "mountpoint=none", name, str(disk))
    command("zpool", "events", "-c")  # an earlier pool may have had that name, and its events are still told
    try:
        yield name
    finally:
        subprocess.run(["zpool", "destroy", "-f", name], check=True)
        disk.unlink()


def device(dataset: str) -> str:
    """The node of a volume that a command made, once udev has made it."""
    path = f"/dev/zvol/{dataset}"
    trio.run(partial(wait_for_nodes, [path], NODE_SECONDS, flickers=True))
    return path


class ZfsHarness:
    """A ZFS pool under the conformance suite."""

    force_overrides = False
    snapshots_open_disks = True
    goes_later = True

    def __init__(self, pool: ZfsPool) -> None:
        self.pool = pool

    async def reopen(self) -> None:
        await self.pool.close()
        self.pool = await open_uncompressed(self.pool.name)


async def open_uncompressed(name: str) -> ZfsPool:
    """The suite counts what it wrote, and what it writes would be compressed to nearly nothing."""
    return await open_zfs_pool(name, compression="off")


async def empty(pool: ZfsPool) -> None:
    """Destroy everything but the root, and take off the mark."""
    if await pool.mark() is not None:
        await pool.set_mark(None)
    await pool.destroy([row.target for row in await pool.list() if row.name])
