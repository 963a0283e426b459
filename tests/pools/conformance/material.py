"""What the suite is made from: contents, real streams, and small steps of its tests."""

import hashlib
import lzma
from pathlib import Path

from imagestore.pools.base import (
    Dataset,
    NewClone,
    PoolDriver,
    Receiver,
    Target,
)
from tests.pools.harness import (
    DISK,
    SNAPSHOT,
    filesystem,
    read,
    volume,
    write,
)

BLOCK = 64 << 10
OLD = b"old".ljust(BLOCK, b"o")
NEW = b"new".ljust(BLOCK, b"n")

S1_GUID = 13992829872530946771
S1_SHA256 = "c1d17f6f3faae42a1298f0255fe125ec56a34f66c8022467536aedacca940d40"
S3_GUID = 8843356174481516119
S3_SHA256 = "31d133884d83489f7e14b8df00e58b2c0ec8cdb903c84e92814c99f04f870359"


def stream(name: str) -> bytes:
    """A send stream that OpenZFS 2.1.11 made."""
    return lzma.decompress((Path(__file__).parent.parent / "streams" / f"{name}.zs.xz").read_bytes())


def other(target: Target) -> Target:
    """The same name, another dataset."""
    return Target(name=target.name, guid=target.guid ^ 1, createtxg=target.createtxg)


async def clone(pool: PoolDriver, origin: Dataset, name: str) -> Dataset:
    (made,) = await pool.create([NewClone(name=name, origin=origin.target, tags=DISK)])
    return made


async def guest(pool: PoolDriver) -> tuple[Dataset, Dataset]:
    """Two disks with OLD in them, snapshotted together as @one, then NEW."""
    await filesystem(pool, "guests")
    await filesystem(pool, "guests/vm")
    disks = [await volume(pool, f"guests/vm/disk-{n}", content=OLD) for n in range(2)]
    await pool.snapshot([disk.target for disk in disks], "one", SNAPSHOT)
    for disk in disks:
        write(pool, disk.name, NEW)
    return disks[0], disks[1]


async def feed_all(receiver: Receiver, data: bytes | bytearray) -> tuple[Dataset, ...]:
    await receiver.feed(data)
    return await receiver.finish()


async def sent(pool: PoolDriver, snapshot: Dataset, base: Dataset | None = None) -> bytes:
    async with pool.send(snapshot.target, base=base.target if base else None) as pieces:
        return b"".join([bytes(piece) async for piece in pieces])


def sha256(pool: PoolDriver, volume: str) -> str:
    return hashlib.sha256(read(pool, volume)).hexdigest()
