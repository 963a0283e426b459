"""What a running store offers: the method table and the protocol that serves it.

``http`` and ``cli`` know this protocol only; ``imagestore.store.Store``
implements it.  The table is the one list of RPC methods: names, request and
answer types, documentation spellings.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import trio
from msgspec import Struct

from imagestore.access import AccessRole
from imagestore.model import (
    AdoptRequest,
    AdoptResponse,
    AliasRequest,
    CollectRequest,
    DriftRequest,
    DriftResponse,
    EventsRequest,
    GuestRequest,
    GuestResponse,
    ImageRequest,
    ImageResponse,
    OperationRequest,
    OperationResponse,
    PlanRequest,
    PlanResponse,
    PublishRequest,
    ReceiveRequest,
    ReceiveResponse,
    ReleaseRequest,
    ReleaseResponse,
    SnapshotRequest,
    SnapshotResponse,
    SourceRequest,
    SourceResponse,
    TokenRequest,
    TokenResponse,
    UploadRequest,
    VolumeRequest,
    VolumeResponse,
)
from imagestore.pipes import InPipe
from imagestore.screen import (
    ExplainRequest,
    ExplainResponse,
    GuestsRequest,
    GuestsResponse,
    SearchRequest,
    SearchResponse,
    StatusRequest,
    StatusResponse,
)

Request = type[Struct]
"""A request type of ``imagestore.model``; ``http/shapes.py`` says how each is read."""


class Method(Struct, frozen=True, kw_only=True):
    """One RPC method.  ``attribute`` is the name of the :class:`Service` method.

    ``role`` may call it; None is the rule: readers what changes nothing, operators what does.
    """

    name: str
    attribute: str
    request: Request
    mutates: bool
    also: tuple[str, ...] = ()
    role: AccessRole | None = None

    @property
    def needs(self) -> AccessRole:
        """The least role that may call it, without ``force``."""
        return self.role or ("operator" if self.mutates else "reader")


METHODS: tuple[Method, ...] = (
    Method(name="ListImages", attribute="list_images", request=ImageRequest, mutates=False),
    Method(name="GetImage", attribute="get_image", request=ImageRequest, mutates=False),
    Method(name="RequestImage", attribute="request_image", request=ImageRequest, mutates=True),
    Method(name="DeleteImage", attribute="delete_image", request=ImageRequest, mutates=True),
    Method(name="CloneImage", attribute="clone_image", request=ImageRequest, mutates=True),
    Method(name="ListSources", attribute="list_sources", request=SourceRequest, mutates=False),
    Method(name="RegisterSource", attribute="register_source", request=SourceRequest, mutates=True),
    Method(name="RemoveSource", attribute="remove_source", request=SourceRequest, mutates=True),
    Method(name="DescribeImages", attribute="describe_images", request=ImageRequest, mutates=False),
    Method(name="SetImageAlias", attribute="set_image_alias", request=AliasRequest, mutates=True),
    Method(name="RemoveImageAlias", attribute="remove_image_alias", request=AliasRequest, mutates=True),
    Method(name="PublishImage", attribute="publish_image", request=PublishRequest, mutates=True),
    Method(name="CollectImages", attribute="collect_images", request=CollectRequest, mutates=True),
    Method(name="ListVolumes", attribute="list_volumes", request=VolumeRequest, mutates=False),
    Method(name="CreateVolume", attribute="create_volume", request=VolumeRequest, mutates=True),
    Method(name="ResizeVolume", attribute="resize_volume", request=VolumeRequest, mutates=True),
    Method(name="GetVolume", attribute="get_volume", request=VolumeRequest, mutates=False),
    Method(name="DeleteDataset", attribute="delete_dataset", request=VolumeRequest, mutates=True),
    Method(name="CreateSnapshot", attribute="create_snapshot", request=SnapshotRequest, mutates=True),
    Method(name="GetSnapshot", attribute="get_snapshot", request=SnapshotRequest, mutates=False),
    Method(
        name="ListSnapshots",
        attribute="list_snapshots",
        request=SnapshotRequest,
        mutates=False,
        also=("ListSnapshot",),
    ),
    Method(name="DeleteSnapshot", attribute="delete_snapshot", request=SnapshotRequest, mutates=True),
    Method(name="RollbackSnapshot", attribute="rollback_snapshot", request=SnapshotRequest, mutates=True),
    Method(name="VerifyDisks", attribute="verify_disks", request=GuestRequest, mutates=False),
    Method(name="CreateGuestDisks", attribute="create_guest_disks", request=GuestRequest, mutates=True),
    Method(
        name="DeleteGuestsDisks",
        attribute="delete_guests_disks",
        request=GuestRequest,
        mutates=True,
        also=("DeleteGuestDisks",),
    ),
    Method(
        name="AdoptDataset",
        attribute="adopt_dataset",
        request=AdoptRequest,
        mutates=True,
        role="admin",
    ),
    Method(
        name="AdoptOriginal",
        attribute="adopt_original",
        request=AdoptRequest,
        mutates=True,
        role="admin",
    ),
    Method(
        name="ReleaseDataset",
        attribute="release_dataset",
        request=ReleaseRequest,
        mutates=True,
        role="admin",
    ),
    Method(name="PlanChange", attribute="plan_change", request=PlanRequest, mutates=False),
    Method(name="GetDrift", attribute="get_drift", request=DriftRequest, mutates=False),
    Method(name="GetStatus", attribute="get_status", request=StatusRequest, mutates=False),
    Method(name="DescribeGuests", attribute="describe_guests", request=GuestsRequest, mutates=False),
    Method(name="SearchEvents", attribute="search_events", request=SearchRequest, mutates=False),
    Method(name="ExplainDataset", attribute="explain_dataset", request=ExplainRequest, mutates=False),
    Method(name="GetOperation", attribute="get_operation", request=OperationRequest, mutates=False),
    Method(name="ListOperations", attribute="list_operations", request=OperationRequest, mutates=False),
    Method(name="WaitOperation", attribute="wait_operation", request=OperationRequest, mutates=False),
    Method(
        name="CancelOperation",
        attribute="cancel_operation",
        request=OperationRequest,
        mutates=False,
        role="operator",
    ),
    Method(name="CreateToken", attribute="create_token", request=TokenRequest, mutates=True, role="admin"),
    Method(name="ListTokens", attribute="list_tokens", request=TokenRequest, mutates=False, role="admin"),
    Method(name="RevokeToken", attribute="revoke_token", request=TokenRequest, mutates=True, role="admin"),
)

METHODS_BY_NAME: dict[str, Method] = {
    name: method for method in METHODS for name in (method.name, *method.also)
}

SERVICE_NAME = "ImageStore"


def needed_role(method: Method, request: Struct) -> AccessRole:
    """The least role that may ask this of ``method``: overriding a safeguard is the admin's."""
    return "admin" if getattr(request, "force", False) else method.needs


