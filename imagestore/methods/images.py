"""The methods of images: fetched, listed, cloned, deleted.

Reads tell each image as it truly is: its fetch under way, its failure, or its dataset.
"""

from msgspec import UNSET

from imagestore import names
from imagestore.actors.base import Reply, deadline_in
from imagestore.actors.commands import (
    CloneImage,
    DeleteImage,
    ReviveImage,
)
from imagestore.actors.fetcher import RequestImage
from imagestore.actors.imagedecisions import check_free_id, check_not_retired
from imagestore.actors.plans import Plan, Settled, complete_image
from imagestore.errors import (
    ImageStoreError,
    InvalidArgument,
    NotFound,
)
from imagestore.events.catalogue import FetchIntent
from imagestore.events.state import ImageRecord
from imagestore.methods.addressing import Foretold, unbound
from imagestore.methods.sources import SourceMethods
from imagestore.model import (
    MIB,
    Image,
    ImageRequest,
    ImageResponse,
    VolumeResponse,
)
from imagestore.service import LOCAL, Caller

MAX_TYPE_CHARACTERS = 64

REVIVALS = 3
"""How often a request tries to keep an image that is being deleted; more than once takes two coincidences."""


class ImageMethods(SourceMethods):
    """See the module."""

    def _image(self, record: ImageRecord) -> Image:
        """An image as it truly is: its fetch under way, its failure, or its dataset."""
        actors = self._running()
        fetch = actors.fetcher.under_way(record.id)
        has_ended = fetch is not None and fetch.is_accepted and record.operation != fetch.operation
        if fetch is not None and not has_ended:
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
                sha256=record.sha256 or UNSET,
            )
        if record.status == "complete":
            gone = f"its dataset {names.image(record.id)} is gone from the pool"
            return Image(id=record.id, type=record.type, status="error", reason=gone)
        reason = record.reason or UNSET
        return Image(id=record.id, type=record.type, status=record.status, reason=reason)

    async def list_images(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        """Every image, in the order of first request; those under way and failed ones with ``status``."""
        state = self._running().operations.state
        records = [record for record in state.images.values() if record.id not in state.retired]
        return ImageResponse(images=tuple(map(self._image, records)))

    async def get_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        """One image."""
        state = self._running().operations.state
        image = self._image_named(request.id)
        record = state.images.get(image)
        if record is None:
            raise NotFound(detail=f"image {request.id}")
        check_not_retired(image, state)
        return ImageResponse(images=(self._image(record),))

    async def request_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        """Have an image fetched; answered when it is usable. Requests for one image share one fetch."""
        if not request.id:
            raise InvalidArgument("need id")
        names.check_image_id(request.id)
        self._check_type(request.type)
        if request.source:
            check_free_id(request.id, self._running().operations.state)
        image = self._image_named(request.id)
        if caller.dry_run:
            raise Foretold(self._fetch_foreseen(image, request))
        for _ in range(REVIVALS):
            await self._fetched(image, request, caller)
            if not await self._revived(image, caller):
                break  # else it was deleted just before, perhaps, and is fetched the next time round
        return await self.get_image(request, caller)

    def _fetch_foreseen(self, image: str, request: ImageRequest) -> Settled | Plan:
        """What a request would do, as far as it can be told without asking its source."""
        actors = self._running()
        state = actors.operations.state
        given = self._given(request)
        if complete_image(image, state, actors.zpool.view) is not None:
            return Settled()
        source = given or state.sources.get(image)
        origin = source.address if source is not None else ""
        return Plan(
            method="RequestImage",
            subject=names.image(image),
            intent=FetchIntent(image=image, staging="", source=origin, type=request.type),
        )

    async def _revived(self, image: str, caller: Caller) -> bool:
        """Keep an image that was to go when unused. Returns whether it was."""
        if image not in self._running().operations.state.retired:
            return False
        await self._perform(names.image(image), ReviveImage(image=image), unbound(caller))
        return True

    @staticmethod
    def _check_type(type_: str) -> None:
        if len(type_) > MAX_TYPE_CHARACTERS or not type_.isprintable():
            raise InvalidArgument(detail=f'type: "" or "kvm", at most {MAX_TYPE_CHARACTERS} characters')

    async def _fetched(self, image: str, request: ImageRequest, caller: Caller) -> None:
        """Have the fetch queue see to it that the image is whole; at once if it is."""
        origin = await self._origin(image, request, caller)
        reply: Reply[None] = Reply()
        operation = self._queued("RequestImage", names.image(image), caller, reply.fail)
        message = RequestImage(
            image=image,
            type=request.type,
            principal=caller.principal,
            deadline=deadline_in(caller.timeout),
            reply=reply,
            origin=origin,
            operation=operation,
        )
        try:
            self._running().fetcher.post_nowait(message)
        except ImageStoreError:
            self._running().operations.history.drop(operation)
            raise
        await reply.wait()

    async def delete_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        """Delete an image; refused while aliases or clones exist, hidden until then with ``whenUnused``."""
        answer = await self.get_image(request, caller)
        image = answer.images[0].id
        command = DeleteImage(image=image, when_unused=request.whenUnused)
        await self._perform(names.image(image), command, caller, shown=answer)
        return answer

    async def clone_image(self, request: ImageRequest, caller: Caller = LOCAL) -> VolumeResponse:
        """Make the volume ``dest`` of an image, in an instant; the same again succeeds."""
        if not request.dest:
            raise InvalidArgument("need dest")
        image = self._image_named(request.id)
        if image not in self._running().operations.state.images:
            raise NotFound(detail=f"image {request.id}")
        return await self.request_clone(image, request.dest, caller)

    async def request_clone(self, image: str, dest: str, caller: Caller = LOCAL) -> VolumeResponse:
        """Clone an image's volume to ``dest``; the same again succeeds."""
        name = self._resolve(dest)
        rows = await self._perform(name, CloneImage(image=image, name=name), caller)
        return VolumeResponse(volumes=tuple(map(self._volume, rows)))
