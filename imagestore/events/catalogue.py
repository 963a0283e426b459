"""The event catalogue: everything that can ever be read back from the journal.

Rules (JOURNAL rules 4 and 15; ``tests/events/golden/`` proves them):

* A type's alias (its ``tag``) is stable for ever and is never a class name.
* Fields are only added, with defaults that never change.  What changes
  meaning gets a new alias.
* Events record results (guids, sizes, names), so that the fold computes nothing.
* Decoding forbids unknown fields: an event of a newer imagestore is refused,
  not half understood.
* No secrets: no tokens, no credentials of addresses, no guest metadata.

An intent (part of ``operation-started``) says all that is needed to finish or
undo the operation in another life: names to be made, and guid and createtxg
of everything that may be destroyed.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

UInt64 = Annotated[int, Meta(ge=0)]

DatasetKind = Literal["filesystem", "volume", "snapshot"]
Role = Literal["image", "disk", "volume", "parent", "snapshot", "staging"]
"""What a dataset is to the store; the pool's tag ``imagestore:kind`` says the same."""


class _Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Base of everything in a frame's body."""


class DatasetId(_Record, frozen=True, kw_only=True):
    """A dataset as an intent or fact names it."""

    name: str
    guid: UInt64
    createtxg: UInt64


# --- intents -----------------------------------------------------------------


class NewParent(_Record, frozen=True, kw_only=True, tag="parent", tag_field="new"):
    name: str
    guest: str = ""


class NewBlank(_Record, frozen=True, kw_only=True, tag="blank", tag_field="new"):
    """A blank volume or disk; ``size_bytes`` is its volsize, all of it set aside if it is ``thick``."""

    name: str
    size_bytes: int
    guest: str = ""
    disk: str = ""
    thick: bool = False


class NewClone(_Record, frozen=True, kw_only=True, tag="clone", tag_field="new"):
    """A clone of an image's snapshot; ``size_bytes`` is its volsize."""

    name: str
    origin: DatasetId
    size_bytes: int
    image: str = ""
    guest: str = ""
    disk: str = ""


NewDataset = NewParent | NewBlank | NewClone


class CreateIntent(_Record, frozen=True, kw_only=True, tag="create", tag_field="intent"):
    """Make these, in this order, all or none."""

    datasets: tuple[NewDataset, ...]


class SnapshotIntent(_Record, frozen=True, kw_only=True, tag="snapshot", tag_field="intent"):
    """Snapshot these datasets as ``@snapshot`` at one instant."""

    datasets: tuple[DatasetId, ...]
    snapshot: str
    guest: str = ""


class DestroyIntent(_Record, frozen=True, kw_only=True, tag="destroy", tag_field="intent"):
    """Destroy exactly these; ``image`` is set when it is an image that goes."""

    datasets: tuple[DatasetId, ...]
    image: str = ""


class RollbackIntent(_Record, frozen=True, kw_only=True, tag="rollback", tag_field="intent"):
    """Set the volumes of ``snapshots`` back, destroying ``newer`` snapshots."""

    snapshots: tuple[DatasetId, ...]
    volumes: tuple[DatasetId, ...]
    newer: tuple[DatasetId, ...] = ()


class FetchIntent(_Record, frozen=True, kw_only=True, tag="fetch", tag_field="intent"):
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


class ReceiveIntent(_Record, frozen=True, kw_only=True, tag="receive", tag_field="intent"):
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


class PublishIntent(_Record, frozen=True, kw_only=True, tag="publish", tag_field="intent"):
    """Make an image of its own of ``snapshot``, a volume's; it grows as staging until it is whole."""

    image: str
    snapshot: DatasetId
    type: str = ""


class NoteIntent(_Record, frozen=True, kw_only=True, tag="note", tag_field="intent"):
    """Say this in the journal; nothing changes in the pool."""

    fact: "AliasSet | AliasRemoved | ImageRetired | ImageRevived | SourceRegistered | SourceRemoved"