class Receipt:
    """Where a caller learns the id of its operation, "" while there is none, and when it is accepted.

    ``early`` tells that the answer is the operation, because it was not to be waited for.
    """

    def __init__(self) -> None:
        self.operation = ""
        self.accepted = trio.Event()
        self.early = False


class Binding(Struct, frozen=True, kw_only=True):
    """An idempotency key and the request that it stands for, as hashes; made by the store."""

    key: str
    request: str


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks.  ``principal`` goes into every event; ``timeout`` in seconds bounds
    how long the request may wait to be begun (None: for ever), never the work itself.

    ``role`` is what ``http`` lets it do; the store itself does what it is told.

    ``key`` is the idempotency key of a change ("" is none), ``no_wait`` asks
    for the operation, once it is accepted, instead of its answer: both are
    honoured by :meth:`Service.call`.

    ``dry_run`` has a change judged and told, not made; only ``plan_change`` sets it.
    """

    principal: str = "local"
    role: AccessRole = "admin"
    timeout: float | None = None
    key: str = ""
    no_wait: bool = False
    dry_run: bool = False
    receipt: Receipt | None = None
    binding: Binding | None = None


LOCAL = Caller()

Received = TypeVar("Received", covariant=True)
"""What an upload is answered with."""


class Grant(Struct, frozen=True, kw_only=True):
    """What a token gives its holder."""

    principal: str
    role: AccessRole
    expired: bool = False


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether the store serves.  ``reason`` is one line when it does not."""

    ready: bool
    read_only: bool = False
    reason: str = ""


