"""The state: a fold of the journal, and nothing else.

Owns what is *ours*: datasets, images, operations under way.  What else is in
the pool is seen through the zpool actor's view.  ``apply`` is pure: no clock,
no I/O, no randomness, no pool; the journal writer alone calls it, in seq order
(:mod:`imagestore.events.writer`), and everybody else only reads.
"""

from typing import Literal, assert_never

from msgspec import Struct, field

from imagestore.access import AccessRole
from imagestore.events.catalogue import (
    AliasRemoved,
    AliasSet,
    DatasetAdopted,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DatasetKind,
    DatasetLost,
    DatasetReceived,
    DatasetReleased,
    DatasetRenamed,
    DatasetResized,
    DatasetRolledBack,
    Envelope,
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
    OperationFinished,
    OperationResumed,
    OperationStarted,
    PoolAttached,
    Role,
    SegmentsArchived,
    SourceRegistered,
    SourceRemoved,
    TokenCreated,
    TokenRevoked,
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
    """An image that was asked for.  ``operation`` fetches it while it is pending.

    ``known_sha256`` is that of the body the image was last whole with; it
    stays while the image is fetched again.  ``published`` is the snapshot that
    it is a copy of.  Times in nanoseconds since 1970, 0 if never; it was last
    used when a clone of it was made or went.
    """

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
    known_sha256: str = ""
    published: DatasetId | None = None
    requested_ns: int = 0
    completed_ns: int = 0
    last_used_ns: int = 0


class SourceRecord(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Where an image is fetched from.  ``sha256`` is of the body; ``sums`` the address of a list of sums."""

    address: str
    sha256: str = ""
    sums: str = ""


class TokenRecord(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Who may ask with a token.  ``sha256`` is of the token; times in nanoseconds since 1970, 0 is never."""

    name: str
    role: AccessRole
    sha256: str
    created_ns: int
    created_by: str
    expires_ns: int = 0


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
    key: str = ""
    request: str = ""
    answer: tuple[str, ...] = ()


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
    sources: dict[str, SourceRecord] = field(default_factory=dict)
    """Where images are fetched from, if not from the image service, by image id."""
    aliases: dict[str, str] = field(default_factory=dict)
    """The image that each alias names. No alias is an image's id."""
    retired: dict[str, str] = field(default_factory=dict)
    """Images hidden until their last clone goes, each with the operation that took the last one so far."""
    tokens: dict[str, TokenRecord] = field(default_factory=dict)
    """By name, expired ones too."""
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
                key=event.key,
                request=event.request,
                answer=event.answer,
            )
        case OperationResumed():
            _operation(state, envelope).attempts = event.attempt
        case OperationFinished():
            del state.operations[_operation(state, envelope).id]
        case DatasetCreated() | DatasetAdopted():
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
            _use_image(state, envelope, state.datasets[event.name])
        case DatasetDestroyed() | DatasetLost() | DatasetReleased():
            record = state.owned(event.name, event.guid, event.createtxg)
            if record is not None:
                del state.datasets[event.name]
                if _use_image(state, envelope, record) and record.image in state.retired:
                    state.retired[record.image] = envelope.operation
        case DatasetRenamed():
            _rename(state, event)
        case DatasetRolledBack() | DatasetReceived() | DatasetResized():
            record = state.owned(event.name, event.guid, event.createtxg)
            if record is not None:
                record.size_bytes = event.size_bytes
        case ImageRequested():
            _renew_image(state, envelope, event.image, event.type).source = event.source
        case ImagePublished():
            _renew_image(state, envelope, event.image, event.type).published = event.snapshot
        case ImageCompleted():
            image = _image(state, event.image)
            image.status = "complete"
            image.reason = ""
            image.operation = ""
            image.volume = event.volume
            image.snapshot = event.snapshot
            image.size_bytes = event.size_bytes
            image.sha256 = event.sha256
            image.known_sha256 = event.sha256
            image.completed_ns = envelope.time_ns
        case ImageFailed():
            image = _image(state, event.image)
            image.status = "error"
            image.reason = event.reason
            image.operation = ""
        case ImageDeleted() | ImageReleased():
            _image(state, event.image)
            del state.images[event.image]
            state.retired.pop(event.image, None)
        case ImageRetired():
            state.retired[_image(state, event.image).id] = ""
        case ImageRevived():
            state.retired.pop(event.image, None)
        case SourceRegistered():
            source = SourceRecord(address=event.address, sha256=event.sha256, sums=event.sums)
            state.sources[event.image] = source
        case SourceRemoved():
            state.sources.pop(event.image, None)
        case AliasSet():
            state.aliases[event.alias] = event.image
        case AliasRemoved():
            state.aliases.pop(event.alias, None)
        case TokenCreated():
            state.tokens[event.name] = TokenRecord(
                name=event.name,
                role=event.role,
                sha256=event.sha256,
                created_ns=envelope.time_ns,
                created_by=envelope.principal,
                expires_ns=event.expires_ns,
            )
        case TokenRevoked():
            state.tokens.pop(event.name, None)
        case JournalOpened():
            state.epoch = event.epoch
        case PoolAttached():
            state.pool = event.pool
            state.driver = event.driver
        case JournalCut() | SegmentsArchived():
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


def _renew_image(state: State, envelope: Envelope, image: str, type_: str) -> ImageRecord:
    """The record of an image that is on its way, for the first time or anew."""
    record = state.images.get(image)
    if record is None:
        record = state.images[image] = ImageRecord(id=image)
    record.type = type_
    record.source = ""
    record.published = None
    record.status = "pending"
    record.reason = ""
    record.operation = envelope.operation
    record.volume = record.snapshot = None
    record.size_bytes = 0
    record.sha256 = ""
    record.requested_ns = envelope.time_ns
    record.completed_ns = 0
    state.retired.pop(image, None)
    return record


def _use_image(state: State, envelope: Envelope, dataset: DatasetRecord) -> bool:
    """Note that a clone of an image was made or has gone. Returns whether ``dataset`` is such a clone."""
    if dataset.kind != "volume" or not dataset.image or dataset.origin is None:
        return False
    image = state.images.get(dataset.image)
    if image is not None:
        image.last_used_ns = envelope.time_ns
    return image is not None


def _rename(state: State, event: DatasetRenamed) -> None:
    record = state.owned(event.name, event.guid, event.createtxg)
    if record is None:
        raise ValueError(f"seq {state.seq}: no dataset {event.name!r} to rename")
    del state.datasets[event.name]
    record.name = event.new_name
    state.datasets[event.new_name] = record
