"""How one fetch ends when the journal cannot say so."""

import pytest
import trio

from imagestore.actors import fetch as fetching
from imagestore.actors.fetch import Fetch, Fetching
from imagestore.actors.operation import Operations
from imagestore.actors.transfer import TransferSettings
from imagestore.actors.zpool import ZpoolActor
from imagestore.errors import OutcomeUnknown, Rejected
from imagestore.events.catalogue import Event, ImageFailed, OperationFinished
from tests.actors.memory_journal import MemoryJournal
from tests.imageservice import ImageService, answer

RAW = b"\x01" * (1 << 20)


@pytest.fixture
async def service(nursery: trio.Nursery) -> ImageService:
    service = ImageService()
    await nursery.start(service.run)
    return service


async def carry_out(operations: Operations, service: ImageService) -> None:
    fetch = Fetch(image="deb", type="", operation="fetch-1", principal="test", waiters=[])
    assert await fetching.accept(fetch, operations)
    settings = TransferSettings(tries=1, fruitless_tries=1)
    shared = Fetching(service=service.address, settings=settings)
    await fetching.carry_out(fetch, operations, shared, turn=trio.Semaphore(1))


async def test_a_published_image_whose_outcome_is_refused_is_not_recorded_as_failed(
    operations: Operations, journal: MemoryJournal, zpool: ZpoolActor, service: ImageService
) -> None:
    """The disk was full for one append: a failure journaled by the next one would contradict the pool."""
    service.download("deb", answer(RAW))

    def refuse(events: list[Event]) -> None:
        if OperationFinished(outcome="succeeded") in events:
            raise Rejected("disk full")

    journal.fault = refuse
    with pytest.raises(OutcomeUnknown):
        await carry_out(operations, service)
    assert "images/deb" in zpool.view
    assert "fetch-1" in operations.state.operations
    assert not [event for event in journal.events if isinstance(event, ImageFailed)]
