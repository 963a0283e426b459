"""A guest's disks between the wire and the store.

Owns the reading of ``guest.disks`` into orders, and the writing of answers
into a copy of the guest: every field comes back as it was sent, only ``disks``
changed.
"""

from collections.abc import Sequence
from typing import Any

from imagestore import names
from imagestore.actors.commands import DiskOrder
from imagestore.errors import InvalidArgument
from imagestore.model import MIB, Guest, GuestRequest, Volume

MAX_DISK_MIB = 1 << 42


def ordered(request: GuestRequest) -> tuple[str, tuple[DiskOrder, ...]]:
    """The guest's id and its disks.

    Raises:
        InvalidArgument: no guest, no id, no disks, or a disk with neither image nor size.
    """
    if request.guest is None:
        raise InvalidArgument(detail="guest is missing")
    if not request.guest.get("id"):
        raise InvalidArgument(detail="guest.id is missing")
    guest = names.check_guest_id(request.guest["id"])
    disks = request.guest.get("disks")
    if not disks:
        raise InvalidArgument(detail="guest.disks is missing or empty")
    return guest, tuple(_order(number, disk) for number, disk in enumerate(disks))


def _order(number: int, disk: dict[str, Any] | None) -> DiskOrder:
    image = (disk or {}).get("image") or ""
    size = int((disk or {}).get("size") or 0)
    if image:
        return DiskOrder(image=image)
    if not 0 < size <= MAX_DISK_MIB:
        raise InvalidArgument(detail=f"disk {number} needs an image, or a size in MiB from 1 to 2^42")
    return DiskOrder(size=size * MIB)


def with_sizes(request: GuestRequest, sizes: Sequence[int]) -> Guest:
    """The guest with the sizes of its disks filled in. ``sizes`` in bytes."""
    return _with_disks(request, [{"size": size // MIB} for size in sizes])


def answered(request: GuestRequest, volumes: Sequence[Volume]) -> Guest:
    """The guest with volume, source and size of each disk as they are in the pool."""
    return _with_disks(request, [{"size": v.size, "volume": v.id, "source": v.device} for v in volumes])


def _with_disks(request: GuestRequest, filled: Sequence[dict[str, Any]]) -> Guest:
    assert request.guest is not None, "ordered() was called first"
    disks = [{**disk, **more} for disk, more in zip(request.guest["disks"], filled, strict=True)]
    return {**request.guest, "disks": disks}