class Download(Struct, frozen=True, kw_only=True):
    """A stream ready to be sent.  ``chunks`` yields pieces valid until the next is asked for.

    ``etag`` (the snapshot's guid in hexadecimal, and its base's) is "" where
    the bytes are not stable.  Where they are, ``measure`` tells how many the
    whole stream has; the first time that takes as long as sending it.
    """

    content_type: str
    filename: str
    etag: str
    chunks: AsyncIterator[bytes | memoryview | InPipe]
    measure: Callable[[], Awaitable[int]] | None = None
    size: int | None = None
    """How many bytes the whole stream has, where that is known already."""


class Told(Protocol):
    """One event: its seq, its type's name in the journal, its envelope as JSON on one line."""

    @property
    def seq(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def data(self) -> bytes: ...


class Events(Protocol):
    """A reader of the event feed.

    ``position`` is the last event that was looked at, wanted or not: reading
    can be taken up there by another reader.
    """

    @property
    def position(self) -> int: ...

    async def next(self) -> Sequence[Told] | None:
        """The next events that are wanted, perhaps none of those looked at; None when the store stops.

        Waits for what is not there yet. Cancelling it loses nothing.
        """


class Upload(Protocol[Received]):
    """A body on its way into the store.  Leaving its context before :meth:`finish` gives it up."""

    async def feed(self, data: bytes) -> None:
        """Take the next bytes of the body; returns when there is room for more.

        Raises what is wrong with the stream, or with where it is to go;
        nothing of it is left then.
        """

    async def finish(self) -> Received:
        """The body has ended: verify it and make it visible. Raises as :meth:`feed`."""


class Service(Protocol):
    """A running store.  Every method may raise the errors of ``imagestore.errors``.

    A caller that is cancelled does not cancel what it asked for once that was accepted.
    """

    @property
    def pool_name(self) -> str: ...

    def readiness(self) -> Readiness: ...

    def grant(self, sha256: str) -> Grant | None:
        """What the token with that SHA-256 (hex) gives; None: there is none.

        Raises TemporarilyUnavailable: the store is not running, and does not know.
        """
        ...

    async def metrics(self) -> bytes:
        """How it fares, in the text format of Prometheus. Also of a store that does not run; never raises."""
        ...

    async def call(self, method: Method, request: Struct, caller: Caller) -> Struct:
        """Call a method by its entry in the table, with what ``caller`` says of key and waiting.

        An error of a change that was accepted names its ``operation``.

        Raises, besides what the method does:
            KeyReused: the key stands for another request.
        """
        ...

    async def list_images(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def get_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def request_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def delete_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def clone_image(self, request: ImageRequest, caller: Caller = LOCAL) -> VolumeResponse: ...
    async def list_sources(self, request: SourceRequest, caller: Caller = LOCAL) -> SourceResponse: ...
    async def register_source(self, request: SourceRequest, caller: Caller = LOCAL) -> SourceResponse: ...
    async def remove_source(self, request: SourceRequest, caller: Caller = LOCAL) -> SourceResponse: ...
    async def describe_images(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def set_image_alias(self, request: AliasRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def remove_image_alias(self, request: AliasRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def publish_image(self, request: PublishRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def collect_images(self, request: CollectRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def list_volumes(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse: ...
    async def create_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse: ...
    async def resize_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse: ...
    async def get_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse: ...
    async def delete_dataset(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse: ...
    async def create_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse: ...
    async def get_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse: ...
    async def list_snapshots(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse: ...
    async def delete_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse: ...
    async def rollback_snapshot(
        self, request: SnapshotRequest, caller: Caller = LOCAL
    ) -> SnapshotResponse: ...
    async def verify_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse: ...
    async def create_guest_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse: ...
    async def delete_guests_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse: ...
    async def adopt_dataset(self, request: AdoptRequest, caller: Caller = LOCAL) -> AdoptResponse: ...
    async def adopt_original(self, request: AdoptRequest, caller: Caller = LOCAL) -> AdoptResponse: ...
    async def release_dataset(self, request: ReleaseRequest, caller: Caller = LOCAL) -> ReleaseResponse: ...

    async def plan_change(self, request: PlanRequest, caller: Caller = LOCAL) -> PlanResponse: ...
    async def get_drift(self, request: DriftRequest, caller: Caller = LOCAL) -> DriftResponse: ...
    async def get_status(self, request: StatusRequest, caller: Caller = LOCAL) -> StatusResponse: ...
    async def describe_guests(self, request: GuestsRequest, caller: Caller = LOCAL) -> GuestsResponse: ...
    async def search_events(self, request: SearchRequest, caller: Caller = LOCAL) -> SearchResponse: ...
    async def explain_dataset(self, request: ExplainRequest, caller: Caller = LOCAL) -> ExplainResponse: ...
    async def get_operation(self, request: OperationRequest, caller: Caller = LOCAL) -> OperationResponse: ...
    async def list_operations(
        self, request: OperationRequest, caller: Caller = LOCAL
    ) -> OperationResponse: ...
    async def wait_operation(
        self, request: OperationRequest, caller: Caller = LOCAL
    ) -> OperationResponse: ...
    async def cancel_operation(
        self, request: OperationRequest, caller: Caller = LOCAL
    ) -> OperationResponse: ...

    async def create_token(self, request: TokenRequest, caller: Caller = LOCAL) -> TokenResponse: ...
    async def list_tokens(self, request: TokenRequest, caller: Caller = LOCAL) -> TokenResponse: ...
    async def revoke_token(self, request: TokenRequest, caller: Caller = LOCAL) -> TokenResponse: ...

    def download(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, offset: int = 0, in_pipe: bool = False
    ) -> AbstractAsyncContextManager[Download]:
        """A snapshot's send stream, or the tar of a whole guest's snapshot.

        The stream is incremental where ``request.base`` names a snapshot.  Its
        first ``offset`` bytes are left out; of an archive, which has no
        ``etag``, none are.  Only with ``in_pipe`` are there chunks of :class:`InPipe`.

        Entering raises what is wrong before a byte is sent: InvalidArgument
        ("need an id", a base that is none), NotFound, NotValid, NotSnapshot.
        """
        ...

    async def download_bytes(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, measure: bool = True
    ) -> int | None:
        """How many bytes the stream of one disk's snapshot has.

        None when it is not known yet and ``measure`` is off: measuring takes as
        long as sending.  Raises as :meth:`download`.
        """
        ...

    async def events(self, request: EventsRequest, caller: Caller = LOCAL) -> Events:
        """Events in the order of the journal, without a gap or a double: old ones, and those to come.

        Raises InvalidArgument: ``after`` is after the journal's end.
        """
        ...

    def receive(
        self, request: ReceiveRequest, caller: Caller = LOCAL
    ) -> AbstractAsyncContextManager[Upload[ReceiveResponse]]:
        """Take in a send stream, plain or gzipped: into a new volume, or onto its base.

        Entering raises what is wrong whatever comes: InvalidArgument ("need an
        id"), NotValid, NotVolume, TemporarilyUnavailable.
        """
        ...

    def upload_image(
        self, request: UploadRequest, caller: Caller = LOCAL, *, content_length: int | None = None
    ) -> AbstractAsyncContextManager[Upload[ImageResponse]]:
        """Take in the content of an image, of any form that a fetch takes.

        ``content_length`` is how long it is, in bytes, if that was announced.
        Entering raises InvalidArgument, NotValid, TemporarilyUnavailable;
        feeding raises what a fetch does, and AlreadyExists or Blocked if the
        image is here or on its way.
        """
        ...
