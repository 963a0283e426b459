"""The wire's types: requests and answers of the RPC methods.

Owns nothing but shapes.  Sizes on the wire are MiB, truncated; everything
inside imagestore counts bytes.  Requests decode leniently (unknown fields are
ignored, null is the zero value); see ``http/rpc.py`` for what that takes.
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

MIB = 1 << 20
U64_MAX = (1 << 64) - 1

UInt64 = Annotated[int, Meta(ge=0)]
"""An unsigned 64-bit integer; the upper bound is checked where it is decoded."""


class Progress(Struct, frozen=True, kw_only=True):
    """Bytes fetched; ``total_bytes`` is null while unknown."""

    done_bytes: int
    total_bytes: int | None = None


class Image(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """An image. ``type`` is "" or "kvm"; ``size`` the volume's size in MiB."""

    id: str
    type: str = ""
    volume: str | UnsetType = UNSET
    snapshot: str | UnsetType = UNSET
    size: int = 0
    status: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    progress: Progress | UnsetType = UNSET


class Volume(Struct, frozen=True, kw_only=True):
    """A volume; ``size`` in MiB, ``device`` an absolute path."""

    id: str
    size: int
    device: str


class Snapshot(Struct, frozen=True, kw_only=True):
    """A snapshot; ``size`` is what was written since the one before, in MiB."""

    id: str
    size: int


Guest = dict[str, Any]
"""A guest as it was sent, unknown fields included: the agent stores it over its own copy."""


class ImageRequest(Struct, frozen=True, kw_only=True):
    id: str = ""
    type: str = ""
    dest: str = ""
    source: str = ""


class VolumeRequest(Struct, frozen=True, kw_only=True):
    id: str = ""
    size: int = 0
    force: bool = False


class SnapshotRequest(Struct, frozen=True, kw_only=True):
    """``base`` (``from`` on the wire) is what a download is to be incremental from: a
    snapshot's name, or a guid in decimal or 0xhex."""

    id: str = ""
    base: str = field(default="", name="from")
    dest: str = ""
    recursive: bool = False
    destroyMoreRecent: bool = False  # noqa: N815 (the wire's spelling)
    force: bool = False


class GuestRequest(Struct, frozen=True, kw_only=True):
    guest: Guest | None = None
    action: str = ""
    args: dict[str, str] | None = None
    force: bool = False


class ReceiveRequest(Struct, frozen=True, kw_only=True):
    """A stream on its way to the volume ``id``; ``force`` discards what was written since its base."""

    id: str = ""
    force: bool = False


class ImageResponse(Struct, frozen=True, kw_only=True):
    images: tuple[Image, ...]


class VolumeResponse(Struct, frozen=True, kw_only=True):
    volumes: tuple[Volume, ...]


class SnapshotResponse(Struct, frozen=True, kw_only=True):
    snapshots: tuple[Snapshot, ...]


class ReceiveResponse(Struct, frozen=True, kw_only=True):
    """The volume as it is now, and the snapshots that came, oldest first."""

    volume: Volume
    snapshots: tuple[Snapshot, ...]


class GuestResponse(Struct, frozen=True, kw_only=True):
    guest: Guest
    message: str | UnsetType = UNSET
    retry: int | UnsetType = UNSET
