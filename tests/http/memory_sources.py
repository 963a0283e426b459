"""The sources and uploads of images of the memory store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imagestore import errors, names
from imagestore.model import (
    Image,
    ImageResponse,
    Source,
    SourceRequest,
    SourceResponse,
    UploadRequest,
)
from imagestore.service import LOCAL, Caller, Upload


class MemorySources:
    """``sent`` are the bodies of uploaded images, ``announced`` their lengths as they were told."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[str, Source] = {}
        self.sent: dict[str, bytes] = {}
        self.announced: list[int | None] = []

    async def list_sources(self, request: SourceRequest, caller: Caller = LOCAL) -> SourceResponse:
        return SourceResponse(sources=tuple(self.sources.values()))

    async def register_source(self, request: SourceRequest, caller: Caller = LOCAL) -> SourceResponse:
        source = Source(id=request.id, source=request.source, sha256=request.sha256, sums=request.sums)
        self.sources[request.id] = source
        return SourceResponse(sources=(source,))

    async def remove_source(self, request: SourceRequest, caller: Caller = LOCAL) -> SourceResponse:
        if request.id not in self.sources:
            raise errors.NotFound
        return SourceResponse(sources=(self.sources.pop(request.id),))

    @asynccontextmanager
    async def upload_image(
        self, request: UploadRequest, caller: Caller = LOCAL, *, content_length: int | None = None
    ) -> AsyncIterator[Upload[ImageResponse]]:
        names.check_image_id(request.id)
        if request.id in self.sent:
            raise errors.AlreadyExists(f"image already exists: {request.id}")
        self.announced.append(content_length)
        yield MemoryImageUpload(self, request)


class MemoryImageUpload:
    def __init__(self, store: MemorySources, request: UploadRequest) -> None:
        self._store = store
        self._request = request
        self._came = bytearray()

    async def feed(self, data: bytes) -> None:
        self._came += data

    async def finish(self) -> ImageResponse:
        self._store.sent[self._request.id] = bytes(self._came)
        return ImageResponse(images=(Image(id=self._request.id, type=self._request.type),))
