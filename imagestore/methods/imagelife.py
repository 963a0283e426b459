"""The methods of an image's life: described, named by aliases, published, collected.

The answers are images with all that is known of them: digest, source, size,
clones, aliases, last use; retired ones are told, too.
"""

import datetime as dt
from collections.abc import Sequence

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from imagestore import names
from imagestore.actors.commands import DeleteImage, PublishImage, RemoveAlias, SetAlias
from imagestore.actors.imagedecisions import aliases_of, clones_of, unused_images
from imagestore.actors.plans import complete_image
from imagestore.errors import Blocked, InvalidArgument, NotFound
from imagestore.events.state import ImageRecord
from imagestore.methods.addressing import unbound
from imagestore.methods.images import ImageMethods
from imagestore.model import (
    AliasRequest,
    CollectRequest,
    Image,
    ImageRequest,
    ImageResponse,
    PublishRequest,
)
from imagestore.service import LOCAL, Caller

MAX_UNUSED_SECONDS = 1 << 32
"""Over a hundred years."""


class ImageLifeMethods(ImageMethods):
    """See the module."""

    def _described(self, record: ImageRecord) -> Image:
        """An image with all that is known of it."""
        actors = self._running()
        state, view = actors.operations.state, actors.zpool.view
        image = self._image(record)
        rows = complete_image(record.id, state, view) if image.status == "complete" else None
        source = self._full(record.published.name) if record.published is not None else record.source
        return replace(
            image,
            sha256=record.sha256 or UNSET,
            source=source or UNSET,
            size_bytes=rows.volume.referenced if rows is not None else UNSET,
            aliases=tuple(aliases_of(record.id, state)),
            clones=tuple(self._full(name) for name in clones_of(record, view)),
            requested=_time(record.requested_ns),
            completed=_time(record.completed_ns),
            last_used=_time(record.last_used_ns),
            retired=record.id in state.retired,
        )

    async def describe_images(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        """One image or all, hidden ones too, with all that is known of each."""
        images = self._running().operations.state.images
        if not request.id:
            return ImageResponse(images=tuple(map(self._described, images.values())))
        record = images.get(self._image_named(request.id))
        if record is None:
            raise NotFound(detail=f"image {request.id}")
        return ImageResponse(images=(self._described(record),))

    async def _describe(self, ids: Sequence[str], caller: Caller) -> ImageResponse:
        """Those of ``ids`` that there are."""
        images = self._running().operations.state.images
        return ImageResponse(images=tuple(self._described(images[image]) for image in ids if image in images))

    # -- aliases ------------------------------------------------------------------------

    async def set_image_alias(self, request: AliasRequest, caller: Caller = LOCAL) -> ImageResponse:
        """Let an alias name an image, in one step, whatever it named before."""
        if not request.alias:
            raise InvalidArgument("need an alias")
        if not request.id:
            raise InvalidArgument("need id")
        names.check_image_id(request.alias)
        image = self._image_named(request.id)
        command = SetAlias(alias=request.alias, image=image)
        await self._perform(names.image(request.alias), command, caller)
        return await self._describe([image], caller)

    async def remove_image_alias(self, request: AliasRequest, caller: Caller = LOCAL) -> ImageResponse:
        """Remove an alias; answered with the image that it named."""
        if not request.alias:
            raise InvalidArgument("need an alias")
        image = self._running().operations.state.aliases.get(request.alias)
        if image is None:
            raise NotFound(detail=f"alias {request.alias}")
        answer = await self._describe([image], caller)
        left = [replace(each, aliases=_without(each.aliases, request.alias)) for each in answer.images]
        answer = ImageResponse(images=tuple(left))
        command = RemoveAlias(alias=request.alias)
        await self._perform(names.image(request.alias), command, caller, shown=answer)
        return answer

    # -- publishing -----------------------------------------------------------------------

    async def publish_image(self, request: PublishRequest, caller: Caller = LOCAL) -> ImageResponse:
        """Make an image of a disk's snapshot, a full copy; answered when it is whole."""
        if not request.id:
            raise InvalidArgument("need id")
        if not request.snapshot:
            raise InvalidArgument("need a snapshot")
        names.check_image_id(request.id)
        self._check_type(request.type)
        row = self._existing(request.snapshot)
        command = PublishImage(image=request.id, snapshot=row.name, type=request.type)
        await self._perform(names.image(request.id), command, caller)
        return await self._describe([request.id], caller)

    # -- collecting -----------------------------------------------------------------------

    async def collect_images(self, request: CollectRequest, caller: Caller = LOCAL) -> ImageResponse:
        """Delete the images that nothing uses for so long, one operation each."""
        if request.unusedSeconds > MAX_UNUSED_SECONDS:
            raise InvalidArgument("need a valid time", detail=f"at most {MAX_UNUSED_SECONDS} seconds")
        actors = self._running()
        before_ns = actors.now_ns() - request.unusedSeconds * 1_000_000_000
        unused = unused_images(actors.operations.state, actors.zpool.view, before_ns=before_ns)
        answer = await self._describe(unused, caller)
        if request.dryRun:
            return answer
        gone = []
        for image in answer.images:
            try:
                await self._perform(names.image(image.id), DeleteImage(image=image.id), unbound(caller))
            except (Blocked, NotFound):
                continue
            gone.append(image)
        return ImageResponse(images=tuple(gone))


def _without(aliases: tuple[str, ...] | UnsetType, gone: str) -> tuple[str, ...]:
    return () if aliases is UNSET else tuple(alias for alias in aliases if alias != gone)


def _time(time_ns: int) -> str | UnsetType:
    """RFC 3339, in UTC, to the second; UNSET for 0."""
    if not time_ns:
        return UNSET
    return dt.datetime.fromtimestamp(time_ns // 1_000_000_000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
