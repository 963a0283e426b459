"""The commands: what can be asked of the store, typed, names resolved.

A command is what an RPC request becomes at the edge, once its names are
checked and relative.  It is refused or accepted by ``decisions.decide``.
"""

from msgspec import Struct

from imagestore.access import AccessRole


class CreateVolume(Struct, frozen=True, kw_only=True):
    """A blank volume of ``size`` bytes, with room for all of them set aside if it is ``thick``."""

    name: str
    size: int
    thick: bool = False


class CloneImage(Struct, frozen=True, kw_only=True):
    image: str
    name: str


class DeleteDataset(Struct, frozen=True, kw_only=True):
    """A dataset and all below it; a snapshot, and those of its name of all below its dataset."""

    name: str
    force: bool = False


class DeleteImage(Struct, frozen=True, kw_only=True):
    """With ``when_unused`` an image that has clones is hidden, and deleted when the last of them goes."""

    image: str
    when_unused: bool = False


class ReapImage(Struct, frozen=True, kw_only=True):
    """Delete an image that was to go when unused, if it still is to, and is unused now."""

    image: str


class ReviveImage(Struct, frozen=True, kw_only=True):
    """Keep an image that was to go when unused: it was asked for again."""

    image: str


class PublishImage(Struct, frozen=True, kw_only=True):
    """Make the image ``image`` of ``snapshot``, a volume's: a full copy that leans on nothing."""

    image: str
    snapshot: str
    type: str = ""


class SetAlias(Struct, frozen=True, kw_only=True):
    """Have ``alias`` name ``image``, whatever it named before."""

    alias: str
    image: str


class RemoveAlias(Struct, frozen=True, kw_only=True):
    alias: str


class RegisterSource(Struct, frozen=True, kw_only=True):
    """Have ``image`` fetched from ``address``; ``replace`` whatever it was registered with before."""

    image: str
    address: str
    sha256: str = ""
    sums: str = ""
    replace: bool = False


class RemoveSource(Struct, frozen=True, kw_only=True):
    """Have ``image`` fetched from the image service again."""

    image: str


class CreateToken(Struct, frozen=True, kw_only=True):
    """Give the holder of a token a role.  ``sha256`` is of the token; ``expires_ns`` 0 is never."""

    name: str
    role: AccessRole
    sha256: str
    expires_ns: int = 0


class RevokeToken(Struct, frozen=True, kw_only=True):
    name: str


class ResizeVolume(Struct, frozen=True, kw_only=True):
    """Give a volume ``size`` bytes, more than it has: a smaller size would cut off data."""

    name: str
    size: int


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


class Adopt(Struct, frozen=True, kw_only=True):
    """Take over volumes that others made, where they stand, with their snapshots.

    Exactly one of: the disks of ``guest`` (numbers and names), ``image`` with
    its volume's name, one free-standing volume.  ``snapshot`` is the image's
    content, by name after the ``@``; "" is its oldest.  ``method`` is what was asked for.
    """

    volumes: tuple[str, ...]
    guest: str = ""
    disks: tuple[int, ...] = ()
    image: str = ""
    snapshot: str = ""
    type: str = ""
    method: str = "AdoptDataset"
    force: bool = False


class Release(Struct, frozen=True, kw_only=True):
    """Forget a volume of ours, or an image, with its snapshots; the data stay."""

    name: str


Command = (
    CreateVolume
    | ResizeVolume
    | CloneImage
    | DeleteDataset
    | DeleteImage
    | ReapImage
    | ReviveImage
    | PublishImage
    | SetAlias
    | RemoveAlias
    | RegisterSource
    | RemoveSource
    | CreateToken
    | RevokeToken
    | CreateSnapshot
    | DeleteSnapshot
    | RollbackSnapshot
    | CreateGuestDisks
    | DeleteGuestDisks
    | Adopt
    | Release
)
