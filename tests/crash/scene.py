"""A small pool with everything in it, and an action for each way to change it: to crash at named points."""

import os
from collections.abc import Awaitable, Callable

from imagestore.config import Config
from imagestore.model import (
    AliasRequest,
    GuestRequest,
    ImageRequest,
    PublishRequest,
    SnapshotRequest,
    VolumeRequest,
)
from imagestore.store import Store
from tests.crash.content import BLOCK_BYTES, block_bytes
from tests.crash.process import Place

DISKS = [{"image": "raw"}, {"size": 1}]


def config_of(place: Place, image_service: str) -> Config:
    return Config(
        pool=f"dir:{place.pool}",
        journal=str(place.journal),
        image_service=image_service,
        num_fetchers=2,
        fetch_tries=1,
        fetch_wait_seconds=0.01,
        journal_segment_bytes=1 << 20,
    )


def _write(place: Place, name: str, token: int) -> None:
    file = os.open(place.pool / name, os.O_WRONLY)
    try:
        os.pwrite(file, block_bytes(token), BLOCK_BYTES)
    finally:
        os.close(file)


async def prepare(store: Store, place: Place) -> None:
    """Images ``raw`` (with clones) and ``stream`` (without), guest ``g``, volumes in ``v``; snapshots."""
    for image in ("raw", "stream"):
        await store.request_image(ImageRequest(id=image))
    await store.create_guest_disks(GuestRequest(guest={"id": "g", "disks": DISKS}))
    for volume in ("v/a", "v/b"):
        await store.create_volume(VolumeRequest(id=volume, size=1))
    for token, snapshot in ((1, "one"), (2, "two")):
        for name in ("guests/g/disk-0", "guests/g/disk-1", "v/a", "v/b"):
            _write(place, name, token)
        await store.create_snapshot(SnapshotRequest(id="guests/g", dest=snapshot))
        await store.create_snapshot(SnapshotRequest(id="v", dest=snapshot, recursive=True))
        _write(place, "guests/g/disk-0", token + 10)
        _write(place, "v/a", token + 10)


async def settle(store: Store) -> None:
    """Nothing but the start, and the end of what it queued again."""
    for image in (await store.list_images(ImageRequest())).images:
        if image.status not in ("complete", "error"):
            await store.request_image(ImageRequest(id=image.id))


def _snapshot(name: str, *, recursive: bool = False) -> Callable[[Store], Awaitable[object]]:
    return lambda store: store.create_snapshot(SnapshotRequest(id=name, dest="three", recursive=recursive))


def _rollback(name: str) -> Callable[[Store], Awaitable[object]]:
    return lambda store: store.rollback_snapshot(SnapshotRequest(id=name, destroyMoreRecent=True))


ACTIONS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "settle": settle,
    "CreateVolume": lambda store: store.create_volume(VolumeRequest(id="new/deep/volume", size=1)),
    "ResizeVolume": lambda store: store.resize_volume(VolumeRequest(id="v/a", size=3)),
    "CloneImage": lambda store: store.clone_image(ImageRequest(id="raw", dest="new/clone")),
    "CreateGuestDisks": lambda store: store.create_guest_disks(
        GuestRequest(guest={"id": "h", "disks": [*DISKS, {"size": 2}]})
    ),
    "CreateSnapshot": _snapshot("v/a"),
    "CreateSnapshot recursive": _snapshot("v", recursive=True),
    "CreateSnapshot guest": _snapshot("guests/g"),
    "RollbackSnapshot": _rollback("v/a@one"),
    "RollbackSnapshot guest": _rollback("guests/g@one"),
    "DeleteSnapshot guest": lambda store: store.delete_snapshot(SnapshotRequest(id="guests/g@one")),
    "DeleteDataset": lambda store: store.delete_dataset(VolumeRequest(id="v")),
    "DeleteGuestsDisks": lambda store: store.delete_guests_disks(GuestRequest(guest={"id": "g"})),
    "DeleteImage": lambda store: store.delete_image(ImageRequest(id="stream")),
    "PublishImage": lambda store: store.publish_image(
        PublishRequest(id="golden", snapshot="guests/g/disk-0@two")
    ),
    "RetireImage": lambda store: store.delete_image(ImageRequest(id="raw", whenUnused=True)),
    "SetImageAlias": lambda store: store.set_image_alias(AliasRequest(alias="stable", id="raw")),
    "RequestImage": lambda store: store.request_image(ImageRequest(id="gzip")),
    "RequestImage raw": lambda store: store.request_image(ImageRequest(id="disk")),
}
