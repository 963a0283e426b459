"""What every driver must do, on the real thing.

A driver's test module derives a class from each class here and gives the
``harness`` fixture.  Sizes are whole MiB and contents start at block
boundaries, so that block devices can take part.
"""

import hashlib
import lzma
from pathlib import Path

import pytest
import trio

from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ContentRefused,
    HasClones,
    Held,
    InUse,
    InvalidArgument,
    Modified,
    NewerSnapshots,
    NotFound,
    NotValid,
    StreamError,
)
from imagestore.pools.base import (
    Creation,
    Dataset,
    Mark,
    NewClone,
    NewFilesystem,
    NewVolume,
    PoolDriver,
    Receiver,
    Tags,
    Target,
)
from tests.pools.harness import (
    DISK,
    MIB,
    PARENT,
    SNAPSHOT,
    VOLUME,
    Harness,
    filesystem,
    listed,
    opened_for_writing,
    read,
    snapshot,
    volume,
    write,
)
from tests.streams.samples import SAMPLES, load

BLOCK = 64 << 10
OLD = b"old".ljust(BLOCK, b"o")
NEW = b"new".ljust(BLOCK, b"n")

S1_GUID = 13992829872530946771
S1_SHA256 = "c1d17f6f3faae42a1298f0255fe125ec56a34f66c8022467536aedacca940d40"
S3_GUID = 8843356174481516119
S3_SHA256 = "31d133884d83489f7e14b8df00e58b2c0ec8cdb903c84e92814c99f04f870359"


def stream(name: str) -> bytes:
    """A send stream that OpenZFS 2.1.11 made."""
    return lzma.decompress((Path(__file__).parent / "streams" / f"{name}.zs.xz").read_bytes())


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


@pytest.fixture
def pool(harness: Harness) -> PoolDriver:
    return harness.pool


