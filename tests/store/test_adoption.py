"""Adoption and release on a whole store over a directory pool; thick volumes, and how they are counted."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from imagestore.config import Config
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    HasClones,
    InUse,
    InvalidArgument,
    NoSpace,
    NotFound,
    NotValid,
    NotVolume,
    OutcomeUnknown,
)
from imagestore.events import reader
from imagestore.events.catalogue import (
    AdoptIntent,
    DatasetAdopted,
    DatasetReleased,
    OperationFinished,
    OperationStarted,
)
from imagestore.model import (
    AdoptRequest,
    GuestRequest,
    ImageRequest,
    ReleaseRequest,
    SnapshotRequest,
    VolumeRequest,
)
from imagestore.pools.base import NO_TAGS, Dataset, NewFilesystem, NewVolume, Retagging, Tags, Target
from imagestore.pools.directory.driver import DirectoryPool, open_directory_pool
from imagestore.rebuild import rebuild
from imagestore.service import Caller
from imagestore.store import Store
from tests.actors.test_original import value, write_database
from tests.pools.harness import opened_for_writing
from tests.store.conftest import MIB, Run, running

AS_DISK = AdoptRequest(id="old/root", guest="vm1", disk=0)


@asynccontextmanager
async def opened_pool(tmp_path: Path) -> AsyncIterator[DirectoryPool]:
    """The pool, by another hand than the store's; the store must not run."""
    pool = await open_directory_pool(f"{tmp_path}/pool", create=True)
    yield pool
    await pool.close()


async def make_foreign(pool: DirectoryPool, *volumes: str, size: int = 2 * MIB) -> None:
    """Volumes without tags, their name written into them, and the file systems that they stand in."""
    there = {row.name for row in await pool.list()}
    for name in volumes:
        parts = name.split("/")[:-1]
        for above in ("/".join(parts[: i + 1]) for i in range(len(parts))):
            if above not in there:
                await pool.create([NewFilesystem(name=above, tags=NO_TAGS)])
                there.add(above)
        await pool.create([NewVolume(name=name, size=size, tags=NO_TAGS)])
        Path(pool.device(name)).write_bytes(name.encode().ljust(size, b"\0"))


async def snapshot_foreign(pool: DirectoryPool, name: str, snapshot: str) -> Dataset:
    (taken,) = await pool.snapshot([(await pool.get(name)).target], snapshot, NO_TAGS)
    return taken


async def target_of(pool: DirectoryPool, name: str) -> Target:
    return (await pool.get(name)).target


@pytest.fixture
async def old_root(tmp_path: Path) -> Target:
    """A foreign volume ``old/root`` with a snapshot ``@monday``."""
    async with opened_pool(tmp_path) as pool:
        await make_foreign(pool, "old/root")
        await snapshot_foreign(pool, "old/root", "monday")
        return await target_of(pool, "old/root")


def events(config: Config) -> list[object]:
    return [envelope.event for envelope in reader.read(config.journal)]


async def volume_ids(store: Store) -> list[str]:
    return [volume.id for volume in (await store.list_volumes(VolumeRequest())).volumes]


async def test_a_volume_is_adopted_where_it_stands_and_nothing_of_it_is_copied(
    config: Config, old_root: Target, tmp_path: Path
) -> None:
    data = sorted((tmp_path / "pool" / ".imagestore" / "data").iterdir())
    identity = [(file.name, file.stat().st_ino, file.stat().st_mtime_ns) for file in data]
    async with running(config) as store:
        answer = await store.adopt_dataset(AS_DISK, Caller(principal="ops"))
        assert [(row.id, row.role) for row in answer.adopted] == [
            ("pool/old/root", "disk"),
            ("pool/old/root@monday", "snapshot"),
        ]
        assert (answer.adopted[0].guest, answer.adopted[0].disk) == ("vm1", 0)
        (volume,) = (await store.get_volume(VolumeRequest(id="old/root"))).volumes
        assert (volume.id, volume.size) == ("pool/old/root", 2)
        assert Path(volume.device).read_bytes().startswith(b"old/root\0")
    after = sorted((tmp_path / "pool" / ".imagestore" / "data").iterdir())
    assert [(file.name, file.stat().st_ino, file.stat().st_mtime_ns) for file in after] == identity
    async with opened_pool(tmp_path) as pool:
        row = await pool.get("old/root")
        assert row.target == old_root
        assert (row.tags.kind, row.tags.guest, row.tags.disk) == ("disk", "vm1", "0")
        assert (await pool.get("old/root@monday")).tags.op == row.tags.op
    journal = list(reader.read(config.journal))
    mine = [envelope for envelope in journal if envelope.operation == row.tags.op]
    assert {envelope.principal for envelope in mine} == {"ops"}
    started = mine[0].event
    assert isinstance(started, OperationStarted)
    assert isinstance(started.intent, AdoptIntent)
    assert {(d.guid, d.createtxg) for d in started.intent.datasets} >= {(old_root.guid, old_root.createtxg)}
    assert sum(isinstance(envelope.event, DatasetAdopted) for envelope in mine) == 2
    assert isinstance(mine[-1].event, OperationFinished)


