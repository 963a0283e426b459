"""Streams and raw images on their way in: into new volumes, onto volumes, into clones."""

import hashlib

import pytest
import trio

from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ContentRefused,
    HasClones,
    Held,
    InUse,
    Modified,
    NotFound,
    NotValid,
    StreamError,
)
from imagestore.pools.base import (
    Dataset,
    PoolDriver,
)
from tests.pools.conformance.material import (
    BLOCK,
    NEW,
    OLD,
    S1_GUID,
    S1_SHA256,
    S3_GUID,
    S3_SHA256,
    clone,
    feed_all,
    guest,
    other,
    sent,
    sha256,
    stream,
)
from tests.pools.harness import (
    DISK,
    MIB,
    SNAPSHOT,
    VOLUME,
    Harness,
    listed,
    opened_for_writing,
    read,
    snapshot,
    volume,
    write,
)
from tests.streams.samples import SAMPLES, load


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
