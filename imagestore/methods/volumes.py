"""The methods of volumes, free-standing and others, and the room that is left for them."""

from imagestore.actors.commands import (
    CreateVolume,
    DeleteDataset,
    ResizeVolume,
)
from imagestore.errors import (
    InvalidArgument,
    NotVolume,
)
from imagestore.methods.addressing import Addressing
from imagestore.model import (
    MIB,
    VolumeRequest,
    VolumeResponse,
)
from imagestore.service import LOCAL, Caller

MAX_VOLUME_BYTES = 1 << 62
"""Larger volumes exist nowhere; the sum of promises stays far from any limit."""


class VolumeMethods(Addressing):
    """See the module."""

    async def list_volumes(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        """Every volume, those of images and guests too, by name."""
        volumes = [row for row in self._listed("") if row.kind == "volume"]
        return VolumeResponse(volumes=tuple(map(self._volume, volumes)))

    async def create_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        """Make a volume of ``size`` MiB, and its parents; the same size again succeeds."""
        _check_size(request)
        name = self._resolve(request.id)
        rows = await self._perform(
            name, CreateVolume(name=name, size=request.size * MIB, thick=request.thick), caller
        )
        return VolumeResponse(volumes=tuple(map(self._volume, rows)))

    async def resize_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        """Give a volume a larger size; the same again succeeds, a smaller one is refused."""
        _check_size(request)
        name = self._resolve(request.id)
        rows = await self._perform(name, ResizeVolume(name=name, size=request.size * MIB), caller)
        return VolumeResponse(volumes=tuple(map(self._volume, rows)))

    async def get_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        """One volume."""
        if not request.id:
            raise InvalidArgument("need an id")
        row = self._existing(request.id)
        if row.kind != "volume":
            raise NotVolume(detail=f"{request.id} is a {row.kind}")
        return VolumeResponse(volumes=(self._volume(row),))

    async def delete_dataset(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
        """Delete a dataset, everything below it, and all snapshots."""
        if not request.id:
            raise InvalidArgument("need an id")
        row = self._existing(request.id)
        answer = self._volume(row)
        await self._perform(row.name, DeleteDataset(name=row.name, force=request.force), caller)
        return VolumeResponse(volumes=(answer,))

    async def space_available(self) -> int:
        """Bytes that new volumes may still promise."""
        return (await self._running().zpool.space()).available


def _check_size(request: VolumeRequest) -> None:
    if not 0 < request.size <= MAX_VOLUME_BYTES // MIB:
        raise InvalidArgument("need a valid size", detail="size in MiB, from 1 to 2^42")
    if not request.id:
        raise InvalidArgument("need an id")
