"""The directory driver against the conformance suite, on the file system that tests run on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pools import conformance
from tests.pools.directories import DirectoryHarness, open_harness

pool = conformance.pool


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DirectoryHarness]:
    harness = await open_harness(tmp_path / "tank")
    yield harness
    await harness.pool.close()


class TestLooking(conformance.Looking):
    pass


class TestCreating(conformance.Creating):
    pass


class TestSnapshotting(conformance.Snapshotting):
    pass


class TestDestroying(conformance.Destroying):
    pass


class TestRollingBack(conformance.RollingBack):
    pass


class TestAltering(conformance.Altering):
    pass


class TestReceiving(conformance.Receiving):
    pass


class TestReceivingOnto(conformance.ReceivingOnto):
    pass


class TestSending(conformance.Sending):
    pass