async def test_what_became_another_stores_since_it_was_last_seen_is_not_taken_from_it(
    run: Run, old_root: Target
) -> None:
    theirs = Tags(op="0199-theirs", kind="volume")
    async with run() as store:
        await store._running().zpool.driver.retag([Retagging(target=old_root, tags=theirs)])
        with pytest.raises(Blocked, match=r"another store: old/root \(volume of operation 0199-theirs\)"):
            await store.adopt_dataset(AS_DISK)


async def test_what_was_made_since_the_pool_was_last_seen_is_found(run: Run) -> None:
    async with run() as store:
        driver = store._running().zpool.driver
        (new,) = await driver.create([NewVolume(name="new", size=2 * MIB, tags=NO_TAGS)])
        await driver.snapshot([new.target], "monday", NO_TAGS)
        answer = await store.adopt_dataset(AdoptRequest(id="new", guest="vm1", disk=0))
        assert [row.id for row in answer.adopted] == ["pool/new", "pool/new@monday"]


async def test_a_dry_run_tells_the_commands_and_changes_nothing(
    config: Config, old_root: Target, tmp_path: Path
) -> None:
    async with running(config) as store:
        before = events(config)
        answer = await store.adopt_dataset(replace(AS_DISK, dryRun=True))
        assert len(answer.commands) == 3
        assert answer.commands[0] == f"mkdir {tmp_path}/pool/guests/vm1"
        assert f"WHERE createtxg = {old_root.createtxg}" in answer.commands[1]
        assert "tag_guest = 'vm1', tag_disk = '0'" in answer.commands[1]
        assert [row.id for row in answer.adopted] == ["pool/old/root", "pool/old/root@monday"]
        assert events(config) == before
    async with opened_pool(tmp_path) as pool:
        assert (await pool.get("old/root")).tags == NO_TAGS


async def test_an_adopted_disk_outlives_restart_and_is_found_by_recover(
    config: Config, old_root: Target, tmp_path: Path
) -> None:
    async with running(config) as store:
        await store.adopt_dataset(AS_DISK)
        before = await volume_ids(store)
    async with running(config) as store:
        assert await volume_ids(store) == before
        with pytest.raises(Blocked, match=r"already: old/root \(disk 0 of guest vm1\)"):
            await store.adopt_dataset(AS_DISK)
    rebuilt = replace(config, journal=f"{tmp_path}/rebuilt")
    found = await rebuild(rebuilt)
    assert found.foreign == 1, "only the file system that it stands in"
    async with running(rebuilt) as store:
        assert await volume_ids(store) == before
        with pytest.raises(Blocked, match=r"\(disk 0 of guest vm1\)"):
            await store.adopt_dataset(AS_DISK)
        await store.delete_guests_disks(GuestRequest(guest={"id": "vm1"}))
        assert await volume_ids(store) == []


async def test_whole_guest_operations_reach_an_adopted_disk(run: Run, old_root: Target) -> None:
    guest = {"id": "vm1", "disks": [{"size": 2}, {"size": 1}]}
    async with run() as store:
        await store.adopt_dataset(AS_DISK)
        made = (await store.create_guest_disks(GuestRequest(guest=guest))).guest
        assert [disk["volume"] for disk in made["disks"]] == ["pool/old/root", "pool/guests/vm1/disk-1"]
        taken = await store.create_snapshot(SnapshotRequest(id="guests/vm1", dest="s"))
        assert [snapshot.id for snapshot in taken.snapshots] == [
            "pool/guests/vm1@s", "pool/guests/vm1/disk-1@s", "pool/old/root@s",
        ]  # fmt: skip
        device = Path(made["disks"][0]["source"])
        with device.open("r+b") as file:
            file.write(b"overwritten")
        await store.rollback_snapshot(SnapshotRequest(id="guests/vm1@s"))
        assert device.read_bytes().startswith(b"old/root\0")
        async with store.download(SnapshotRequest(id="guests/vm1@s")) as download:
            archive = b"".join([bytes(piece) async for piece in download.chunks])
        assert archive.count(b"old/root@s") >= 1
        await store.delete_guests_disks(GuestRequest(guest={"id": "vm1"}))
        assert await volume_ids(store) == []


