"""The zpool actor: what it does when the pool cannot be read, and whose space is whose."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from imagestore.actors.claims import Claim
from imagestore.actors.zpool import Rename, ZpoolActor
from imagestore.errors import PoolError
from imagestore.pools.base import Dataset, NewVolume, PoolDriver, Space, Tags
from tests.actors.rows import MIB


async def test_a_pool_that_cannot_be_read_for_a_while_ends_nothing(
    zpool: ZpoolActor, driver: PoolDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = trio.Event()

    async def fail() -> int:
        asked.set()
        raise PoolError("the pool does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(driver, "generation", fail)
        await asked.wait()
        await trio.testing.wait_all_tasks_blocked()

    listed = trio.Event()
    rows = await driver.list()

    async def differs() -> int:
        return 99

    async def listing() -> Sequence[Dataset]:
        listed.set()
        return rows

    monkeypatch.setattr(driver, "generation", differs)
    monkeypatch.setattr(driver, "list", listing)
    await listed.wait()


async def test_a_reservation_is_given_back_though_the_pool_does_not_answer(
    zpool: ZpoolActor, driver: PoolDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await zpool.reserve("op", MIB)

    async def fail() -> Space:
        raise PoolError("the pool does not answer")

    monkeypatch.setattr(driver, "space", fail)
    await zpool.reserve("op", 0)
    assert zpool.ledger.reserved_bytes == 0


async def test_who_goes_away_while_the_space_is_read_leaves_no_reservation(
    zpool: ZpoolActor, driver: PoolDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = trio.Event()
    answer = trio.Event()

    async def slow() -> Space:
        reading.set()
        await answer.wait()
        return Space(total=1 << 40, available=1 << 40)

    monkeypatch.setattr(driver, "space", slow)

    async def change() -> None:
        async with zpool.claimed("op", Claim(exclusive=("a",))):
            await zpool.reserve("op", MIB)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        await reading.wait()
        nursery.cancel_scope.cancel()
    answer.set()
    await trio.testing.wait_all_tasks_blocked()
    assert zpool.ledger.reserved_bytes == 0


async def test_a_claim_ends_with_its_block_even_when_the_actor_is_gone(driver: PoolDriver) -> None:
    """The process is ending: a release that waits for the actor would wait for ever."""
    zpool = ZpoolActor(driver, mailbox=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(zpool.run)
        async with zpool.claimed("op", Claim(exclusive=("a",))):
            nursery.cancel_scope.cancel()


async def test_a_volume_that_came_and_gets_its_name_is_counted_once(
    zpool: ZpoolActor, driver: PoolDriver
) -> None:
    """It grew unseen by the view, and what it may still write was reserved for its publication."""
    (staged,) = await driver.create(
        [NewVolume(name="images/.staging-op", size=MIB, tags=Tags(op="op", kind="volume"))]
    )
    await zpool.reserve("op", MIB)
    await zpool.execute(Rename(target=staged.target, name="v"))
    assert zpool.view.promised_bytes == MIB
    assert zpool.ledger.reserved_bytes == 0


async def test_what_others_changed_is_looked_at_alone(
    zpool: ZpoolActor, driver: PoolDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole pool is not read for it."""
    (foreign,) = await driver.create([NewVolume(name="foreign", size=MIB, tags=Tags())])
    told = [["foreign", "images"]]
    looked = trio.Event()
    existing = driver.existing

    async def changes() -> Sequence[str]:
        return told.pop() if told else []

    async def look(wanted: Sequence[str]) -> Sequence[Dataset]:
        looked.set()
        return await existing(wanted)

    async def listing() -> Sequence[Dataset]:
        raise AssertionError("the pool was read")

    monkeypatch.setattr(driver, "list", listing)
    monkeypatch.setattr(driver, "changes", changes)
    monkeypatch.setattr(driver, "existing", look)
    await looked.wait()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert zpool.view.get("foreign") == foreign
    assert "images" in zpool.view


async def test_a_look_that_fails_is_made_up_for_by_reading_everything(
    zpool: ZpoolActor, driver: PoolDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [["foreign"]]
    read = trio.Event()
    listing = driver.list

    async def changes() -> Sequence[str]:
        return told.pop() if told else []

    async def fail(wanted: Sequence[str]) -> Sequence[Dataset]:
        raise PoolError("the pool does not answer")

    async def read_all() -> Sequence[Dataset]:
        read.set()
        return await listing()

    monkeypatch.setattr(driver, "existing", fail)
    monkeypatch.setattr(driver, "changes", changes)
    monkeypatch.setattr(driver, "list", read_all)
    await read.wait()
