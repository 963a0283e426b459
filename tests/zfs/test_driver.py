"""What the ZFS driver owes beyond the conformance suite: other hands, remains, locks, pools in trouble."""

import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from imagestore.errors import Held, InUse, NoSpace, NotFound, PoolBusy, PoolError
from imagestore.pools.base import NO_TAGS, NewFilesystem, NewVolume, Receiver, Target
from imagestore.pools.zfs.driver import ZfsPool, open_zfs_pool
from imagestore.pools.zfs.opening import block_bytes_for, data_disks
from imagestore.pools.zfs.rows import FEW
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.writer import write_stream
from tests.pools.harness import DISK, MIB, PARENT, SNAPSHOT, VOLUME, filesystem, listed, snapshot, volume
from tests.zfs.pools import command, empty, pool_on_file

pytestmark = pytest.mark.zfs


@pytest.fixture(scope="module")
def pool_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pool_on_file("tank", tmp_path_factory.mktemp("zfs")) as name:
        yield name


@pytest.fixture
async def pool(pool_name: str) -> AsyncIterator[ZfsPool]:
    pool = await open_zfs_pool(pool_name)
    yield pool
    await empty(pool)
    await pool.close()


def full_stream(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    info = SnapshotInfo(name="far/v@s", guid=0xFEED, volsize=len(content), volblocksize=8192)
    with path.open("rb") as source:
        return b"".join(bytes(piece) for piece in write_stream(source.fileno(), info))


async def feed_all(receiver: Receiver, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        await receiver.feed(piece)
    await receiver.finish()


async def test_what_others_make_below_ours_does_not_carry_our_tags(pool: ZfsPool) -> None:
    await filesystem(pool, "guests")
    await volume(pool, "guests/v")
    command("zfs", "snapshot", "tank/guests/v@cron")
    command("zfs", "create", "-s", "-V", "1M", "tank/guests/foreign")
    rows = {row.name: row for row in await pool.list()}
    assert (rows["guests"].tags, rows["guests/v"].tags) == (PARENT, VOLUME)
    assert rows["guests/v@cron"].tags == NO_TAGS == rows["guests/foreign"].tags
    for name in ("guests/v@cron", "guests/foreign"):
        assert (await pool.get(name)).tags == NO_TAGS


async def test_tags_that_came_with_a_stream_are_not_ours(pool: ZfsPool) -> None:
    await snapshot(pool, await volume(pool, "v"), "s")
    package = subprocess.run(["zfs", "send", "-p", "tank/v@s"], capture_output=True, check=True).stdout
    command("zfs", "receive", "-u", "tank/copy", data=package)
    assert command("zfs", "get", "-Ho", "source", "imagestore:op", "tank/copy").strip() == "received"
    assert (await pool.get("copy")).tags == (await pool.get("copy@s")).tags == NO_TAGS


async def test_new_volumes_are_as_they_should_be(pool: ZfsPool) -> None:
    await pool.create(
        [
            NewFilesystem(name="g", tags=PARENT),
            NewVolume(name="g/v", size=8 * MIB, tags=DISK),
            NewVolume(name="w", size=MIB + 4096, tags=VOLUME),
        ]
    )
    asked = "volmode,compression,refreservation,volblocksize,volsize"
    assert command("zfs", "get", "-Hpo", "value", asked, "tank/g/v").split() == [
        "dev", "lz4", "0", "16384", str(8 * MIB),
    ]  # fmt: skip
    assert command("zfs", "get", "-Hpo", "value", asked, "tank/w").split() == [
        "dev", "lz4", "0", "4096", str(MIB + 4096),
    ]  # fmt: skip
    assert command("zfs", "get", "-Ho", "value", "mounted,canmount", "tank/g").split() == ["no", "off"]


async def test_an_image_of_odd_size_keeps_its_size(pool: ZfsPool) -> None:
    content = random.Random(2).randbytes(MIB + 512)
    async with pool.receive_raw("odd", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
        await receiver.feed(content)
        made = await receiver.finish()
    assert [row.volsize for row in made] == [MIB + 512] * 2
    with open(pool.device("odd"), "rb") as file:
        assert file.read() == content


async def told(pool: ZfsPool) -> set[str]:
    """The next that is told; in the machine an event is there before its command has ended."""
    generation = await pool.generation()
    changed = set(await pool.changes())
    assert await pool.generation() == generation
    return changed


async def test_what_others_change_is_told_and_what_we_change_is_not(pool: ZfsPool) -> None:
    await pool.list()
    before = await pool.generation()
    disk = await volume(pool, "v")
    first = await snapshot(pool, disk, "one")
    await snapshot(pool, disk, "two")
    assert await told(pool) == set()

    command("zfs", "snapshot", "tank/v@cron")
    assert await told(pool) == {"v@cron"}
    command("zfs", "rename", "tank/v@cron", "tank/v@daily")
    assert await told(pool) == {"v@cron", "v@daily"}
    command("zfs", "destroy", "tank/v@daily")
    command("zfs", "clone", "tank/v@one", "tank/c")
    command("zfs", "set", "imagestore:op=x", "tank/v")
    assert await told(pool) == {"v@daily", "c", "v"}
    assert await pool.generation() == before

    command("zfs", "rename", "tank/c", "tank/d")
    assert await told(pool) == set()
    renamed = await pool.generation()
    assert renamed != before
    copy = await pool.get("d")
    (moved, *_) = await pool.rename(copy.target, "e")
    await pool.destroy([moved.target])
    await pool.rollback([first.target], destroy=[(await pool.get("v@two")).target], operation="op-9")
    assert await told(pool) == set()
    assert await pool.generation() == renamed


async def test_rows_are_those_of_zfs_list_to_the_byte(pool: ZfsPool) -> None:
    made = await volume(pool, "v", size=8 * MIB)
    thick = "tank/thick"
    command("zfs", "create", "-V", "4M", thick)
    for number in range(3):
        with open(pool.device("v"), "r+b") as file:
            file.seek(number * MIB)
            file.write(random.Random(number).randbytes(MIB + 17 * number))
            file.flush()
            os.fsync(file.fileno())
        await snapshot(pool, made, f"s{number}")
    command("zfs", "clone", "tank/v@s1", "tank/c")
    columns = "name,type,guid,createtxg,volsize,written,referenced,origin,refreservation,creation"
    text = command("zfs", "list", "-Hp", "-r", "-t", "all", "-o", columns, "tank")
    theirs = [line.split("\t") for line in text.splitlines()]
    ours = [
        [
            f"tank/{row.name}".rstrip("/") if not row.name.startswith("@") else f"tank{row.name}",
            row.kind,
            *(str(n) for n in (row.guid, row.createtxg, row.volsize, row.written, row.referenced)),
            f"tank/{row.origin}" if row.origin else "-",
            row.sparse,
            str(row.creation),
        ]
        for row in await pool.list()
    ]
    for row in theirs:
        row[4] = "0" if row[4] == "-" else row[4]
        row[8] = row[1] != "volume" or row[8] == "0"  # type: ignore[call-overload]  # a text becomes what it means
    assert ours == theirs
    used, available = command("zfs", "list", "-Hpo", "used,available", "tank").split()
    space = await pool.space()
    assert (space.total, space.available) == (int(used) + int(available), int(available))


async def test_many_are_looked_at_as_few_are(pool: ZfsPool) -> None:
    made = [await filesystem(pool, f"f{number}") for number in range(FEW + 2)]
    taken = await pool.snapshot([row.target for row in made], "s", SNAPSHOT)
    assert [row.name for row in taken] == [f"{row.name}@s" for row in made]
    assert [await pool.get(row.name) for row in taken] == list(taken)
    gone = Target(name="gone", guid=1, createtxg=1)
    with pytest.raises(NotFound, match="not found") as refusal:
        await pool.snapshot([*(row.target for row in made), gone], "t", SNAPSHOT)
    assert "gone" in refusal.value.detail


async def test_a_hold_keeps_a_snapshot(pool: ZfsPool) -> None:
    taken = await snapshot(pool, await volume(pool, "v"), "s")
    command("zfs", "hold", "backup", "tank/v@s")
    with pytest.raises(Held, match="snapshot is held: v@s"):
        await pool.destroy([(await pool.get("v")).target, taken.target])
    command("zfs", "release", "backup", "tank/v@s")


async def test_a_mounted_volume_is_in_use_and_says_where(pool: ZfsPool, tmp_path: Path) -> None:
    made = await volume(pool, "v", size=16 * MIB)
    command("mkfs.ext4", "-q", pool.device("v"))
    command("mount", pool.device("v"), str(tmp_path))
    try:
        with pytest.raises(InUse, match=f"mounted at {tmp_path}"):
            await pool.destroy([made.target], force=True)
    finally:
        command("umount", str(tmp_path))


async def test_remains_of_an_earlier_life_are_gone_after_opening(pool_name: str) -> None:
    command("zfs", "create", "tank/images")
    command("zfs", "create", "-s", "-V", "1M", "tank/images/.receiving-0011")
    command("zfs", "snapshot", "tank/images/.receiving-0011@s")
    pool = await open_zfs_pool(pool_name)
    assert await listed(pool) == ["", "images"]
    assert "receiving" not in command("zfs", "list", "-H", "-o", "name", "-t", "all", "-r", pool_name)
    await empty(pool)
    await pool.close()


async def test_a_package_broken_off_between_two_snapshots_is_undone(pool_name: str) -> None:
    pool = await open_zfs_pool(pool_name)
    for name in ("undone", "kept"):
        made = await volume(pool, name)
        base = await snapshot(pool, made, "base")
        came = await snapshot(pool, made, "came")
        announced = f"imagestore:receiving={base.guid:x} {came.guid:x} {1234:x}"
        command("zfs", "set", announced, f"tank/{name}")
    command("zfs", "snapshot", "tank/kept@cron")
    command("zfs", "create", "-s", "-V", "1M", "-o", "imagestore:receiving=no number", "tank/other")
    await pool.close()
    pool = await open_zfs_pool(pool_name)
    assert await listed(pool) == [
        "", "kept", "kept@base", "kept@came", "kept@cron", "other", "undone", "undone@base",
    ]  # fmt: skip
    for name in ("undone", "kept"):
        assert command("zfs", "get", "-Ho", "value", "imagestore:receiving", f"tank/{name}").strip() == "-"
    await empty(pool)
    await pool.close()


async def test_a_child_of_an_earlier_life_is_waited_for(pool_name: str) -> None:
    pool = await open_zfs_pool(pool_name)
    with pytest.raises(PoolBusy, match="pool tank is held by another process"):
        await open_zfs_pool(pool_name, lock_deadline=0.2)
    child = pool._ground.commands.start(("zfs", "receive", "-u", "tank/late"), stdin=subprocess.PIPE)
    await pool.close()
    with pytest.raises(PoolBusy, match=f"pool tank is held by pid {child.pid} zfs"):
        await open_zfs_pool(pool_name, lock_deadline=0.2)
    child.communicate(b"")
    again = await open_zfs_pool(pool_name)
    await again.close()


async def test_a_full_pool_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    with pool_on_file("small", tmp_path, size_bytes=64 * MIB) as name:
        pool = await open_zfs_pool(name)
        noise = random.Random(4).randbytes(MIB)
        async with pool.receive_raw("big", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
            with pytest.raises(NoSpace):
                await feed_all(receiver, [noise] * 64)
        stream = full_stream(tmp_path / "content", noise * 56)
        async with pool.receive_stream("big", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            with pytest.raises(NoSpace):
                await feed_all(receiver, [stream])
        assert await listed(pool) == [""]
        await pool.close()


async def test_a_pool_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="there is no pool nowhere") as refusal:
        await open_zfs_pool("nowhere")
    assert "zpool import nowhere" in refusal.value.detail
    with pool_on_file("gone", tmp_path) as name:
        pool = await open_zfs_pool(name)
        command("zpool", "export", name)
        with pytest.raises(PoolError, match="pool gone is not imported") as refusal:
            await pool.create([NewFilesystem(name="a", tags=PARENT)])
        assert "zpool import gone" in refusal.value.detail
        command("zpool", "import", "-d", str(tmp_path), name)
        await pool.create([NewFilesystem(name="a", tags=PARENT)])
        await pool.close()


async def test_a_raidz_gets_blocks_for_its_width(tmp_path: Path) -> None:
    disks = []
    for number in range(6):
        disk = tmp_path / f"disk{number}"
        with disk.open("wb") as file:
            file.truncate(128 * MIB)
        disks.append(str(disk))
    try:
        command("zpool", "create", "-o", "ashift=12", "-O", "mountpoint=none", "wide", "raidz1", *disks)
        assert data_disks(command("zpool", "status", "wide")) == 5
        assert block_bytes_for(5, 4096) == 32 << 10
        pool = await open_zfs_pool("wide")
        made = await volume(pool, "v", size=8 * MIB)
        assert command("zfs", "get", "-Hpo", "value", "volblocksize", f"wide/{made.name}").strip() == "32768"
        await pool.close()
    finally:
        subprocess.run(["zpool", "destroy", "-f", "wide"])
