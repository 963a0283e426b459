"""The wire's types: requests and answers of the RPC methods.

Owns nothing but shapes.  Sizes on the wire are MiB, truncated; everything
inside imagestore counts bytes.  Requests decode leniently (unknown fields are
ignored, null is the zero value); see ``http/rpc.py`` for what that takes.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from imagestore.access import AccessRole

MIB = 1 << 20
U64_MAX = (1 << 64) - 1

UInt64 = Annotated[int, Meta(ge=0)]
"""An unsigned 64-bit integer; the upper bound is checked where it is decoded."""


class Progress(Struct, frozen=True, kw_only=True):
    """Bytes fetched; ``total_bytes`` is null while unknown."""

    done_bytes: int
    total_bytes: int | None = None


class Image(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """An image. ``type`` is "" or "kvm"; ``size`` the volume's size in MiB.

    What comes after ``progress`` is in the answers of newer methods only.
    ``sha256`` is of the body as it was fetched, ``size_bytes`` what the image
    takes in the pool; times are RFC 3339, in UTC, and missing if it never
    was.  A ``retired`` one is deleted when its last clone goes.
    """

    id: str
    type: str = ""
    volume: str | UnsetType = UNSET
    snapshot: str | UnsetType = UNSET
    size: int = 0
    status: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    progress: Progress | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    size_bytes: int | UnsetType = UNSET
    aliases: tuple[str, ...] | UnsetType = UNSET
    clones: tuple[str, ...] | UnsetType = UNSET
    requested: str | UnsetType = UNSET
    completed: str | UnsetType = UNSET
    last_used: str | UnsetType = UNSET
    retired: bool | UnsetType = UNSET


class Volume(Struct, frozen=True, kw_only=True):
    """A volume; ``size`` in MiB, ``device`` an absolute path."""

    id: str
    size: int
    device: str


class Snapshot(Struct, frozen=True, kw_only=True):
    """A snapshot; ``size`` is what was written since the one before, in MiB."""

    id: str
    size: int


Guest = dict[str, Any]
"""A guest as it was sent, unknown fields included: the agent stores it over its own copy."""


class ImageRequest(Struct, frozen=True, kw_only=True):
    """``source`` is the address that an image is to be fetched from, "" the one that is known.

    Its body must have the digest ``sha256``, or the one that the list at the
    address ``sums`` has; ``keyring`` (OpenPGP keys, in base64) says whose
    signature of the list counts.
    """

    id: str = ""
    type: str = ""
    dest: str = ""
    source: str = ""
    whenUnused: bool = False  # noqa: N815 (as the wire spells its other names)
    sha256: str = ""
    sums: str = ""
    keyring: str = ""


class SourceRequest(Struct, frozen=True, kw_only=True):
    """The image ``id`` is to come from the address ``source``; see ImageRequest for the rest."""

    id: str = ""
    source: str = ""
    sha256: str = ""
    sums: str = ""


class Source(Struct, frozen=True, kw_only=True):
    """Where an image comes from, if not from the image service."""

    id: str
    source: str
    sha256: str = ""
    sums: str = ""


class SourceResponse(Struct, frozen=True, kw_only=True):
    sources: tuple[Source, ...]


class UploadRequest(Struct, frozen=True, kw_only=True):
    """A body on its way to be the image ``id``; ``sha256`` is what it must be, "" if anything."""

    id: str = ""
    type: str = ""
    sha256: str = ""


class VolumeRequest(Struct, frozen=True, kw_only=True):
    """With ``thick`` room for all of a new volume is set aside."""

    id: str = ""
    size: int = 0
    force: bool = False
    thick: bool = False


class SnapshotRequest(Struct, frozen=True, kw_only=True):
    """``base`` (``from`` on the wire) is what a download is to be incremental from: a
    snapshot's name, or a guid in decimal or 0xhex."""

    id: str = ""
    base: str = field(default="", name="from")
    dest: str = ""
    recursive: bool = False
    destroyMoreRecent: bool = False  # noqa: N815 (the wire's spelling)
    force: bool = False


class GuestRequest(Struct, frozen=True, kw_only=True):
    guest: Guest | None = None
    action: str = ""
    args: dict[str, str] | None = None
    force: bool = False


class DriftRequest(Struct, frozen=True, kw_only=True):
    """There is nothing to say."""


