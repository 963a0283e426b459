"""Whole files that a directory pool takes over as they are."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imagestore.errors import AlreadyExists, ContentRefused, NotFound
from imagestore.pools.base import Dataset, NewFilesystem, NewVolume, Tags
from imagestore.pools.directory.driver import DirectoryPool
from tests.pools.directories import DirectoryHarness, loop_mount, open_harness

TAGS = Tags(op="one", kind="staging", image="a")
SNAPSHOT_TAGS = Tags(op="one", kind="snapshot", image="a")
CONTENT = b"disk" * 1024 + bytes(64 << 10) + b"end." * 128


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DirectoryHarness]:
    harness = await open_harness(tmp_path / "tank")
    await harness.pool.create([NewFilesystem(name="images", tags=Tags())])
    yield harness
    await harness.pool.close()


def offered(pool: DirectoryPool) -> Path:
    path = Path(pool.intake.directory) / "body"
    path.write_bytes(CONTENT)
    return path


async def take_over(pool: DirectoryPool, path: Path, size: int = len(CONTENT)) -> tuple[Dataset, ...]:
    return await pool.intake.take_over(
        str(path), size, "images/a", TAGS, snapshot="image", snapshot_tags=SNAPSHOT_TAGS
    )


async def check_taken(harness: DirectoryHarness) -> None:
    pool = harness.pool
    path = offered(pool)
    inode = path.stat().st_ino
    volume, snapshot = await take_over(pool, path)
    path.unlink()
    assert (volume.name, volume.volsize, volume.tags) == ("images/a", len(CONTENT), TAGS)
    assert (snapshot.name, snapshot.volsize, snapshot.tags) == (
        "images/a@image",
        len(CONTENT),
        SNAPSHOT_TAGS,
    )
    await harness.reopen()
    file = Path(harness.pool.device("images/a"))
    assert file.stat().st_ino == inode
    assert file.read_bytes() == CONTENT
    async with harness.pool.send(snapshot.target) as pieces:
        assert sum([len(piece) async for piece in pieces]) > 4096
    assert len(harness.data_files()) == 2


async def test_a_file_that_is_taken_over_is_the_volume_s_own(harness: DirectoryHarness) -> None:
    await check_taken(harness)


@pytest.mark.system
async def test_so_it_is_where_the_snapshot_is_a_reflink(tmp_path: Path) -> None:
    with loop_mount(tmp_path, "xfs", 512 << 20) as mount:
        harness = await open_harness(mount / "tank")
        assert harness.pool.reflink
        await harness.pool.create([NewFilesystem(name="images", tags=Tags())])
        await check_taken(harness)
        await harness.pool.close()


@pytest.mark.parametrize("size", [0, 511, len(CONTENT) - 1])
async def test_a_length_that_no_disk_has_is_refused(harness: DirectoryHarness, size: int) -> None:
    path = offered(harness.pool)
    with pytest.raises(ContentRefused, match="nonzero multiple of 512"):
        await take_over(harness.pool, path, size)
    assert harness.data_files() == set()
    assert path.read_bytes() == CONTENT


async def test_a_name_that_is_taken_leaves_the_file_where_it_was(harness: DirectoryHarness) -> None:
    await harness.pool.create([NewVolume(name="images/a", size=512, tags=Tags())])
    before = harness.data_files()
    path = offered(harness.pool)
    with pytest.raises(AlreadyExists):
        await take_over(harness.pool, path)
    assert harness.data_files() == before
    assert path.stat().st_nlink == 1


async def test_without_a_parent_nothing_is_taken_over(harness: DirectoryHarness) -> None:
    path = offered(harness.pool)
    intake = harness.pool.intake
    with pytest.raises(NotFound):
        await intake.take_over(
            str(path), len(CONTENT), "none/a", TAGS, snapshot="image", snapshot_tags=SNAPSHOT_TAGS
        )
    assert harness.data_files() == set()


async def test_what_lies_in_the_intake_is_not_the_pool_s(harness: DirectoryHarness) -> None:
    path = offered(harness.pool)
    await harness.reopen()
    assert os.listdir(harness.pool.intake.directory) == [path.name]
