"""A directory pool after a process was killed in the middle of a change."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from imagestore.pools.base import Dataset
from tests.pools import crashing
from tests.pools.crashing import NEW, OLD, SIZE
from tests.pools.directories import DirectoryHarness, open_harness
from tests.pools.harness import listed, read

BEFORE = ["", "g", "g/disk", "g/disk@one", "g/disk@two", "image", "image@s"]

AFTER = {
    "create": ["", *BEFORE[1:5], "h", "h/blank", "h/disk", "image", "image@s"],
    "snapshot": [*BEFORE[:5], "g/disk@three", "image", "image@s", "image@three"],
    "destroy": ["", "image", "image@s"],
    "rollback": [*BEFORE[:4], "image", "image@s"],
    "rename": ["", "h", "h/disk", "h/disk@one", "h/disk@two", "image", "image@s"],
    "resize": BEFORE,
    "receive": [*BEFORE[:5], "g/new", "g/new@s", "image", "image@s"],
    "receive onto": [*BEFORE[:5], "g/disk@three", "image", "image@s"],
}

POINTS = {
    "create": ("files made", "files durable", "before commit", "committed", "linked"),
    "snapshot": ("files made", "files durable", "before commit", "committed", "linked"),
    "destroy": ("before commit", "committed", "linked", "files removed"),
    "rollback": ("files made", "files durable", "before commit", "committed", "linked", "files removed"),
    "rename": ("before commit", "committed", "linked"),
    "resize": ("before commit", "committed", "resize noted"),
    "receive": ("received", "files durable", "before commit", "committed", "linked"),
    "receive onto": ("received", "files durable", "before commit", "committed", "linked", "files removed"),
}
"""Every point that a change passes, in order; it has happened from ``committed`` on."""


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DirectoryHarness]:
    harness = await open_harness(tmp_path / "tank")
    await crashing.prepare(harness.pool)
    yield harness
    await harness.pool.close()


async def crash(harness: DirectoryHarness, action: str, point: str) -> None:
    """Let a child die at the point of the action.  The pool is closed before and stays closed."""
    await harness.pool.close()
    command = [sys.executable, "-m", "tests.pools.crashing", str(harness.path), action, point]
    root = Path(__file__).parent.parent.parent
    done = await trio.run_process(command, cwd=root, check=False, capture_stderr=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def catalog_files(harness: DirectoryHarness) -> set[str]:
    """What the catalog of the closed pool names."""
    with sqlite3.connect(harness.path / ".imagestore" / "catalog.sqlite") as connection:
        rows = connection.execute("SELECT file FROM dataset WHERE file != ''").fetchall()
    connection.close()
    return {name for (name,) in rows}


async def check_whole(harness: DirectoryHarness) -> None:
    """Catalog, data files and tree agree; nothing is left over.  The pool is another one afterwards."""
    assert not list((harness.path / ".imagestore" / "links").iterdir())
    datasets = await harness.pool.list()
    volumes = [dataset for dataset in datasets if dataset.kind == "volume"]
    for volume in volumes:
        assert os.stat(harness.pool.device(volume.name)).st_size == volume.volsize
        assert stat.S_IMODE(os.stat(harness.pool.device(volume.name)).st_mode) & 0o222
    links = {str(path.relative_to(harness.path)) for path in harness.path.rglob("*") if path.is_symlink()}
    assert links == {volume.name for volume in volumes}
    await harness.pool.close()
    assert harness.data_files() == catalog_files(harness)
    await harness.reopen()


def judge(action: str, happened: bool, pool_names: list[str], disk: Dataset, content: bytes) -> None:
    assert pool_names == (AFTER[action] if happened else BEFORE)
    is_old = happened and action in {"rollback", "receive onto"}
    assert content == (OLD if is_old else NEW)
    assert disk.tags.last == ("op-9" if is_old else "")
    assert disk.volsize == (2 * SIZE if happened and action == "resize" else SIZE)


@pytest.mark.parametrize(
    ("action", "point"), [(action, point) for action, points in POINTS.items() for point in points]
)
async def test_a_change_cut_short_happened_or_did_not(
    harness: DirectoryHarness, action: str, point: str
) -> None:
    await crash(harness, action, point)
    await harness.reopen()
    await check_whole(harness)
    points = POINTS[action]
    happened = points.index(point) >= points.index("committed")
    names = await listed(harness.pool)
    name = next((name for name in names if name in {"g/disk", "h/disk"} and f"{name}@one" in names), None)
    if name is None:
        assert (action, happened) == ("destroy", True)
        assert names == AFTER["destroy"]
        return
    disk = await harness.pool.get(name)
    judge(action, happened, names, disk, read(harness.pool, name, len(NEW)))


@pytest.mark.parametrize("action", ["create", "destroy", "rollback", "rename", "receive", "receive onto"])
async def test_an_undone_change_can_be_done_again(harness: DirectoryHarness, action: str) -> None:
    await crash(harness, action, "before commit")
    await harness.reopen()
    await crashing.ACTIONS[action](harness.pool)
    await check_whole(harness)
    assert await listed(harness.pool) == AFTER[action]


@pytest.mark.parametrize("point", ["resizes finished", "orphans removed", "links mended"])
@pytest.mark.parametrize("action", ["rollback", "resize"])
async def test_a_crash_while_mending_is_mended(harness: DirectoryHarness, action: str, point: str) -> None:
    await crash(harness, action, "committed")
    for _ in range(2):
        await crash(harness, "open", point)
    await harness.reopen()
    await check_whole(harness)
    names = await listed(harness.pool)
    disk = await harness.pool.get("g/disk")
    judge(action, True, names, disk, read(harness.pool, "g/disk", len(NEW)))


async def test_the_lock_of_a_killed_process_is_free(harness: DirectoryHarness) -> None:
    await crash(harness, "create", "committed")
    process = subprocess.run(
        [sys.executable, "-m", "tests.pools.crashing", str(harness.path), "open", "never"],
        cwd=Path(__file__).parent.parent.parent,
        check=False,
    )
    assert process.returncode == 0
    await harness.reopen()
