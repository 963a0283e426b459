"""What is the directory driver's own: its lock, its tree of links, its refusals, a full disk."""

import contextlib
import errno
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from imagestore.errors import AlreadyExists, ConfigError, InUse, NoSpace, NotValid, PoolBusy, PoolError
from imagestore.pools.base import NewClone, NewFilesystem, NewVolume, Space
from imagestore.pools.directory.catalog import Catalog
from imagestore.pools.directory.driver import open_directory_pool
from tests.pools import crashing
from tests.pools.directories import DirectoryHarness, open_harness
from tests.pools.harness import (
    DISK,
    MIB,
    PARENT,
    VOLUME,
    filesystem,
    listed,
    opened_for_writing,
    read,
    snapshot,
    volume,
    write,
)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DirectoryHarness]:
    harness = await open_harness(tmp_path / "tank")
    yield harness
    await harness.pool.close()


def links(harness: DirectoryHarness) -> set[str]:
    return {str(path.relative_to(harness.path)) for path in harness.path.rglob("*") if path.is_symlink()}


class TestOpening:
    async def test_the_pool_is_named_after_its_directory(self, harness: DirectoryHarness) -> None:
        assert harness.pool.name == "tank"

    async def test_a_second_store_is_refused_with_the_pid_of_the_first(
        self, harness: DirectoryHarness
    ) -> None:
        with pytest.raises(PoolBusy, match=f"pool tank is in use by another store \\(pid {os.getpid()}\\)"):
            await open_directory_pool(str(harness.path), create=True, lock_deadline=0)

    async def test_the_end_of_the_other_store_is_waited_for(self, harness: DirectoryHarness) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.pool.close)
            pool = await open_directory_pool(str(harness.path), create=False, lock_deadline=60)
        assert await listed(pool) == [""]
        await pool.close()

    async def test_a_missing_pool_is_made_only_on_request(self, tmp_path: Path) -> None:
        with pytest.raises(PoolError, match=f"no directory pool at {tmp_path}/tank"):
            await open_directory_pool(str(tmp_path / "tank"), create=False)
        assert not (tmp_path / "tank").exists()

    async def test_a_directory_with_other_things_in_it_becomes_a_pool_around_them(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "tank").mkdir()
        (tmp_path / "tank" / "mine.txt").write_text("kept")
        harness = await open_harness(tmp_path / "tank")
        await volume(harness.pool, "v")
        await harness.pool.close()
        assert (tmp_path / "tank" / "mine.txt").read_text() == "kept"

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("missing/tank", "no such directory: .*/missing"),
            ("file", "not a directory: .*/file"),
            ("file/tank", "no such directory: .*/file"),
            ("my pool", "'my pool' cannot be a pool's name"),
            ("-tank", "'-tank' cannot be a pool's name"),
        ],
    )
    async def test_an_impossible_path_is_refused(self, tmp_path: Path, path: str, message: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match=message) as refusal:
            await open_directory_pool(str(tmp_path / path), create=True)
        assert refusal.value.detail
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file"]

    async def test_a_catalog_of_a_newer_format_is_left_alone(self, harness: DirectoryHarness) -> None:
        await harness.pool.close()
        catalog = harness.path / ".imagestore" / "catalog.sqlite"
        connection = sqlite3.connect(catalog)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        before = catalog.read_bytes()
        with pytest.raises(PoolError, match="format 99, this imagestore reads format 2"):
            await harness.reopen()
        assert catalog.read_bytes() == before
        connection = sqlite3.connect(catalog)
        connection.execute("PRAGMA user_version = 2")
        connection.close()
        await harness.reopen()

    async def test_data_files_without_their_catalog_are_not_thrown_away(
        self, harness: DirectoryHarness
    ) -> None:
        await volume(harness.pool, "v", content=b"x" * 512)
        await harness.pool.close()
        catalog = harness.path / ".imagestore" / "catalog.sqlite"
        catalog.rename(harness.path / "elsewhere")
        files = harness.data_files()
        with pytest.raises(PoolError, match="the catalog of pool tank is missing, its data files are not"):
            await open_directory_pool(str(harness.path), create=True)
        assert harness.data_files() == files
        (harness.path / "elsewhere").rename(catalog)
        await harness.reopen()
        assert await listed(harness.pool) == ["", "v"]

    async def test_a_damaged_catalog_is_named(self, harness: DirectoryHarness) -> None:
        await harness.pool.close()
        catalog = harness.path / ".imagestore" / "catalog.sqlite"
        whole = catalog.read_bytes()
        catalog.write_bytes(b"no database".ljust(4096, b"!"))
        with pytest.raises(PoolError, match="the pool's catalog says"):
            await harness.reopen()
        catalog.write_bytes(whole)
        await harness.reopen()

    async def test_a_closed_pool_says_so(self, harness: DirectoryHarness) -> None:
        await harness.pool.close()
        with pytest.raises(PoolError, match="pool tank is closed"):
            await harness.pool.list()
        with pytest.raises(PoolError, match="pool tank is closed"):
            await filesystem(harness.pool, "a")

    async def test_orphans_are_removed_and_strange_files_are_not(self, harness: DirectoryHarness) -> None:
        await volume(harness.pool, "v")
        await harness.pool.close()
        data = harness.path / ".imagestore" / "data"
        known = harness.data_files()
        (data / ("0" * 32)).touch()
        (data / "README").touch()
        (harness.path / ".imagestore" / "links" / "leftover").symlink_to("nowhere")
        await harness.reopen()
        assert harness.data_files() == known | {"README"}
        assert not list((harness.path / ".imagestore" / "links").iterdir())


