"""What a plan would do, told without doing it.  Pure.

A dry run of any change is its judgement (:mod:`imagestore.actors.decisions`)
and these words for the intent that it would journal.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from imagestore import names
from imagestore.actors import zpool
from imagestore.actors.view import View
from imagestore.events.catalogue import (
    CreateIntent,
    DatasetId,
    DestroyIntent,
    FetchIntent,
    Intent,
    NewBlank,
    NewClone,
    NewDataset,
    PublishIntent,
    ReceiveIntent,
    ResizeIntent,
    RollbackIntent,
    SnapshotIntent,
)
from imagestore.events.eventtext import describe_intent
from imagestore.pools.base import CommandTexts
from imagestore.sizes import show_bytes

Action = Literal["make", "destroy", "roll back", "resize", "bring up to date", "note"]


class Foreseen(Struct, frozen=True, kw_only=True):
    """One dataset, and what would become of it.

    ``size_bytes``: of what is made the size that a guest sees, of what is
    destroyed the bytes written to it since the snapshot before.
    """

    action: Action
    name: str
    what: str
    size_bytes: int = 0


def foresee(intent: Intent, view: View) -> Sequence[Foreseen]:
    """What carrying out ``intent`` would do, dataset by dataset, in the order in which it is done."""
    match intent:
        case CreateIntent(datasets=datasets):
            return [_made(new) for new in datasets]
        case SnapshotIntent(datasets=datasets, snapshot=snapshot):
            return [
                Foreseen(action="make", name=f"{dataset.name}@{snapshot}", what="snapshot")
                for dataset in datasets
            ]
        case DestroyIntent(datasets=datasets):
            return [_destroyed(dataset, view) for dataset in reversed(datasets)]
        case RollbackIntent(snapshots=snapshots, newer=newer):
            lost = [_destroyed(dataset, view) for dataset in reversed(newer)]
            return [*lost, *(_rolled_back(snapshot, view) for snapshot in snapshots)]
        case ResizeIntent(volume=volume, size_bytes=size):
            row = view.get(volume.name)
            before = 0 if row is None else row.volsize
            what = f"from {show_bytes(before)} to {show_bytes(size)}"
            return [Foreseen(action="resize", name=volume.name, what=what, size_bytes=size)]
        case FetchIntent(image=image, source=source, size_bytes=size):
            origin = source or "the image service"
            what = f"image, fetched from {origin}"
            return [Foreseen(action="make", name=names.image(image), what=what, size_bytes=size)]
        case PublishIntent(image=image, snapshot=published):
            row = view.get(published.name)
            size = 0 if row is None else row.volsize
            what = f"image, a full copy of {published.name}"
            return [Foreseen(action="make", name=names.image(image), what=what, size_bytes=size)]
        case ReceiveIntent():
            return _received(intent, view)
        case _:
            return [Foreseen(action="note", name="", what=describe_intent(intent))]


def _received(intent: ReceiveIntent, view: View) -> Sequence[Foreseen]:
    """A stream says how large its volume is behind its heading."""
    base = intent.base.name if intent.base is not None else ""
    if intent.volume is None:
        what = f"clone of {base}, of what is sent" if base else "volume, of what is sent"
        return [*map(_made, intent.parents), Foreseen(action="make", name=intent.name, what=what)]
    row = view.get(intent.name)
    written = 0 if row is None else row.written
    lost = f"; {show_bytes(written)} written since: refused, or with force lost" if written else ""
    what = f"with what is sent, on from {base}{lost}"
    return [Foreseen(action="bring up to date", name=intent.name, what=what, size_bytes=written)]


def _made(new: NewDataset) -> Foreseen:
    match new:
        case NewBlank(thick=thick):
            what = f"blank volume of {show_bytes(new.size_bytes)}{', its room set aside' if thick else ''}"
            return Foreseen(action="make", name=new.name, what=what, size_bytes=new.size_bytes)
        case NewClone(origin=origin):
            what = f"clone of {origin.name}, {show_bytes(new.size_bytes)}"
            return Foreseen(action="make", name=new.name, what=what, size_bytes=new.size_bytes)
        case _:
            return Foreseen(action="make", name=new.name, what="file system")


def _destroyed(dataset: DatasetId, view: View) -> Foreseen:
    row = view.get(dataset.name)
    if row is None:
        return Foreseen(action="destroy", name=dataset.name, what="gone already")
    if row.kind == "filesystem":
        return Foreseen(action="destroy", name=row.name, what="file system")
    what = f"{row.kind}, {show_bytes(row.written)} written"
    return Foreseen(action="destroy", name=row.name, what=what, size_bytes=row.written)


def _rolled_back(snapshot: DatasetId, view: View) -> Foreseen:
    volume = names.parent(snapshot.name)
    row = view.get(volume)
    lost = 0 if row is None else row.written
    what = f"to {snapshot.name}; {show_bytes(lost)} written since are lost"
    return Foreseen(action="roll back", name=volume, what=what, size_bytes=lost)


def command_lines(command: zpool.Command | None, texts: CommandTexts) -> Sequence[str]:
    """What the pool would be told, as an administrator would type it."""
    match command:
        case zpool.Create(creations=creations):
            return texts.created(creations)
        case zpool.TakeSnapshot(datasets=datasets, snapshot=snapshot, tags=tags):
            return texts.snapshotted(datasets, snapshot, tags)
        case zpool.Destroy(targets=targets):
            return texts.destroyed(targets)
        case zpool.RollBack(snapshots=snapshots, newer=newer):
            return texts.rolled_back(snapshots, newer)
        case zpool.Resize(volume=volume, size=size):
            return texts.resized(volume, size)
        case zpool.Publish(snapshot=snapshot, name=name):
            return texts.copied(snapshot, name)
        case _:
            return ()
