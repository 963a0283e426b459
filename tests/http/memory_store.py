"""A small store in memory: the Service protocol without disk, journal or pool.

It keeps the contract's errors and their order for what the HTTP tests ask, and
nothing beyond.  Tests that need it to wait, fail or stream subclass it.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from msgspec import Struct

from imagestore import errors, names
from imagestore.model import (
    AdoptRequest,
    AdoptResponse,
    DriftRequest,
    DriftResponse,
    EventsRequest,
    Guest,
    GuestRequest,
    GuestResponse,
    Image,
    ImageRequest,
    ImageResponse,
    OperationRequest,
    OperationResponse,
    PlanRequest,
    PlanResponse,
    ReceiveRequest,
    ReceiveResponse,
    ReleaseRequest,
    ReleaseResponse,
    Snapshot,
    SnapshotRequest,
    SnapshotResponse,
    Volume,
    VolumeRequest,
    VolumeResponse,
)
from imagestore.service import LOCAL, Caller, Download, Events, Method, Readiness, Upload
from tests.http.memory_images import MemoryImages
from tests.http.memory_screen import MemoryScreen
from tests.http.memory_sources import MemorySources
from tests.http.memory_tokens import MemoryTokens


class MemoryStore(MemorySources, MemoryTokens, MemoryImages, MemoryScreen):
    """A pool called ``mem``; ``requestable`` are the images its source has, by size in MiB."""

    def __init__(self, requestable: dict[str, int] | None = None) -> None:
        super().__init__()
        self.requestable = requestable or {}
        self.volumes: dict[str, int] = {}
        self.callers: list[Caller] = []
        self.ready = Readiness(ready=True)
        self.open_downloads = 0
        self.open_uploads = 0
        self.received: dict[str, bytes] = {}

    def readiness(self) -> Readiness:
        return self.ready

    async def call(self, method: Method, request: Struct, caller: Caller) -> Struct:
        answer: Struct = await getattr(self, method.attribute)(request, caller)
        return answer

    async def events(self, request: EventsRequest, caller: Caller = LOCAL) -> Events:
        raise errors.TemporarilyUnavailable

    # --- operations: it remembers none

    async def metrics(self) -> bytes:
        return b""

    async def plan_change(self, request: PlanRequest, caller: Caller = LOCAL) -> PlanResponse:
        return PlanResponse(method=request.method, settled=True)

    async def get_drift(self, request: DriftRequest, caller: Caller = LOCAL) -> DriftResponse:
        return DriftResponse(datasets=())

    async def get_operation(self, request: OperationRequest, caller: Caller = LOCAL) -> OperationResponse:
        raise errors.NotFound

    async def list_operations(self, request: OperationRequest, caller: Caller = LOCAL) -> OperationResponse:
        return OperationResponse(operations=())

    async def wait_operation(self, request: OperationRequest, caller: Caller = LOCAL) -> OperationResponse:
        raise errors.NotFound

    async def cancel_operation(self, request: OperationRequest, caller: Caller = LOCAL) -> OperationResponse:
        raise errors.NotFound

    # --- images

    async def list_images(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        self.callers.append(caller)
        return ImageResponse(images=tuple(self.images.values()))

    async def get_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        if request.id not in self.images:
            raise errors.NotFound
        return ImageResponse(images=(self.images[request.id],))

    async def request_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        if not request.id:
            raise errors.InvalidArgument("need id")
        if request.id not in self.requestable:
            raise errors.FetchFailed(f"{request.id}: the source\nanswered 404")
        size = self.requestable[request.id]
        name = names.image(request.id)
        self.volumes[name] = size
        self.images[request.id] = Image(
            id=request.id, type="kvm", volume=names.full(name, self.pool_name), size=size, status="complete"
        )
        return ImageResponse(images=(self.images[request.id],))

    async def delete_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        response = await self.get_image(request, caller)
        del self.images[request.id], self.volumes[names.image(request.id)]
        return response

    async def clone_image(self, request: ImageRequest, caller: Caller = LOCAL) -> VolumeResponse:
        if not request.dest:
            raise errors.InvalidArgument("need dest")
        (image,) = (await self.get_image(request, caller)).images
        name = names.parse(request.dest, self.pool_name)
        self.volumes[name] = image.size
        return VolumeResponse(volumes=(self._volume(name),))

    # --- volumes

    async def list_volumes(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        return VolumeResponse(volumes=tuple(self._volume(name) for name in self.volumes))

    async def resize_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        raise errors.NotFound

    async def create_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        if request.size == 0:
            raise errors.InvalidArgument("need a valid size")
        if not request.id:
            raise errors.InvalidArgument("need an id")
        name = names.parse(request.id, self.pool_name)
        if self.volumes.setdefault(name, request.size) != request.size:
            raise errors.AlreadyExists.named(name)
        return VolumeResponse(volumes=(self._volume(name),))

    async def get_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        return VolumeResponse(volumes=(self._volume(self._find(request.id)),))

    async def delete_dataset(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        name = self._find(request.id)
        response = VolumeResponse(volumes=(self._volume(name),))
        del self.volumes[name]
        return response

    def _find(self, text: str) -> str:
        if not text:
            raise errors.InvalidArgument("need an id")
        for name in names.candidates(text, self.pool_name):
            if name in self.volumes:
                return name
        raise errors.NotFound

    def _volume(self, name: str) -> Volume:
        full = names.full(name, self.pool_name)
        return Volume(id=full, size=self.volumes[name], device=f"/mem/{full}")

    # --- adoption: nothing in memory is anybody else's

    async def adopt_dataset(self, request: AdoptRequest, caller: Caller = LOCAL) -> AdoptResponse:
        name = self._find(request.id)
        raise errors.Blocked(f"dataset is the store's already: {name}", blockers=(name,))

    async def adopt_original(self, request: AdoptRequest, caller: Caller = LOCAL) -> AdoptResponse:
        return AdoptResponse()

    async def release_dataset(self, request: ReleaseRequest, caller: Caller = LOCAL) -> ReleaseResponse:
        name = self._find(request.id)
        if not request.dryRun:
            del self.volumes[name]
        return ReleaseResponse(released=(name,))

    # --- snapshots

    async def create_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        name = self._find(request.id)
        if not request.dest:
            raise errors.InvalidArgument("need a dest")
        snapshot = f"{name}@{names.check_snapshot_dest(request.dest)}"
        if snapshot in self.snapshots:
            raise errors.AlreadyExists.named(snapshot)
        self.snapshots[snapshot] = b""
        return self._snapshots(snapshot)

    async def get_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        return self._snapshots(self._find_snapshot(request.id))

    async def list_snapshots(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        return self._snapshots(*(name for name in self.snapshots if names.is_within(name, request.id)))

    async def delete_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        name = self._find_snapshot(request.id)
        del self.snapshots[name]
        return self._snapshots(name)

    async def rollback_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        return self._snapshots(self._find_snapshot(request.id))

    def _find_snapshot(self, text: str) -> str:
        if not text:
            raise errors.InvalidArgument("need an id")
        for name in names.candidates(text, self.pool_name):
            if name in self.snapshots:
                return name
        if "@" not in text:
            raise errors.NotSnapshot
        raise errors.NotFound

    def _snapshots(self, *found: str) -> SnapshotResponse:
        return SnapshotResponse(
            snapshots=tuple(Snapshot(id=names.full(name, self.pool_name), size=0) for name in found)
        )

    # --- guests

    async def verify_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse:
        guest = self._guest(request)
        return GuestResponse(guest=guest | {"disks": [self._sized(disk) for disk in guest["disks"]]})

    async def create_guest_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse:
        guest = (await self.verify_disks(request, caller)).guest
        disks = []
        for number, disk in enumerate(guest["disks"]):
            name = names.disk(guest["id"], number)
            self.volumes[name] = disk["size"]
            volume = self._volume(name)
            disks.append(disk | {"volume": volume.id, "source": volume.device})
        return GuestResponse(guest=guest | {"disks": disks})

    async def delete_guests_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse:
        if request.guest is None or not request.guest.get("id"):
            raise errors.InvalidArgument
        home = names.guest(request.guest["id"])
        self.volumes = {name: size for name, size in self.volumes.items() if not names.is_within(name, home)}
        return GuestResponse(guest={key: value for key, value in request.guest.items() if key != "disks"})

    def _guest(self, request: GuestRequest) -> Guest:
        guest = request.guest
        if guest is None or not guest.get("id") or not guest.get("disks"):
            raise errors.InvalidArgument
        return guest

    def _sized(self, disk: dict[str, object]) -> dict[str, object]:
        image = disk.get("image")
        if isinstance(image, str) and image:
            if image not in self.images:
                raise errors.NotFound
            return disk | {"size": self.images[image].size}
        if not disk.get("size"):
            raise errors.InvalidArgument
        return disk

    # --- downloads

    def download(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, offset: int = 0, in_pipe: bool = False
    ) -> AbstractAsyncContextManager[Download]:
        return self._download(request, offset)

    @asynccontextmanager
    async def _download(self, request: SnapshotRequest, offset: int = 0) -> AsyncIterator[Download]:
        name = self._find_snapshot(request.id)
        content = self.snapshots[name]

        async def measure() -> int:
            return len(content)

        self.open_downloads += 1
        try:
            async with aclosing(self.chunks(name)) as pieces, aclosing(_behind(offset, pieces)) as chunks:
                yield Download(
                    content_type="application/octet-stream",
                    filename=f"{name.replace('/', '-')}.zfs",
                    etag=f"1f2e3d4c5b6a7988{f'-{request.base}' if request.base else ''}",
                    chunks=chunks,
                    measure=measure,
                    size=self.known.get(name),
                )
        finally:
            self.open_downloads -= 1

    # --- uploads

    def receive(
        self, request: ReceiveRequest, caller: Caller = LOCAL
    ) -> AbstractAsyncContextManager[Upload[ReceiveResponse]]:
        return self._receive(request, caller)

    @asynccontextmanager
    async def _receive(
        self, request: ReceiveRequest, caller: Caller
    ) -> AsyncIterator[Upload[ReceiveResponse]]:
        name = names.parse(request.id, self.pool_name)
        if name in self.received and not request.force:
            raise errors.AlreadyExists.named(name, detail="it is\nthere")
        self.callers.append(caller)
        self.open_uploads += 1
        try:
            yield self.upload(name)
        finally:
            self.open_uploads -= 1

    def upload(self, name: str) -> Upload[ReceiveResponse]:
        return MemoryUpload(self, name)

    async def chunks(self, name: str) -> AsyncGenerator[bytes | memoryview, None]:
        """The content of a snapshot, in pieces."""
        content = self.snapshots[name]
        for start in range(0, len(content), 100_000):
            yield memoryview(content)[start : start + 100_000]


async def _behind(
    offset: int, pieces: AsyncIterator[bytes | memoryview]
) -> AsyncGenerator[bytes | memoryview, None]:
    async for piece in pieces:
        if offset < len(piece):
            yield piece[offset:]
        offset = max(0, offset - len(piece))


class MemoryUpload:
    """Keeps what comes; the store has it when it is finished."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        self.store = store
        self.name = name
        self.came = bytearray()

    async def feed(self, data: bytes) -> None:
        self.came += data

    async def finish(self) -> ReceiveResponse:
        self.store.received[self.name] = bytes(self.came)
        full = names.full(self.name, self.store.pool_name)
        return ReceiveResponse(
            volume=Volume(id=full, size=1, device=f"/mem/{full}"),
            snapshots=(Snapshot(id=f"{full}@s", size=0),),
        )
