"""The ZFS driver against the conformance suite, unchanged, on real OpenZFS."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.pools import conformance
from tests.zfs.pools import ZfsHarness, empty, open_uncompressed, pool_on_file

pytestmark = pytest.mark.zfs

pool = conformance.pool


@pytest.fixture(scope="module")
def pool_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pool_on_file("tank", tmp_path_factory.mktemp("zfs")) as name:
        yield name


@pytest.fixture
async def harness(pool_name: str) -> AsyncIterator[ZfsHarness]:
    harness = ZfsHarness(await open_uncompressed(pool_name))
    yield harness
    await empty(harness.pool)
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
