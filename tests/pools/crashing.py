"""A child that changes a directory pool and kills itself at a named point.

``python -m tests.pools.crashing POOL ACTION POINT``: opens the pool that
:func:`prepare` made, performs the action, and sends itself SIGKILL at the
point.  Exits 0 if the point was never reached.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable

import trio
from msgspec.structs import replace

from imagestore.pools.base import Dataset, NewClone, NewFilesystem, NewVolume, PoolDriver
from imagestore.pools.directory.creating import BLOCK_SIZE_BYTES
from imagestore.pools.directory.driver import DirectoryPool, open_directory_pool
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.writer import write_stream
from tests.pools.harness import DISK, MIB, PARENT, SNAPSHOT, VOLUME, snapshot, volume, write

SIZE = 8 * MIB
OLD = b"old".ljust(MIB, b"o")
NEW = b"new".ljust(MIB, b"n")


async def prepare(pool: PoolDriver) -> None:
    """``g/disk`` is a clone of ``image@s``; it held OLD at @one, NEW at @two and since."""
    image = await volume(pool, "image", size=SIZE)
    origin = await snapshot(pool, image, "s")
    _, disk = await pool.create(
        [
            NewFilesystem(name="g", tags=PARENT),
            NewClone(name="g/disk", origin=origin.target, tags=DISK),
        ]
    )
    write(pool, disk.name, OLD)
    await snapshot(pool, disk, "one")
    write(pool, disk.name, NEW)
    await snapshot(pool, disk, "two")


async def create(pool: DirectoryPool) -> None:
    origin = await pool.get("g/disk@one")
    await pool.create(
        [
            NewFilesystem(name="h", tags=PARENT),
            NewClone(name="h/disk", origin=origin.target, tags=DISK),
            NewVolume(name="h/blank", size=SIZE, tags=DISK),
        ]
    )


async def take(pool: DirectoryPool) -> None:
    disk, image = await pool.get("g/disk"), await pool.get("image")
    await pool.snapshot([disk.target, image.target], "three", SNAPSHOT)


async def destroy(pool: DirectoryPool) -> None:
    await pool.destroy([dataset.target for dataset in await pool.list() if dataset.name.startswith("g")])


async def rollback(pool: DirectoryPool) -> None:
    one, two = await pool.get("g/disk@one"), await pool.get("g/disk@two")
    await pool.rollback([one.target], destroy=[two.target], operation="op-9")


async def rename(pool: DirectoryPool) -> None:
    await pool.rename((await pool.get("g")).target, "h")


async def resize(pool: DirectoryPool) -> None:
    await pool.resize((await pool.get("g/disk")).target, 2 * SIZE)


async def receive(pool: DirectoryPool) -> None:
    async with pool.receive_raw("g/new", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
        await receiver.feed(OLD * 3)
        await receiver.finish()


async def receive_onto(pool: DirectoryPool) -> None:
    """A stream from @two brings @three, which has OLD again."""
    disk, two = await pool.get("g/disk"), await pool.get("g/disk@two")
    base = SnapshotInfo(
        name="x@two", guid=two.guid, volsize=SIZE, volblocksize=BLOCK_SIZE_BYTES, creation_seconds=1
    )
    three = replace(base, name="x@three", guid=333, from_guid=two.guid)
    with tempfile.TemporaryFile() as content, open(pool.device("g/disk"), "rb") as before:
        content.write(OLD)
        content.flush()
        stream = b"".join(
            map(bytes, write_stream(content.fileno(), three, base=base, base_fd=before.fileno()))
        )
    async with pool.receive_onto(
        disk.target, base=two.target, snapshot_tags=SNAPSHOT, operation="op-9"
    ) as receiver:
        await receiver.feed(stream)
        await receiver.finish()


async def look(pool: DirectoryPool) -> list[Dataset]:
    return list(await pool.list())


ACTIONS: dict[str, Callable[[DirectoryPool], Awaitable[object]]] = {
    "create": create,
    "snapshot": take,
    "destroy": destroy,
    "rollback": rollback,
    "rename": rename,
    "resize": resize,
    "receive": receive,
    "receive onto": receive_onto,
    "open": look,
}


async def main(*arguments: str) -> None:
    path, action, fatal_point = arguments
    armed = action == "open"

    def checkpoint(point: str) -> None:
        if armed and point == fatal_point:
            os.kill(os.getpid(), signal.SIGKILL)

    pool = await open_directory_pool(path, create=False, checkpoint=checkpoint)
    armed = True
    await ACTIONS[action](pool)
    await pool.close()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:4])
