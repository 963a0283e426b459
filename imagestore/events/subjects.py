"""What an event is about: the datasets, guests and images that it concerns.

Pure.  Every event type of the catalogue has its answer here; the type checker
sees to it.  Filters, the index and explanations are made of these.
"""

from collections.abc import Iterator
from typing import assert_never

from imagestore.events.catalogue import (
    AdoptIntent,
    AliasRemoved,
    AliasSet,
    CreateIntent,
    DatasetAdopted,
    DatasetCreated,
    DatasetDestroyed,
    DatasetLost,
    DatasetReceived,
    DatasetReleased,
    DatasetRenamed,
    DatasetResized,
    DatasetRolledBack,
    DestroyIntent,
    Event,
    FetchIntent,
    ImageCompleted,
    ImageDeleted,
    ImageFailed,
    ImagePublished,
    ImageReleased,
    ImageRequested,
    ImageRetired,
    ImageRevived,
    Intent,
    JournalCut,
    JournalOpened,
    NewClone,
    NoteIntent,
    OperationFinished,
    OperationResumed,
    OperationStarted,
    PoolAttached,
    PublishIntent,
    ReceiveIntent,
    ReleaseIntent,
    ResizeIntent,
    RollbackIntent,
    SegmentsArchived,
    SnapshotIntent,
    SourceRegistered,
    SourceRemoved,
    TokenCreated,
    TokenRevoked,
)
from imagestore.names import GUESTS, IMAGES


def datasets_of(event: Event) -> Iterator[str]:
    """Names of the datasets that an event is about, origins not among them."""
    match event:
        case OperationStarted():
            yield from _datasets_of_intent(event.intent)
        case OperationFinished():
            yield from (dataset.name for dataset in event.left_behind)
        case DatasetRenamed():
            yield from (event.name, event.new_name)
        case DatasetCreated() | DatasetAdopted() | DatasetReleased() | DatasetDestroyed():
            yield event.name
        case DatasetRolledBack() | DatasetReceived() | DatasetResized() | DatasetLost():
            yield event.name
        case ImageCompleted():
            yield from (event.volume.name, event.snapshot.name)
        case ImagePublished():
            yield from (f"{IMAGES}/{event.image}", event.snapshot.name)
        case SourceRegistered() | SourceRemoved():
            yield f"{IMAGES}/{event.image}"
        case ImageRequested() | ImageFailed() | ImageRetired() | ImageRevived() | AliasSet():
            yield f"{IMAGES}/{event.image}"
        case ImageDeleted() | ImageReleased():
            yield f"{IMAGES}/{event.image}"
        case (
            OperationResumed()
            | AliasRemoved()
            | TokenCreated()
            | TokenRevoked()
            | JournalOpened()
            | JournalCut()
            | SegmentsArchived()
            | PoolAttached()
        ):
            return
        case _:
            assert_never(event)


def _datasets_of_intent(intent: Intent) -> Iterator[str]:
    match intent:
        case CreateIntent():
            yield from (new.name for new in intent.datasets)
        case SnapshotIntent():
            yield from (f"{dataset.name}@{intent.snapshot}" for dataset in intent.datasets)
        case DestroyIntent():
            yield from (dataset.name for dataset in intent.datasets)
        case RollbackIntent():
            yield from (dataset.name for dataset in (*intent.volumes, *intent.snapshots, *intent.newer))
        case ResizeIntent():
            yield intent.volume.name
        case FetchIntent():
            yield f"{IMAGES}/{intent.image}"
        case PublishIntent():
            yield from (intent.snapshot.name, f"{IMAGES}/{intent.image}")
        case NoteIntent():
            yield from datasets_of(intent.fact)
        case ReceiveIntent():
            yield from (*(parent.name for parent in intent.parents), intent.name)
        case AdoptIntent():
            yield from (parent.name for parent in intent.parents)
            yield from (adoptee.name for adoptee in intent.datasets)
        case ReleaseIntent():
            yield from (dataset.name for dataset in intent.datasets)
        case _:
            assert_never(intent)


def images_of(event: Event) -> Iterator[str]:
    """Ids of the images that an event is about: fetched, deleted, or cloned."""
    match event:
        case ImageRequested() | ImageCompleted() | ImageFailed() | ImageDeleted() | ImageReleased():
            yield event.image
        case DatasetCreated() | DatasetAdopted():
            yield event.image
        case ImagePublished() | ImageRetired() | ImageRevived() | AliasSet():
            yield event.image
        case SourceRegistered() | SourceRemoved():
            yield event.image
        case OperationStarted(
            intent=FetchIntent()
            | DestroyIntent()
            | ReceiveIntent()
            | PublishIntent()
            | AdoptIntent()
            | ReleaseIntent() as intent
        ):
            yield intent.image
        case OperationStarted(intent=NoteIntent() as intent):
            yield from images_of(intent.fact)
        case OperationStarted(intent=CreateIntent() as intent):
            yield from (new.image for new in intent.datasets if isinstance(new, NewClone))
        case _:
            return


def guests_of(event: Event) -> Iterator[str]:
    """Ids of the guests whose disks an event is about."""
    for name in datasets_of(event):
        first, _, rest = name.partition("/")
        if first == GUESTS and rest:
            yield rest.partition("/")[0].partition("@")[0]
    match event:  # a disk that was adopted may stand anywhere
        case DatasetAdopted():
            yield event.guest
        case OperationStarted(intent=AdoptIntent() as intent):
            yield from (adoptee.guest for adoptee in intent.datasets)
        case _:
            return
