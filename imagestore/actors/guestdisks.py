"""Decisions about the disks of guests: which they are, what making and deleting them means.

A guest's disks are the volumes in ``guests/<id>``, and those of ours that say
they are its disks and stand elsewhere: adopted there, or renamed by somebody.
All that is done to a whole guest is done to all of them.

Pure functions, asked by ``decisions``.
"""

from collections.abc import Iterable

from imagestore import names
from imagestore.actors import imagedecisions
from imagestore.actors.commands import CreateGuestDisks, DeleteGuestDisks, DiskOrder
from imagestore.actors.plans import (
    Plan,
    Settled,
    check_no_clones,
    complete_image,
    dataset_id,
    ids,
    is_visible,
    missing_parents,
    what_is_there,
)
from imagestore.actors.view import View
from imagestore.errors import AlreadyExists, NotFound
from imagestore.events.catalogue import (
    CreateIntent,
    DestroyIntent,
    NewBlank,
    NewClone,
    NewDataset,
)
from imagestore.events.state import State
from imagestore.pools.base import Dataset


def disks_elsewhere(guest: str, state: State, view: View) -> list[Dataset]:
    """The disks of a guest that do not stand in ``guests/<id>``, by name."""
    rows = (view.get(name) for name in view.disks_elsewhere(guest))
    return [row for row in rows if row is not None and state.owned(row.name, row.guid, row.createtxg)]


def disk_of(guest: str, number: int, state: State, view: View) -> Dataset | None:
    """A guest's disk of that number, wherever it stands."""
    elsewhere = disks_elsewhere(guest, state, view)
    there = next((row for row in elsewhere if row.tags.disk == str(number)), None)
    return there if there is not None else view.get(names.disk(guest, number))


def subtrees(guest: str, state: State, view: View) -> tuple[str, ...]:
    """Where all of a guest is: its file system, and its disks elsewhere."""
    return (names.guest(guest), *(row.name for row in disks_elsewhere(guest, state, view)))


def whole(guest: str, state: State, view: View) -> list[Dataset]:
    """All rows of a guest: what is in its file system, and its disks elsewhere with their snapshots."""
    parts = subtrees(guest, state, view)
    return [row for part in parts for row in view.under(part) if is_visible(row, state)]


def disk_sizes(disks: Iterable[DiskOrder], state: State, view: View) -> list[int]:
    """The size in bytes of each disk. Raises NotFound for an image that is not usable."""
    sizes = []
    for disk in disks:
        if not disk.image:
            sizes.append(disk.size)
            continue
        image = complete_image(disk.image, state, view)
        if image is None:
            raise NotFound(detail=f"image {disk.image}")
        sizes.append(image.snapshot.volsize)
    return sizes


def create_guest_disks(command: CreateGuestDisks, state: State, view: View) -> Settled | Plan:
    sizes = disk_sizes(command.disks, state, view)
    wanted: list[NewDataset] = []
    answer = []
    reserve = 0
    for number, (disk, size) in enumerate(zip(command.disks, sizes, strict=True)):
        new = _new_disk(command.guest, number, disk, size, state, view)
        row = disk_of(command.guest, number, state, view)
        answer.append(new.name if row is None else row.name)
        if row is None:
            imagedecisions.check_not_retired(disk.image, state)
            wanted.append(new)
            reserve += size
        elif not _is_same_disk(row, new):
            raise AlreadyExists.named(row.name, detail=what_is_there(row))
    if not wanted:
        return Settled(rows=tuple(row for name in answer if (row := view.get(name)) is not None))
    return Plan(
        method="CreateGuestDisks",
        subject=names.guest(command.guest),
        intent=CreateIntent(datasets=(*missing_parents(wanted[0].name, view), *wanted)),
        reserve_bytes=reserve,
        answer=tuple(answer),
    )


def _new_disk(
    guest: str, number: int, disk: DiskOrder, size: int, state: State, view: View
) -> NewBlank | NewClone:
    name = names.disk(guest, number)
    if not disk.image:
        return NewBlank(name=name, size_bytes=size, guest=guest, disk=str(number))
    image = complete_image(disk.image, state, view)
    assert image is not None, "disk_sizes looked for it"
    return NewClone(
        name=name,
        origin=dataset_id(image.snapshot),
        size_bytes=size,
        image=disk.image,
        guest=guest,
        disk=str(number),
    )


def _is_same_disk(row: Dataset, wanted: NewBlank | NewClone) -> bool:
    if isinstance(wanted, NewClone):
        return row.kind == "volume" and row.origin == wanted.origin.name
    return row.kind == "volume" and not row.origin and row.volsize == wanted.size_bytes


def delete_guest_disks(command: DeleteGuestDisks, state: State, view: View) -> Settled | Plan:
    doomed = [row for part in subtrees(command.guest, state, view) for row in view.under(part)]
    if not doomed:
        return Settled()
    check_no_clones(doomed, view)
    return Plan(
        method="DeleteGuestsDisks",
        subject=names.guest(command.guest),
        intent=DestroyIntent(datasets=ids(doomed)),
        force=command.force,
    )
