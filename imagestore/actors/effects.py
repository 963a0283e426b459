"""Effects: what an intent means for the pool, and what came of it.

Pure functions both ways: an intent becomes one driver command (with the tags
that identify what it makes), rows of the pool become facts for the journal.
Recovery uses the same functions, so that another life ends an operation with
the same facts as the first would have.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from imagestore import names
from imagestore.actors import zpool
from imagestore.actors.plans import dataset_id
from imagestore.actors.view import View
from imagestore.events.catalogue import (
    Adoptee,
    AdoptIntent,
    CreateIntent,
    DatasetAdopted,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DatasetReceived,
    DatasetReleased,
    DatasetResized,
    DatasetRolledBack,
    DestroyIntent,
    Event,
    FetchIntent,
    ImageCompleted,
    ImageDeleted,
    ImagePublished,
    ImageReleased,
    ImageRequested,
    Intent,
    NewBlank,
    NewClone,
    NewDataset,
    NewParent,
    NoteIntent,
    PublishIntent,
    ReceiveIntent,
    ReleaseIntent,
    ResizeIntent,
    Role,
    RollbackIntent,
    Shown,
    SnapshotIntent,
)
from imagestore.pools import base
from imagestore.pools.base import NO_TAGS, Dataset, Identity, Retagging, Tags, Target

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
        case ResizeIntent(volume=volume, size_bytes=size):
            return zpool.Resize(volume=target(volume), size=size)
        case PublishIntent(image=image, snapshot=published):
            return zpool.Publish(
                snapshot=target(published),
                staging=names.staging(operation),
                name=names.image(image),
                tags=Tags(op=operation, kind="image", image=image),
                snapshot_tags=Tags(op=operation, kind="snapshot", image=image),
            )
        case AdoptIntent(datasets=adoptees, parents=parents):
            return zpool.Adopt(
                parents=tuple(_parent(operation, parent) for parent in parents),
                changes=tuple(_adopted(operation, adoptee) for adoptee in adoptees),
            )
        case ReleaseIntent(datasets=datasets):
            return zpool.Retag(
                changes=tuple(Retagging(target=target(dataset), tags=NO_TAGS) for dataset in datasets)
            )
        case FetchIntent() | ReceiveIntent() | NoteIntent():
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
            return _parent(operation, new)
        case NewBlank():
            tags = Tags(op=operation, kind=role_of(new), guest=new.guest, disk=new.disk)
            return base.NewVolume(name=new.name, size=new.size_bytes, tags=tags, thick=new.thick)
        case NewClone():
            tags = Tags(op=operation, kind=role_of(new), image=new.image, guest=new.guest, disk=new.disk)
            return base.NewClone(name=new.name, origin=target(new.origin), tags=tags)
        case _:
            assert_never(new)


def _parent(operation: str, new: NewParent) -> base.NewFilesystem:
    return base.NewFilesystem(name=new.name, tags=Tags(op=operation, kind=role_of(new), guest=new.guest))


def _adopted(operation: str, adoptee: Adoptee) -> Retagging:
    """The tags that the dataset would have if the store had made it."""
    tags = Tags(
        op=operation,
        kind=adoptee.role,
        image=adoptee.image,
        guest=adoptee.guest,
        disk=adoptee.disk,
    )
    return Retagging(
        target=Target(name=adoptee.name, guid=adoptee.guid, createtxg=adoptee.createtxg), tags=tags
    )


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
        case ResizeIntent(volume=resized, size_bytes=size):
            return (
                DatasetResized(
                    name=resized.name, guid=resized.guid, createtxg=resized.createtxg, size_bytes=size
                ),
            )
        case FetchIntent(image=image):
            volume = _row(names.image(image), view)
            return image_facts(image, volume, view)
        case ReceiveIntent():
            return _received(intent, operation, view)
        case PublishIntent(image=image, snapshot=snapshot_id):
            published = ImagePublished(image=image, snapshot=snapshot_id, type=intent.type)
            return (published, *image_facts(image, _row(names.image(image), view), view))
        case NoteIntent(fact=fact):
            return (fact,)
        case AdoptIntent():
            return _adoption_facts(intent, operation, view)
        case ReleaseIntent(datasets=datasets, image=image):
            forgotten: tuple[Event, ...] = (ImageReleased(image=image),) if image else ()
            return (*map(_released, datasets), *forgotten)
        case _:
            assert_never(intent)


def _adoption_facts(intent: AdoptIntent, operation: str, view: View) -> tuple[Event, ...]:
    """What is ours now: those that carry the operation's tag, whatever they are called meanwhile."""
    found = still_there(intent.datasets, view)
    ours = [row for adoptee in intent.datasets if (row := found.get(identity_of(adoptee))) is not None]
    happened: list[Event] = [*parents_made(intent, operation, view)]
    happened += [_adoption(row, view) for row in ours if row.tags.op == operation]
    content = found.get(identity_of(intent.snapshot)) if intent.snapshot is not None else None
    if content is not None:
        happened += [
            ImageRequested(image=intent.image, type=intent.type),
            ImageCompleted(
                image=intent.image,
                volume=dataset_id(ours[0]),
                snapshot=dataset_id(content),
                size_bytes=content.volsize,
            ),
        ]
    return tuple(happened)