class Drifted(Struct, frozen=True, kw_only=True):
    """A dataset that is not as the journal has it; ``now`` is its name if it was renamed."""

    id: str
    change: Literal["lost", "renamed", "foreign"]
    kind: str
    guid: int
    now: str | UnsetType = UNSET


class DriftResponse(Struct, frozen=True, kw_only=True):
    datasets: tuple[Drifted, ...]


class ReceiveRequest(Struct, frozen=True, kw_only=True):
    """A stream on its way to the volume ``id``; ``force`` discards what was written since its base."""

    id: str = ""
    force: bool = False


class AdoptRequest(Struct, frozen=True, kw_only=True):
    """The volume ``id`` is to be disk ``disk`` of ``guest``, or ``image`` of ``type``, or just ours.

    ``dryRun`` only tells what would be done; ``force`` takes a disk that a process has open.
    """

    id: str = ""
    guest: str = ""
    disk: int | None = None
    image: str = ""
    type: str = ""
    dryRun: bool = False  # noqa: N815 (spelled like its neighbours on the wire)
    force: bool = False


class PlanRequest(Struct, frozen=True, kw_only=True):
    """Which change: ``method`` with its ``request``."""

    method: str = ""
    request: dict[str, Any] | None = None


class ReceivePlan(Struct, frozen=True, kw_only=True):
    """What ``PlanChange`` takes for ``ReceiveVolume``: a stream's heading, and where it would go.

    ``snapshot`` is the first that it brings, ``baseGuid`` the guid that it goes on
    from (0: a full stream), ``isClone`` whether that is a clone's origin.
    """

    id: str = ""
    force: bool = False
    snapshot: str = ""
    baseGuid: int = 0  # noqa: N815 (spelled like its neighbours on the wire)
    isClone: bool = False  # noqa: N815


class PlannedEffect(Struct, frozen=True, kw_only=True):
    """What would become of a dataset.

    ``action``: make, destroy, roll back, resize, bring up to date, note (journaled only).
    ``size_bytes``: what a guest sees of what is made, what was written to what goes.
    """

    action: str
    id: str
    what: str
    size_bytes: int


class PlanResponse(Struct, frozen=True, kw_only=True):
    """What the change would do; ``settled``: nothing, it is so already.

    ``reserve_bytes`` of ``available_bytes`` would be promised; ``commands``
    are the pool's, as an administrator would type them.
    """

    method: str
    subject: str = ""
    settled: bool = False
    effects: tuple[PlannedEffect, ...] = ()
    reserve_bytes: int = 0
    available_bytes: int = 0
    commands: tuple[str, ...] = ()


class ReleaseRequest(Struct, frozen=True, kw_only=True):
    id: str = ""
    dryRun: bool = False  # noqa: N815 (spelled like its neighbours on the wire)


class Adopted(Struct, frozen=True, kw_only=True):
    """A dataset that was taken over; ``role`` is ``disk``, ``image``, ``volume`` or ``snapshot``."""

    id: str
    role: str
    guest: str | UnsetType = UNSET
    disk: int | UnsetType = UNSET
    image: str | UnsetType = UNSET


class LeftOut(Struct, frozen=True, kw_only=True):
    """Something that was not taken over, and why, in one line."""

    id: str
    reason: str


class AdoptResponse(Struct, frozen=True, kw_only=True):
    """``commands`` is what a dry run would have had the pool do."""

    adopted: tuple[Adopted, ...] = ()
    left: tuple[LeftOut, ...] = ()
    commands: tuple[str, ...] = ()


class ReleaseResponse(Struct, frozen=True, kw_only=True):
    """What was let go, snapshots included; ``commands`` as of an adoption."""

    released: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


class ImageResponse(Struct, frozen=True, kw_only=True):
    images: tuple[Image, ...]


class AliasRequest(Struct, frozen=True, kw_only=True):
    """``alias`` is to name the image ``id`` (an id, or another alias of it)."""

    alias: str = ""
    id: str = ""


class PublishRequest(Struct, frozen=True, kw_only=True):
    """The snapshot ``snapshot`` of a volume is to be the image ``id``."""

    id: str = ""
    snapshot: str = ""
    type: str = ""


class CollectRequest(Struct, frozen=True, kw_only=True):
    """Images that nothing has used for so long are to go; with ``dryRun`` only told."""

    unusedSeconds: int = 0  # noqa: N815 (as the wire spells its other names)
    dryRun: bool = False  # noqa: N815


