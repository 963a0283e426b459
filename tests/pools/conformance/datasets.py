"""Datasets: what is seen of them, how they are made, renamed, resized and tagged."""

import pytest
import trio

from imagestore.errors import (
    AlreadyExists,
    InUse,
    InvalidArgument,
    NoSpace,
    NotFound,
    NotValid,
)
from imagestore.pools.base import (
    NO_TAGS,
    Creation,
    Dataset,
    Mark,
    NewClone,
    NewFilesystem,
    NewVolume,
    PoolDriver,
    Retagging,
    Tags,
    Target,
)
from tests.pools.conformance.material import (
    BLOCK,
    NEW,
    OLD,
    clone,
    feed_all,
    guest,
    other,
    sent,
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

    async def test_a_pool_that_nobody_touches_keeps_its_generation(self, harness: Harness) -> None:
        await volume(harness.pool, "v")
        quiet = [await keeps_its_generation(harness.pool) for _ in range(5)]
        assert all(quiet) or (harness.goes_later and any(quiet))

    async def test_of_what_is_asked_for_those_that_exist_are_given(self, pool: PoolDriver) -> None:
        disk, _ = await guest(pool)
        wanted = ["nothing", disk.name, f"{disk.name}@one", f"{disk.name}@nothing", "guests"]
        found = {row.name: row for row in await pool.existing(wanted)}
        assert found == {name: await pool.get(name) for name in (disk.name, f"{disk.name}@one", "guests")}
        assert list(await pool.existing([])) == []

    async def test_own_changes_are_not_told(self, harness: Harness) -> None:
        disk, _ = await guest(harness.pool)
        snapshot_ = await harness.pool.get(f"{disk.name}@one")
        told = [await told_of_own_changes(harness.pool, snapshot_) for _ in range(5)]
        assert not any(told) or (harness.goes_later and [] in told)

    async def test_a_pool_that_works_has_no_trouble(self, pool: PoolDriver) -> None:
        assert pool.trouble() == ""

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

    async def test_tags_are_replaced_and_taken_off(self, harness: Harness) -> None:
        made = await volume(harness.pool, "v", content=OLD)
        taken = await snapshot(harness.pool, made, "s")
        tags = Tags(op="op-7", kind="disk", guest="vm", disk="1")
        changes = [
            Retagging(target=made.target, tags=tags),
            Retagging(target=taken.target, tags=NO_TAGS),
        ]
        changed = await harness.pool.retag(changes)
        assert [(row.name, row.identity, row.tags) for row in changed] == [
            ("v", made.identity, tags),
            ("v@s", taken.identity, NO_TAGS),
        ]
        await harness.reopen()
        assert [(await harness.pool.get(name)).tags for name in ("v", "v@s")] == [tags, NO_TAGS]
        assert read(harness.pool, "v", BLOCK) == OLD

    async def test_all_are_retagged_or_none(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v")
        tags = Tags(op="op-7", kind="disk", guest="vm", disk="1")
        for missing in (other(made.target), Target(name="gone", guid=1, createtxg=1)):
            with pytest.raises(NotFound):
                await pool.retag(
                    [Retagging(target=made.target, tags=tags), Retagging(target=missing, tags=tags)]
                )
            assert (await pool.get("v")).tags == VOLUME

    async def test_a_disk_in_use_is_retagged(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v")
        with opened_for_writing(pool.device("v")):
            (changed,) = await pool.retag([Retagging(target=made.target, tags=DISK)])
        assert changed.tags == DISK

    async def test_the_commands_that_retag_name_dataset_and_tags(self, pool: PoolDriver) -> None:
        made = await volume(pool, "v")
        (command,) = pool.retag_commands([Retagging(target=made.target, tags=DISK)])
        assert all(word in command for word in (DISK.op, DISK.guest, DISK.sha256))
        taken_off = pool.retag_commands([Retagging(target=made.target, tags=NO_TAGS)])
        assert taken_off
        assert not any(DISK.op in line for line in taken_off)


async def keeps_its_generation(pool: PoolDriver) -> bool:
    await pool.list()
    seen = await pool.generation()
    return await pool.generation() == seen


async def told_of_own_changes(pool: PoolDriver, snapshot_: Dataset) -> list[object]:
    """What the pool says was changed after a clone was made and destroyed: the generation, and names."""
    await pool.list()
    seen = await pool.generation()
    copy = await clone(pool, snapshot_, "guests/vm/disk-9")
    await pool.generation()
    await pool.destroy([copy.target])
    generation = await pool.generation()
    return [*([] if generation == seen else [generation]), *await pool.changes()]


async def room_taken(pool: PoolDriver) -> int:
    """By how much a new thick volume of 64 MiB lessens the room that is left; it goes again."""
    before = (await pool.space()).available
    (made,) = await pool.create([NewVolume(name="w", size=64 * MIB, tags=VOLUME, thick=True)])
    taken = before - (await pool.space()).available
    await pool.destroy([made.target])
    return taken


class Thick:
    """Volumes whose room is set aside."""

    async def test_all_of_it_is_set_aside_at_once(self, harness: Harness) -> None:
        (made,) = await harness.pool.create([NewVolume(name="v", size=64 * MIB, tags=VOLUME, thick=True)])
        assert not made.sparse
        assert made.written < MIB
        # What others free at the same time, on btrfs a while after they did, hides what is set aside.
        taken = [await room_taken(harness.pool) for _ in range(8)]
        assert max(taken) >= 63 * MIB
        assert read(harness.pool, "v", MIB) == bytes(MIB)
        await harness.reopen()
        assert not (await harness.pool.get("v")).sparse
        assert [row.sparse for row in await harness.pool.list()] == [True, False]

    async def test_it_stays_thick_through_snapshots_and_rollbacks(self, pool: PoolDriver) -> None:
        (made,) = await pool.create([NewVolume(name="v", size=8 * MIB, tags=VOLUME, thick=True)])
        write(pool, "v", OLD)
        taken = await snapshot(pool, made, "s")
        write(pool, "v", NEW)
        assert (taken.sparse, (await pool.get("v")).sparse) == (True, False)
        (rolled,) = await pool.rollback([taken.target], destroy=[], operation="op-9")
        assert not rolled.sparse
        assert read(pool, "v", 2 * BLOCK) == OLD + bytes(BLOCK)
        write(pool, "v", NEW)
        assert read(pool, (await clone(pool, taken, "c")).name, BLOCK) == OLD
        assert (await pool.get("c")).sparse

    async def test_it_stays_thick_when_a_stream_comes_onto_it(self, pool: PoolDriver) -> None:
        (made,) = await pool.create([NewVolume(name="v", size=8 * MIB, tags=VOLUME, thick=True)])
        write(pool, "v", OLD)
        base = await snapshot(pool, made, "s1")
        async with pool.receive_stream("w", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            came = await feed_all(receiver, await sent(pool, base))
        assert came[0].sparse
        write(pool, "w", NEW)
        later = await snapshot(pool, await pool.get("w"), "s2")
        stream = await sent(pool, later, came[1])
        async with pool.receive_onto(
            made.target, base=base.target, snapshot_tags=SNAPSHOT, operation="op-9"
        ) as receiver:
            changed = await feed_all(receiver, stream)
        assert [(row.name, row.sparse) for row in changed] == [("v", False), ("v@s2", True)]
        assert read(pool, "v", 2 * BLOCK) == NEW + bytes(BLOCK)
        write(pool, "v", OLD)
        assert read(pool, (await clone(pool, changed[1], "c")).name, BLOCK) == NEW

    async def test_it_grows_thick(self, pool: PoolDriver) -> None:
        (made,) = await pool.create([NewVolume(name="v", size=8 * MIB, tags=VOLUME, thick=True)])
        grown = await pool.resize(made.target, 40 * MIB)
        assert (grown.volsize, grown.sparse) == (40 * MIB, False)
        write(pool, "v", NEW, offset=39 * MIB)
        assert read(pool, "v", BLOCK, offset=39 * MIB) == NEW

    async def test_one_for_which_there_is_no_room_is_not_made(self, pool: PoolDriver) -> None:
        too_much = (await pool.space()).available // MIB * MIB + 16 * MIB
        with pytest.raises(NoSpace):
            await pool.create([NewVolume(name="v", size=too_much, tags=VOLUME, thick=True)])
        assert await listed(pool) == [""]
