"""Streams out of the store and into it: downloads of snapshots and whole guests, receptions."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence, Sized
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TypeVar

from imagestore import names
from imagestore.actors import upload as uploads
from imagestore.actors.guestdisks import whole
from imagestore.actors.incoming import Order
from imagestore.actors.incremental import base_of
from imagestore.actors.plans import is_guest
from imagestore.errors import (
    ImageStoreError,
    InvalidArgument,
    NotFound,
    NotVolume,
)
from imagestore.guestarchive import guest_archive
from imagestore.methods.snapshots import SnapshotMethods
from imagestore.model import (
    ReceiveRequest,
    ReceiveResponse,
    SnapshotRequest,
)
from imagestore.pools.base import Dataset, Target
from imagestore.service import LOCAL, Caller, Download, Upload

MAX_STREAM_SIZES = 1024
"""So many streams' lengths are remembered, for those who resume."""

_Chunk = TypeVar("_Chunk", bound=Sized)


class StreamMethods(SnapshotMethods):
    """See the module."""

    def __init__(self) -> None:
        self._stream_sizes: dict[tuple[Target, Target | None], int] = {}

    @asynccontextmanager
    async def download(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, offset: int = 0, in_pipe: bool = False
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
        driver = actors.zpool.driver
        async with (
            driver.send_in_pipe(row.target, base=base_target)
            if in_pipe and not offset
            else driver.send(row.target, base=base_target, skip=offset) as sent,
            aclosing(self._counted(sent, offset, (row.target, base_target))) as chunks,
        ):
            yield Download(
                content_type="application/octet-stream",
                filename=f"{dataset.replace('/', '_')}@{snapshot}.zfs",
                etag=f"{row.guid:016x}" + (f"-{base.guid:016x}" if base is not None else ""),
                chunks=chunks,
                measure=partial(self._stream_bytes, row.target, base_target),
                size=self._stream_sizes.get((row.target, base_target)),
            )

    async def download_bytes(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, measure: bool = True
    ) -> int | None:
        """See ``imagestore.service.Service.download_bytes``."""
        snapshot = self._existing_snapshot(request).target
        return (
            await self._stream_bytes(snapshot, None) if measure else self._stream_sizes.get((snapshot, None))
        )

    async def _counted(
        self, chunks: AsyncIterator[_Chunk], size: int, stream: tuple[Target, Target | None]
    ) -> AsyncGenerator[_Chunk, None]:
        """``chunks``, which come after ``size`` bytes of a stream; at its end its length is known.

        Not if none comes: then it may be any number of bytes shorter than ``size``.
        """
        known = False
        async for chunk in chunks:
            size += len(chunk)
            known = True
            yield chunk
        if known:
            self._remember(stream, size)

    def _remember(self, stream: tuple[Target, Target | None], size: int) -> None:
        if len(self._stream_sizes) >= MAX_STREAM_SIZES:
            self._stream_sizes.clear()
        self._stream_sizes[stream] = size

    async def _stream_bytes(self, snapshot: Target, base: Target | None) -> int:
        """How long a stream is. It stays so, so it is measured once."""
        known = self._stream_sizes.get((snapshot, base))
        if known is None:
            known = await self._running().zpool.driver.send_bytes(snapshot, base=base)
            self._remember((snapshot, base), known)
        return known

    @asynccontextmanager
    async def _guest_download(self, parent: Dataset, snapshot: str) -> AsyncIterator[Download]:
        guest = parent.name.rpartition("/")[2]
        actors = self._running()
        disks = [
            row
            for row in whole(guest, actors.operations.state, actors.zpool.view)
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
    async def receive(
        self, request: ReceiveRequest, caller: Caller = LOCAL
    ) -> AsyncIterator[Upload[ReceiveResponse]]:
        """See ``imagestore.service.Service.receive``."""
        if not request.id:
            raise InvalidArgument("need an id")
        order = Order(name=self._resolve(request.id), force=request.force)
        operation = self._queued("ReceiveVolume", order.name, caller)
        try:
            upload = self._running().receptions.begin_nowait(order, caller.principal, operation)
        except ImageStoreError:
            self._running().operations.history.drop(operation)
            raise
        try:
            yield _Upload(self, upload)
        finally:
            upload.abandon()

    def received(self, rows: Sequence[Dataset]) -> ReceiveResponse:
        """The answer that says what came: the volume, then its new snapshots."""
        return ReceiveResponse(volume=self._volume(rows[0]), snapshots=tuple(map(self._snapshot, rows[1:])))


class _Upload:
    """An upload whose outcome is answered as the wire has it."""

    def __init__(self, methods: StreamMethods, upload: uploads.Upload) -> None:
        self._methods = methods
        self._upload = upload
        self.feed = upload.feed

    async def finish(self) -> ReceiveResponse:
        return self._methods.received(await self._upload.finish())
