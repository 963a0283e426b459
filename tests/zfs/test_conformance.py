"""The ZFS driver against the conformance suite, unchanged, on real OpenZFS."""

from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from tests.pools import conformance
from tests.zfs.pools import ZfsHarness, empty, open_uncompressed, pool_on_file

pytestmark = pytest.mark.zfs


@pytest.fixture(scope="module")
def pool_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pool_on_file("tank", tmp_path_factory.mktemp("zfs")) as name:
        yield name


@pytest.fixture(scope="module")
def opened(pool_name: str) -> Iterator[list[ZfsHarness]]:
    """The one harness of the module, once a test has opened it: opening takes seconds in the machine."""
    opened: list[ZfsHarness] = []
    yield opened
    for harness in opened:
        trio.run(harness.pool.close)


@pytest.fixture
async def harness(pool_name: str, opened: list[ZfsHarness]) -> AsyncIterator[ZfsHarness]:
    if not opened:
        opened.append(ZfsHarness(await open_uncompressed(pool_name)))
    yield opened[0]
    await empty(opened[0].pool)


globals().update(conformance.suite())
