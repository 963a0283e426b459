"""The RPC methods: from the wire's requests to commands, from rows to answers.

Owns what CONTRACT.md says of each method: the checks in their order, what a
name means, which actor is asked, what is answered.  Reads come from state and
view and wait for nobody.  Knows nothing of HTTP, files or start-up.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from msgspec import UNSET

from imagestore import names
from imagestore.actors import upload as uploads
from imagestore.actors.base import Reply, deadline_in
from imagestore.actors.commands import (
    CloneImage,
    Command,
    CreateGuestDisks,
    CreateSnapshot,
    CreateVolume,
    DeleteDataset,
    DeleteGuestDisks,
    DeleteImage,
    DeleteSnapshot,
    RollbackSnapshot,
)
from imagestore.actors.decisions import complete_image, disk_sizes, is_guest, is_visible
from imagestore.actors.fetcher import Fetcher, RequestImage
from imagestore.actors.guest import Guests
from imagestore.actors.incoming import Order
from imagestore.actors.incremental import base_of
from imagestore.actors.mutator import Mutate
from imagestore.actors.operation import Operations
from imagestore.actors.receptions import Receptions
from imagestore.actors.volumes import Volumes
from imagestore.errors import (
    InvalidArgument,
    NoSpace,
    NotFound,
    NotSnapshot,
    NotVolume,
    TemporarilyUnavailable,
)
from imagestore.events.state import ImageRecord
from imagestore.guestarchive import guest_archive
from imagestore.guestorders import answered, ordered, with_sizes
from imagestore.model import (
    MIB,
    GuestRequest,
    GuestResponse,
    Image,
    ImageRequest,
    ImageResponse,
    ReceiveRequest,
    ReceiveResponse,
    Snapshot,
    SnapshotRequest,
    SnapshotResponse,
    Volume,
    VolumeRequest,
    VolumeResponse,
)
from imagestore.pools.base import Dataset, Target
from imagestore.service import LOCAL, Caller, Download, Upload

MAX_VOLUME_BYTES = 1 << 62
"""Larger volumes exist nowhere; the sum of promises stays far from any limit."""

MAX_TYPE_CHARACTERS = 64

MAX_STREAM_SIZES = 1024
"""So many streams' lengths are remembered, for those who resume."""


class Actors:
    """The actors of a running store, as the methods address them."""

    def __init__(
        self,
        operations: Operations,
        fetcher: Fetcher,
        guests: Guests,
        volumes: Volumes,
        receptions: Receptions,
    ) -> None:
        self.operations = operations
        self.zpool = operations.zpool
        self.fetcher = fetcher
        self.guests = guests
        self.volumes = volumes
        self.receptions = receptions


