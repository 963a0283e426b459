"""Images that a client sends: from the body of its request into the fetch queue, which owns them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imagestore import names
from imagestore.actors.base import deadline_in
from imagestore.actors.fetcher import RequestImage
from imagestore.actors.imagedecisions import check_free_id
from imagestore.actors.imageupload import ImageUpload
from imagestore.actors.origin import UPLOAD, Origin
from imagestore.errors import ImageStoreError, InvalidArgument
from imagestore.methods.images import ImageMethods
from imagestore.model import ImageRequest, ImageResponse, UploadRequest
from imagestore.service import LOCAL, Caller, Upload
from imagestore.streams.sums import check_sha256


class ImageUploadMethods(ImageMethods):
    """See the module."""

    @asynccontextmanager
    async def upload_image(
        self, request: UploadRequest, caller: Caller = LOCAL, *, content_length: int | None = None
    ) -> AsyncIterator[Upload[ImageResponse]]:
        """See ``imagestore.service.Service.upload_image``."""
        if not request.id:
            raise InvalidArgument("need id")
        names.check_image_id(request.id)
        self._check_type(request.type)
        check_free_id(request.id, self._running().operations.state)
        origin = Origin(source=UPLOAD, sha256=check_sha256(request.sha256) if request.sha256 else "")
        upload = ImageUpload(content_length)
        operation = self._queued("RequestImage", names.image(request.id), caller, upload.reply.fail)
        message = RequestImage(
            image=request.id,
            type=request.type,
            principal=caller.principal,
            deadline=deadline_in(caller.timeout),
            reply=upload.reply,
            origin=origin,
            upload=upload,
            operation=operation,
        )
        try:
            self._running().fetcher.post_nowait(message)
        except ImageStoreError:
            self._running().operations.history.drop(operation)
            raise
        try:
            yield _Upload(self, upload, request.id, caller)
        finally:
            upload.abandon()


class _Upload:
    """An upload whose outcome is answered as the wire has it."""

    def __init__(self, methods: ImageMethods, upload: ImageUpload, image: str, caller: Caller) -> None:
        self._methods = methods
        self._upload = upload
        self._image = image
        self._caller = caller
        self.feed = upload.feed

    async def finish(self) -> ImageResponse:
        await self._upload.finish()
        return await self._methods.get_image(ImageRequest(id=self._image), self._caller)
