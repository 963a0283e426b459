"""The commands: what can be asked of the store, typed, names resolved.

A command is what an RPC request becomes at the edge, once its names are
checked and relative.  It is refused or accepted by ``decisions.decide``.
"""

from msgspec import Struct


class CreateVolume(Struct, frozen=True, kw_only=True):
    """A blank volume of ``size`` bytes."""

    name: str
    size: int


class CloneImage(Struct, frozen=True, kw_only=True):
    image: str
    name: str


class DeleteDataset(Struct, frozen=True, kw_only=True):
    """A dataset and all below it; a snapshot, and those of its name of all below its dataset."""

    name: str
    force: bool = False


class DeleteImage(Struct, frozen=True, kw_only=True):
    image: str


class CreateSnapshot(Struct, frozen=True, kw_only=True):
    name: str
    snapshot: str
    recursive: bool = False


class DeleteSnapshot(Struct, frozen=True, kw_only=True):
    name: str
    recursive: bool = False


class RollbackSnapshot(Struct, frozen=True, kw_only=True):
    name: str
    destroy_more_recent: bool = False
    force: bool = False


class DiskOrder(Struct, frozen=True, kw_only=True):
    """One disk: a clone of ``image``, or blank with ``size`` bytes when ``image`` is empty."""

    image: str = ""
    size: int = 0


class CreateGuestDisks(Struct, frozen=True, kw_only=True):
    guest: str
    disks: tuple[DiskOrder, ...]


class DeleteGuestDisks(Struct, frozen=True, kw_only=True):
    guest: str
    force: bool = False


Command = (
    CreateVolume
    | CloneImage
    | DeleteDataset
    | DeleteImage
    | CreateSnapshot
    | DeleteSnapshot
    | RollbackSnapshot
    | CreateGuestDisks
    | DeleteGuestDisks
)