class Looking:
    async def test_a_new_pool_holds_only_its_root(self, pool: PoolDriver) -> None:
        (root,) = await pool.list()
        assert (root.name, root.kind) == ("", "filesystem")
        assert await pool.get("") == root

    async def test_datasets_are_listed_in_the_order_of_zfs_list(self, pool: PoolDriver) -> None:
        for name in ("b", "a", "a-b", "a/z", "a/b"):
            await filesystem(pool, name)
        made = {name: await volume(pool, name) for name in ("a/b/v", "a/b/v2", "a/b-c")}
        for name in ("zz", "aa"):
            await snapshot(pool, made["a/b/v"], name)
        await snapshot(pool, await pool.get("a"), "s")
        assert await listed(pool) == [
            "", "a", "a@s", "a-b", "a/b", "a/b-c", "a/b/v", "a/b/v@zz", "a/b/v@aa", "a/b/v2", "a/z", "b",
        ]  # fmt: skip

    async def test_what_is_not_there_is_not_found(self, pool: PoolDriver) -> None:
        for name in ("nothing", "nothing/below", "@nothing"):
            with pytest.raises(NotFound):
                await pool.get(name)
        with pytest.raises(NotFound):
            await pool.users("nothing")

    async def test_the_list_and_a_single_look_agree(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        await clone(pool, await pool.get(f"{disk.name}@one"), "guests/vm/disk-9")
        for dataset in await pool.list():
            seen = await pool.get(dataset.name)
            assert (seen.identity, seen.kind, seen.tags, seen.origin, seen.volsize, seen.creation) == (
                dataset.identity,
                dataset.kind,
                dataset.tags,
                dataset.origin,
                dataset.volsize,
                dataset.creation,
            )

    async def test_a_pool_that_nobody_touches_keeps_its_generation(self, pool: PoolDriver) -> None:
        await volume(pool, "v")
        await pool.list()
        seen = await pool.generation()
        assert await pool.generation() == seen

    async def test_space_is_what_can_be_written(self, pool: PoolDriver) -> None:
        space = await pool.space()
        assert 0 < space.available <= space.total

    async def test_the_mark_is_kept_replaced_and_taken_off(self, harness: Harness) -> None:
        assert await harness.pool.mark() is None
        for mark in (Mark(journal="6f1d", epoch=1), Mark(journal="6f1d", epoch=2)):
            await harness.pool.set_mark(mark)
            assert await harness.pool.mark() == mark
        await harness.reopen()
        assert await harness.pool.mark() == Mark(journal="6f1d", epoch=2)
        await harness.pool.set_mark(None)
        assert await harness.pool.mark() is None

    async def test_everything_is_there_after_a_restart(self, harness: Harness) -> None:
        disk, _ = await guest(harness.pool)
        await clone(harness.pool, await harness.pool.get(f"{disk.name}@one"), "guests/vm/disk-9")
        before = [await harness.pool.get(name) for name in await listed(harness.pool)]
        await harness.reopen()
        assert [await harness.pool.get(name) for name in await listed(harness.pool)] == before
        assert read(harness.pool, disk.name, BLOCK) == NEW
        assert read(harness.pool, "guests/vm/disk-9", BLOCK) == OLD

    async def test_closing_twice_is_closing_once(self, harness: Harness) -> None:
        await harness.pool.close()
        await harness.pool.close()
        await harness.reopen()
        assert await listed(harness.pool) == [""]


class Creating:
    async def test_what_is_made_has_identity_tags_and_a_date(self, pool: PoolDriver) -> None:
        made = await pool.create(
            [
                NewFilesystem(name="guests", tags=PARENT),
                NewVolume(name="guests/v", size=3 * MIB, tags=DISK),
            ]
        )
        assert [(d.name, d.kind, d.tags, d.volsize) for d in made] == [
            ("guests", "filesystem", PARENT, 0),
            ("guests/v", "volume", DISK, 3 * MIB),
        ]
        assert all(0 < d.guid < 1 << 64 and d.createtxg > 0 and d.creation > 1_500_000_000 for d in made)
        assert len({d.guid for d in made}) == 2
        assert [await pool.get(d.name) for d in made] == list(made)

    async def test_a_blank_volume_reads_as_zeros_and_takes_no_space(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v", size=2 * MIB)
        assert read(pool, "v") == bytes(2 * MIB)
        assert made.written < MIB
        assert made.sparse

    async def test_the_device_is_an_absolute_path(self, pool: PoolDriver) -> None:
        await volume(pool, "v", content=OLD)
        assert pool.device("v").startswith("/")
        assert read(pool, "v", BLOCK) == OLD

    async def test_a_taken_name_is_refused(self, pool: PoolDriver) -> None:
        await filesystem(pool, "a")
        for creation in (NewFilesystem(name="a", tags=PARENT), NewVolume(name="a", size=MIB, tags=VOLUME)):
            with pytest.raises(AlreadyExists, match="dataset already exists: a"):
                await pool.create([creation])
        with pytest.raises(AlreadyExists):
            await pool.create([NewFilesystem(name="", tags=PARENT)])

    async def test_a_parent_must_exist_and_be_a_file_system(self, pool: PoolDriver) -> None:
        await volume(pool, "v")
        with pytest.raises(NotFound):
            await pool.create([NewVolume(name="missing/v", size=MIB, tags=VOLUME)])
        with pytest.raises(NotValid):
            await pool.create([NewVolume(name="v/below", size=MIB, tags=VOLUME)])
        assert await listed(pool) == ["", "v"]

    async def test_all_are_made_or_none(self, pool: PoolDriver) -> None:
        await filesystem(pool, "taken")
        with pytest.raises(AlreadyExists):
            await pool.create(
                [
                    NewFilesystem(name="a", tags=PARENT),
                    NewVolume(name="a/v", size=MIB, tags=VOLUME),
                    NewFilesystem(name="taken", tags=PARENT),
                ]
            )
        assert await listed(pool) == ["", "taken"]

    @pytest.mark.parametrize("size", [0, -512, 100, 1 << 64])
    async def test_an_impossible_size_is_refused(self, pool: PoolDriver, size: int) -> None:
        with pytest.raises(InvalidArgument):
            await pool.create([NewVolume(name="v", size=size, tags=VOLUME)])
        assert await listed(pool) == [""]

    async def test_a_clone_has_its_origins_content_and_goes_its_own_way(self, pool: PoolDriver) -> None:
        image = await volume(pool, "image", content=OLD)
        origin = await snapshot(pool, image, "s")
        made = await clone(pool, origin, "disk")
        assert (made.kind, made.origin, made.volsize, made.tags) == ("volume", "image@s", MIB, DISK)
        assert made.written < BLOCK
        write(pool, "disk", NEW)
        assert read(pool, "image", BLOCK) == OLD
        assert read(pool, "disk", 2 * BLOCK) == NEW + bytes(BLOCK)
        assert read(pool, (await clone(pool, origin, "disk2")).name, BLOCK) == OLD

    async def test_only_the_very_snapshot_is_cloned(self, pool: PoolDriver) -> None:
        image = await volume(pool, "image")
        origin = await snapshot(pool, image, "s")
        for target in (other(origin.target), Target(name="image@t", guid=1, createtxg=1)):
            with pytest.raises(NotFound):
                await pool.create([NewClone(name="disk", origin=target, tags=DISK)])
        with pytest.raises(InvalidArgument):
            await pool.create([NewClone(name="disk", origin=image.target, tags=DISK)])
        assert await listed(pool) == ["", "image", "image@s"]

    async def test_many_are_made_at_once(self, pool: PoolDriver) -> None:
        origin = await snapshot(pool, await volume(pool, "image", content=OLD), "s")

        async def one(number: int) -> None:
            await pool.create(
                [
                    NewFilesystem(name=f"g{number}", tags=PARENT),
                    NewClone(name=f"g{number}/disk-0", origin=origin.target, tags=DISK),
                ]
            )

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(one, number)
        rows = await pool.list()
        assert len(rows) == 3 + 24
        assert len({row.identity for row in rows}) == len(rows)
        assert all(read(pool, f"g{number}/disk-0", BLOCK) == OLD for number in range(12))

    async def test_of_two_that_want_one_name_one_gets_it(self, pool: PoolDriver) -> None:
        outcomes: list[str] = []

        async def one() -> None:
            try:
                await volume(pool, "v")
                outcomes.append("made")
            except AlreadyExists:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)
        assert sorted(outcomes) == ["made", "refused", "refused", "refused"]

    async def test_a_cancelled_creation_happened_or_did_not(self, pool: PoolDriver) -> None:
        for number in range(6):
            creations: list[Creation] = [
                NewFilesystem(name=f"g{number}", tags=PARENT),
                NewVolume(name=f"g{number}/v", size=MIB, tags=DISK),
            ]
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pool.create, creations)
                    for _ in range(number):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            names = await listed(pool)
            assert (f"g{number}" in names) == (f"g{number}/v" in names)
            # Whatever came of it, the name is usable afterwards.
            if f"g{number}" not in names:
                await filesystem(pool, f"g{number}")
                await volume(pool, f"g{number}/v")
            assert read(pool, f"g{number}/v", BLOCK) == bytes(BLOCK)


