"""What a running store offers: the method table and the protocol that serves it.

``http`` and ``cli`` know this protocol only; ``imagestore.store.Store``
implements it.  The table is the one list of RPC methods: names, request and
answer types, documentation spellings.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from imagestore.model import (
    GuestRequest,
    GuestResponse,
    ImageRequest,
    ImageResponse,
    ReceiveRequest,
    ReceiveResponse,
    SnapshotRequest,
    SnapshotResponse,
    VolumeRequest,
    VolumeResponse,
)

Request = type[ImageRequest] | type[VolumeRequest] | type[SnapshotRequest] | type[GuestRequest]


class Method(Struct, frozen=True, kw_only=True):
    """One RPC method.  ``attribute`` is the name of the :class:`Service` method."""

    name: str
    attribute: str
    request: Request
    mutates: bool
    also: tuple[str, ...] = ()


METHODS: tuple[Method, ...] = (
    Method(name="ListImages", attribute="list_images", request=ImageRequest, mutates=False),
    Method(name="GetImage", attribute="get_image", request=ImageRequest, mutates=False),
    Method(name="RequestImage", attribute="request_image", request=ImageRequest, mutates=True),
    Method(name="DeleteImage", attribute="delete_image", request=ImageRequest, mutates=True),
    Method(name="CloneImage", attribute="clone_image", request=ImageRequest, mutates=True),
    Method(name="ListVolumes", attribute="list_volumes", request=VolumeRequest, mutates=False),
    Method(name="CreateVolume", attribute="create_volume", request=VolumeRequest, mutates=True),
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
)

SERVICE_NAME = "ImageStore"


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks.  ``principal`` goes into every event; ``timeout`` in seconds bounds
    how long the request may wait to be begun (None: for ever), never the work itself."""

    principal: str = "local"
    timeout: float | None = None


LOCAL = Caller()


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
    chunks: AsyncIterator[bytes | memoryview]
    measure: Callable[[], Awaitable[int]] | None = None


class Upload(Protocol):
    """A stream on its way into the store.  Leaving its context before :meth:`finish` gives it up."""

    async def feed(self, data: bytes) -> None:
        """Take the next bytes of the body; returns when there is room for more.

        Raises what is wrong with the stream, or with where it is to go;
        nothing of it is left then.
        """

    async def finish(self) -> ReceiveResponse:
        """The body has ended: verify it and make it visible. Raises as :meth:`feed`."""


class Service(Protocol):
    """A running store.  Every method may raise the errors of ``imagestore.errors``.

    A caller that is cancelled does not cancel what it asked for once that was accepted.
    """

    @property
    def pool_name(self) -> str: ...

    def readiness(self) -> Readiness: ...

    async def list_images(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def get_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def request_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def delete_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse: ...
    async def clone_image(self, request: ImageRequest, caller: Caller = LOCAL) -> VolumeResponse: ...
    async def list_volumes(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse: ...
    async def create_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse: ...
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

    def download(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, offset: int = 0
    ) -> AbstractAsyncContextManager[Download]:
        """A snapshot's send stream, or the tar of a whole guest's snapshot.

        The stream is incremental where ``request.base`` names a snapshot.  Its
        first ``offset`` bytes are left out; of an archive, which has no
        ``etag``, none are.

        Entering raises what is wrong before a byte is sent: InvalidArgument
        ("need an id", a base that is none), NotFound, NotValid, NotSnapshot.
        """
        ...

    def receive(self, request: ReceiveRequest, caller: Caller = LOCAL) -> AbstractAsyncContextManager[Upload]:
        """Take in a send stream, plain or gzipped: into a new volume, or onto its base.

        Entering raises what is wrong whatever comes: InvalidArgument ("need an
        id"), NotValid, NotVolume, TemporarilyUnavailable.
        """
        ...