class Adoptee(_Record, frozen=True, kw_only=True):
    """A dataset that others made, and what it is to be to the store."""

    name: str
    guid: UInt64
    createtxg: UInt64
    role: Role
    image: str = ""
    guest: str = ""
    disk: str = ""


class AdoptIntent(_Record, frozen=True, kw_only=True, tag="adopt", tag_field="intent"):
    """Take these over where they stand, after making ``parents``; nothing but tags changes.

    ``image`` is set when they are an image of ``type``, whose content is ``snapshot``.
    """

    datasets: tuple[Adoptee, ...]
    parents: tuple[NewParent, ...] = ()
    image: str = ""
    type: str = ""
    snapshot: DatasetId | None = None


class ReleaseIntent(_Record, frozen=True, kw_only=True, tag="release", tag_field="intent"):
    """Take our tags off these and forget them; ``image`` is set when it is an image that is released."""

    datasets: tuple[DatasetId, ...]
    image: str = ""


Intent = (
    CreateIntent
    | SnapshotIntent
    | DestroyIntent
    | RollbackIntent
    | FetchIntent
    | ReceiveIntent
    | PublishIntent
    | NoteIntent
    | AdoptIntent
    | ReleaseIntent
)


# --- operations ----------------------------------------------------------------


class Shown(_Record, frozen=True, kw_only=True):
    """A dataset as an answer shows it; ``written_bytes`` is a snapshot's."""

    name: str
    kind: DatasetKind
    size_bytes: int = 0
    written_bytes: int = 0


class OperationStarted(_Record, frozen=True, kw_only=True, tag="operation-started", tag_field="event"):
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


class OperationResumed(_Record, frozen=True, kw_only=True, tag="operation-resumed", tag_field="event"):
    """Another life takes the operation up again; durable before each try."""

    attempt: int


class OperationFinished(_Record, frozen=True, kw_only=True, tag="operation-finished", tag_field="event"):
    """The end.  ``error`` is one line; ``error_type`` the class of ``errors`` it was.

    ``answer`` are the datasets that ``OperationStarted.answer`` names, as they were then.
    """

    outcome: Literal["succeeded", "failed", "cancelled"]
    error: str = ""
    error_type: str = ""
    left_behind: tuple[DatasetId, ...] = ()
    answer: tuple[Shown, ...] = ()


# --- facts about datasets ----------------------------------------------------


class DatasetCreated(_Record, frozen=True, kw_only=True, tag="dataset-created", tag_field="event"):
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


class DatasetAdopted(_Record, frozen=True, kw_only=True, tag="dataset-adopted", tag_field="event"):
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


class DatasetReleased(_Record, frozen=True, kw_only=True, tag="dataset-released", tag_field="event"):
    """A dataset is ours no longer; it stays in the pool."""

    name: str
    guid: UInt64
    createtxg: UInt64


class DatasetDestroyed(_Record, frozen=True, kw_only=True, tag="dataset-destroyed", tag_field="event"):
    name: str
    guid: UInt64
    createtxg: UInt64


class DatasetRenamed(_Record, frozen=True, kw_only=True, tag="dataset-renamed", tag_field="event"):
    """Same identity, other name. What moved along (snapshots, children) has its own event."""

    name: str
    new_name: str
    guid: UInt64
    createtxg: UInt64


class DatasetRolledBack(_Record, frozen=True, kw_only=True, tag="dataset-rolled-back", tag_field="event"):
    """The volume's content is that of ``snapshot`` again."""

    name: str
    guid: UInt64
    createtxg: UInt64
    snapshot: DatasetId
    size_bytes: int = 0


class DatasetReceived(_Record, frozen=True, kw_only=True, tag="dataset-received", tag_field="event"):
    """A stream came onto the volume: its content is that of ``snapshot``, which came last."""

    name: str
    guid: UInt64
    createtxg: UInt64
    snapshot: DatasetId
    size_bytes: int = 0


