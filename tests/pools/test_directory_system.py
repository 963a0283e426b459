"""The directory driver against the conformance suite, on xfs and btrfs; and on a disk that is full."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from imagestore.errors import InUse, NoSpace, PoolError
from imagestore.pools.base import NewClone, NewVolume, PoolDriver
from imagestore.pools.directory.datafile import changed_bytes, extents
from imagestore.pools.directory.driver import open_directory_pool
from tests.pools import conformance
from tests.pools.directories import DirectoryHarness, loop_mount, open_harness
from tests.pools.harness import (
    DISK,
    MIB,
    SNAPSHOT,
    VOLUME,
    filesystem,
    listed,
    opened_for_writing,
    read,
    snapshot,
    volume,
    write,
)

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One file system for all tests of a kind, with room for the pools of all."""
    with loop_mount(tmp_path_factory.mktemp("mount"), request.param, 2048 * MIB) as mounted:
        yield mounted


@pytest.fixture
async def harness(mount: Path, request: pytest.FixtureRequest) -> AsyncIterator[DirectoryHarness]:
    harness = await open_harness(mount / f"tank{abs(hash(request.node.name))}")
    yield harness
    await harness.pool.close()


globals().update(conformance.suite())


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
async def test_a_full_disk_leaves_nothing_half_made_and_can_be_emptied(tmp_path: Path, kind: str) -> None:
    with loop_mount(tmp_path, kind, 512 * MIB) as mounted:
        harness = await open_harness(mounted / "tank")
        pool = harness.pool
        made = await volume(pool, "v", size=1024 * MIB)
        await snapshot(pool, made, "s")
        await filesystem(pool, "g")
        with pytest.raises(NoSpace):
            await receive_zeroless(pool, "big", 600 * MIB)
        fill(mounted / "ballast")
        with pytest.raises(NoSpace):
            await receive_zeroless(pool, "big", 64 * MIB)
        await harness.reopen()
        pool = harness.pool
        assert await listed(pool) == ["", "g", "v", "v@s"]
        await pool.destroy([d.target for d in await pool.list() if d.name])
        assert await listed(pool) == [""]
        await harness.reopen()
        assert await listed(harness.pool) == [""]
        assert not harness.data_files()
        await harness.pool.close()


@pytest.mark.parametrize(("size", "seed"), [(128 * MIB, 1), (256 * MIB, 2)])
def test_a_full_copy_on_write_disk_refuses_and_never_kills(tmp_path: Path, size: int, seed: int) -> None:
    with loop_mount(tmp_path, "btrfs", size) as mounted:
        done = subprocess.run(
            [sys.executable, "-m", "tests.pools.filling", str(mounted / "tank"), str(seed)],
            cwd=Path(__file__).parent.parent.parent,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"


async def receive_zeroless(pool: PoolDriver, name: str, size: int) -> None:
    piece = b"x" * (4 * MIB)
    async with pool.receive_raw(name, VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
        for _ in range(0, size, len(piece)):
            await receiver.feed(piece)
        await receiver.finish()


def fill(path: Path) -> None:
    """Take every byte that the file system still gives."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 512):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass
            with suppress(OSError):
                os.fsync(file.fileno())


async def test_open_disks_are_snapshotted_at_one_instant_or_not_at_all(harness: DirectoryHarness) -> None:
    """A writer stamps the first disk, then the second, over and over: none may be ahead by two."""
    pool = harness.pool
    disks = [await volume(pool, name) for name in ("a", "b")]

    async def take(name: str) -> tuple[int, int]:
        taken = await pool.snapshot([d.target for d in disks], name, SNAPSHOT)
        copies = await pool.create(
            [NewClone(name=f"{d.name[0]}-{name}", origin=d.target, tags=DISK) for d in taken]
        )
        a, b = (int(read(pool, copy.name, 8).rstrip(b"\0") or b"0") for copy in copies)
        return a, b

    with (
        opened_for_writing(pool.device("a")) as first,
        opened_for_writing(pool.device("b")) as second,
    ):
        last = 0

        async def stamp() -> None:
            nonlocal last
            while True:
                await trio.to_thread.run_sync(first.write, f"{last + 1:08}")
                await trio.to_thread.run_sync(second.write, f"{last + 1:08}")
                last += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stamp)
            for attempt in range(3):
                with suppress(InUse):
                    a, b = await take(f"s{attempt}")
                    assert b <= a <= b + 1
            nursery.cancel_scope.cancel()
        a, b = await take("quiet")
        assert b <= a <= b + 1
        assert b >= last


async def test_a_snapshot_of_an_open_disk_counts_what_changed(harness: DirectoryHarness) -> None:
    pool = harness.pool
    made = await volume(pool, "v", size=64 * MIB, content=b"x" * (8 * MIB))
    first = await snapshot(pool, made, "s1")
    assert first.written == 8 * MIB
    write(pool, "v", b"y" * MIB, offset=2 * MIB)
    with opened_for_writing(pool.device("v")):
        second = await snapshot(pool, made, "s2")
    assert second.written == MIB
    (copy,) = await pool.create([NewClone(name="c", origin=second.target, tags=DISK)])
    write(pool, "c", b"z" * MIB, offset=32 * MIB)
    assert (await snapshot(pool, copy, "s")).written == MIB


async def test_a_read_only_file_system_is_refused_in_one_line(tmp_path: Path) -> None:
    with loop_mount(tmp_path, "ext4", 64 * MIB) as mounted:
        harness = await open_harness(mounted / "tank")
        await harness.pool.close()
        subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
        for name, create in (("tank", False), ("tank", True), ("other", True)):
            with pytest.raises(
                PoolError, match="opening the pool failed: Read-only file system: "
            ) as refusal:
                await open_directory_pool(str(mounted / name), create=create)
            assert "\n" not in str(refusal.value)
            assert refusal.value.detail == "the file system is mounted read-only"


async def test_a_thick_volume_shares_no_block_with_snapshots_rollbacks_and_clones(
    harness: DirectoryHarness,
) -> None:
    pool = harness.pool
    (made,) = await pool.create([NewVolume(name="v", size=8 * MIB, tags=VOLUME, thick=True)])
    write(pool, "v", os.urandom(2 * MIB))
    with opened_for_writing(pool.device("v")):
        taken = await snapshot(pool, made, "s")
    for _ in range(2):
        own = Path(pool.device("v")).resolve()
        mine = extents(str(own))
        assert sum(extent.length for extent in mine) == 8 * MIB
        for name in harness.data_files() - {own.name}:
            theirs = extents(str(own.parent / name))
            assert changed_bytes(mine, theirs) == sum(extent.length for extent in theirs)
        await pool.rollback([taken.target], destroy=[], operation="op")
        await pool.create([NewClone(name=f"c{own.name}", origin=taken.target, tags=DISK)])
