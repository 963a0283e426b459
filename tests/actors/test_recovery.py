"""Recovery over a real pool: what an earlier life left, in states that are rare."""

import pytest

from imagestore.actors.drift import drift
from imagestore.actors.fetch import Fetching
from imagestore.actors.fetcher import Fetcher
from imagestore.actors.operation import BATCH_EVENTS, Operations
from imagestore.actors.recovery import recover
from imagestore.actors.transfer import TransferSettings
from imagestore.events.catalogue import (
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DatasetLost,
    DestroyIntent,
    Event,
    FetchIntent,
    ImageCompleted,
    ImageRequested,
    OperationFinished,
    OperationStarted,
)
from tests.actors.memory_journal import MemoryJournal


@pytest.fixture
def fetcher(operations: Operations) -> Fetcher:
    fetching = Fetching(service="127.0.0.1:1", settings=TransferSettings())
    return Fetcher(operations, fetching, workers=1, max_pending=9)


async def started(operations: Operations, operation: str) -> None:
    """A fetch was accepted."""
    intent = FetchIntent(image="deb", staging=f"images/.staging-{operation}")
    begun = OperationStarted(method="RequestImage", subject="images/deb", intent=intent)
    await operations.record(operation, [begun, ImageRequested(image="deb")], principal="test")


async def test_of_two_fetches_of_one_image_the_later_is_taken_up(
    operations: Operations, fetcher: Fetcher
) -> None:
    """The journal confirmed the first one's acceptance after its caller had been told that it is unknown."""
    await started(operations, "first")
    await started(operations, "second")
    await recover(operations, fetcher)
    assert list(operations.state.operations) == ["second"]
    under_way = fetcher.under_way("deb")
    assert under_way is not None
    assert under_way.operation == "second"
    assert operations.state.images["deb"].status == "pending"


async def test_a_fetch_that_another_overtook_does_not_spoil_the_image(
    operations: Operations, fetcher: Fetcher
) -> None:
    await started(operations, "first")
    await started(operations, "second")
    volume = DatasetId(name="images/deb", guid=1, createtxg=1)
    snapshot = DatasetId(name="images/deb@image", guid=2, createtxg=2)
    completed = ImageCompleted(image="deb", volume=volume, snapshot=snapshot, size_bytes=1)
    await operations.finish("second", [completed], principal="test")
    await recover(operations, fetcher)
    assert operations.state.operations == {}
    assert operations.state.images["deb"].status == "complete"


def largest(journal: MemoryJournal) -> int:
    return max(len(batch) for batch in journal.batches)


@pytest.mark.parametrize("lost", [True, False], ids=["destroyed by someone", "destroyed by us"])
async def test_more_datasets_than_a_frame_takes_are_recorded_as_gone(
    operations: Operations, fetcher: Fetcher, journal: MemoryJournal, lost: bool
) -> None:
    """A batch over the journal's limit is refused for ever: no store would start on it again."""
    count = BATCH_EVENTS + 5
    gone = [DatasetId(name=f"v{n}", guid=n + 1, createtxg=n + 1) for n in range(count)]
    await operations.record("", [created(dataset) for dataset in gone], principal="test")
    if not lost:
        intent = DestroyIntent(datasets=tuple(gone))
        begun = OperationStarted(method="DeleteDataset", subject="v", intent=intent)
        await operations.record("op", [begun], principal="test")
    await recover(operations, fetcher)
    assert operations.state.datasets == {}
    assert operations.state.operations == {}
    assert largest(journal) <= BATCH_EVENTS
    kind = DatasetLost if lost else DatasetDestroyed
    assert sum(isinstance(event, kind) for event in journal.events) == count
    assert isinstance(journal.events[-1], OperationFinished) is not lost
    assert drift(operations.state, operations.zpool.view) == ()


def created(dataset: DatasetId) -> Event:
    return DatasetCreated(
        name=dataset.name, kind="volume", role="volume", guid=dataset.guid, createtxg=dataset.createtxg
    )
