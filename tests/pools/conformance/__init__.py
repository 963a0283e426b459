"""What every driver must do, on the real thing.

A driver's test module gives the ``harness`` fixture and takes the whole suite::

    globals().update(conformance.suite())

so that no driver can be without a part of it.  Sizes are whole MiB and contents
start at block boundaries, so that block devices can take part.
"""

import pytest

from imagestore.pools.base import PoolDriver
from tests.pools.conformance import datasets, receiving, sending, snapshots
from tests.pools.harness import Harness


@pytest.fixture
def pool(harness: Harness) -> PoolDriver:
    return harness.pool


def suite() -> dict[str, object]:
    """The suite's test classes and its fixture, by the names under which pytest collects them."""
    return {
        "pool": pool,
        "TestLooking": datasets.Looking,
        "TestCreating": datasets.Creating,
        "TestAltering": datasets.Altering,
        "TestThick": datasets.Thick,
        "TestSnapshotting": snapshots.Snapshotting,
        "TestDestroying": snapshots.Destroying,
        "TestRollingBack": snapshots.RollingBack,
        "TestReceiving": receiving.Receiving,
        "TestReceivingOnto": receiving.ReceivingOnto,
        "TestSending": sending.Sending,
    }
