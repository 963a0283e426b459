"""The methods of images: fetched, listed, cloned, deleted.

Reads tell each image as it truly is: its fetch under way, its failure, or its dataset.
"""

from msgspec import UNSET

from imagestore import names
from imagestore.actors.base import Reply, deadline_in
from imagestore.actors.commands import (
    CloneImage,
    DeleteImage,
)
from imagestore.actors.fetcher import RequestImage
from imagestore.actors.plans import complete_image
from imagestore.errors import (
    InvalidArgument,
    NotFound,
)
from imagestore.events.state import ImageRecord
from imagestore.methods.addressing import Addressing
from imagestore.model import (
    MIB,
    Image,
    ImageRequest,
    ImageResponse,
    VolumeResponse,
)
from imagestore.service import LOCAL, Caller

MAX_TYPE_CHARACTERS = 64


class ImageMethods(Addressing):
    """See the module."""

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
