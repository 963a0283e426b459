"""The life of images in the store in memory: described, named, published, collected."""

from msgspec import UNSET
from msgspec.structs import replace

from imagestore import errors, names
from imagestore.model import (
    AliasRequest,
    CollectRequest,
    Image,
    ImageRequest,
    ImageResponse,
    PublishRequest,
    SnapshotRequest,
)
from imagestore.service import LOCAL, Caller


class MemoryImages:
    """``images`` by id; ``snapshots`` hold content by name; ``known`` are the lengths that were measured."""

    pool_name = "mem"

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.snapshots: dict[str, bytes] = {}
        self.aliases: dict[str, str] = {}
        self.known: dict[str, int] = {}
        self.measured = 0

    async def describe_images(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        if not request.id:
            return ImageResponse(images=tuple(map(self._described, self.images.values())))
        image = self.aliases.get(request.id, request.id)
        if image not in self.images:
            raise errors.NotFound(detail=f"image {request.id}")
        return ImageResponse(images=(self._described(self.images[image]),))

    def _described(self, image: Image) -> Image:
        aliases = tuple(alias for alias, named in self.aliases.items() if named == image.id)
        retired = image.retired if image.retired is not UNSET else False
        return replace(image, aliases=aliases, clones=(), retired=retired)

    async def set_image_alias(self, request: AliasRequest, caller: Caller = LOCAL) -> ImageResponse:
        answer = await self.describe_images(ImageRequest(id=request.id))
        self.aliases[request.alias] = answer.images[0].id
        return await self.describe_images(ImageRequest(id=request.id))

    async def remove_image_alias(self, request: AliasRequest, caller: Caller = LOCAL) -> ImageResponse:
        if request.alias not in self.aliases:
            raise errors.NotFound
        return await self.describe_images(ImageRequest(id=self.aliases.pop(request.alias)))

    async def publish_image(self, request: PublishRequest, caller: Caller = LOCAL) -> ImageResponse:
        if request.snapshot not in self.snapshots:
            raise errors.NotFound
        self.hold(request.id, self.snapshots[request.snapshot])
        return await self.describe_images(ImageRequest(id=request.id))

    def hold(self, image: str, content: bytes) -> None:
        """Have a complete image of this stream."""
        name = f"{names.image(image)}@image"
        self.snapshots[name] = content
        self.images[image] = Image(id=image, snapshot=name, size=1, status="complete")

    async def collect_images(self, request: CollectRequest, caller: Caller = LOCAL) -> ImageResponse:
        unused = [image for image in self.images if image not in self.aliases.values()]
        answer = ImageResponse(images=tuple(self._described(self.images[image]) for image in unused))
        if not request.dryRun:
            for image in unused:
                del self.images[image]
        return answer

    async def download_bytes(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, measure: bool = True
    ) -> int | None:
        if measure and request.id not in self.known:
            self.measured += 1
            self.known[request.id] = len(self.snapshots[request.id])
        return self.known.get(request.id)