class VolumeResponse(Struct, frozen=True, kw_only=True):
    volumes: tuple[Volume, ...]


class SnapshotResponse(Struct, frozen=True, kw_only=True):
    snapshots: tuple[Snapshot, ...]


class ReceiveResponse(Struct, frozen=True, kw_only=True):
    """The volume as it is now, and the snapshots that came, oldest first."""

    volume: Volume
    snapshots: tuple[Snapshot, ...]


class GuestResponse(Struct, frozen=True, kw_only=True):
    guest: Guest
    message: str | UnsetType = UNSET
    retry: int | UnsetType = UNSET


# --- operations ---------------------------------------------------------------------


class OperationRequest(Struct, frozen=True, kw_only=True):
    """Which operation, or which ones: ``who``, ``dataset`` (and all below it), ``of`` (the method),
    ``status``, ``since`` (RFC 3339), ``before`` (a seq: those accepted earlier), at most ``limit``.

    ``timeout`` is how many seconds WaitOperation waits at most; 0 is the store's own limit.
    """

    id: str = ""
    who: str = ""
    dataset: str = ""
    of: str = ""
    status: str = ""
    since: str = ""
    before: int = 0
    limit: int = 0
    timeout: int = 0


class Effect(Struct, frozen=True, kw_only=True):
    """An event that an operation caused: its seq in the journal, its type, what it is about."""

    seq: int
    event: str
    subject: str


class Operation(Struct, frozen=True, kw_only=True):
    """One operation.  Times are RFC 3339 in UTC, null while unknown; seqs are of the journal, 0 out of it.

    ``phase`` says more of what runs; ``progress`` and ``rate`` (bytes a
    second, since it began in this life of the store) are those of a transfer.
    ``cause`` is the operation that led to it, ``effects`` the first of what it
    caused, of ``effectsTotal`` in all; listings leave them out.
    """

    id: str
    method: str
    subject: str
    who: str
    status: str
    phase: str = ""
    progress: Progress | UnsetType = UNSET
    rate: int | UnsetType = UNSET
    cancellable: bool = False
    queued: str | None = None
    started: str | None = None
    finished: str | None = None
    seq: int = 0
    lastSeq: int = 0  # noqa: N815 (the wire's spelling)
    attempts: int = 0
    cause: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    errorType: str | UnsetType = UNSET  # noqa: N815 (the wire's spelling)
    leftBehind: tuple[str, ...] | UnsetType = UNSET  # noqa: N815 (the wire's spelling)
    effects: tuple[Effect, ...] | UnsetType = UNSET
    effectsTotal: int | UnsetType = UNSET  # noqa: N815 (the wire's spelling)


class OperationResponse(Struct, frozen=True, kw_only=True):
    """``next`` is what ``before`` is to be for the next page; 0 at the end."""

    operations: tuple[Operation, ...]
    next: int = 0


class EventsRequest(Struct, frozen=True, kw_only=True):
    """Which events are to be told: those after event ``after`` (None: after the last there is now),
    up to event ``until`` (None: for ever); the ``last`` so many of them that are there, and what follows.

    Filters are as of ``imagestore log``; ``types`` are the journal's names of
    events, () means all; ``since`` and ``latest`` are times.
    """

    after: int | None = None
    until: int | None = None
    last: int | None = None
    operation: str = ""
    dataset: str = ""
    guest: str = ""
    image: str = ""
    who: str = ""
    types: tuple[str, ...] = ()
    since: str = ""
    latest: str = ""


# --- who may ask --------------------------------------------------------------------


class TokenRequest(Struct, frozen=True, kw_only=True):
    """A token: its name, the ``role`` it is to give, its life in seconds (0: until it is revoked)."""

    name: str = ""
    role: str = ""
    expiresSeconds: int = 0  # noqa: N815 (as the wire spells its other names)


class Token(Struct, frozen=True, kw_only=True):
    """What is kept of a token; times are RFC 3339 in UTC.  Without ``expires`` it is good until revoked."""

    name: str
    role: AccessRole
    created: str
    createdBy: str  # noqa: N815 (the wire's spelling)
    expires: str | UnsetType = UNSET
    expired: bool = False


class TokenResponse(Struct, frozen=True, kw_only=True):
    """``secret`` is the token itself: in the first answer to CreateToken, and nowhere else."""

    tokens: tuple[Token, ...]
    secret: str | UnsetType = UNSET
