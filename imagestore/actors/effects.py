"""Effects: what an intent means for the pool, and what came of it.

Pure functions both ways: an intent becomes one driver command (with the tags
that identify what it makes), rows of the pool become facts for the journal.
Recovery uses the same functions, so that another life ends an operation with
the same facts as the first would have.
"""

from collections.abc import Iterable
from typing import assert_never

from imagestore import names
from imagestore.actors import zpool
from imagestore.actors.plans import dataset_id
from imagestore.actors.view import View
from imagestore.events.catalogue import (
    CreateIntent,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DatasetReceived,
    DatasetRolledBack,
    DestroyIntent,
    Event,
    FetchIntent,
    ImageCompleted,
    ImageDeleted,
    Intent,
    NewBlank,
    NewClone,
    NewDataset,
    NewParent,
    ReceiveIntent,
    Role,
    RollbackIntent,
    SnapshotIntent,
)
from imagestore.pools import base
from imagestore.pools.base import Dataset, Tags, Target

RAW_SNAPSHOT = "image"
"""The snapshot of an image that came without one (a raw disk image)."""


def target(dataset: DatasetId) -> Target:
    return Target(name=dataset.name, guid=dataset.guid, createtxg=dataset.createtxg)


def driver_command(operation: str, intent: Intent, *, force: bool) -> zpool.Command | None:
    """The one command that carries the intent out; None when there is nothing to do in the pool.

    What comes from outside is no single command: ``fetch`` and ``reception`` carry it out.
    """
    match intent:
        case CreateIntent(datasets=datasets):
            return zpool.Create(creations=tuple(_creation(operation, new) for new in datasets))
        case SnapshotIntent(datasets=datasets, snapshot=snapshot, guest=guest):
            return zpool.TakeSnapshot(
                datasets=tuple(map(target, datasets)),
                snapshot=snapshot,
                tags=Tags(op=operation, kind="snapshot", guest=guest),
            )
        case DestroyIntent(datasets=()):
            return None
        case DestroyIntent(datasets=datasets):
            return zpool.Destroy(targets=tuple(map(target, datasets)), force=force)
        case RollbackIntent(snapshots=snapshots, newer=newer):
            return zpool.RollBack(
                snapshots=tuple(map(target, snapshots)),
                newer=tuple(map(target, newer)),
                operation=operation,
                force=force,
            )
        case FetchIntent() | ReceiveIntent():
            return None
        case _:
            assert_never(intent)


def role_of(new: NewDataset) -> Role:
    match new:
        case NewParent():
            return "parent"
        case NewBlank(disk=disk) | NewClone(disk=disk):
            return "disk" if disk else "volume"
        case _:
            assert_never(new)


def _creation(operation: str, new: NewDataset) -> base.Creation:
    match new:
        case NewParent():
            tags = Tags(op=operation, kind=role_of(new), guest=new.guest)
            return base.NewFilesystem(name=new.name, tags=tags)
        case NewBlank():
            tags = Tags(op=operation, kind=role_of(new), guest=new.guest, disk=new.disk)
            return base.NewVolume(name=new.name, size=new.size_bytes, tags=tags)
        case NewClone():
            tags = Tags(op=operation, kind=role_of(new), image=new.image, guest=new.guest, disk=new.disk)
            return base.NewClone(name=new.name, origin=target(new.origin), tags=tags)
        case _:
            assert_never(new)


def facts(intent: Intent, operation: str, view: View) -> tuple[Event, ...]:
    """What the journal is to hold once the intent was carried out whole, read off the view."""
    match intent:
        case CreateIntent(datasets=datasets):
            origins = {new.name: new.origin for new in datasets if isinstance(new, NewClone)}
            return tuple(created(_row(new.name, view), origins.get(new.name)) for new in datasets)
        case SnapshotIntent(datasets=datasets, snapshot=snapshot):
            return tuple(created(_row(f"{d.name}@{snapshot}", view)) for d in datasets)
        case DestroyIntent(datasets=datasets, image=image):
            deleted: tuple[Event, ...] = (ImageDeleted(image=image),) if image else ()
            return (*map(destroyed, datasets), *deleted)
        case RollbackIntent():
            return _rolled_back(intent, view)
        case FetchIntent(image=image):
            volume = _row(names.image(image), view)
            return image_facts(image, volume, view)
        case ReceiveIntent():
            return _received(intent, operation, view)
        case _:
            assert_never(intent)


