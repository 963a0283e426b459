"""Decisions about adoption and release: what becomes ours, or stops being so, where it stands.

Adoption takes over volumes that others made: a guest's disk, an image, a
free-standing volume.  Nothing is copied or renamed and no identity changes;
the dataset and its snapshots get the tags that they would have if the store
had made them, and the journal says who wanted it.  Release is the way back:
the tags go, the store forgets, the data stay.

Pure functions, asked by ``decisions``.
"""

import re
from collections.abc import Iterator, Sequence

from imagestore import names
from imagestore.actors.claims import Claim
from imagestore.actors.commands import Adopt, Release
from imagestore.actors.guestdisks import disk_of
from imagestore.actors.imagedecisions import aliases_of, check_free_id
from imagestore.actors.plans import (
    Plan,
    check_no_clones,
    dataset_id,
    existing,
    guest_of,
    ids,
    missing_parents,
    outermost_missing,
)
from imagestore.actors.view import View
from imagestore.errors import AlreadyExists, Blocked, InvalidArgument, NotValid, NotVolume
from imagestore.events.catalogue import Adoptee, AdoptIntent, ReleaseIntent, Role
from imagestore.events.state import DatasetRecord, State
from imagestore.pools.base import Dataset

_DISK = re.compile(rf"{names.GUESTS}/[^/]+/disk-(0|[1-9][0-9]*)\Z")


def disk_number(name: str) -> int | None:
    """The number that the name of a guest's disk tells, None of other names."""
    match = _DISK.match(name)
    return int(match[1]) if match is not None else None


def claim_of_adoption(command: Adopt, view: View) -> Claim:
    if command.guest:
        return Claim(exclusive=(outermost_missing(names.guest(command.guest), view), *command.volumes))
    return Claim(exclusive=command.volumes)


# --- adoption ------------------------------------------------------------------


def adopt(command: Adopt, state: State, view: View) -> Plan:
    """Judge an adoption.

    Raises NotFound, NotVolume, NotValid, InvalidArgument, AlreadyExists (another
    disk of that number, an image of that id), Blocked (it is ours, or another store's).
    """
    rows = [_adoptable(name, state, view) for name in command.volumes]
    if command.image:
        return _as_image(command, rows[0], state, view)
    if not command.guest:
        return _as_volume(command, rows[0], state, view)
    adoptees: list[Adoptee] = []
    for number, row in zip(command.disks, rows, strict=True):
        _check_disk(command.guest, number, row, state, view)
        image = _image_of(row, state, view)
        adoptees.append(_adoptee(row, "disk", guest=command.guest, disk=str(number), image=image))
        adoptees.extend(_snapshots(row, state, view, guest=command.guest))
    return Plan(
        method=command.method,
        subject=command.volumes[0] if len(rows) == 1 else names.guest(command.guest),
        intent=AdoptIntent(
            datasets=tuple(adoptees),
            parents=tuple(missing_parents(names.disk(command.guest, 0), view)),
        ),
        force=command.force,
        answer=command.volumes,
    )


def _adoptable(name: str, state: State, view: View) -> Dataset:
    row = existing(name, state, view)
    if row.kind != "volume":
        raise NotVolume(detail=f"{name} is a {row.kind}; what is adopted is a volume, with its snapshots")
    _check_strange(row, state)
    return row


def _check_strange(row: Dataset, state: State) -> None:
    """Raises Blocked unless nobody's tags are on the row and the state does not know it."""
    record = state.datasets.get(row.name)
    if record is None or (record.guid, record.createtxg) != (row.guid, row.createtxg):
        known = (r for r in state.datasets.values() if (r.guid, r.createtxg) == (row.guid, row.createtxg))
        record = next(known, None)
    if record is not None:
        known_as = f", known as {record.name}" if record.name != row.name else ""
        raise Blocked(
            f"dataset is the store's already: {row.name} ({described(record)}{known_as})",
            blockers=(row.name,),
        )
    if row.tags.op or row.tags.kind:
        raise Blocked(
            f"dataset carries the tags of another store: {row.name} "
            f"({row.tags.kind or 'dataset'} of operation {row.tags.op or 'unknown'})",
            blockers=(row.name,),
            detail="release it there, or take its imagestore:* properties off",
        )


def described(record: DatasetRecord) -> str:
    """What a dataset is to the store, in words."""
    if record.role == "disk":
        return f"disk {record.disk} of guest {record.guest}"
    if record.role == "image":
        return f"image {record.image}"
    return f"a {record.role}"


def _check_disk(guest: str, number: int, row: Dataset, state: State, view: View) -> None:
    """Whether the row can be disk ``number`` of ``guest``: no name says otherwise, and none is there."""
    _check_not_among_images(row)
    owner, own_number = guest_of(row.name), disk_number(row.name)
    if owner and (owner, number if own_number is None else own_number) != (guest, number):
        raise InvalidArgument(
            f"the name of {row.name} says whose disk it is",
            detail=f"give guest {owner}" + (f" and disk {own_number}" if own_number is not None else ""),
        )
    there = disk_of(guest, number, state, view)
    if there is not None and there.identity != row.identity:
        raise AlreadyExists.named(there.name, detail=f"it is disk {number} of guest {guest}")