class DatasetLost(_Record, frozen=True, kw_only=True, tag="dataset-lost", tag_field="event"):
    """Ours by the journal, no longer in the pool: somebody destroyed it."""

    name: str
    guid: UInt64
    createtxg: UInt64


# --- facts about images ----------------------------------------------------------


class ImageRequested(_Record, frozen=True, kw_only=True, tag="image-requested", tag_field="event"):
    """An image id became known, or is fetched again; the order of these is the order of ListImages."""

    image: str
    type: str = ""
    source: str = ""


class ImageCompleted(_Record, frozen=True, kw_only=True, tag="image-completed", tag_field="event"):
    """The image is whole under its name.  ``sha256`` is of the body as it was fetched, hex, "" if unknown."""

    image: str
    volume: DatasetId
    snapshot: DatasetId
    size_bytes: int
    sha256: str = ""


class ImageFailed(_Record, frozen=True, kw_only=True, tag="image-failed", tag_field="event"):
    image: str
    reason: str


class ImagePublished(_Record, frozen=True, kw_only=True, tag="image-published", tag_field="event"):
    """An image id became known, or is another image now: a copy of ``snapshot``, a volume's of this pool."""

    image: str
    snapshot: DatasetId
    type: str = ""


class ImageRetired(_Record, frozen=True, kw_only=True, tag="image-retired", tag_field="event"):
    """Hidden from now on, and deleted by the store itself when its last clone goes."""

    image: str


class ImageRevived(_Record, frozen=True, kw_only=True, tag="image-revived", tag_field="event"):
    """Asked for again while it was retired: an image as before."""

    image: str


class AliasSet(_Record, frozen=True, kw_only=True, tag="alias-set", tag_field="event"):
    """The alias names this image from now on, whatever it named before."""

    alias: str
    image: str


class AliasRemoved(_Record, frozen=True, kw_only=True, tag="alias-removed", tag_field="event"):
    alias: str


class SourceRegistered(_Record, frozen=True, kw_only=True, tag="source-registered", tag_field="event"):
    """The image is fetched from ``address`` from now on, not from the image service.

    ``sha256`` (hex, "" if not given) is what its body must be; ``sums`` the
    address of a list of sums that has the image's, "" if there is none.
    Addresses carry no credentials.
    """

    image: str
    address: str
    sha256: str = ""
    sums: str = ""


class SourceRemoved(_Record, frozen=True, kw_only=True, tag="source-removed", tag_field="event"):
    """The image is the image service's again."""

    image: str


class ImageReleased(_Record, frozen=True, kw_only=True, tag="image-released", tag_field="event"):
    """The image is no image any more; what it consisted of stays in the pool."""

    image: str


class ImageDeleted(_Record, frozen=True, kw_only=True, tag="image-deleted", tag_field="event"):
    image: str


# --- facts about the store itself ---------------------------------------------------


class JournalOpened(_Record, frozen=True, kw_only=True, tag="journal-opened", tag_field="event"):
    """A process took the journal for writing; the epoch grows by one each time."""

    epoch: int
    version: str
    pid: int = 0
    host: str = ""


class JournalCut(_Record, frozen=True, kw_only=True, tag="journal-cut", tag_field="event"):
    """A torn tail was cut off when the journal was opened; its bytes are kept in ``saved_as``."""

    segment: str
    offset: int
    length: int
    saved_as: str


class SegmentsArchived(_Record, frozen=True, kw_only=True, tag="segments-archived", tag_field="event"):
    """Segments ``first`` to ``last`` of this journal were moved to ``place``.

    With them went the events up to ``last_seq``; ``hash`` (hex) is that of the last frame that went.
    """

    first: int
    last: int
    last_seq: int
    hash: str
    place: str


class PoolAttached(_Record, frozen=True, kw_only=True, tag="pool-attached", tag_field="event"):
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
    | JournalOpened
    | JournalCut
    | SegmentsArchived
    | PoolAttached
)


class Envelope(_Record, frozen=True, kw_only=True):
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