async def test_what_cannot_be_adopted_is_refused_and_nothing_is_journaled(
    config: Config, old_root: Target
) -> None:
    async with running(config) as store:
        before = events(config)
        cases: list[tuple[AdoptRequest, type[Exception], str]] = [
            (AdoptRequest(), InvalidArgument, "need an id"),
            (AdoptRequest(id="gone", guest="vm1", disk=0), NotFound, "not found"),
            (AdoptRequest(id="old", guest="vm1", disk=0), NotVolume, "not a volume"),
            (AdoptRequest(id="old/root@monday", guest="vm1", disk=0), NotVolume, "not a volume"),
            (AdoptRequest(id="old/root", guest="vm1"), InvalidArgument, "need a disk"),
            (AdoptRequest(id="old/root", guest="vm1", disk=-1), InvalidArgument, "need a disk"),
            (AdoptRequest(id="old/root", disk=1), InvalidArgument, "need a guest"),
            (AdoptRequest(id="old/root", guest="../x", disk=0), InvalidArgument, "invalid argument"),
            (AdoptRequest(id="old/root", guest="-r", disk=0), InvalidArgument, "invalid argument"),
            (AdoptRequest(id="old/root", guest="a", image="b"), InvalidArgument, "invalid argument"),
            (AdoptRequest(id="old/root", image="a@b"), NotValid, "not a valid dataset"),
        ]
        for request, error, text in cases:
            for dry_run in (True, False):
                with pytest.raises(error) as refusal:
                    await store.adopt_dataset(replace(request, dryRun=dry_run))
                assert str(refusal.value) == text
        assert events(config) == before


@pytest.mark.parametrize(
    "name", ["-r", "--force", "a b", "a%recv", "a#b", "@", "a@b@c", "../x", "/x", "a//b", ".x", "a\n"]
)
async def test_names_that_are_none_are_refused(run: Run, name: str) -> None:
    async with run() as store:
        with pytest.raises(NotValid):
            await store.adopt_dataset(AdoptRequest(id=name, guest="vm1", disk=0))
        with pytest.raises(NotValid):
            await store.release_dataset(ReleaseRequest(id=name))


async def test_a_disk_that_is_open_is_adopted_only_by_force(config: Config, old_root: Target) -> None:
    async with running(config) as store:
        device = (await store.get_volume(VolumeRequest(id="old/root"))).volumes[0].device
        with opened_for_writing(device) as writer:
            for dry_run in (True, False):
                with pytest.raises(InUse, match=f"old/root .pid {writer.pid}"):
                    await store.adopt_dataset(replace(AS_DISK, dryRun=dry_run))
            await store.adopt_dataset(replace(AS_DISK, force=True))
    assert any(isinstance(event, OperationStarted) and event.force for event in events(config))


async def test_a_release_strips_the_tags_forgets_and_leaves_the_data(
    config: Config, old_root: Target, tmp_path: Path
) -> None:
    async with running(config) as store:
        await store.adopt_dataset(AS_DISK)
        tried = await store.release_dataset(ReleaseRequest(id="pool/old/root", dryRun=True))
        assert tried.released == ("pool/old/root", "pool/old/root@monday")
        assert [command.count("tag_op = '',") for command in tried.commands] == [1, 1]
        await store.release_dataset(ReleaseRequest(id="old/root"))
        assert await volume_ids(store) == ["pool/old/root"]
        with pytest.raises(Blocked, match="dataset is not the store's: old/root"):
            await store.release_dataset(ReleaseRequest(id="old/root"))
        await store.delete_guests_disks(GuestRequest(guest={"id": "vm1"}))
        assert await volume_ids(store) == ["pool/old/root"], "it is the guest's no longer"
        await store.adopt_dataset(replace(AS_DISK, guest="vm2"))
        await store.release_dataset(ReleaseRequest(id="old/root"))
    assert sum(isinstance(event, DatasetReleased) for event in events(config)) == 4
    async with opened_pool(tmp_path) as pool:
        assert await target_of(pool, "old/root") == old_root
        assert {(await pool.get(f"old/root{part}")).tags for part in ("", "@monday")} == {NO_TAGS}
        assert Path(pool.device("old/root")).read_bytes().startswith(b"old/root\0")