def _adoption(row: Dataset, view: View) -> DatasetAdopted:
    made = created(row, dataset_id(origin) if (origin := view.get(row.origin)) is not None else None)
    return DatasetAdopted(
        name=made.name,
        kind=made.kind,
        role=made.role,
        guid=made.guid,
        createtxg=made.createtxg,
        size_bytes=made.size_bytes,
        origin=made.origin,
        image=made.image,
        guest=made.guest,
        disk=made.disk,
    )


def _released(dataset: DatasetId) -> DatasetReleased:
    return DatasetReleased(name=dataset.name, guid=dataset.guid, createtxg=dataset.createtxg)


def identity_of(dataset: DatasetId | Adoptee) -> Identity:
    return Identity(dataset.guid, dataset.createtxg)


def still_there(datasets: Sequence[DatasetId | Adoptee], view: View) -> Mapping[Identity, Dataset]:
    """Those of ``datasets`` that exist, whatever their names. Looks through all the pool only if it must."""
    wanted = {identity_of(dataset) for dataset in datasets}
    there = (view.get(dataset.name) for dataset in datasets)
    found = {row.identity: row for row in there if row is not None and row.identity in wanted}
    if len(found) < len(wanted):
        found.update({row.identity: row for row in view.under("") if row.identity in wanted})
    return found


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
        parents = parents_made(intent, operation, view)
        return (*parents, created(volume, intent.base), *map(created, came))
    changed = DatasetReceived(
        name=volume.name,
        guid=volume.guid,
        createtxg=volume.createtxg,
        snapshot=dataset_id(came[-1]),
        size_bytes=volume.volsize,
    )
    return (*map(created, came), changed)


def parents_made(intent: Intent, operation: str, view: View) -> tuple[DatasetCreated, ...]:
    """The parents that the operation made first and that are there: ours, also when all else failed."""
    if not isinstance(intent, ReceiveIntent | AdoptIntent):
        return ()
    parents = named(view, [parent.name for parent in intent.parents])
    return tuple(created(row) for row in parents if row.tags.op == operation)


def named(view: View, wanted: Iterable[str]) -> tuple[Dataset, ...]:
    """The rows of these names that are there, in this order."""
    return tuple(row for name in wanted if (row := view.get(name)) is not None)


def shown(row: Dataset) -> Shown:
    """A row as the journal keeps it for an answer that may be given again."""
    return Shown(name=row.name, kind=row.kind, size_bytes=row.volsize, written_bytes=row.written)