def image_facts(image: str, volume: Dataset, view: View) -> tuple[Event, ...]:
    """An image stands whole under its name: its datasets, and that it is complete."""
    snapshot = view.snapshots(volume.name)[0]
    return (
        created(volume),
        created(snapshot),
        ImageCompleted(
            image=image,
            volume=dataset_id(volume),
            snapshot=dataset_id(snapshot),
            size_bytes=snapshot.volsize,
            sha256=volume.tags.sha256,
        ),
    )


def _row(name: str, view: View) -> Dataset:
    row = view.get(name)
    assert row is not None, f"{name} was made and is not in the view"
    return row


_ROLES: dict[str, Role] = {
    "image": "image",
    "disk": "disk",
    "volume": "volume",
    "parent": "parent",
    "snapshot": "snapshot",
    "staging": "staging",
}


def created(row: Dataset, origin: DatasetId | None = None) -> DatasetCreated:
    """The fact that a row of ours exists; its tags say what it is."""
    return DatasetCreated(
        name=row.name,
        kind=row.kind,
        role="snapshot" if row.kind == "snapshot" else _ROLES.get(row.tags.kind, "volume"),
        guid=row.guid,
        createtxg=row.createtxg,
        size_bytes=row.volsize,
        origin=origin,
        image=row.tags.image,
        guest=row.tags.guest,
        disk=row.tags.disk,
    )


def destroyed(dataset: DatasetId) -> DatasetDestroyed:
    return DatasetDestroyed(name=dataset.name, guid=dataset.guid, createtxg=dataset.createtxg)


def _rolled_back(intent: RollbackIntent, view: View) -> tuple[Event, ...]:
    volumes = {volume.name: volume for volume in intent.volumes}
    rolled = tuple(
        DatasetRolledBack(
            name=volume.name,
            guid=volume.guid,
            createtxg=volume.createtxg,
            snapshot=snapshot,
            size_bytes=_row(volume.name, view).volsize,
        )
        for snapshot in intent.snapshots
        if (volume := volumes.get(names.parent(snapshot.name))) is not None
    )
    return (*map(destroyed, intent.newer), *rolled)


def received_tags(operation: str, intent: ReceiveIntent) -> Tags:
    """The tags of a new volume that a stream brings."""
    kind: Role = "disk" if intent.disk else "volume"
    return Tags(op=operation, kind=kind, image=intent.image, guest=intent.guest, disk=intent.disk)


def _received(intent: ReceiveIntent, operation: str, view: View) -> tuple[Event, ...]:
    """What a stream brought: a volume, or another state of one, and the operation's snapshots."""
    volume = _row(intent.name, view)
    came = [row for row in view.snapshots(volume.name) if row.tags.op == operation]
    if intent.volume is None:
        parents = named(view, [parent.name for parent in intent.parents])
        made = [created(row) for row in parents if row.tags.op == operation]
        return (*made, created(volume, intent.base), *map(created, came))
    changed = DatasetReceived(
        name=volume.name,
        guid=volume.guid,
        createtxg=volume.createtxg,
        snapshot=dataset_id(came[-1]),
        size_bytes=volume.volsize,
    )
    return (*map(created, came), changed)


def named(view: View, wanted: Iterable[str]) -> tuple[Dataset, ...]:
    """The rows of these names that are there, in this order."""
    return tuple(row for name in wanted if (row := view.get(name)) is not None)