class Snapshotting:
    async def test_a_snapshot_keeps_what_was_there(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v", content=OLD)
        taken = await snapshot(pool, made, "s")
        assert (taken.name, taken.kind, taken.volsize, taken.tags) == ("v@s", "snapshot", MIB, SNAPSHOT)
        assert taken.createtxg >= made.createtxg
        write(pool, "v", NEW)
        assert read(pool, (await clone(pool, taken, "c")).name, BLOCK) == OLD
        assert read(pool, "v", BLOCK) == NEW

    async def test_a_snapshots_size_is_what_was_written_before_it(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v", content=OLD)
        first = await snapshot(pool, made, "s1")
        assert first.written >= BLOCK
        write(pool, "v", NEW, offset=BLOCK)
        second = await snapshot(pool, made, "s2")
        assert second.written >= BLOCK
        assert second.referenced >= 2 * BLOCK
        assert (await pool.get("v")).written < BLOCK
        assert await pool.get("v@s1") == first

    async def test_disks_and_file_systems_are_snapshotted_together(self, pool: PoolDriver) -> None:
        root = await filesystem(pool, "g")
        disks = [await volume(pool, f"g/disk-{n}", content=OLD) for n in range(2)]
        taken = await pool.snapshot([d.target for d in (root, *disks)], "s", SNAPSHOT)
        assert [d.name for d in taken] == ["g@s", "g/disk-0@s", "g/disk-1@s"]
        assert await listed(pool) == ["", "g", "g@s", "g/disk-0", "g/disk-0@s", "g/disk-1", "g/disk-1@s"]

    async def test_all_are_snapshotted_or_none(self, pool: PoolDriver) -> None:
        a, b = await volume(pool, "a"), await volume(pool, "b")
        await snapshot(pool, b, "s")
        with pytest.raises(AlreadyExists, match="dataset already exists: b@s"):
            await pool.snapshot([a.target, b.target], "s", SNAPSHOT)
        with pytest.raises(NotFound):
            await pool.snapshot([a.target, other(b.target)], "t", SNAPSHOT)
        assert await listed(pool) == ["", "a", "b", "b@s"]

    async def test_an_open_disk_is_snapshotted_where_that_is_one_step(self, harness: Harness) -> None:
        pool = harness.pool
        made = await volume(pool, "v", content=OLD)
        with opened_for_writing(pool.device("v")) as writer:
            if harness.snapshots_open_disks:
                taken = await snapshot(pool, made, "s")
                writer.write("later")
                assert read(pool, (await clone(pool, taken, "c")).name, BLOCK) == OLD
            else:
                with pytest.raises(InUse, match=f"dataset is in use: v .*pid {writer.pid} python"):
                    await snapshot(pool, made, "s")
                assert await listed(pool) == ["", "v"]
        await snapshot(pool, made, "t")


class Destroying:
    async def test_destroyed_is_gone_and_its_name_is_free(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v", content=OLD)
        await pool.destroy([made.target])
        assert await listed(pool) == [""]
        again = await volume(pool, "v")
        assert again.identity != made.identity
        assert read(pool, "v", BLOCK) == bytes(BLOCK)

    async def test_a_tree_goes_at_once_when_all_of_it_is_named(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        await clone(pool, await pool.get(f"{disk.name}@one"), "guests/vm/disk-9")
        targets = [dataset.target for dataset in await pool.list() if dataset.name]
        await pool.destroy(targets)
        assert await listed(pool) == [""]

    async def test_another_dataset_under_the_name_is_left_alone(self, pool: PoolDriver) -> None:
        a, b = await volume(pool, "a"), await volume(pool, "b")
        for wrong in (other(b.target), Target(name="c", guid=b.guid, createtxg=b.createtxg)):
            with pytest.raises(NotFound):
                await pool.destroy([a.target, wrong])
        assert await listed(pool) == ["", "a", "b"]

    async def test_destroying_twice_is_not_found(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v")
        await pool.destroy([made.target])
        with pytest.raises(NotFound):
            await pool.destroy([made.target])

    async def test_children_that_are_not_named_keep_their_parent(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        before = await listed(pool)
        for name in ("guests", disk.name):
            with pytest.raises(Blocked) as refusal:
                await pool.destroy([(await pool.get(name)).target])
            assert refusal.value.blockers == tuple(sorted(refusal.value.blockers))
            assert f"{disk.name}@one" in refusal.value.blockers
        assert await listed(pool) == before

    async def test_clones_keep_their_origin_and_are_named_in_order(self, pool: PoolDriver) -> None:
        image = await volume(pool, "image")
        origin = await snapshot(pool, image, "s")
        clones = [await clone(pool, origin, name) for name in ("z", "a", "m")]
        with pytest.raises(HasClones, match="snapshot has dependent clones: a, m, z") as refusal:
            await pool.destroy([image.target, origin.target])
        assert refusal.value.blockers == ("a", "m", "z")
        await pool.destroy([d.target for d in (image, origin, *clones)])
        assert await listed(pool) == [""]

    async def test_the_root_is_not_destroyed(self, pool: PoolDriver) -> None:
        (root,) = await pool.list()
        with pytest.raises(Blocked):
            await pool.destroy([root.target])
        assert await listed(pool) == [""]

    async def test_a_disk_in_use_is_not_pulled_away(self, harness: Harness) -> None:
        pool = harness.pool
        free, used = await volume(pool, "a"), await volume(pool, "b")
        with opened_for_writing(pool.device("b")) as writer:
            assert any(f"pid {writer.pid} python" in user for user in await pool.users("b"))
            with pytest.raises(InUse, match="dataset is in use: b"):
                await pool.destroy([free.target, used.target])
            assert await listed(pool) == ["", "a", "b"]
            if harness.force_overrides:
                await pool.destroy([free.target, used.target], force=True)
            else:
                with pytest.raises(InUse):
                    await pool.destroy([used.target], force=True)
        if not harness.force_overrides:
            await pool.destroy([free.target, used.target])
        assert await listed(pool) == [""]

    async def test_a_reader_does_not_count_as_use(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v")
        with open(pool.device("v"), "rb"):
            assert not await pool.users("v")
        await pool.destroy([made.target])


class RollingBack:
    async def test_a_volume_is_as_it_was(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        device = pool.device(disk.name)
        taken = await pool.get(f"{disk.name}@one")
        (rolled,) = await pool.rollback([taken.target], destroy=[], operation="op-9")
        assert rolled.identity == disk.identity
        assert rolled.tags == Tags(op="op-1", kind="volume", last="op-9")
        assert rolled.written < BLOCK
        assert read(pool, disk.name, BLOCK) == OLD
        assert pool.device(disk.name) == device
        write(pool, disk.name, NEW)
        await pool.rollback([taken.target], destroy=[], operation="op-10")
        assert read(pool, disk.name, BLOCK) == OLD
        assert (await pool.get(disk.name)).tags.last == "op-10"

    async def test_a_guests_disks_roll_back_together(self, pool: PoolDriver) -> None:
        disks = await guest(pool)
        newer = await pool.snapshot([d.target for d in disks], "two", SNAPSHOT)
        snapshots = [(await pool.get(f"{d.name}@one")).target for d in disks]
        await pool.rollback(snapshots, destroy=[d.target for d in newer], operation="op-9")
        assert [read(pool, d.name, BLOCK) for d in disks] == [OLD, OLD]
        assert not any(name.endswith("@two") for name in await listed(pool))

    async def test_newer_snapshots_must_be_named(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        newer = [await snapshot(pool, disk, name) for name in ("zz", "aa")]
        one = (await pool.get(f"{disk.name}@one")).target
        with pytest.raises(NewerSnapshots) as refusal:
            await pool.rollback([one], destroy=[newer[1].target], operation="op-9")
        assert refusal.value.blockers == (f"{disk.name}@zz",)
        assert read(pool, disk.name, BLOCK) == NEW
        assert (await pool.get(disk.name)).tags.last == ""

    async def test_one_that_cannot_keeps_all_from_rolling_back(self, pool: PoolDriver) -> None:
        first, second = await guest(pool)
        newer = await snapshot(pool, second, "two")
        await clone(pool, newer, "guests/vm/disk-9")
        snapshots = [(await pool.get(f"{d.name}@one")).target for d in (first, second)]
        with pytest.raises(HasClones, match="snapshot has dependent clones: guests/vm/disk-9"):
            await pool.rollback(snapshots, destroy=[newer.target], operation="op-9")
        assert read(pool, first.name, BLOCK) == NEW
        assert (await pool.get(first.name)).tags.last == ""
        assert f"{second.name}@two" in await listed(pool)

    async def test_only_the_very_snapshot_is_rolled_back_to(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        one = (await pool.get(f"{disk.name}@one")).target
        with pytest.raises(NotFound):
            await pool.rollback([other(one)], destroy=[], operation="op-9")
        with pytest.raises(NotFound):
            await pool.rollback([one], destroy=[other(one)], operation="op-9")
        assert read(pool, disk.name, BLOCK) == NEW

    async def test_a_disk_in_use_is_not_rolled_back(self, harness: Harness) -> None:
        pool = harness.pool
        first, second = await guest(pool)
        snapshots = [(await pool.get(f"{d.name}@one")).target for d in (first, second)]
        with opened_for_writing(pool.device(second.name)):
            with pytest.raises(InUse):
                await pool.rollback(snapshots, destroy=[], operation="op-9")
            assert read(pool, first.name, BLOCK) == NEW
            if harness.force_overrides:
                await pool.rollback(snapshots, destroy=[], operation="op-10", force=True)
            else:
                with pytest.raises(InUse):
                    await pool.rollback(snapshots, destroy=[], operation="op-10", force=True)
        if not harness.force_overrides:
            await pool.rollback(snapshots, destroy=[], operation="op-10")
        assert [read(pool, d.name, BLOCK) for d in (first, second)] == [OLD, OLD]


class Altering:
    async def test_a_rename_takes_snapshots_and_children_along(self, harness: Harness) -> None:
        pool = harness.pool
        disk, _ = await guest(pool)
        origin = await pool.get(f"{disk.name}@one")
        await clone(pool, origin, "guests/clone")
        vm = await pool.get("guests/vm")
        moved = await pool.rename(vm.target, "guests/other")
        assert moved[0].name == "guests/other"
        assert (await pool.get("guests/other/disk-0")).identity == disk.identity
        assert (await pool.get("guests/other/disk-0@one")).identity == origin.identity
        assert (await pool.get("guests/clone")).origin == "guests/other/disk-0@one"
        assert {d.name for d in moved} == {
            name for name in await listed(pool) if name.startswith("guests/other")
        }
        await harness.reopen()
        assert read(harness.pool, "guests/other/disk-0", BLOCK) == NEW
        assert not any("vm" in name for name in await listed(harness.pool))

    async def test_a_rename_to_another_depth_keeps_the_content(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        await pool.rename(disk.target, "disk")
        assert read(pool, "disk", BLOCK) == NEW
        assert "disk@one" in await listed(pool)

    async def test_a_rename_onto_something_or_of_something_else_is_refused(self, pool: PoolDriver) -> None:
        a, _ = await volume(pool, "a", content=OLD), await volume(pool, "b", content=NEW)
        with pytest.raises(AlreadyExists):
            await pool.rename(a.target, "b")
        with pytest.raises(NotFound):
            await pool.rename(other(a.target), "c")
        with pytest.raises(NotFound):
            await pool.rename(a.target, "missing/c")
        assert await listed(pool) == ["", "a", "b"]
        assert (read(pool, "a", BLOCK), read(pool, "b", BLOCK)) == (OLD, NEW)

    async def test_a_volume_grows_and_keeps_its_content(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v", content=OLD)
        grown = await pool.resize(made.target, 3 * MIB)
        assert (grown.identity, grown.volsize) == (made.identity, 3 * MIB)
        assert read(pool, "v") == OLD + bytes(3 * MIB - BLOCK)
        with pytest.raises(NotFound):
            await pool.resize(other(made.target), 4 * MIB)

    async def test_a_volume_in_use_does_not_shrink(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v", size=2 * MIB)
        with opened_for_writing(pool.device("v")), pytest.raises(InUse):
            await pool.resize(made.target, MIB)
        assert (await pool.get("v")).volsize == 2 * MIB
        assert (await pool.resize(made.target, MIB)).volsize == MIB
        assert len(read(pool, "v")) == MIB

    async def test_tags_are_replaced(self, harness: Harness) -> None:
        made = await volume(harness.pool, "v")
        tags = Tags(op="op-7", kind="disk", guest="vm", disk="1")
        assert (await harness.pool.tag(made.target, tags)).tags == tags
        await harness.reopen()
        assert (await harness.pool.get("v")).tags == tags
        with pytest.raises(NotFound):
            await harness.pool.tag(other(made.target), VOLUME)


class Receiving:
    async def test_a_raw_image_becomes_a_volume_and_its_snapshot(self, pool: PoolDriver) -> None:
        content = OLD + bytes(3 * MIB) + NEW + bytes(MIB - 2 * BLOCK)
        async with pool.receive_raw("v", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
            for at in range(0, len(content), 100_000):
                await receiver.feed(content[at : at + 100_000])
            assert await listed(pool) == [""]
            made = await receiver.finish()
        assert [(d.name, d.kind, d.volsize, d.tags) for d in made] == [
            ("v", "volume", 4 * MIB, VOLUME),
            ("v@s", "snapshot", 4 * MIB, SNAPSHOT),
        ]
        assert [await pool.get(d.name) for d in made] == list(made)
        assert made[0].referenced < 2 * MIB
        assert read(pool, "v") == content
        assert read(pool, (await clone(pool, made[1], "c")).name) == content

    async def test_a_large_piece_is_taken_whole(self, pool: PoolDriver) -> None:
        content = bytearray(OLD * 40)
        async with pool.receive_raw("v", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
            await receiver.feed(memoryview(content))
            content[:] = bytes(len(content))
            await receiver.feed(NEW * 8)
            await receiver.finish()
        assert read(pool, "v") == OLD * 40 + NEW * 8

    @pytest.mark.parametrize("length", [0, 511, MIB + 100])
    async def test_a_raw_image_of_odd_length_is_refused(self, pool: PoolDriver, length: int) -> None:
        async with pool.receive_raw("v", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
            await receiver.feed(b"x" * length)
            with pytest.raises(ContentRefused):
                await receiver.finish()
        assert await listed(pool) == [""]

    async def test_what_is_not_finished_leaves_nothing(self, harness: Harness) -> None:
        pool = harness.pool
        async with pool.receive_raw("v", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
            await receiver.feed(OLD * 32)
        await receiver.abort()
        async with pool.receive_stream("v", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            await receiver.feed(stream("v64k-s1-plain")[:MIB])
            await receiver.abort()
        with trio.CancelScope() as scope:
            async with pool.receive_raw("v", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
                scope.cancel()
                await receiver.feed(OLD * 32)
        assert await listed(pool) == [""]
        await volume(pool, "v")

    async def test_a_receiver_needs_a_free_name_in_a_file_system(self, pool: PoolDriver) -> None:
        await volume(pool, "v")
        for name, error in (("v", AlreadyExists), ("missing/v", NotFound), ("v/below", NotValid)):
            with pytest.raises(error):
                async with pool.receive_raw(name, VOLUME, snapshot="s", snapshot_tags=SNAPSHOT):
                    pass
            with pytest.raises(error):
                async with pool.receive_stream(name, VOLUME, snapshot_tags=SNAPSHOT):
                    pass

    async def test_a_name_taken_meanwhile_is_refused_at_the_end(self, pool: PoolDriver) -> None:
        async with pool.receive_raw("v", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
            await receiver.feed(OLD)
            await volume(pool, "v", content=NEW)
            with pytest.raises(AlreadyExists):
                await receiver.finish()
        assert await listed(pool) == ["", "v"]
        assert read(pool, "v", BLOCK) == NEW

    async def test_a_real_stream_keeps_its_identity(self, harness: Harness) -> None:
        pool = harness.pool
        data = stream("v64k-s1-plain")
        async with pool.receive_stream("v", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            for at in range(0, len(data), 300_000):
                await receiver.feed(data[at : at + 300_000])
            assert await listed(pool) == [""]
            made = await receiver.finish()
        assert [(d.name, d.volsize, d.tags) for d in made] == [
            ("v", 6 * MIB, VOLUME),
            ("v@s1", 6 * MIB, SNAPSHOT),
        ]
        assert made[1].guid == S1_GUID
        assert made[1].creation == int.from_bytes(data[24:32], "little")
        await harness.reopen()
        assert (await harness.pool.get("v@s1")).identity == made[1].identity
        assert hashlib.sha256(read(harness.pool, "v")).hexdigest() == S1_SHA256

    async def test_one_image_may_come_twice(self, pool: PoolDriver) -> None:
        identities = set()
        for name in ("a", "b"):
            async with pool.receive_stream(name, VOLUME, snapshot_tags=SNAPSHOT) as receiver:
                await receiver.feed(stream("v64k-s1-plain"))
                made = await receiver.finish()
            assert made[1].guid == S1_GUID
            identities.add(made[1].identity)
        assert len(identities) == 2

    async def test_a_package_brings_all_its_snapshots(self, pool: PoolDriver) -> None:
        async with pool.receive_stream("v", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            await receiver.feed(stream("v64k-R"))
            made = await receiver.finish()
        assert [d.name for d in made] == ["v", "v@s1", "v@s2", "v@s3"]
        assert (made[1].guid, made[3].guid) == (S1_GUID, S3_GUID)
        assert hashlib.sha256(read(pool, "v")).hexdigest() == S3_SHA256
        first = await clone(pool, made[1], "first")
        assert hashlib.sha256(read(pool, first.name)).hexdigest() == S1_SHA256

    @pytest.mark.parametrize("damage", ["cut", "flipped", "trailing", "filesystem", "empty"])
    async def test_a_wrong_stream_leaves_nothing(self, pool: PoolDriver, damage: str) -> None:
        data = bytearray(stream("refuse-filesystem" if damage == "filesystem" else "v64k-s1-plain"))
        if damage == "cut":
            del data[-312:]
        elif damage == "flipped":
            data[len(data) // 2] ^= 1
        elif damage == "trailing":
            data += b"more"
        elif damage == "empty":
            data.clear()

        async with pool.receive_stream("v", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            with pytest.raises((StreamError, ContentRefused)):
                await feed_all(receiver, data)
        assert await listed(pool) == [""]
        await volume(pool, "v")


class ReceivingOnto:
    """Incremental streams: onto a volume, and into a new clone."""

    async def _chain(self, pool: PoolDriver, name: str) -> tuple[Dataset, Dataset]:
        """The volume of the first full stream of v8k, and its snapshot s1."""
        async with pool.receive_stream(name, VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            made = await feed_all(receiver, load("v8k-s1-plain"))
        return made[0], made[1]

    async def _onto(
        self, pool: PoolDriver, base: Dataset, data: bytes, *, force: bool = False
    ) -> tuple[Dataset, ...]:
        volume = await pool.get(base.name.partition("@")[0])
        async with pool.receive_onto(
            volume.target, base=base.target, snapshot_tags=SNAPSHOT, operation="op-7", force=force
        ) as receiver:
            return await feed_all(receiver, data)

    async def test_a_chain_of_real_streams_ends_as_the_sender_was(self, harness: Harness) -> None:
        pool = harness.pool
        volume, s1 = await self._chain(pool, "v")
        changed, s2 = await self._onto(pool, s1, load("v8k-s1-s2-c"))
        assert (changed.identity, changed.tags.last) == (volume.identity, "op-7")
        assert (s2.name, s2.guid, s2.tags) == ("v@s2", int(SAMPLES["v8k-s1-s2-c"].guid), SNAPSHOT)
        assert sha256(pool, "v") == SAMPLES["v8k-s1-s2-c"].sha256
        grown, s3 = await self._onto(pool, s2, load("v8k-s2-s3-plain"))
        assert grown.volsize == s3.volsize == SAMPLES["v8k-s2-s3-plain"].volsize
        assert sha256(pool, "v") == SAMPLES["v8k-s2-s3-plain"].sha256
        assert await listed(pool) == ["", "v", "v@s1", "v@s2", "v@s3"]
        await harness.reopen()
        assert [await harness.pool.get(d.name) for d in (grown, s3)] == [grown, s3]
        first = await clone(harness.pool, s1, "first")
        assert sha256(harness.pool, first.name) == SAMPLES["v8k-s1-plain"].sha256

    @pytest.mark.parametrize(("base", "name"), [("v64k-s1-plain", "v64k-I"), ("empty-a", "empty-a-b")])
    async def test_a_package_and_a_stream_of_nothing_go_onto_their_bases(
        self, pool: PoolDriver, base: str, name: str
    ) -> None:
        async with pool.receive_stream("v", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            _, first = await feed_all(receiver, load(base))
        volume, *snapshots = await self._onto(pool, first, load(name))
        sample = SAMPLES[name]
        assert (snapshots[-1].name, snapshots[-1].guid) == (f"v@{sample.snapshot}", int(sample.guid))
        assert sha256(pool, "v") == sample.sha256
        assert [await pool.get(d.name) for d in (volume, *snapshots)] == [volume, *snapshots]

    async def test_our_own_increments_go_onto_a_copy(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        one = await pool.get(f"{disk.name}@one")
        write(pool, disk.name, NEW * 3, offset=2 * BLOCK)
        two = await snapshot(pool, disk, "two")
        async with pool.receive_stream("copy", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            _, base = await feed_all(receiver, await sent(pool, one))
        _, taken = await self._onto(pool, base, await sent(pool, two, one))
        assert (taken.name, taken.guid, taken.creation) == ("copy@two", two.guid, two.creation)
        assert read(pool, "copy") == read(pool, disk.name)
        assert await sent(pool, taken, base) != b""

    async def test_nothing_is_seen_before_the_end_was_verified(self, pool: PoolDriver) -> None:
        volume, s1 = await self._chain(pool, "v")
        data = load("v8k-s1-s2-plain")
        for damage in ("cut", "flipped", "trailing", "not finished"):
            wrong = bytearray(data)
            if damage == "cut":
                del wrong[-312:]
            elif damage == "flipped":
                wrong[len(wrong) // 2] ^= 1
            elif damage == "trailing":
                wrong += b"more"
            async with pool.receive_onto(
                volume.target, base=s1.target, snapshot_tags=SNAPSHOT, operation="op-7"
            ) as receiver:
                if damage == "not finished":
                    await receiver.feed(data)
                else:
                    with pytest.raises(StreamError):
                        await feed_all(receiver, wrong)
            assert await listed(pool) == ["", "v", "v@s1"]
            assert sha256(pool, "v") == SAMPLES["v8k-s1-plain"].sha256
        await self._onto(pool, s1, data)

    async def test_a_stream_from_elsewhere_is_refused(self, pool: PoolDriver) -> None:
        volume, s1 = await self._chain(pool, "v")
        for data in (load("v8k-s2-s3-plain"), load("v8k-s1-plain"), load("clone-inc")):
            with pytest.raises(StreamError):
                await self._onto(pool, s1, data)
        await snapshot(pool, volume, "newer")
        with pytest.raises(Blocked):
            await self._onto(pool, s1, load("v8k-s1-s2-plain"))
        with pytest.raises(NotFound):
            async with pool.receive_onto(
                other(volume.target), base=s1.target, snapshot_tags=SNAPSHOT, operation="op-7"
            ):
                pass
        assert await listed(pool) == ["", "v", "v@s1", "v@newer"]

    async def test_what_was_written_since_the_base_is_lost_only_by_force(self, pool: PoolDriver) -> None:
        _, s1 = await self._chain(pool, "v")
        write(pool, "v", NEW)
        with pytest.raises(Modified, match=r"^dataset has been modified: v since v@s1$"):
            await self._onto(pool, s1, load("v8k-s1-s2-plain"))
        assert read(pool, "v", BLOCK) == NEW
        await self._onto(pool, s1, load("v8k-s1-s2-plain"), force=True)
        assert sha256(pool, "v") == SAMPLES["v8k-s1-s2-plain"].sha256

    async def test_what_is_written_while_the_stream_comes_is_not_lost(self, pool: PoolDriver) -> None:
        volume, s1 = await self._chain(pool, "v")
        async with pool.receive_onto(
            volume.target, base=s1.target, snapshot_tags=SNAPSHOT, operation="op-7"
        ) as receiver:
            await receiver.feed(load("v8k-s1-s2-plain"))
            write(pool, "v", NEW)
            with pytest.raises(Modified):
                await receiver.finish()
        assert read(pool, "v", BLOCK) == NEW
        assert await listed(pool) == ["", "v", "v@s1"]

    async def test_a_snapshot_taken_while_the_stream_comes_stays_the_newest(self, pool: PoolDriver) -> None:
        volume, s1 = await self._chain(pool, "v")
        async with pool.receive_onto(
            volume.target, base=s1.target, snapshot_tags=SNAPSHOT, operation="op-7"
        ) as receiver:
            await receiver.feed(load("v8k-s1-s2-plain"))
            await snapshot(pool, volume, "s2")
            with pytest.raises(Blocked):
                await receiver.finish()
        assert await listed(pool) == ["", "v", "v@s1", "v@s2"]

    async def test_nothing_comes_onto_a_disk_in_use(self, harness: Harness) -> None:
        pool = harness.pool
        _, s1 = await self._chain(pool, "v")
        with opened_for_writing(pool.device("v")) as writer:
            with pytest.raises(InUse) as refused:
                await self._onto(pool, s1, load("v8k-s1-s2-plain"))
            assert f"pid {writer.pid}" in str(refused.value)
            if harness.force_overrides:
                await self._onto(pool, s1, load("v8k-s1-s2-plain"), force=True)
                assert sha256(pool, "v") == SAMPLES["v8k-s1-s2-plain"].sha256

    async def test_a_clones_stream_makes_a_clone(self, pool: PoolDriver) -> None:
        _, first = await self._chain(pool, "origin")
        _, origin = await self._onto(pool, first, load("v8k-s1-s2-plain"))
        async with pool.receive_stream("c", DISK, snapshot_tags=SNAPSHOT, origin=origin.target) as receiver:
            made = await feed_all(receiver, load("clone-inc"))
        assert (made[0].origin, made[0].tags) == (origin.name, DISK)
        assert made[1].guid == int(SAMPLES["clone-inc"].guid)
        assert sha256(pool, "c") == SAMPLES["clone-inc"].sha256
        assert [await pool.get(d.name) for d in made] == list(made)
        with pytest.raises(HasClones):
            await pool.destroy([origin.target])
        with pytest.raises(NotFound):
            async with pool.receive_stream("d", DISK, snapshot_tags=SNAPSHOT, origin=other(origin.target)):
                pass

    async def test_an_origin_that_goes_meanwhile_leaves_no_clone(self, pool: PoolDriver) -> None:
        _, first = await self._chain(pool, "origin")
        _, origin = await self._onto(pool, first, load("v8k-s1-s2-plain"))
        async with pool.receive_stream("c", DISK, snapshot_tags=SNAPSHOT, origin=origin.target) as receiver:
            await receiver.feed(load("clone-inc"))
            try:
                await pool.destroy([origin.target])
            except (HasClones, Held):
                return  # the clone is there already, out of sight: that will do as well
            with pytest.raises(NotFound):
                await receiver.finish()
        assert await listed(pool) == ["", "origin", "origin@s1"]

    async def test_what_is_never_written_may_share_its_blocks(self, harness: Harness) -> None:
        pool = harness.pool
        async with pool.receive_stream("v", VOLUME, snapshot_tags=SNAPSHOT, read_only=True) as receiver:
            made = await feed_all(receiver, load("v8k-s1-plain"))
        async with pool.receive_raw(
            "r", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT, read_only=True
        ) as receiver:
            raw = await feed_all(receiver, OLD * 16)
        await harness.reopen()
        pool = harness.pool
        for image, content in (
            (made, SAMPLES["v8k-s1-plain"].sha256),
            (raw, hashlib.sha256(OLD * 16).hexdigest()),
        ):
            taken = await clone(pool, image[1], f"{image[0].name}-clone")
            write(pool, taken.name, NEW)
            assert sha256(pool, image[0].name) == content
            assert read(pool, taken.name, BLOCK) == NEW
            again = await clone(pool, image[1], f"{image[0].name}-again")
            assert sha256(pool, again.name) == content
        await pool.destroy([d.target for d in (await pool.get("v-clone"), await pool.get("v-again"), *made)])
        assert sha256(pool, "r") == hashlib.sha256(OLD * 16).hexdigest()


class Sending:
    async def test_what_is_sent_can_be_received(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        one = await pool.get(f"{disk.name}@one")
        data = await sent(pool, one)
        async with pool.receive_stream("copy", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            await receiver.feed(data)
            made = await receiver.finish()
        assert (made[1].name, made[1].guid, made[1].creation) == ("copy@one", one.guid, one.creation)
        assert read(pool, "copy") == OLD + bytes(MIB - BLOCK)

    async def test_a_snapshot_is_the_same_bytes_every_time(self, harness: Harness) -> None:
        disk, _ = await guest(harness.pool)
        one = await harness.pool.get(f"{disk.name}@one")
        two = await snapshot(harness.pool, disk, "two")
        first = await sent(harness.pool, one), await sent(harness.pool, two, one)
        write(harness.pool, disk.name, OLD, offset=BLOCK)
        await harness.reopen()
        assert (await sent(harness.pool, one), await sent(harness.pool, two, one)) == first

    @pytest.mark.parametrize("incremental", [False, True])
    async def test_a_stream_goes_on_where_it_broke_off(self, pool: PoolDriver, incremental: bool) -> None:
        disk, _ = await guest(pool)
        write(pool, disk.name, NEW * 5, offset=3 * BLOCK)
        two = await snapshot(pool, disk, "two")
        base = (await pool.get(f"{disk.name}@one")).target if incremental else None
        async with pool.send(two.target, base=base) as pieces:
            whole = b"".join([bytes(piece) async for piece in pieces])
        assert await pool.send_bytes(two.target, base=base) == len(whole)
        for skip in (1, 312, len(whole) // 2, len(whole) - 1, len(whole)):
            async with pool.send(two.target, base=base, skip=skip) as pieces:
                assert b"".join([bytes(piece) async for piece in pieces]) == whole[skip:]
        with pytest.raises(NotFound):
            await pool.send_bytes(other(two.target))

    async def test_an_incremental_stream_names_its_base(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        one = await pool.get(f"{disk.name}@one")
        two = await snapshot(pool, disk, "two")
        data = await sent(pool, two, one)
        assert int.from_bytes(data[40:48], "little") == two.guid
        assert int.from_bytes(data[48:56], "little") == one.guid
        assert len(data) < len(await sent(pool, two)) + BLOCK

    async def test_a_clones_snapshot_is_sent_from_the_origin(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        origin = await pool.get(f"{disk.name}@one")
        taken = await snapshot(pool, await clone(pool, origin, "c"), "s")
        data = await sent(pool, taken, origin)
        assert int.from_bytes(data[48:56], "little") == origin.guid
        assert int.from_bytes(data[36:40], "little") & 1

    async def test_a_base_of_another_volume_is_refused(self, pool: PoolDriver) -> None:
        disk, second = await guest(pool)
        one, two = await pool.get(f"{disk.name}@one"), await snapshot(pool, disk, "two")
        for base in (await pool.get(f"{second.name}@one"), two):
            with pytest.raises(NotValid):
                await sent(pool, one, base)
        with pytest.raises(NotFound):
            async with pool.send(other(one.target)):
                pass
        with pytest.raises(InvalidArgument):
            async with pool.send(disk.target):
                pass

    async def test_a_snapshot_is_held_while_it_is_sent(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        one, two = await pool.get(f"{disk.name}@one"), await snapshot(pool, disk, "two")
        async with pool.send(two.target, base=one.target) as pieces:
            async for _ in pieces:
                break
            for held in (one, two):
                with pytest.raises(Held, match=f"snapshot is held: {held.name}"):
                    await pool.destroy([held.target])
            with pytest.raises(Held):
                await pool.rollback([one.target], destroy=[two.target], operation="op-9")
        await pool.destroy([two.target])
        assert f"{disk.name}@two" not in await listed(pool)

    async def test_a_consumer_that_goes_away_lets_go(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        two = await snapshot(pool, disk, "two")
        with trio.CancelScope() as scope:
            async with pool.send(two.target) as pieces:
                async for _ in pieces:
                    scope.cancel()
        assert scope.cancelled_caught
        await pool.destroy([two.target])
