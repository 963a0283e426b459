"""Snapshots: taken, destroyed, gone back to."""

import pytest

from imagestore.errors import (
    AlreadyExists,
    Blocked,
    HasClones,
    InUse,
    NewerSnapshots,
    NotFound,
)
from imagestore.pools.base import (
    PoolDriver,
    Tags,
    Target,
)
from tests.pools.conformance.material import (
    BLOCK,
    NEW,
    OLD,
    clone,
    guest,
    other,
)
from tests.pools.harness import (
    MIB,
    SNAPSHOT,
    Harness,
    filesystem,
    listed,
    opened_for_writing,
    read,
    snapshot,
    volume,
    write,
)


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

    async def test_of_many_disks_those_that_are_open_for_writing_are_told(self, pool: PoolDriver) -> None:
        for name in ("a", "b", "c"):
            await volume(pool, name)
        with opened_for_writing(pool.device("b")):
            assert await pool.those_in_use(["a", "b", "c"]) == ["b"]
            assert await pool.those_in_use(["a", "c"]) == []
        assert await pool.those_in_use(["b"]) == []


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

    async def test_snapshots_of_what_holds_the_disks_go_in_the_same_step(self, pool: PoolDriver) -> None:
        disks = await guest(pool)
        parent = await pool.get("guests/vm")
        newer = await pool.snapshot([d.target for d in (parent, *disks)], "two", SNAPSHOT)
        snapshots = [(await pool.get(f"{d.name}@one")).target for d in disks]
        with pytest.raises(NotFound):
            await pool.rollback(
                snapshots, destroy=[other(newer[0].target), *(d.target for d in newer[1:])], operation="op-8"
            )
        assert [read(pool, d.name, BLOCK) for d in disks] == [NEW, NEW]
        await pool.rollback(snapshots, destroy=[d.target for d in newer], operation="op-9")
        assert [read(pool, d.name, BLOCK) for d in disks] == [OLD, OLD]
        assert not any(name.endswith("@two") for name in await listed(pool))
        assert (await pool.get("guests/vm")).tags == parent.tags

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
