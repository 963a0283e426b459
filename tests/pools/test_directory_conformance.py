"""The directory driver against the conformance suite, on the file system that tests run on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pools import conformance
from tests.pools.directories import DirectoryHarness, open_harness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DirectoryHarness]:
    harness = await open_harness(tmp_path / "tank")
    yield harness
    await harness.pool.close()


globals().update(conformance.suite())
