"""Operations over a real directory pool and a journal in memory."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from imagestore.actors.operation import Operations
from imagestore.actors.zpool import ZpoolActor
from imagestore.pools.base import NewFilesystem, PoolDriver, Tags
from imagestore.pools.directory.driver import open_directory_pool
from tests.actors.memory_journal import MemoryJournal


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[PoolDriver]:
    driver = await open_directory_pool(f"{tmp_path}/pool", create=True, lock_deadline=1.0)
    await driver.create([NewFilesystem(name=name, tags=Tags()) for name in ("images", "guests")])
    yield driver
    await driver.close()


@pytest.fixture
async def zpool(driver: PoolDriver, nursery: trio.Nursery) -> ZpoolActor:
    zpool = ZpoolActor(driver)
    await nursery.start(zpool.run)
    return zpool


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def operations(journal: MemoryJournal, zpool: ZpoolActor) -> Operations:
    numbers = itertools.count(1)
    return Operations(journal, zpool, new_id=lambda: f"operation-{next(numbers)}")
