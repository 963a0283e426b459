"""A change made parents first, failed, and could not take them away again: the journal knows them."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import pytest

from imagestore.config import Config
from imagestore.errors import OutcomeUnknown, PoolError, PoolStuck
from imagestore.events import reader
from imagestore.events.catalogue import DatasetCreated, DatasetLost, Envelope, OperationFinished
from imagestore.model import AdoptRequest, GuestRequest, ReceiveRequest
from imagestore.pools.base import NO_TAGS, NewFilesystem, NewVolume
from imagestore.pools.directory.driver import open_directory_pool
from imagestore.store import Store
from tests.store.conftest import MIB, Run, running
from tests.streams.samples import load

Change = Callable[[Store], Awaitable[object]]


async def receive(store: Store) -> None:
    async with store.receive(ReceiveRequest(id="guests/a/disk-0")) as upload:
        await upload.feed(load("v8k-s1-plain"))
        await upload.finish()


async def adopt(store: Store) -> object:
    return await store.adopt_dataset(AdoptRequest(id="old/root", guest="a", disk=0))


@pytest.fixture
async def old_root(tmp_path: Path) -> None:
    """A foreign volume in the pool."""
    pool = await open_directory_pool(f"{tmp_path}/pool", create=True)
    await pool.create(
        [
            NewFilesystem(name="old", tags=NO_TAGS),
            NewVolume(name="old/root", size=2 * MIB, tags=NO_TAGS),
        ]
    )
    await pool.close()


def refusing(error: type[PoolError], text: str) -> Callable[..., Awaitable[NoReturn]]:
    async def refuse(*_: object, **__: object) -> NoReturn:
        raise error(text)

    return refuse


def last_operation(config: Config) -> list[Envelope]:
    envelopes = list(reader.read(config.journal))
    last = next(e.operation for e in reversed(envelopes) if e.operation)
    return [envelope for envelope in envelopes if envelope.operation == last]


CHANGES = pytest.mark.parametrize(("change", "effect"), [(receive, "rename"), (adopt, "retag")])


@CHANGES
async def test_a_parent_that_cannot_be_taken_away_is_in_the_journal(
    change: Change, effect: str, config: Config, old_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config) as store:
        driver = store._running().zpool.driver
        with monkeypatch.context() as patch:
            patch.setattr(driver, effect, refusing(PoolError, "not into place"))
            patch.setattr(driver, "destroy", refusing(PoolError, "not away"))
            with pytest.raises(PoolError, match="not into place"):
                await change(store)
        stays = await driver.get("guests/a")
        *_, fact, finished = (envelope.event for envelope in last_operation(config))
        assert isinstance(fact, DatasetCreated)
        assert (fact.name, fact.role, fact.guid, fact.createtxg) == (
            stays.name,
            "parent",
            stays.guid,
            stays.createtxg,
        )
        assert isinstance(finished, OperationFinished)
        assert (finished.outcome, finished.error) == ("failed", "not into place")
        assert reader.replay(config.journal) == store._running().operations.state
    async with running(config) as store:
        running_store = store._running()
        assert running_store.operations.state.owned(stays.name, stays.guid, stays.createtxg) is not None
        ours = {row.name for row in await running_store.zpool.driver.list() if row.tags.op}
        assert ours == set(running_store.operations.state.datasets) == {"images", "guests", "guests/a"}
        await change(store)
        await store.delete_guests_disks(GuestRequest(guest={"id": "a"}))
        assert "guests/a" not in running_store.operations.state.datasets
    assert not [e for e in reader.read(config.journal) if isinstance(e.event, DatasetLost)]


@CHANGES
async def test_a_parent_that_goes_again_is_in_no_journal(
    change: Change, effect: str, config: Config, old_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config) as store:
        zpool = store._running().zpool
        monkeypatch.setattr(zpool.driver, effect, refusing(PoolError, "not into place"))
        with pytest.raises(PoolError, match="not into place"):
            await change(store)
        assert "guests/a" not in {row.name for row in await zpool.driver.list()}
        assert "guests/a" not in zpool.view
    assert not [e for e in last_operation(config) if isinstance(e.event, DatasetCreated)]


@CHANGES
async def test_whether_a_parent_went_that_is_not_known_is_left_to_the_next_life(
    change: Change, effect: str, config: Config, run: Run, old_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run() as store:
        driver = store._running().zpool.driver
        monkeypatch.setattr(driver, effect, refusing(PoolError, "not into place"))
        monkeypatch.setattr(driver, "destroy", refusing(PoolStuck, "no answer"))
        with pytest.raises(OutcomeUnknown, match="is not known"):
            await change(store)
        assert len(store._running().operations.state.operations) == 1
    async with run() as store:
        assert store._running().operations.state.operations == {}
        assert "guests/a" not in {row.name for row in await store._running().zpool.driver.list()}
