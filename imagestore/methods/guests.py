"""The methods of guests: their disks checked, made and deleted, all or none."""

from msgspec.structs import replace

from imagestore import names
from imagestore.actors.commands import (
    CreateGuestDisks,
    DeleteGuestDisks,
    DiskOrder,
)
from imagestore.actors.guestdisks import disk_of, disk_sizes
from imagestore.actors.imagedecisions import check_not_retired
from imagestore.errors import (
    InvalidArgument,
    NoSpace,
)
from imagestore.guestorders import answered, ordered, with_sizes
from imagestore.methods.addressing import Addressing
from imagestore.model import (
    GuestRequest,
    GuestResponse,
)
from imagestore.service import LOCAL, Caller


class GuestMethods(Addressing):
    """See the module."""

    def _ordered(self, request: GuestRequest) -> tuple[str, tuple[DiskOrder, ...]]:
        """The guest's id and its disks, with the ids of their images."""
        guest, disks = ordered(request)
        return guest, tuple(replace(disk, image=self._image_named(disk.image)) for disk in disks)

    async def verify_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse:
        """Whether a guest's disks could be made; sizes are filled in from images."""
        guest, disks = self._ordered(request)
        actors = self._running()
        state, view = actors.operations.state, actors.zpool.view
        sizes = disk_sizes(disks, state, view)
        new = [number for number in range(len(disks)) if disk_of(guest, number, state, view) is None]
        for number in new:
            check_not_retired(disks[number].image, state)
        wanted = sum(sizes[number] for number in new)
        free = (await actors.zpool.space()).available
        if wanted > free:
            raise NoSpace(detail=f"{wanted} bytes are asked for, {free} are free and not promised")
        return GuestResponse(guest=with_sizes(request, sizes))

    async def create_guest_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse:
        """Make all disks of a guest or none; the same again succeeds."""
        guest, disks = self._ordered(request)
        command = CreateGuestDisks(guest=guest, disks=disks)
        rows = await self._perform(names.guest(guest), command, caller)
        return GuestResponse(guest=answered(request, [self._volume(row) for row in rows]))

    async def delete_guests_disks(self, request: GuestRequest, caller: Caller = LOCAL) -> GuestResponse:
        """Delete all disks of a guest; of a guest without disks this succeeds."""
        if request.guest is None or not request.guest.get("id"):
            raise InvalidArgument(detail="guest.id is missing")
        guest = names.check_guest_id(request.guest["id"])
        command = DeleteGuestDisks(guest=guest, force=request.force)
        await self._perform(names.guest(guest), command, caller)
        remaining = {key: value for key, value in request.guest.items() if key != "disks"}
        return GuestResponse(guest=remaining)
