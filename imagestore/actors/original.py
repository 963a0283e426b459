"""What the original program left in a pool: which images and guests' disks can be adopted, which not and why.

Its layout is ours: ``images/<id>@<snapshot>``, ``guests/<guest>/disk-<n>``;
only tags and journal are missing.  Names alone tell most; its database, where
there is one, tells an image's type, its snapshot, and that a fetch had failed.
Where the two disagree, or the pool does not have what the database says,
nothing is taken.

Pure, but for a line in the log.
"""

import logging
from collections.abc import Iterator

from msgspec import Struct

from imagestore import names
from imagestore.actors.adoption import disk_number
from imagestore.actors.commands import Adopt
from imagestore.actors.originaldatabase import Original, OriginalImage
from imagestore.actors.plans import is_visible
from imagestore.actors.view import View
from imagestore.errors import InvalidArgument
from imagestore.events.state import State
from imagestore.pools.base import Dataset

_log = logging.getLogger(__name__)

METHOD = "AdoptOriginal"

COMPLETE = ("", "complete")
"""What the original's database says of an image that is usable; it left the status out at first."""


class Left(Struct, frozen=True, kw_only=True):
    """Something that is not taken, by its name in the pool, and why in one line."""

    name: str
    reason: str


class Survey(Struct, frozen=True, kw_only=True):
    """One adoption for each image and each guest, images first; and what is left."""

    takes: tuple[Adopt, ...]
    left: tuple[Left, ...]


def survey(original: Original, state: State, view: View, *, force: bool = False) -> Survey:
    """What there is to take.  Each may still be refused when it is judged."""
    takes: list[Adopt] = []
    left = [Left(name=names.image(entry.key), reason=entry.reason) for entry in original.unread]
    known = {image.id: image for image in original.images}
    left += [
        Left(name=names.image(image_id), reason="the database names it, and it is gone")
        for image_id in known
        if names.image(image_id) not in view
    ]
    for row in strange_images(state, view):
        image_id = row.name.partition("/")[2]
        if row.kind != "volume":
            left.append(Left(name=row.name, reason=f"it is a {row.kind}, not a volume"))
        elif reason := _against(image_id, row, known.get(image_id), state, view):
            left.append(Left(name=row.name, reason=reason))
        else:
            takes.append(_image(image_id, row, known.get(image_id), force=force))
    for guest, rows in strange_disks(state, view).items():
        disks = [row for row in rows if row.kind == "volume"]
        left += [
            Left(name=row.name, reason=f"it is a {row.kind}, not a volume")
            for row in rows
            if row.kind != "volume"
        ]
        if disks:
            numbers = tuple(disk_number(row.name) or 0 for row in disks)
            volumes = tuple(row.name for row in disks)
            takes.append(Adopt(volumes=volumes, guest=guest, disks=numbers, method=METHOD, force=force))
    return Survey(takes=tuple(takes), left=tuple(left))


def strange_images(state: State, view: View) -> Iterator[Dataset]:
    """What stands directly among the images and nobody has tagged."""
    for row in view.under(names.IMAGES):
        if row.kind != "snapshot" and _is_strange(row, state) and names.parent(row.name) == names.IMAGES:
            yield row


def strange_disks(state: State, view: View) -> dict[str, list[Dataset]]:
    """By guest: what is called like a guest's disk and nobody has tagged."""
    found: dict[str, list[Dataset]] = {}
    for row in view.under(names.GUESTS):
        if _is_strange(row, state) and disk_number(row.name) is not None:
            guest = row.name.split("/")[1]
            try:
                names.check_guest_id(guest)
            except InvalidArgument:
                continue  # no request could name it
            found.setdefault(guest, []).append(row)
    return found


def tell_of_original(state: State, view: View) -> None:
    """Say in the log what there is to adopt, and how."""
    images = sum(row.kind == "volume" for row in strange_images(state, view))
    guests = len(strange_disks(state, view))
    if images or guests:
        _log.warning(
            "pool %s holds %d images and %d guests that the store has not made; see what can be adopted: "
            "imagestore adopt --original --dry-run",
            state.pool,
            images,
            guests,
        )


def _is_strange(row: Dataset, state: State) -> bool:
    if row.tags.op:  # nearly all are, in a pool of ours
        return False
    return state.owned(row.name, row.guid, row.createtxg) is None and is_visible(row, state)


def _against(image_id: str, row: Dataset, known: OriginalImage | None, state: State, view: View) -> str:
    """Why an image is not taken, "" if it can be."""
    snapshots = {snapshot.name for snapshot in view.snapshots(row.name)}
    if image_id in state.images:
        return "the store has an image of that id"
    if not snapshots:
        return "it has no snapshot"
    if known is None:
        return ""
    if known.status not in COMPLETE:
        return f"the database says that its status is {known.status[:40]!r}"
    full = names.full(row.name, state.pool)
    if known.volume not in ("", full):
        return f"the database says that its volume is {known.volume[:80]!r}"
    snapshot = known.snapshot.removeprefix(full)
    if known.snapshot and row.name + snapshot not in snapshots:
        return f"the database says that its snapshot is {known.snapshot[:80]!r}, which is not there"
    return ""


def _image(image_id: str, row: Dataset, known: OriginalImage | None, *, force: bool) -> Adopt:
    snapshot = known.snapshot.partition("@")[2] if known is not None else ""
    kind = known.type if known is not None and known.type.isprintable() else ""
    return Adopt(
        volumes=(row.name,),
        image=image_id,
        snapshot=snapshot,
        type=kind[:64],
        method=METHOD,
        force=force,
    )