class Methods:
    """The methods of ``imagestore.service.Service`` over a store's actors."""

    _actors: Actors | None = None
    _not_serving: str = "store is not running"

    def __init__(self) -> None:
        self._stream_sizes: dict[tuple[Target, Target | None], int] = {}

    # -- addressing -----------------------------------------------------------------

    def _running(self) -> Actors:
        if self._actors is None:
            raise TemporarilyUnavailable(self._not_serving)
        return self._actors

    @property
    def pool_name(self) -> str:
        return self._running().zpool.pool

    def _full(self, name: str) -> str:
        return names.full(name, self.pool_name)

    def _resolve(self, text: str) -> str:
        """The relative name meant: an existing one wins. Raises NotValid."""
        candidates = names.candidates(text, self.pool_name)
        return next((name for name in candidates if self._row(name) is not None), candidates[-1])

    def _named(self, text: str) -> Dataset | None:
        return self._row(self._resolve(text))

    def _row(self, name: str) -> Dataset | None:
        """The row of a dataset that is listed."""
        actors = self._running()
        row = actors.zpool.view.get(name)
        return row if row is not None and is_visible(row, actors.operations.state) else None

    def _existing(self, text: str) -> Dataset:
        row = self._row(self._resolve(text))
        if row is None:
            raise NotFound(detail=text)
        return row

    def _listed(self, name: str) -> Sequence[Dataset]:
        actors = self._running()
        state = actors.operations.state
        return [row for row in actors.zpool.view.under(name) if is_visible(row, state)]

    async def _perform(self, name: str, command: Command, caller: Caller) -> Sequence[Dataset]:
        """Hand ``command`` to the actor that owns ``name`` and wait for its answer."""
        actors = self._running()
        reply: Reply[tuple[Dataset, ...]] = Reply()
        message = Mutate(
            command=command,
            principal=caller.principal,
            deadline=deadline_in(caller.timeout),
            reply=reply,
        )
        parts = name.partition("@")[0].split("/")
        if parts[0] == names.IMAGES and len(parts) > 1:
            actors.fetcher.post_nowait(message)
        elif parts[0] == names.GUESTS and len(parts) > 1:
            actors.guests.post_nowait(parts[1], message)
        else:
            actors.volumes.post_nowait(message)
        return await reply.wait()

    # -- answers ----------------------------------------------------------------------

    def _volume(self, row: Dataset) -> Volume:
        device = self._running().zpool.driver.device(row.name) if row.kind == "volume" else ""
        return Volume(id=self._full(row.name), size=row.volsize // MIB, device=device)

    def _snapshot(self, row: Dataset) -> Snapshot:
        return Snapshot(id=self._full(row.name), size=row.written // MIB)

    def _image(self, record: ImageRecord) -> Image:
        """An image as it truly is: its fetch under way, its failure, or its dataset."""
        actors = self._running()
        fetch = actors.fetcher.under_way(record.id)
        if fetch is not None:
            progress = fetch.progress if fetch.progress is not None else UNSET
            return Image(id=record.id, type=record.type, status=fetch.status, progress=progress)
        rows = complete_image(record.id, actors.operations.state, actors.zpool.view)
        if rows is not None:
            return Image(
                id=record.id,
                type=record.type,
                volume=self._full(rows.volume.name),
                snapshot=self._full(rows.snapshot.name),
                size=rows.snapshot.volsize // MIB,
                status="complete",
            )
        if record.status == "complete":
            gone = f"its dataset {names.image(record.id)} is gone from the pool"
            return Image(id=record.id, type=record.type, status="error", reason=gone)
        reason = record.reason or UNSET
        return Image(id=record.id, type=record.type, status=record.status, reason=reason)

    # -- images -------------------------------------------------------------------------

    async def list_images(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        records = self._running().operations.state.images.values()
        return ImageResponse(images=tuple(self._image(record) for record in records))

    async def get_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        record = self._running().operations.state.images.get(request.id)
        if record is None:
            raise NotFound(detail=f"image {request.id}")
        return ImageResponse(images=(self._image(record),))

    async def request_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        if not request.id:
            raise InvalidArgument("need id")
        names.check_image_id(request.id)
        if len(request.type) > MAX_TYPE_CHARACTERS or not request.type.isprintable():
            raise InvalidArgument(detail=f'type: "" or "kvm", at most {MAX_TYPE_CHARACTERS} characters')
        reply: Reply[None] = Reply()
        self._running().fetcher.post_nowait(
            RequestImage(
                image=request.id,
                type=request.type,
                principal=caller.principal,
                deadline=deadline_in(caller.timeout),
                reply=reply,
            )
        )
        await reply.wait()
        return await self.get_image(request, caller)

    async def delete_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        answer = await self.get_image(request, caller)
        await self._perform(names.image(request.id), DeleteImage(image=request.id), caller)
        return answer

    async def clone_image(self, request: ImageRequest, caller: Caller = LOCAL) -> VolumeResponse:
        if not request.dest:
            raise InvalidArgument("need dest")
        await self.get_image(request, caller)
        return await self.request_clone(request.id, request.dest, caller)

    async def request_clone(self, image: str, dest: str, caller: Caller = LOCAL) -> VolumeResponse:
        """Clone an image's volume to ``dest``; the same again succeeds."""
        name = self._resolve(dest)
        rows = await self._perform(name, CloneImage(image=image, name=name), caller)
        return VolumeResponse(volumes=tuple(map(self._volume, rows)))

    # -- volumes ------------------------------------------------------------------------

    async def list_volumes(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        volumes = [row for row in self._listed("") if row.kind == "volume"]
        return VolumeResponse(volumes=tuple(map(self._volume, volumes)))

    async def create_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        if not 0 < request.size <= MAX_VOLUME_BYTES // MIB:
            raise InvalidArgument("need a valid size", detail="size in MiB, from 1 to 2^42")
        if not request.id:
            raise InvalidArgument("need an id")
        name = self._resolve(request.id)
        rows = await self._perform(name, CreateVolume(name=name, size=request.size * MIB), caller)
        return VolumeResponse(volumes=tuple(map(self._volume, rows)))

    async def get_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        if not request.id:
            raise InvalidArgument("need an id")
        row = self._existing(request.id)
        if row.kind != "volume":
            raise NotVolume(detail=f"{request.id} is a {row.kind}")
        return VolumeResponse(volumes=(self._volume(row),))

    async def delete_dataset(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        if not request.id:
            raise InvalidArgument("need an id")
        row = self._existing(request.id)
        answer = self._volume(row)
        await self._perform(row.name, DeleteDataset(name=row.name, force=request.force), caller)
        return VolumeResponse(volumes=(answer,))

    # -- snapshots ----------------------------------------------------------------------

    async def create_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        if not request.id:
            raise InvalidArgument("need an id")
        row = self._existing(request.id)
        if row.kind == "snapshot":
            raise InvalidArgument("cannot create a snapshot of a snapshot")
        if not request.dest:
            raise InvalidArgument("need a dest")
        names.check_snapshot_dest(request.dest)
        command = CreateSnapshot(name=row.name, snapshot=request.dest, recursive=request.recursive)
        rows = await self._perform(row.name, command, caller)
        return SnapshotResponse(snapshots=tuple(map(self._snapshot, rows)))

    def _existing_snapshot(self, request: SnapshotRequest) -> Dataset:
        if not request.id:
            raise InvalidArgument("need an id")
        row = self._existing(request.id)
        if row.kind != "snapshot":
            raise NotSnapshot(detail=f"{request.id} is a {row.kind}")
        return row

    async def get_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        return SnapshotResponse(snapshots=(self._snapshot(self._existing_snapshot(request)),))

    async def list_snapshots(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        name = self._existing(request.id).name if request.id else ""
        snapshots = [row for row in self._listed(name) if row.kind == "snapshot"]
        return SnapshotResponse(snapshots=tuple(map(self._snapshot, snapshots)))

    async def delete_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        row = self._existing_snapshot(request)
        command = DeleteSnapshot(name=row.name, recursive=request.recursive)
        rows = await self._perform(row.name, command, caller)
        return SnapshotResponse(snapshots=tuple(map(self._snapshot, rows)))

    async def rollback_snapshot(self, request: SnapshotRequest, caller: Caller = LOCAL) -> SnapshotResponse:
        row = self._existing_snapshot(request)
        command = RollbackSnapshot(
            name=row.name, destroy_more_recent=request.destroyMoreRecent, force=request.force
        )
        rows = await self._perform(row.name, command, caller)
        return SnapshotResponse(snapshots=tuple(map(self._snapshot, rows)))

    @asynccontextmanager
    async def download(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, offset: int = 0
    ) -> AsyncIterator[Download]:
        """See ``imagestore.service.Service.download``."""
        row = self._existing_snapshot(request)
        dataset, _, snapshot = row.name.partition("@")
        actors = self._running()
        above = actors.zpool.view.get(dataset)
        if above is not None and above.kind == "filesystem":
            if not is_guest(above):
                raise NotVolume(detail=f"{dataset} is a file system")
            if request.base:
                raise InvalidArgument("a whole guest has no incremental stream", detail="send disk by disk")
            async with self._guest_download(above, snapshot) as download:
                yield download
            return
        base = base_of(row, request.base, actors.zpool.view, self._named) if request.base else None
        base_target = base.target if base is not None else None
        async with actors.zpool.driver.send(row.target, base=base_target, skip=offset) as chunks:
            yield Download(
                content_type="application/octet-stream",
                filename=f"{dataset.replace('/', '_')}@{snapshot}.zfs",
                etag=f"{row.guid:016x}" + (f"-{base.guid:016x}" if base is not None else ""),
                chunks=chunks,
                measure=partial(self._stream_bytes, row.target, base_target),
            )

    async def _stream_bytes(self, snapshot: Target, base: Target | None) -> int:
        """How long a stream is. It stays so, so it is measured once."""
        known = self._stream_sizes.get((snapshot, base))
        if known is None:
            known = await self._running().zpool.driver.send_bytes(snapshot, base=base)
            if len(self._stream_sizes) >= MAX_STREAM_SIZES:
                self._stream_sizes.clear()
            self._stream_sizes[snapshot, base] = known
        return known

    @asynccontextmanager
    async def _guest_download(self, parent: Dataset, snapshot: str) -> AsyncIterator[Download]:
        guest = parent.name.rpartition("/")[2]
        disks = [
            row
            for row in self._listed(parent.name)
            if row.name.endswith(f"@{snapshot}") and names.parent(row.name) != parent.name
        ]
        volumes = [row for row in disks if row.volsize]
        if not volumes:
            raise NotFound(detail=f"guest {guest} has no disk with snapshot {snapshot}")
        archive = guest_archive(self._running().zpool.driver, guest, snapshot, volumes)
        try:
            yield Download(
                content_type="application/x-tar",
                filename=f"{guest}@{snapshot}.tar",
                etag="",
                chunks=archive,
            )
        finally:
            await archive.aclose()

    @asynccontextmanager
    async def receive(self, request: ReceiveRequest, caller: Caller = LOCAL) -> AsyncIterator[Upload]:
        """See ``imagestore.service.Service.receive``."""
        if not request.id:
            raise InvalidArgument("need an id")
        order = Order(name=self._resolve(request.id), force=request.force)
        upload = self._running().receptions.begin_nowait(order, caller.principal)
        try:
            yield _Upload(self, upload)
        finally:
            upload.abandon()

    def received(self, rows: Sequence[Dataset]) -> ReceiveResponse:
        """The answer that says what came: the volume, then its new snapshots."""
        return ReceiveResponse(volume=self._volume(rows[0]), snapshots=tuple(map(self._snapshot, rows[1:])))

    # -- guests -------------------------------------------------------------------------

    async def verify_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse:
        guest, disks = ordered(request)
        actors = self._running()
        sizes = disk_sizes(disks, actors.operations.state, actors.zpool.view)
        wanted = sum(
            size for number, size in enumerate(sizes) if names.disk(guest, number) not in actors.zpool.view
        )
        free = (await actors.zpool.space()).available
        if wanted > free:
            raise NoSpace(detail=f"{wanted} bytes are asked for, {free} are free and not promised")
        return GuestResponse(guest=with_sizes(request, sizes))

    async def create_guest_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse:
        guest, disks = ordered(request)
        command = CreateGuestDisks(guest=guest, disks=disks)
        rows = await self._perform(names.guest(guest), command, caller)
        return GuestResponse(guest=answered(request, [self._volume(row) for row in rows]))

    async def delete_guests_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse:
        if request.guest is None or not request.guest.get("id"):
            raise InvalidArgument(detail="guest.id is missing")
        guest = names.check_guest_id(request.guest["id"])
        command = DeleteGuestDisks(guest=guest, force=request.force)
        await self._perform(names.guest(guest), command, caller)
        remaining = {key: value for key, value in request.guest.items() if key != "disks"}
        return GuestResponse(guest=remaining)

    async def space_available(self) -> int:
        """Bytes that new volumes may still promise."""
        return (await self._running().zpool.space()).available


class _Upload:
    """An upload whose outcome is answered as the wire has it."""

    def __init__(self, methods: Methods, upload: uploads.Upload) -> None:
        self._methods = methods
        self._upload = upload
        self.feed = upload.feed

    async def finish(self) -> ReceiveResponse:
        return self._methods.received(await self._upload.finish())
