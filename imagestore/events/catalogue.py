"""The event catalogue: everything that can ever be read back from the journal.

Rules (JOURNAL rules 4 and 15; ``tests/events/golden/`` proves them):

* A type's alias (its ``tag``) is stable for ever and is never a class name.
* Fields are only added, with defaults that never change.  What changes
  meaning gets a new alias.
* Events record results (guids, sizes, names), so that the fold computes nothing.
* Decoding forbids unknown fields: an event of a newer imagestore is refused,
  not half understood.
* No secrets: no tokens (only hashes of random ones), no credentials of addresses, no guest metadata.

An intent (part of ``operation-started``) says all that is needed to finish or
undo the operation in another life: names to be made, and guid and createtxg
of everything that may be destroyed.
"""

from typing import Literal

from imagestore.events.accessfacts import TokenCreated as TokenCreated
from imagestore.events.accessfacts import TokenRevoked as TokenRevoked
from imagestore.events.imagefacts import AliasRemoved as AliasRemoved
from imagestore.events.imagefacts import AliasSet as AliasSet
from imagestore.events.imagefacts import ImageCompleted as ImageCompleted
from imagestore.events.imagefacts import ImageDeleted as ImageDeleted
from imagestore.events.imagefacts import ImageFailed as ImageFailed
from imagestore.events.imagefacts import ImagePublished as ImagePublished
from imagestore.events.imagefacts import ImageReleased as ImageReleased
from imagestore.events.imagefacts import ImageRequested as ImageRequested
from imagestore.events.imagefacts import ImageRetired as ImageRetired
from imagestore.events.imagefacts import ImageRevived as ImageRevived
from imagestore.events.imagefacts import SourceRegistered as SourceRegistered
from imagestore.events.imagefacts import SourceRemoved as SourceRemoved
from imagestore.events.record import DatasetId as DatasetId
from imagestore.events.record import DatasetKind as DatasetKind
from imagestore.events.record import Record, UInt64
from imagestore.events.record import Role as Role

# --- intents -----------------------------------------------------------------


class NewParent(Record, frozen=True, kw_only=True, tag="parent", tag_field="new"):
    name: str
    guest: str = ""


class NewBlank(Record, frozen=True, kw_only=True, tag="blank", tag_field="new"):
    """A blank volume or disk; ``size_bytes`` is its volsize, all of it set aside if it is ``thick``."""

    name: str
    size_bytes: int
    guest: str = ""
    disk: str = ""
    thick: bool = False


class NewClone(Record, frozen=True, kw_only=True, tag="clone", tag_field="new"):
    """A clone of an image's snapshot; ``size_bytes`` is its volsize."""

    name: str
    origin: DatasetId
    size_bytes: int
    image: str = ""
    guest: str = ""
    disk: str = ""


NewDataset = NewParent | NewBlank | NewClone


class CreateIntent(Record, frozen=True, kw_only=True, tag="create", tag_field="intent"):
    """Make these, in this order, all or none."""

    datasets: tuple[NewDataset, ...]


class SnapshotIntent(Record, frozen=True, kw_only=True, tag="snapshot", tag_field="intent"):
    """Snapshot these datasets as ``@snapshot`` at one instant."""

    datasets: tuple[DatasetId, ...]
    snapshot: str
    guest: str = ""


class DestroyIntent(Record, frozen=True, kw_only=True, tag="destroy", tag_field="intent"):
    """Destroy exactly these; ``image`` is set when it is an image that goes."""

    datasets: tuple[DatasetId, ...]
    image: str = ""


class RollbackIntent(Record, frozen=True, kw_only=True, tag="rollback", tag_field="intent"):
    """Set the volumes of ``snapshots`` back, destroying ``newer`` snapshots."""

    snapshots: tuple[DatasetId, ...]
    volumes: tuple[DatasetId, ...]
    newer: tuple[DatasetId, ...] = ()


class ResizeIntent(Record, frozen=True, kw_only=True, tag="resize", tag_field="intent"):
    """Give the volume so many bytes, more than it has."""

    volume: DatasetId
    size_bytes: int


class FetchIntent(Record, frozen=True, kw_only=True, tag="fetch", tag_field="intent"):
    """Fetch an image; it grows as ``staging`` until it is whole.

    ``source`` as of ``actors.origin.Origin``: "" is the image service.
    ``sha256`` (hex, "" if unknown) and ``size_bytes`` (0 if unknown) are what
    the body must be.
    """

    image: str
    staging: str
    source: str = ""
    type: str = ""
    sha256: str = ""
    size_bytes: int = 0


