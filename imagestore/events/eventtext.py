"""What an event says, for people.

Pure.  Every event type of the catalogue has its sentence here; the type
checker sees to it.
"""

import datetime as dt
from typing import assert_never

from imagestore.events.catalogue import (
    Adoptee,
    AdoptIntent,
    AliasRemoved,
    AliasSet,
    CreateIntent,
    DatasetAdopted,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
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
    NewDataset,
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
from imagestore.sizes import show_bytes


def describe(event: Event) -> str:
    """One line that says what happened."""
    match event:
        case OperationStarted():
            return f"{event.method} {event.subject}: {describe_intent(event.intent)}" + (
                ", forced" if event.force else ""
            )
        case OperationResumed():
            return f"taken up again after a restart, try {event.attempt}"
        case OperationFinished():
            left = f"; left behind: {_names(event.left_behind)}" if event.left_behind else ""
            return event.outcome + (f": {event.error}" if event.error else "") + left
        case DatasetCreated():
            size = f", {show_bytes(event.size_bytes)}" if event.size_bytes else ""
            origin = f", clone of {event.origin.name}" if event.origin is not None else ""
            return f"{event.name} ({event.role}{size}{origin})"
        case DatasetAdopted():
            size = f", {show_bytes(event.size_bytes)}" if event.size_bytes else ""
            return f"{event.name} is ours now ({_role(event)}{size})"
        case DatasetReleased():
            return f"{event.name} is ours no longer, and stays"
        case ImageReleased():
            return f"{event.image} is no image any more; its data stay"
        case DatasetDestroyed():
            return event.name
        case DatasetRenamed():
            return f"{event.name} is now {event.new_name}"
        case DatasetRolledBack():
            return f"{event.name} is {event.snapshot.name} again"
        case DatasetReceived():
            return f"{event.name} is now {event.snapshot.name}"
        case DatasetResized():
            return f"{event.name} has {show_bytes(event.size_bytes)} now"
        case DatasetLost():
            return f"{event.name} is no longer in the pool; somebody else removed it"
        case ImageRequested():
            return event.image + (f" from {event.source}" if event.source else "")
        case ImageCompleted():
            return f"{event.image} ({show_bytes(event.size_bytes)}) is {event.snapshot.name}"
        case ImageFailed():
            return f"{event.image}: {event.reason}"
        case ImageDeleted():
            return event.image
        case ImagePublished():
            return f"{event.image}, a copy of {event.snapshot.name}"
        case ImageRetired():
            return f"{event.image} is hidden, and deleted when its last clone goes"
        case ImageRevived():
            return f"{event.image} was asked for again and stays"
        case SourceRegistered():
            sums = f", sums of {event.sums}" if event.sums else ""
            return f"{event.image} comes from {event.address}{sums}"
        case SourceRemoved():
            return f"{event.image} comes from the image service again"
        case AliasSet():
            return f"{event.alias} names {event.image}"
        case AliasRemoved():
            return f"{event.alias} names no image any more"
        case TokenCreated():
            end = f" until {_show_time(event.expires_ns)}" if event.expires_ns else ""
            return f"the token {event.name} gives the role {event.role}{end}"
        case TokenRevoked():
            return f"the token {event.name} is worth nothing any more"
        case JournalOpened():
            return f"life {event.epoch}: imagestore {event.version}, pid {event.pid} on {event.host}"
        case JournalCut():
            return f"{event.length} bytes of an unfinished group were put aside as {event.saved_as}"
        case SegmentsArchived():
            return f"segments {event.first} to {event.last}, up to seq {event.last_seq}, are in {event.place}"
        case PoolAttached():
            return f"{event.driver}:{event.pool}"
        case _:
            assert_never(event)


def _show_time(time_ns: int) -> str:
    return dt.datetime.fromtimestamp(time_ns // 1_000_000_000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def describe_intent(intent: Intent) -> str:
    """What an operation set out to do."""
    match intent:
        case CreateIntent():
            return f"make {', '.join(_describe_new(new) for new in intent.datasets)}"
        case SnapshotIntent():
            return f"snapshot {_names(intent.datasets)} as @{intent.snapshot}"
        case DestroyIntent():
            return f"destroy {_names(intent.datasets)}"
        case RollbackIntent():
            newer = f", destroying {_names(intent.newer)}" if intent.newer else ""
            return f"go back to {_names(intent.snapshots)}{newer}"
        case ResizeIntent():
            return f"give {intent.volume.name} {show_bytes(intent.size_bytes)}"
        case FetchIntent():
            return f"fetch {intent.image}" + (f" from {intent.source}" if intent.source else "")
        case PublishIntent():
            return f"publish {intent.snapshot.name} as image {intent.image}"
        case NoteIntent():
            return f"note that {describe(intent.fact)}"
        case ReceiveIntent():
            base = f" from {intent.base.name}" if intent.base is not None else ""
            return f"receive {intent.name}{base}"
        case AdoptIntent():
            return f"adopt {', '.join(f'{adoptee.name} as {_role(adoptee)}' for adoptee in intent.datasets)}"
        case ReleaseIntent():
            return f"release {_names(intent.datasets)}"
        case _:
            assert_never(intent)


def _role(dataset: Adoptee | DatasetAdopted) -> str:
    """What an adopted dataset is to be, in words."""
    if dataset.disk:
        return f"disk {dataset.disk} of guest {dataset.guest}"
    return f"image {dataset.image}" if dataset.role == "image" else dataset.role


def _describe_new(new: NewDataset) -> str:
    return f"{new.name} of {new.origin.name}" if isinstance(new, NewClone) else new.name


def _names(datasets: tuple[DatasetId, ...]) -> str:
    return ", ".join(dataset.name for dataset in datasets)
