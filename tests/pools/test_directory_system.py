"""The directory driver against the conformance suite, on xfs and btrfs; and on a disk that is full."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.pools import conformance
from tests.pools.directories import DirectoryHarness, loop_mount, open_harness
from tests.pools.harness import MIB

pytestmark = pytest.mark.system

pool = conformance.pool


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with loop_mount(tmp_path_factory.mktemp("mount"), request.param, 512 * MIB) as mounted:
        yield mounted


@pytest.fixture
async def harness(mount: Path, request: pytest.FixtureRequest) -> AsyncIterator[DirectoryHarness]:
    harness = await open_harness(mount / f"tank{abs(hash(request.node.name))}")
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


class TestSending(conformance.Sending):
    pass