class ReceiveIntent(Record, frozen=True, kw_only=True, tag="receive", tag_field="intent"):
    """Bring a send stream in: onto ``volume``, or as the new volume ``name`` when that is None.

    ``base`` is the snapshot that the stream is from: the newest of ``volume``,
    or the origin of a new clone; None for a full stream.  A new volume grows
    as ``staging`` until it is whole; ``parents`` are made before it gets its name.
    """

    name: str
    staging: str
    volume: DatasetId | None = None
    base: DatasetId | None = None
    parents: tuple[NewParent, ...] = ()
    image: str = ""
    guest: str = ""
    disk: str = ""


class PublishIntent(Record, frozen=True, kw_only=True, tag="publish", tag_field="intent"):
    """Make an image of its own of ``snapshot``, a volume's; it grows as staging until it is whole."""

    image: str
    snapshot: DatasetId
    type: str = ""


class NoteIntent(Record, frozen=True, kw_only=True, tag="note", tag_field="intent"):
    """Say this in the journal; nothing changes in the pool."""

    fact: (
        AliasSet
        | AliasRemoved
        | ImageRetired
        | ImageRevived
        | SourceRegistered
        | SourceRemoved
        | TokenCreated
        | TokenRevoked
    )


class Adoptee(Record, frozen=True, kw_only=True):
    """A dataset that others made, and what it is to be to the store."""

    name: str
    guid: UInt64
    createtxg: UInt64
    role: Role
    image: str = ""
    guest: str = ""
    disk: str = ""


class AdoptIntent(Record, frozen=True, kw_only=True, tag="adopt", tag_field="intent"):
    """Take these over where they stand, after making ``parents``; nothing but tags changes.

    ``image`` is set when they are an image of ``type``, whose content is ``snapshot``.
    """

    datasets: tuple[Adoptee, ...]
    parents: tuple[NewParent, ...] = ()
    image: str = ""
    type: str = ""
    snapshot: DatasetId | None = None


class ReleaseIntent(Record, frozen=True, kw_only=True, tag="release", tag_field="intent"):
    """Take our tags off these and forget them; ``image`` is set when it is an image that is released."""

    datasets: tuple[DatasetId, ...]
    image: str = ""


Intent = (
    CreateIntent
    | SnapshotIntent
    | DestroyIntent
    | RollbackIntent
    | ResizeIntent
    | FetchIntent
    | ReceiveIntent
    | PublishIntent
    | NoteIntent
    | AdoptIntent
    | ReleaseIntent
)


# --- operations ----------------------------------------------------------------


class Shown(Record, frozen=True, kw_only=True):
    """A dataset as an answer shows it; ``written_bytes`` is a snapshot's."""

    name: str
    kind: DatasetKind
    size_bytes: int = 0
    written_bytes: int = 0


class OperationStarted(Record, frozen=True, kw_only=True, tag="operation-started", tag_field="event"):
    """Accepted, and durable before anything happens.

    ``method`` is the RPC method, ``subject`` the dataset, guest or image it is
    about, ``reserved_bytes`` what the space ledger sets aside until the end.

    ``key`` is a hash of the idempotency key that it binds, with its caller,
    ``request`` a hash of the request, keyed by that key: neither can be read
    out of the journal.  Only then is kept what the same answer takes again:
    ``answer`` names the datasets that it shows, ``gone`` are those that it
    shows although they will be gone, ``shown`` is the object, as JSON, that
    will be gone without being a dataset.
    """

    method: str
    subject: str
    intent: Intent
    reserved_bytes: int = 0
    force: bool = False
    key: str = ""
    request: str = ""
    answer: tuple[str, ...] = ()
    gone: tuple[Shown, ...] = ()
    shown: str = ""


class OperationResumed(Record, frozen=True, kw_only=True, tag="operation-resumed", tag_field="event"):
    """Another life takes the operation up again; durable before each try."""

    attempt: int


class OperationFinished(Record, frozen=True, kw_only=True, tag="operation-finished", tag_field="event"):
    """The end.  ``error`` is one line; ``error_type`` the class of ``errors`` it was.

    ``answer`` are the datasets that ``OperationStarted.answer`` names, as they were then.
    """

    outcome: Literal["succeeded", "failed", "cancelled"]
    error: str = ""
    error_type: str = ""
    left_behind: tuple[DatasetId, ...] = ()
    answer: tuple[Shown, ...] = ()


# --- facts about datasets ----------------------------------------------------


class DatasetCreated(Record, frozen=True, kw_only=True, tag="dataset-created", tag_field="event"):
    """A dataset of ours exists.  ``origin`` is the snapshot it is a clone of."""

    name: str
    kind: DatasetKind
    role: Role
    guid: UInt64
    createtxg: UInt64
    size_bytes: int = 0
    origin: DatasetId | None = None
    image: str = ""
    guest: str = ""
    disk: str = ""