class TestTree:
    async def test_links_are_relative_and_a_moved_pool_works(self, harness: DirectoryHarness) -> None:
        await filesystem(harness.pool, "g")
        await volume(harness.pool, "g/v", content=b"x" * 512)
        await harness.pool.close()
        moved = harness.path.rename(harness.path.parent / "other")
        harness.path = moved
        await harness.reopen()
        assert harness.pool.name == "other"
        assert read(harness.pool, "g/v", 512) == b"x" * 512

    async def test_lost_and_wrong_links_are_mended(self, harness: DirectoryHarness) -> None:
        await filesystem(harness.pool, "g")
        for name in ("g/a", "g/b", "c"):
            await volume(harness.pool, name, content=name.encode().ljust(512))
        await harness.pool.close()
        (harness.path / "g/a").unlink()
        swapped = os.readlink(harness.path / "c")
        (harness.path / "g/b").unlink()
        (harness.path / "g/b").symlink_to(f"../{swapped}")
        (harness.path / "g/stale").symlink_to(f"../.imagestore/data/{'0' * 32}")
        (harness.path / "gone").mkdir()
        (harness.path / "gone/disk").symlink_to(f"../.imagestore/data/{'0' * 32}")
        await harness.reopen()
        assert links(harness) == {"g/a", "g/b", "c"}
        assert not (harness.path / "gone").exists()
        for name in ("g/a", "g/b", "c"):
            assert read(harness.pool, name, 512) == name.encode().ljust(512)

    async def test_what_is_not_ours_is_never_removed(
        self, harness: DirectoryHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        await filesystem(harness.pool, "g")
        await volume(harness.pool, "g/v")
        await volume(harness.pool, "w")
        await harness.pool.close()
        for name in ("g/v", "w"):
            (harness.path / name).unlink()
        (harness.path / "g/v").write_text("mine")
        (harness.path / "w").mkdir()
        (harness.path / "g/elsewhere").symlink_to("/etc/hostname")
        await harness.reopen()
        assert (harness.path / "g/v").read_text() == "mine"
        assert (harness.path / "w").is_dir()
        assert (harness.path / "g/elsewhere").is_symlink()
        assert "the path of dataset g/v is not usable" in caplog.text
        await harness.pool.destroy([d.target for d in await harness.pool.list() if d.name.startswith("g")])
        assert (harness.path / "g/v").read_text() == "mine"

    @pytest.mark.parametrize("creation", ["filesystem", "volume"])
    async def test_something_in_the_way_of_a_new_dataset_is_named(
        self, harness: DirectoryHarness, creation: str
    ) -> None:
        (harness.path / "a").write_text("mine")
        with pytest.raises(PoolError, match=f"not the store's is in the way: {harness.path}/a"):
            await (filesystem if creation == "filesystem" else volume)(harness.pool, "a")
        assert await listed(harness.pool) == [""]
        assert not harness.data_files()
        assert (harness.path / "a").read_text() == "mine"

    async def test_a_link_does_not_lead_a_dataset_out_of_the_pool(
        self, harness: DirectoryHarness, tmp_path: Path
    ) -> None:
        await filesystem(harness.pool, "g")
        (harness.path / "g").rmdir()
        (tmp_path / "outside").mkdir()
        (harness.path / "g").symlink_to(tmp_path / "outside")
        with pytest.raises(PoolError, match="in the way"):
            await volume(harness.pool, "g/v")
        assert not list((tmp_path / "outside").iterdir())

    @pytest.mark.parametrize(
        "name",
        ["../v", "g/../../v", "/v", "g//v", ".", "..", "-v", "a b", "a\0b", ".imagestore/data/x", "a\n"],
    )
    async def test_no_name_leaves_the_pool(self, harness: DirectoryHarness, name: str) -> None:
        await filesystem(harness.pool, "g")
        made = await volume(harness.pool, "v")
        for creation in (NewFilesystem(name=name, tags=PARENT), NewVolume(name=name, size=512, tags=VOLUME)):
            with pytest.raises((NotValid, PoolError)):
                await harness.pool.create([creation])
        with pytest.raises((NotValid, PoolError)):
            await harness.pool.rename(made.target, name)
        with pytest.raises((NotValid, PoolError)):
            async with harness.pool.receive_raw(name, VOLUME, snapshot="s", snapshot_tags=VOLUME):
                pass
        assert await listed(harness.pool) == ["", "g", "v"]

    async def test_rights_given_to_a_disk_survive_a_rollback(self, harness: DirectoryHarness) -> None:
        made = await volume(harness.pool, "v")
        os.chmod(harness.pool.device("v"), 0o640)
        taken = await snapshot(harness.pool, made, "s")
        await harness.pool.rollback([taken.target], destroy=[], operation="op-9")
        assert stat.S_IMODE(os.stat(harness.pool.device("v")).st_mode) == 0o640


class TestContent:
    async def test_a_snapshots_file_is_read_only(self, harness: DirectoryHarness) -> None:
        made = await volume(harness.pool, "v")
        before = harness.data_files()
        await snapshot(harness.pool, made, "s")
        (name,) = harness.data_files() - before
        file = harness.path / ".imagestore" / "data" / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o444

    async def test_holes_stay_holes_in_every_copy(self, harness: DirectoryHarness) -> None:
        made = await volume(harness.pool, "v", size=64 * MIB)
        write(harness.pool, "v", b"x" * MIB, offset=40 * MIB)
        taken = await snapshot(harness.pool, made, "s")
        (copy,) = await harness.pool.create([NewClone(name="c", origin=taken.target, tags=DISK)])
        assert max(taken.referenced, copy.referenced) < 2 * MIB
        assert read(harness.pool, "c", MIB, offset=40 * MIB) == b"x" * MIB

    async def test_an_own_change_leaves_the_generation_alone(self, harness: DirectoryHarness) -> None:
        seen = await harness.pool.generation()
        await volume(harness.pool, "v")
        assert await harness.pool.generation() == seen

    async def test_no_other_hand_reads_or_writes_the_catalog(self, harness: DirectoryHarness) -> None:
        catalog = harness.path / ".imagestore" / "catalog.sqlite"
        with contextlib.closing(sqlite3.connect(catalog, timeout=0)) as another:
            for statement in ("SELECT count(*) FROM dataset", "CREATE TABLE of_another_hand (x)"):
                with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                    another.execute(statement)
        await volume(harness.pool, "v")

    async def test_the_list_learns_what_was_written(self, harness: DirectoryHarness) -> None:
        await volume(harness.pool, "v", size=64 * MIB)
        seen = await harness.pool.generation()
        write(harness.pool, "v", b"x" * 20 * MIB)
        assert (await harness.pool.list())[1].written < MIB
        assert await harness.pool.generation() != seen
        (_, row) = await harness.pool.list()
        assert 20 * MIB <= row.written < 24 * MIB
        assert (await harness.pool.get("v")).written == row.written

    async def test_guids_use_all_64_bits(self, tmp_path: Path) -> None:
        path = tmp_path / "tank"
        pool = await open_directory_pool(
            str(path), create=True, entropy=lambda n: os.urandom(1) + b"\xff" * (n - 1)
        )
        made = await filesystem(pool, "a")
        assert made.guid >= 1 << 63
        assert await pool.get("a") == made
        await pool.close()

    async def test_users_are_named_by_pid_and_command(self, harness: DirectoryHarness) -> None:
        await volume(harness.pool, "v")
        assert await harness.pool.users("v") == ()
        with opened_for_writing(harness.pool.device("v")) as writer:
            (user,) = await harness.pool.users("v")
            assert user.startswith(f"pid {writer.pid} python")
            await volume(harness.pool, "w")
            assert await harness.pool.those_in_use(["w", "v", "gone"]) == ["v"]

    async def test_by_force_the_writer_keeps_the_old_file(self, harness: DirectoryHarness) -> None:
        made = await volume(harness.pool, "v", content=b"old".ljust(512))
        taken = await snapshot(harness.pool, made, "s")
        with opened_for_writing(harness.pool.device("v")) as writer:
            with pytest.raises(InUse, match=f"dataset is in use: v \\(pid {writer.pid} python"):
                await harness.pool.rollback([taken.target], destroy=[], operation="op-9")
            await harness.pool.rollback([taken.target], destroy=[], operation="op-9", force=True)
            writer.write("lost")
        assert read(harness.pool, "v", 512) == b"old".ljust(512)


class TestFailures:
    async def test_a_disk_that_is_full_at_any_point_leaves_nothing_half_made(self, tmp_path: Path) -> None:
        full_at: set[str] = set()

        def checkpoint(point: str) -> None:
            if point in full_at:
                raise OSError(errno.ENOSPC, "full")

        path = str(tmp_path / "tank")
        pool = await open_directory_pool(path, create=True, checkpoint=checkpoint)
        await crashing.prepare(pool)
        before = await listed(pool)
        for action in ("create", "snapshot", "rollback", "rename", "receive"):
            made = {"rename": "before commit", "receive": "received"}.get(action, "files made")
            for point in (made, "before commit"):
                files = set(os.listdir(f"{path}/.imagestore/data"))
                tree = sorted(os.listdir(path))
                full_at.add(point)
                with pytest.raises(NoSpace):
                    await crashing.ACTIONS[action](pool)
                full_at.clear()
                assert set(os.listdir(f"{path}/.imagestore/data")) == files
                assert sorted(os.listdir(path)) == tree
                assert not os.listdir(f"{path}/.imagestore/links")
                assert await listed(pool) == before
        await pool.close()

    async def test_after_a_failed_commit_nothing_is_changed_until_a_restart(
        self, harness: DirectoryHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await crashing.prepare(harness.pool)
        before = await listed(harness.pool)
        with monkeypatch.context() as patch:

            def fail(_catalog: Catalog) -> None:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error

            patch.setattr(Catalog, "commit", fail)
            with pytest.raises(PoolError, match="disk I/O error"):
                await crashing.create(harness.pool)
        # The new files stay: after a restart the catalog may turn out to name them.
        assert len(harness.data_files()) == 5 + 2
        with pytest.raises(PoolError, match="catalog failed; restart the store"):
            await filesystem(harness.pool, "h")
        assert await listed(harness.pool) == before
        await harness.reopen()
        assert len(harness.data_files()) == 5
        await crashing.create(harness.pool)

    async def test_one_refused_change_does_not_spoil_those_beside_it(self, harness: DirectoryHarness) -> None:
        await filesystem(harness.pool, "taken")
        refused: list[str] = []

        async def make(name: str) -> None:
            try:
                await harness.pool.create(
                    [
                        NewFilesystem(name=name, tags=PARENT),
                        NewVolume(name=f"{name}/v", size=MIB, tags=DISK),
                    ]
                )
            except AlreadyExists:
                refused.append(name)

        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "taken", "c", "b", "d"):
                nursery.start_soon(make, name)
        assert sorted(refused) == ["b", "taken"]
        assert links(harness) == {"a/v", "b/v", "c/v", "d/v"}
        assert len(harness.data_files()) == 4

    async def test_a_disk_whose_file_is_missing_can_be_rolled_back_or_destroyed(
        self, harness: DirectoryHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        await crashing.prepare(harness.pool)
        lost = Path(os.path.realpath(harness.pool.device("g/disk")))
        await harness.pool.close()
        lost.unlink()
        await harness.reopen()
        assert f"data file {lost.name} is missing" in caplog.text
        assert await harness.pool.users("g/disk") == ()
        await crashing.rollback(harness.pool)
        assert read(harness.pool, "g/disk", MIB) == crashing.OLD
        os.unlink(os.path.realpath(harness.pool.device("g/disk")))
        await crashing.destroy(harness.pool)
        assert await listed(harness.pool) == ["", "image", "image@s"]


_LIMITED = """
import resource, signal, sys, trio
from imagestore import errors
from imagestore.pools.directory.driver import open_directory_pool
from tests.pools.harness import VOLUME, listed

async def main(path):
    pool = await open_directory_pool(path, create=True)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    try:
        async with pool.receive_raw("v", VOLUME, snapshot="s", snapshot_tags=VOLUME) as receiver:
            for _ in range(64):
                await receiver.feed(b"x" * 65536)
            await receiver.finish()
    except errors.ImageStoreError as error:
        print(type(error).__name__)
    print(await listed(pool))
    await pool.close()

trio.run(main, sys.argv[1])
"""


async def test_a_file_that_cannot_grow_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "tank")]
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent.parent, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() in (["StreamError", "['']"], ["InvalidArgument", "['']"])
    assert not list((tmp_path / "tank/.imagestore/data").iterdir())


async def test_the_pool_is_as_full_as_df_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 blocks 30 are used and 20 kept for root."""
    told = os.statvfs_result((4096, 4096, 100, 70, 50, 0, 0, 0, 0, 255))
    pool = await open_directory_pool(f"{tmp_path}/pool", create=True)
    monkeypatch.setattr(os, "statvfs", lambda path: told)
    assert await pool.space() == Space(total=80 * 4096, available=50 * 4096)
    await pool.close()
