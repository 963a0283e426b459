"""Volumes of a ZFS pool: thick and sparse, their modes, and file systems that others have mounted."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from imagestore.actors.zpool import Create, ZpoolActor
from imagestore.errors import InUse, NoSpace
from imagestore.pools.base import NewClone, NewFilesystem, NewVolume
from imagestore.pools.zfs.driver import ZfsPool, open_zfs_pool
from imagestore.pools.zfs.ground import VolumeMode
from tests.pools.harness import DISK, MIB, PARENT, VOLUME, listed, snapshot, volume, write
from tests.zfs.pools import command, empty, pool_on_file

pytestmark = pytest.mark.zfs


@pytest.fixture(scope="module")
def pool_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pool_on_file("tank", tmp_path_factory.mktemp("zfs"), size_bytes=1024 * MIB) as name:
        yield name


@asynccontextmanager
async def opened(name: str, volmode: VolumeMode = "dev") -> AsyncIterator[ZfsPool]:
    pool = await open_zfs_pool(name, volmode=volmode)
    try:
        yield pool
    finally:
        await empty(pool)
        await pool.close()


@pytest.fixture
async def pool(pool_name: str) -> AsyncIterator[ZfsPool]:
    async with opened(pool_name) as pool:
        yield pool


def got(dataset: str, *properties: str) -> list[str]:
    return command("zfs", "get", "-Hpo", "value", ",".join(properties), dataset).split()


async def test_a_thick_volume_reserves_what_zfs_create_would(pool: ZfsPool) -> None:
    (made,) = await pool.create([NewVolume(name="v", size=256 * MIB, tags=VOLUME, thick=True)])
    command("zfs", "create", "-V", "256M", "-o", "volblocksize=16k", "tank/theirs")
    reserved = got("tank/theirs", "refreservation")
    assert got("tank/v", "refreservation") == reserved != [str(256 * MIB)]
    assert not made.sparse
    command("zfs", "destroy", "tank/theirs")
    await pool.resize(made.target, 300 * MIB)
    command("zfs", "create", "-s", "-V", "256M", "-o", "volblocksize=16k", "tank/theirs")
    assert got("tank/theirs", "refreservation") == ["0"]
    assert int(got("tank/v", "refreservation")[0]) > 300 * MIB


async def test_thick_and_sparse_are_counted_as_zfs_counts_them(pool: ZfsPool) -> None:
    zpool = ZpoolActor(pool)
    await zpool.refresh()

    def free() -> int:
        available = int(got("tank", "available")[0])
        return zpool.ledger.free_bytes(available, zpool.view.promised_bytes)

    at_first = free()
    thick = NewVolume(name="thick", size=64 * MIB, tags=VOLUME, thick=True)
    zpool.ledger.set("op-1", 64 * MIB)
    rows = await zpool._drive(Create(creations=(thick,)))
    zpool.ledger.release("op-1")
    used = int(got("tank/thick", "used")[0])
    assert rows[0].sparse is False
    assert zpool.view.promised_bytes == 0
    assert (await zpool.space()).available == free()
    assert at_first - free() - used < MIB, "once, as what it has set aside"
    sparse = NewVolume(name="sparse", size=64 * MIB, tags=DISK)
    await zpool._drive(Create(creations=(sparse,)))
    promised = 64 * MIB - int(got("tank/sparse", "written")[0])
    assert zpool.view.promised_bytes == promised
    assert (await zpool.space()).available == int(got("tank", "available")[0]) - promised


async def test_the_snapshot_of_a_thick_volume_costs_what_it_refers_to(pool: ZfsPool) -> None:
    (made,) = await pool.create([NewVolume(name="v", size=64 * MIB, tags=VOLUME, thick=True)])
    write(pool, "v", os.urandom(16 * MIB))
    before = (await pool.space()).available
    await snapshot(pool, await pool.get("v"), "s")
    assert before - (await pool.space()).available >= 15 * MIB
    assert (await pool.get("v")).identity == made.identity
    room = (await pool.space()).available
    (big,) = await pool.create([NewVolume(name="big", size=room - 64 * MIB, tags=VOLUME, thick=True)])
    write(pool, "big", os.urandom(80 * MIB))
    with pytest.raises(NoSpace):
        await snapshot(pool, await pool.get("big"), "s")
    assert await listed(pool) == ["", "big", "v", "v@s"]
    assert big.volsize == room - 64 * MIB


@pytest.mark.parametrize(
    ("mode", "said"), [("full", "full"), ("geom", "full"), ("default", "default"), ("none", "none")]
)
async def test_new_volumes_have_the_mode_that_is_set(pool_name: str, mode: VolumeMode, said: str) -> None:
    async with opened(pool_name, mode) as pool:
        await check_mode(pool, mode, said)


async def check_mode(pool: ZfsPool, mode: VolumeMode, said: str) -> None:
    made = await pool.create(
        [
            NewFilesystem(name="g", tags=PARENT),
            NewVolume(name="g/v", size=8 * MIB, tags=DISK),
            NewVolume(name="w", size=8 * MIB, tags=VOLUME),
        ]
    )
    (taken,) = await pool.snapshot([made[2].target], "s", VOLUME)
    await pool.create([NewClone(name="g/c", origin=taken.target, tags=DISK)])
    paths = [pool.device(name) for name in ("g/v", "w", "g/c")]
    for name, path in zip(("g/v", "w", "g/c"), paths, strict=True):
        assert got(f"tank/{name}", "volmode") == [said]
        assert os.path.exists(path) is (mode != "none")


async def test_a_file_system_that_is_mounted_is_destroyed_unless_it_is_in_use(
    pool: ZfsPool, tmp_path: Path
) -> None:
    command("zfs", "create", "-o", f"mountpoint={tmp_path}/a b", "tank/theirs")
    command("zfs", "create", "tank/theirs/below")
    await volume(pool, "theirs/below/v")
    assert pool.mountpoint("theirs") == f"{tmp_path}/a b"
    assert pool.mountpoint("theirs/below") == f"{tmp_path}/a b/below"
    rows = {row.name: row for row in await pool.list()}
    targets = [rows[name].target for name in ("theirs/below/v", "theirs", "theirs/below")]
    with open(tmp_path / "a b" / "file", "w"), pytest.raises(InUse):
        await pool.destroy(targets)
    assert pool.mountpoint("theirs/below") == f"{tmp_path}/a b/below", "it is mounted again"
    await pool.destroy(targets)
    assert await listed(pool) == [""]
    assert pool.mountpoint("theirs") == ""