async def test_an_image_is_adopted_cloned_and_not_released_while_a_clone_leans_on_it(
    run: Run, config: Config, tmp_path: Path
) -> None:
    async with opened_pool(tmp_path) as pool:
        await make_foreign(pool, "images/a")
        await snapshot_foreign(pool, "images/a", "sent")
        await snapshot_foreign(pool, "images/a", "cron")
    async with run() as store:
        assert (await store.list_images(ImageRequest())).images == ()
        await store.adopt_dataset(AdoptRequest(id="images/a", image="a", type="kvm"))
        (image,) = (await store.get_image(ImageRequest(id="a"))).images
        assert (image.status, image.type, image.snapshot, image.size) == (
            "complete", "kvm", "pool/images/a@sent", 2,
        )  # fmt: skip
        await store.clone_image(ImageRequest(id="a", dest="clone"))
        with pytest.raises(HasClones, match="image has dependent clones: clone"):
            await store.release_dataset(ReleaseRequest(id="images/a"))
        with pytest.raises(Blocked, match=r"dataset is the store's already: images/a \(image a\)"):
            await store.adopt_dataset(AdoptRequest(id="images/a", image="a"))
    rebuilt = replace(config, journal=f"{tmp_path}/rebuilt")
    assert (await rebuild(rebuilt)).images == 1
    async with running(rebuilt) as store:
        (image,) = (await store.get_image(ImageRequest(id="a"))).images
        assert image.snapshot == "pool/images/a@sent"
        await store.delete_dataset(VolumeRequest(id="clone"))
        await store.release_dataset(ReleaseRequest(id="images/a"))
        with pytest.raises(NotFound):
            await store.get_image(ImageRequest(id="a"))
        assert await volume_ids(store) == ["pool/images/a"]


# --- what the original program left ---------------------------------------------------


@pytest.fixture
async def originals(tmp_path: Path) -> None:
    """A pool as the original leaves it, with a database that is not all true."""
    async with opened_pool(tmp_path) as pool:
        await make_foreign(
            pool,
            "images/a",
            "images/b",
            "images/bare",
            "images/failed",
            "guests/vm1/disk-0",
            "guests/vm1/disk-1",
        )
        for image in ("a", "b", "failed"):
            await snapshot_foreign(pool, f"images/{image}", "s")
        await snapshot_foreign(pool, "guests/vm1/disk-0", "backup")
    known = {"volume": "", "snapshot": ""}
    write_database(
        tmp_path / "pool" / "images",
        [
            ("a", "images", value("a", volume="pool/images/a", snapshot="pool/images/a@s")),
            ("failed", "images", value("failed", status="error", **known)),
            ("gone", "images", value("gone", **known)),
            ("broken", "images", "{"),
        ],
    )