def _check_not_among_images(row: Dataset) -> None:
    if names.is_within(row.name, names.IMAGES):
        raise NotValid(detail=f"{row.name} stands among the images: adopt it as one")


def _image_of(row: Dataset, state: State, view: View) -> str:
    """The image of ours that a volume is a clone of, "" if of none."""
    origin = view.get(row.origin) if row.origin else None
    if origin is None or state.owned(origin.name, origin.guid, origin.createtxg) is None:
        return ""
    return origin.tags.image


def _as_volume(command: Adopt, row: Dataset, state: State, view: View) -> Plan:
    _check_not_among_images(row)
    guest = guest_of(row.name)
    volume = _adoptee(row, "volume", guest=guest, image=_image_of(row, state, view))
    return Plan(
        method=command.method,
        subject=row.name,
        intent=AdoptIntent(datasets=(volume, *_snapshots(row, state, view, guest=guest))),
        force=command.force,
        answer=command.volumes,
    )


def _as_image(command: Adopt, row: Dataset, state: State, view: View) -> Plan:
    image = command.image
    names.check_image_id(image)
    if row.name != names.image(image):
        raise NotValid(
            detail=f"image {image} stands at {names.image(image)}: rename {row.name} to that, then adopt it"
        )
    check_free_id(image, state)
    if image in state.images:
        raise AlreadyExists(f"image already exists: {image}", detail="delete it, or wait until it is fetched")
    snapshots = view.snapshots(row.name)
    wanted = f"{row.name}@{command.snapshot}" if command.snapshot else ""
    content = next((snapshot for snapshot in snapshots if wanted in ("", snapshot.name)), None)
    if content is None:
        raise Blocked(
            f"image has no snapshot: {wanted or row.name}",
            blockers=(row.name,),
            detail="an image is what its snapshot holds; take one, then adopt it",
        )
    _check_strange(content, state)
    others = [adoptee for adoptee in _snapshots(row, state, view) if adoptee.name != content.name]
    own = (_adoptee(row, "image", image=image), _adoptee(content, "snapshot", image=image))
    return Plan(
        method=command.method,
        subject=row.name,
        intent=AdoptIntent(
            datasets=(*own, *others), image=image, type=command.type, snapshot=dataset_id(content)
        ),
        force=command.force,
        answer=(row.name,),
    )


def _snapshots(row: Dataset, state: State, view: View, *, guest: str = "") -> Iterator[Adoptee]:
    """The snapshots that come along: all that are not ours already."""
    for snapshot in view.snapshots(row.name):
        if state.owned(snapshot.name, snapshot.guid, snapshot.createtxg) is None:
            _check_strange(snapshot, state)
            yield _adoptee(snapshot, "snapshot", guest=guest)


def _adoptee(row: Dataset, role: Role, *, guest: str = "", disk: str = "", image: str = "") -> Adoptee:
    return Adoptee(
        name=row.name,
        guid=row.guid,
        createtxg=row.createtxg,
        role=role,
        image=image,
        guest=guest,
        disk=disk,
    )


# --- release -------------------------------------------------------------------


def release(command: Release, state: State, view: View) -> Plan:
    """Judge a release.

    Raises NotFound, NotVolume, HasClones, Blocked (it is not ours, or an image with aliases).
    """
    row = existing(command.name, state, view)
    if row.kind != "volume":
        raise NotVolume(
            detail=f"{row.name} is a {row.kind}; what is released is a volume, with its snapshots"
        )
    if state.owned(row.name, row.guid, row.createtxg) is None:
        raise Blocked(
            f"dataset is not the store's: {row.name}",
            blockers=(row.name,),
            detail="there is nothing to release",
        )
    image = next((i.id for i in state.images.values() if i.volume == dataset_id(row)), "")
    aliases = aliases_of(image, state) if image else []
    if aliases:
        raise Blocked(
            f"image has aliases: {', '.join(aliases)}", blockers=aliases, detail="remove or move them first"
        )
    ours = _ours(row, state, view)
    check_no_clones(ours, view, "image" if image else "snapshot")
    return Plan(
        method="ReleaseDataset",
        subject=row.name,
        intent=ReleaseIntent(datasets=ids(ours), image=image),
        answer=(row.name,),
    )


def _ours(row: Dataset, state: State, view: View) -> Sequence[Dataset]:
    """The volume, and those of its snapshots that are ours."""
    return [
        found
        for found in (row, *view.snapshots(row.name))
        if state.owned(found.name, found.guid, found.createtxg) is not None
    ]
