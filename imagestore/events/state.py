"""The state: a fold of the journal, and nothing else.

Owns what is *ours*: datasets, images, operations under way.  What else is in
the pool is seen through the zpool actor's view.  ``apply`` is pure: no clock,
no I/O, no randomness, no pool; the journal writer alone calls it, in seq order
(:mod:`imagestore.events.writer`), and everybody else only reads.
"""

from typing import Literal, assert_never

from msgspec import Struct, field

from imagestore.events.catalogue import (
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DatasetKind,
    DatasetLost,
    DatasetReceived,
    DatasetRenamed,
    DatasetRolledBack,
    Envelope,
    ImageCompleted,
    ImageDeleted,
    ImageFailed,
    ImageRequested,
    Intent,
    JournalCut,
    JournalOpened,
    OperationFinished,
    OperationResumed,
    OperationStarted,
    PoolAttached,
    Role,
)

Key = tuple[int, int]
"""A dataset's identity: guid, createtxg."""


class DatasetRecord(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A dataset of ours, as the journal tells it.  ``made_by`` is the operation that made it."""

    name: str
    kind: DatasetKind
    role: Role
    guid: int
    createtxg: int
    size_bytes: int = 0
    origin: DatasetId | None = None
    image: str = ""
    guest: str = ""
    disk: str = ""
    made_by: str = ""


class ImageRecord(Struct, kw_only=True, omit_defaults=True):
    """An image that was asked for.  ``operation`` fetches it while it is pending."""

    id: str
    type: str = ""
    source: str = ""
    status: Literal["pending", "complete", "error"] = "pending"
    reason: str = ""
    operation: str = ""
    volume: DatasetId | None = None
    snapshot: DatasetId | None = None
    size_bytes: int = 0
    sha256: str = ""


class OperationRecord(Struct, kw_only=True, omit_defaults=True):
    """An operation under way, kept until its end is journaled.

    ``facts`` are the datasets that it is already known to have made.
    """

    id: str
    method: str
    subject: str
    intent: Intent
    principal: str
    seq: int
    started_ns: int
    reserved_bytes: int = 0
    force: bool = False
    attempts: int = 0


class State(Struct, kw_only=True):
    """Everything that is ours.  Equal states came from equal histories."""

    seq: int = 0
    epoch: int = 0
    pool: str = ""
    driver: str = ""
    datasets: dict[str, DatasetRecord] = field(default_factory=dict)
    """By name."""
    images: dict[str, ImageRecord] = field(default_factory=dict)
    """By id, in the order of first request."""
    operations: dict[str, OperationRecord] = field(default_factory=dict)
    """Under way, by id, in the order of acceptance."""

    def owned(self, name: str, guid: int, createtxg: int) -> DatasetRecord | None:
        """The record of the dataset of that name and identity, if it is ours."""
        record = self.datasets.get(name)
        if record is not None and record.guid == guid and record.createtxg == createtxg:
            return record
        return None


def apply(state: State, envelope: Envelope) -> None:
    """Fold one event into ``state``.

    Raises:
        ValueError: the event does not follow what came before it: a sequence
            gap, or a fact about something that the history does not know.
    """
    if envelope.seq != state.seq + 1:
        raise ValueError(f"seq {envelope.seq} does not follow {state.seq}")
    state.seq = envelope.seq
    event = envelope.event
    match event:
        case OperationStarted():
            state.operations[envelope.operation] = OperationRecord(
                id=envelope.operation,
                method=event.method,
                subject=event.subject,
                intent=event.intent,
                principal=envelope.principal,
                seq=envelope.seq,
                started_ns=envelope.time_ns,
                reserved_bytes=event.reserved_bytes,
                force=event.force,
            )
        case OperationResumed():
            _operation(state, envelope).attempts = event.attempt
        case OperationFinished():
            del state.operations[_operation(state, envelope).id]
        case DatasetCreated():
            state.datasets[event.name] = DatasetRecord(
                name=event.name,
                kind=event.kind,
                role=event.role,
                guid=event.guid,
                createtxg=event.createtxg,
                size_bytes=event.size_bytes,
                origin=event.origin,
                image=event.image,
                guest=event.guest,
                disk=event.disk,
                made_by=envelope.operation,
            )
        case DatasetDestroyed() | DatasetLost():
            if state.owned(event.name, event.guid, event.createtxg) is not None:
                del state.datasets[event.name]
        case DatasetRenamed():
            _rename(state, event)
        case DatasetRolledBack() | DatasetReceived():
            record = state.owned(event.name, event.guid, event.createtxg)
            if record is not None:
                record.size_bytes = event.size_bytes
        case ImageRequested():
            _request_image(state, envelope, event)
        case ImageCompleted():
            image = _image(state, event.image)
            image.status = "complete"
            image.reason = ""
            image.operation = ""
            image.volume = event.volume
            image.snapshot = event.snapshot
            image.size_bytes = event.size_bytes
            image.sha256 = event.sha256
        case ImageFailed():
            image = _image(state, event.image)
            image.status = "error"
            image.reason = event.reason
            image.operation = ""
        case ImageDeleted():
            _image(state, event.image)
            del state.images[event.image]
        case JournalOpened():
            state.epoch = event.epoch
        case PoolAttached():
            state.pool = event.pool
            state.driver = event.driver
        case JournalCut():
            pass
        case _:
            assert_never(event)


def _operation(state: State, envelope: Envelope) -> OperationRecord:
    record = state.operations.get(envelope.operation)
    if record is None:
        raise ValueError(f"seq {envelope.seq}: no operation {envelope.operation!r} is under way")
    return record


def _image(state: State, image: str) -> ImageRecord:
    record = state.images.get(image)
    if record is None:
        raise ValueError(f"seq {state.seq}: image {image!r} was never requested")
    return record


def _request_image(state: State, envelope: Envelope, event: ImageRequested) -> None:
    record = state.images.get(event.image)
    if record is None:
        record = state.images[event.image] = ImageRecord(id=event.image)
    record.type = event.type
    record.source = event.source
    record.status = "pending"
    record.reason = ""
    record.operation = envelope.operation
    record.volume = record.snapshot = None
    record.size_bytes = 0
    record.sha256 = ""


def _rename(state: State, event: DatasetRenamed) -> None:
    record = state.owned(event.name, event.guid, event.createtxg)
    if record is None:
        raise ValueError(f"seq {state.seq}: no dataset {event.name!r} to rename")
    del state.datasets[event.name]
    record.name = event.new_name
    state.datasets[event.new_name] = record
