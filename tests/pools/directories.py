"""Directory pools for tests: a harness, and file systems of every kind on loop devices."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagestore.pools.base import PoolDriver
from imagestore.pools.directory.driver import DirectoryPool, open_directory_pool


class DirectoryHarness:
    """A directory pool under the conformance suite."""

    force_overrides = True
    goes_later = False

    def __init__(self, path: Path, pool: DirectoryPool) -> None:
        self.path = path
        self.pool = pool
        self.snapshots_open_disks = pool.reflink

    async def reopen(self) -> None:
        await self.pool.close()
        self.pool = await open_directory_pool(str(self.path), create=False)

    def data_files(self) -> set[str]:
        return {file.name for file in (self.path / ".imagestore" / "data").iterdir()}


async def open_harness(path: Path) -> DirectoryHarness:
    return DirectoryHarness(path, await open_directory_pool(str(path), create=True))


@contextmanager
def loop_mount(directory: Path, kind: str, size_bytes: int) -> Iterator[Path]:
    """A file system of ``kind`` (xfs, btrfs, ext4) in a file, mounted. Needs root."""
    image, mount = directory / f"{kind}.img", directory / kind
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def as_driver(pool: DirectoryPool) -> PoolDriver:
    """The type checker's proof that the driver has the protocol."""
    return pool
