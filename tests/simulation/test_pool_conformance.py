"""The memory pool against the conformance suite: what simulations stand on follows the drivers' rules."""

import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from imagestore.pools.base import Dataset, PoolDriver
from imagestore.pools.inuse import writers
from tests.pools import conformance
from tests.simulation.memorypool import MemoryPool
from tests.simulation.memoryreceiver import blocks_of
from tests.simulation.poolground import PoolGround, pieces


class PoolWithDevices(MemoryPool):
    """A memory pool whose volumes can be opened: each has a file, made when somebody asks for it."""

    def __init__(self, ground: PoolGround, directory: Path) -> None:
        super().__init__(ground, clock=itertools.count(1_700_000_000).__next__)
        self._directory = directory

    def device(self, name: str) -> str:
        volume = self.ground.existing(name).dataset
        path = self._path(volume)
        if not os.path.exists(path):
            self._write(volume, path)
        return path

    def writers(self, name: str) -> Sequence[str]:
        path = self._path(self.ground.existing(name).dataset)
        return writers(path) if os.path.exists(path) else ()

    def load(self, volume: Dataset) -> None:
        path = self._path(volume)
        if os.path.exists(path):
            file = os.open(path, os.O_RDONLY)
            self.ground.blocks[volume.createtxg] = blocks_of(file)
            os.close(file)

    def store(self, volume: Dataset) -> None:
        path = self._path(volume)
        if os.path.exists(path):
            self._write(volume, path)

    async def get(self, name: str) -> Dataset:
        self._load_named([name])
        return await super().get(name)

    async def existing(self, wanted: Sequence[str]) -> Sequence[Dataset]:
        self._load_named(wanted)
        return await super().existing(wanted)

    def _load_named(self, wanted: Sequence[str]) -> None:
        for name in wanted:
            if name in self.ground.entries:
                self.load(self.ground.entries[name].dataset)

    def _path(self, volume: Dataset) -> str:
        return str(self._directory / str(volume.createtxg))

    def _write(self, volume: Dataset, path: str) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(file, 0)
        os.ftruncate(file, volume.volsize)
        for offset, block in pieces(self.ground.blocks[volume.createtxg]):
            os.pwrite(file, block, offset)
        os.close(file)


class MemoryHarness:
    force_overrides = True
    snapshots_open_disks = True
    goes_later = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ground = PoolGround("tank", random.Random(7))
        self.pool: PoolDriver = PoolWithDevices(self._ground, directory)

    async def reopen(self) -> None:
        await self.pool.close()
        self.pool = PoolWithDevices(self._ground, self._directory)


@pytest.fixture
def harness(tmp_path: Path) -> MemoryHarness:
    return MemoryHarness(tmp_path)


globals().update(conformance.suite())