class DatasetAdopted(Record, frozen=True, kw_only=True, tag="dataset-adopted", tag_field="event"):
    """A dataset that others had made is ours from now on."""

    name: str
    kind: DatasetKind
    role: Role
    guid: UInt64
    createtxg: UInt64
    size_bytes: int = 0
    origin: DatasetId | None = None
    image: str = ""
    guest: str = ""
    disk: str = ""


class DatasetReleased(Record, frozen=True, kw_only=True, tag="dataset-released", tag_field="event"):
    """A dataset is ours no longer; it stays in the pool."""

    name: str
    guid: UInt64
    createtxg: UInt64


class DatasetDestroyed(Record, frozen=True, kw_only=True, tag="dataset-destroyed", tag_field="event"):
    name: str
    guid: UInt64
    createtxg: UInt64


class DatasetRenamed(Record, frozen=True, kw_only=True, tag="dataset-renamed", tag_field="event"):
    """Same identity, other name. What moved along (snapshots, children) has its own event."""

    name: str
    new_name: str
    guid: UInt64
    createtxg: UInt64


class DatasetRolledBack(Record, frozen=True, kw_only=True, tag="dataset-rolled-back", tag_field="event"):
    """The volume's content is that of ``snapshot`` again."""

    name: str
    guid: UInt64
    createtxg: UInt64
    snapshot: DatasetId
    size_bytes: int = 0


class DatasetResized(Record, frozen=True, kw_only=True, tag="dataset-resized", tag_field="event"):
    """The volume has another size."""

    name: str
    guid: UInt64
    createtxg: UInt64
    size_bytes: int


class DatasetReceived(Record, frozen=True, kw_only=True, tag="dataset-received", tag_field="event"):
    """A stream came onto the volume: its content is that of ``snapshot``, which came last."""

    name: str
    guid: UInt64
    createtxg: UInt64
    snapshot: DatasetId
    size_bytes: int = 0


class DatasetLost(Record, frozen=True, kw_only=True, tag="dataset-lost", tag_field="event"):
    """Ours by the journal, no longer in the pool: somebody destroyed it."""

    name: str
    guid: UInt64
    createtxg: UInt64


# --- facts about the store itself ---------------------------------------------------


class JournalOpened(Record, frozen=True, kw_only=True, tag="journal-opened", tag_field="event"):
    """A process took the journal for writing; the epoch grows by one each time."""

    epoch: int
    version: str
    pid: int = 0
    host: str = ""


class JournalCut(Record, frozen=True, kw_only=True, tag="journal-cut", tag_field="event"):
    """A torn tail was cut off when the journal was opened; its bytes are kept in ``saved_as``."""

    segment: str
    offset: int
    length: int
    saved_as: str


class SegmentsArchived(Record, frozen=True, kw_only=True, tag="segments-archived", tag_field="event"):
    """Segments ``first`` to ``last`` of this journal were moved to ``place``.

    With them went the events up to ``last_seq``; ``hash`` (hex) is that of the last frame that went.
    """

    first: int
    last: int
    last_seq: int
    hash: str
    place: str


class PoolAttached(Record, frozen=True, kw_only=True, tag="pool-attached", tag_field="event"):
    """The pool that this journal describes."""

    driver: str
    pool: str


Event = (
    OperationStarted
    | OperationResumed
    | OperationFinished
    | DatasetCreated
    | DatasetAdopted
    | DatasetReleased
    | DatasetDestroyed
    | DatasetRenamed
    | DatasetRolledBack
    | DatasetReceived
    | DatasetResized
    | DatasetLost
    | ImageRequested
    | ImageCompleted
    | ImageFailed
    | ImageDeleted
    | ImageReleased
    | ImagePublished
    | ImageRetired
    | ImageRevived
    | AliasSet
    | AliasRemoved
    | SourceRegistered
    | SourceRemoved
    | TokenCreated
    | TokenRevoked
    | JournalOpened
    | JournalCut
    | SegmentsArchived
    | PoolAttached
)


class Envelope(Record, frozen=True, kw_only=True):
    """One event as it stands in the journal.

    ``id`` is a UUIDv7.  ``seq`` is gapless from 1.  ``time_ns`` is the wall
    clock in nanoseconds since 1970, informative only: order is ``seq``.
    ``operation`` is the operation's id, "" outside any.  ``cause`` is the id
    of the operation that led to this one, "" if a request did.  ``principal``
    is who asked.
    """

    id: str
    seq: int
    time_ns: int
    operation: str = ""
    cause: str = ""
    principal: str = ""
    event: Event
