"""Streams on their way out."""

import pytest
import trio

from imagestore.errors import (
    Held,
    InvalidArgument,
    NotFound,
    NotValid,
)
from imagestore.pools.base import (
    PoolDriver,
)
from tests.pools.conformance.material import (
    BLOCK,
    NEW,
    OLD,
    clone,
    guest,
    other,
    sent,
)
from tests.pools.harness import (
    MIB,
    SNAPSHOT,
    VOLUME,
    Harness,
    listed,
    read,
    snapshot,
    write,
)


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
        async with pool.send_in_pipe(two.target, base=base) as moved:
            assert b"".join([bytes(piece) async for piece in moved]) == whole
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

    @pytest.mark.parametrize("in_pipe", [False, True])
    async def test_a_consumer_that_goes_away_lets_go(self, pool: PoolDriver, in_pipe: bool) -> None:
        disk, _ = await guest(pool)
        two = await snapshot(pool, disk, "two")
        with trio.CancelScope() as scope:
            sending = pool.send_in_pipe if in_pipe else pool.send
            async with sending(two.target) as pieces:
                async for _ in pieces:
                    scope.cancel()
        assert scope.cancelled_caught
        await pool.destroy([two.target])
