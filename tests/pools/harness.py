"""What the conformance suite needs of a driver under test, beside the driver itself."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from imagestore.pools.base import Dataset, NewFilesystem, NewVolume, PoolDriver, Tags

MIB = 1 << 20

PARENT = Tags(op="op-1", kind="parent")
VOLUME = Tags(op="op-1", kind="volume")
DISK = Tags(op="op-2", kind="disk", guest="vm", disk="0", image="a", sha256="5" * 64)
SNAPSHOT = Tags(op="op-3", kind="snapshot")

_HOLD_OPEN = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR)
print("open", flush=True)
while line := sys.stdin.readline():
    os.pwrite(file, line.strip().encode(), 0)
    os.fsync(file)
    print("written", flush=True)
"""


class Harness(Protocol):
    """A fresh, empty pool.

    ``force_overrides`` tells whether a disk in use can be destroyed by force,
    ``snapshots_open_disks`` whether one can be snapshotted, ``goes_later`` whether what
    was destroyed goes in its own time, and tells so.
    """

    force_overrides: bool
    snapshots_open_disks: bool
    goes_later: bool

    @property
    def pool(self) -> PoolDriver: ...

    async def reopen(self) -> None:
        """Close the pool and open it again; ``pool`` is then another driver."""


class Writer:
    """A process that has a disk open for writing."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def write(self, text: str) -> None:
        """Write at the disk's beginning; returns when it is on the disk."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "written\n"


@contextmanager
def opened_for_writing(path: str) -> Iterator[Writer]:
    """A child process has ``path`` open for writing."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD_OPEN, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield Writer(process)
    finally:
        process.communicate()


async def filesystem(pool: PoolDriver, name: str) -> Dataset:
    (made,) = await pool.create([NewFilesystem(name=name, tags=PARENT)])
    return made


async def volume(pool: PoolDriver, name: str, *, size: int = MIB, content: bytes = b"") -> Dataset:
    (made,) = await pool.create([NewVolume(name=name, size=size, tags=VOLUME)])
    write(pool, name, content)
    return made


async def snapshot(pool: PoolDriver, dataset: Dataset, name: str) -> Dataset:
    (made,) = await pool.snapshot([dataset.target], name, SNAPSHOT)
    return made


async def listed(pool: PoolDriver) -> list[str]:
    return [dataset.name for dataset in await pool.list()]


def write(pool: PoolDriver, name: str, content: bytes, *, offset: int = 0) -> None:
    """Write as a guest does that wants it in a snapshot: flushed.

    Closing a block device flushes it only if nobody else, udev for one, has it open.
    """
    with open(pool.device(name), "r+b", buffering=0) as device:
        device.seek(offset)
        device.write(content)
        os.fsync(device.fileno())


def read(pool: PoolDriver, name: str, length: int = -1, *, offset: int = 0) -> bytes:
    with open(pool.device(name), "rb") as device:
        device.seek(offset)
        return device.read(length)