async def test_all_that_the_original_left_is_adopted_and_the_rest_has_a_line_each(
    run: Run, originals: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with run() as store:
        assert "imagestore adopt --original --dry-run" in caplog.text
        tried = await store.adopt_original(AdoptRequest(dryRun=True))
        assert len(tried.commands) == 7
        assert (await store.list_images(ImageRequest())).images == ()
        done = await store.adopt_original(AdoptRequest())
        assert (done.adopted, done.left) == (tried.adopted, tried.left)
        assert [row.id for row in done.adopted] == [
            "pool/images/a", "pool/images/a@s", "pool/images/b", "pool/images/b@s",
            "pool/guests/vm1/disk-0", "pool/guests/vm1/disk-0@backup", "pool/guests/vm1/disk-1",
        ]  # fmt: skip
        assert {left.id.removeprefix("pool/images/") for left in done.left} == {
            "failed",
            "gone",
            "broken",
            "bare",
        }
        images = (await store.list_images(ImageRequest())).images
        assert [(image.id, image.type, image.status) for image in images] == [
            ("a", "kvm", "complete"),
            ("b", "", "complete"),
        ]
        again = await store.adopt_original(AdoptRequest())
        assert again.adopted == ()
    async with run() as store:
        guest = {"id": "vm1", "disks": [{"size": 2}, {"size": 2}]}
        made = (await store.create_guest_disks(GuestRequest(guest=guest))).guest
        assert [disk["volume"] for disk in made["disks"]] == [f"pool/guests/vm1/disk-{n}" for n in range(2)]


async def test_a_guest_that_runs_is_left_and_the_others_are_taken(
    run: Run, originals: None, tmp_path: Path
) -> None:
    os.unlink(tmp_path / "pool" / "images" / ".images.db")
    async with run() as store:
        device = (await store.get_volume(VolumeRequest(id="guests/vm1/disk-1"))).volumes[0].device
        with opened_for_writing(device) as writer:
            done = await store.adopt_original(AdoptRequest())
            reasons = {left.id: left.reason for left in done.left}
            assert f"pid {writer.pid}" in reasons["pool/guests/vm1"]
            assert {row.image for row in done.adopted} == {"a", "b", "failed"}
            forced = await store.adopt_original(AdoptRequest(force=True))
        assert [row.id for row in forced.adopted if row.role == "disk"] == [
            "pool/guests/vm1/disk-0",
            "pool/guests/vm1/disk-1",
        ]


async def test_a_database_that_is_none_costs_only_what_it_would_have_told(
    run: Run, originals: None, tmp_path: Path
) -> None:
    (tmp_path / "pool" / "images" / ".images.db").write_bytes(b"not a database" * 100)
    async with run() as store:
        done = await store.adopt_original(AdoptRequest())
        assert "the original's database is not understood" in done.left[0].reason
        assert {row.image for row in done.adopted if row.role == "image"} == {"a", "b", "failed"}


# --- thick volumes ----------------------------------------------------------------------


async def test_a_thick_volume_counts_once_and_is_set_aside_for_good(run: Run, tmp_path: Path) -> None:
    thick = VolumeRequest(id="thick", size=64, thick=True)
    async with run() as store:
        before = await store.space_available()
        await store.create_volume(thick)
        free = await store.space_available()
        status = os.stat(tmp_path / "pool" / "thick")
        assert status.st_blocks * 512 >= 64 * MIB
        assert before - free < 72 * MIB, "what is set aside is not promised as well"
        assert (await store.create_volume(thick)).volumes[0].id == "pool/thick"
        assert (await store.create_volume(replace(thick, thick=False))).volumes[0].id == "pool/thick"
        await store.create_volume(VolumeRequest(id="sparse", size=1))
        with pytest.raises(AlreadyExists, match="dataset already exists: sparse"):
            await store.create_volume(VolumeRequest(id="sparse", size=1, thick=True))
        await store.create_snapshot(SnapshotRequest(id="thick", dest="s"))
        await store.rollback_snapshot(SnapshotRequest(id="thick@s"))
        assert os.stat(tmp_path / "pool" / "thick").st_blocks * 512 >= 64 * MIB
    async with run() as store:
        with pytest.raises(NoSpace):
            await store.create_volume(VolumeRequest(id="more", size=1 << 30, thick=True))


# --- a crash in the middle ---------------------------------------------------------------


class Crash(Exception):
    """Ends the store at a step."""


async def die_at(step: str, config: Config, change: Callable[[Store], Awaitable[object]]) -> None:
    """Run a store in which ``change`` comes as far as ``step`` and no further."""

    def trace(reached: str) -> None:
        if reached == step and armed:
            raise Crash

    armed: list[bool] = []
    store = Store(config, trace=trace)
    with pytest.RaisesGroup(Crash, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            armed.append(True)
            with pytest.raises(OutcomeUnknown):
                await change(store)


@pytest.mark.parametrize("step", ["after-intent", "after-effect"])
async def test_an_adoption_cut_short_is_whole_or_undone_after_the_restart(
    config: Config, old_root: Target, tmp_path: Path, step: str
) -> None:
    await die_at(step, config, lambda store: store.adopt_dataset(AS_DISK))
    async with running(config) as store:
        assert await volume_ids(store) == ["pool/old/root"]
    finished = [event for event in events(config) if isinstance(event, OperationFinished)]
    async with opened_pool(tmp_path) as pool:
        row = await pool.get("old/root")
        names = {each.name for each in await pool.list()}
    assert row.target == old_root
    if step == "after-effect":
        assert (finished[-1].outcome, row.tags.guest) == ("succeeded", "vm1")
        assert "guests/vm1" in names
    else:
        assert (finished[-1].outcome, row.tags) == ("failed", NO_TAGS)
        assert "guests/vm1" not in names


@pytest.mark.parametrize("step", ["after-intent", "after-effect"])
async def test_a_release_cut_short_is_whole_or_undone_after_the_restart(
    config: Config, old_root: Target, step: str
) -> None:
    async with running(config) as store:
        await store.adopt_dataset(AS_DISK)
    await die_at(step, config, lambda store: store.release_dataset(ReleaseRequest(id="old/root")))
    async with running(config) as store:
        if step == "after-effect":
            with pytest.raises(Blocked, match="dataset is not the store's"):
                await store.release_dataset(ReleaseRequest(id="old/root"))
        else:
            await store.release_dataset(ReleaseRequest(id="old/root"))
        assert await volume_ids(store) == ["pool/old/root"]
