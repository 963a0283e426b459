"""Decisions: what a command means for this state and this pool.

Pure functions of (command, state, view).  ``claim_of`` says what a command
must hold before it may be judged; ``decide`` judges it: it raises a refusal,
or returns :class:`Settled` (it is so already) or :class:`Plan` (what to
journal as the intent).  Nothing here waits, writes or knows trio.
"""

from collections.abc import Iterable
from typing import assert_never

from imagestore import names
from imagestore.actors.claims import Claim
from imagestore.actors.commands import (
    CloneImage,
    Command,
    CreateGuestDisks,
    CreateSnapshot,
    CreateVolume,
    DeleteDataset,
    DeleteGuestDisks,
    DeleteImage,
    DeleteSnapshot,
    DiskOrder,
    RollbackSnapshot,
)
from imagestore.actors.plans import (
    Plan,
    Settled,
    check_no_clones,
    complete_image,
    dataset_id,
    existing,
    ids,
    is_guest,
    is_visible,
)
from imagestore.actors.view import View
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    InvalidArgument,
    NewerSnapshots,
    NotFound,
    NotSnapshot,
    NotValid,
)
from imagestore.events.catalogue import (
    CreateIntent,
    DestroyIntent,
    NewBlank,
    NewClone,
    NewDataset,
    NewParent,
    RollbackIntent,
    SnapshotIntent,
)
from imagestore.events.state import State
from imagestore.pools.base import Dataset


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


# --- claims ----------------------------------------------------------------------


def claim_of(command: Command, state: State, view: View) -> Claim:
    """What ``command`` changes (exclusive) and leans on (shared), as the pool is now."""
    match command:
        case CreateVolume(name=name):
            return Claim(exclusive=(outermost_missing(name, view),))
        case CloneImage(name=name, image=image):
            return Claim(exclusive=(outermost_missing(name, view),), shared=(_leaning_on(image, state),))
        case DeleteDataset(name=name):
            return Claim(exclusive=(name.partition("@")[0],))
        case DeleteImage(image=image):
            return Claim(exclusive=(names.image(image),))
        case CreateSnapshot(name=name):
            return Claim(exclusive=(name,))
        case DeleteSnapshot(name=name) | RollbackSnapshot(name=name):
            return Claim(exclusive=(names.parent(name),))
        case CreateGuestDisks(guest=guest, disks=disks):
            images = sorted({_leaning_on(disk.image, state) for disk in disks if disk.image})
            return Claim(exclusive=(outermost_missing(names.guest(guest), view),), shared=tuple(images))
        case DeleteGuestDisks(guest=guest):
            return Claim(exclusive=(names.guest(guest),))
        case _:
            assert_never(command)


def outermost_missing(name: str, view: View) -> str:
    """The subtree that making ``name`` brings into being: its first ancestor that is not there."""
    return next((above for above in names.ancestors(name) if above not in view), name)


def _leaning_on(image: str, state: State) -> str:
    record = state.images.get(image)
    return names.image(image) if record is None or record.snapshot is None else record.snapshot.name


# --- judging ---------------------------------------------------------------------


def decide(command: Command, state: State, view: View) -> Settled | Plan:
    """Judge a command whose claim is held. Raises what CONTRACT.md lists for it."""
    match command:
        case CreateVolume():
            return _create_volume(command, state, view)
        case CloneImage():
            return _clone_image(command, state, view)
        case DeleteDataset():
            return _delete_dataset(command, state, view)
        case DeleteImage():
            return _delete_image(command, state, view)
        case CreateSnapshot():
            return _create_snapshot(command, state, view)
        case DeleteSnapshot():
            return _delete_snapshot(command, state, view)
        case RollbackSnapshot():
            return _rollback_snapshot(command, state, view)
        case CreateGuestDisks():
            return _create_guest_disks(command, state, view)
        case DeleteGuestDisks():
            return _delete_guest_disks(command, view)
        case _:
            assert_never(command)


def guest_of(name: str) -> str:
    """The guest that a dataset belongs to by its name, "" if to none."""
    parts = name.split("/")
    return parts[1] if parts[0] == names.GUESTS and len(parts) > 1 else ""


def missing_parents(name: str, view: View) -> list[NewParent]:
    """Parents to be made, outermost first. Raises NotValid when one is no file system."""
    missing: list[NewParent] = []
    for above in names.ancestors(name):
        row = view.get(above)
        if row is None:
            missing.append(NewParent(name=above, guest=guest_of(above)))
        elif row.kind != "filesystem":
            raise NotValid(detail=f"{above} is a {row.kind}; nothing can be made below it")
    return missing


def check_free_name(name: str) -> None:
    """Raises NotValid unless ``name`` can be the name of a volume that no image is."""
    if "@" in name or name in ("", names.IMAGES, names.GUESTS):
        raise NotValid(detail=f"{name!r} cannot be the name of a volume")
    if names.is_within(name, names.IMAGES):
        raise NotValid(detail="images/ holds images only; ask for one with RequestImage")


def _create_volume(command: CreateVolume, state: State, view: View) -> Settled | Plan:
    check_free_name(command.name)
    row = view.get(command.name)
    if row is not None:
        if row.kind == "volume" and row.volsize == command.size and not row.origin:
            return Settled(rows=(row,))
        raise AlreadyExists.named(command.name, detail=what_is_there(row))
    blank = NewBlank(name=command.name, size_bytes=command.size, guest=guest_of(command.name))
    return Plan(
        method="CreateVolume",
        subject=command.name,
        intent=CreateIntent(datasets=(*missing_parents(command.name, view), blank)),
        reserve_bytes=command.size,
        answer=(command.name,),
    )


def what_is_there(row: Dataset) -> str:
    """For the detail of a refusal."""
    origin = f", a clone of {row.origin}" if row.origin else ""
    return (
        f"it is a {row.kind} of {row.volsize} bytes{origin}" if row.kind != "filesystem" else "a file system"
    )


def _clone_image(command: CloneImage, state: State, view: View) -> Settled | Plan:
    image = complete_image(command.image, state, view)
    if image is None:
        raise NotFound(detail=f"image {command.image}")
    check_free_name(command.name)
    row = view.get(command.name)
    if row is not None:
        if row.origin == image.snapshot.name:
            return Settled(rows=(row,))
        raise AlreadyExists.named(command.name, detail=what_is_there(row))
    clone = NewClone(
        name=command.name,
        origin=dataset_id(image.snapshot),
        size_bytes=image.snapshot.volsize,
        image=command.image,
        guest=guest_of(command.name),
    )
    return Plan(
        method="CloneImage",
        subject=command.name,
        intent=CreateIntent(datasets=(*missing_parents(command.name, view), clone)),
        reserve_bytes=image.snapshot.volsize,
        answer=(command.name,),
    )


def _check_not_protected(rows: Iterable[Dataset], state: State) -> None:
    """The store's own roots, and what an image consists of, go another way."""
    for row in rows:
        if row.name in ("", names.IMAGES, names.GUESTS):
            raise Blocked(f"dataset cannot be destroyed: {row.name or 'the pool'}", blockers=(row.name,))
        image = state.images.get(row.name.partition("@")[0].removeprefix(f"{names.IMAGES}/"))
        if image is not None and dataset_id(row) in (image.volume, image.snapshot):
            raise Blocked(
                f"dataset belongs to image {image.id}: {row.name}",
                blockers=(row.name,),
                detail="use DeleteImage",
            )


def _delete_dataset(command: DeleteDataset, state: State, view: View) -> Plan:
    row = existing(command.name, state, view)
    dataset, at, snapshot = row.name.partition("@")
    doomed = tuple(_same_snapshot(dataset, snapshot, view) if at else view.under(dataset))
    _check_not_protected(doomed, state)
    check_no_clones(doomed, view)
    return Plan(
        method="DeleteDataset",
        subject=row.name,
        intent=DestroyIntent(datasets=ids(doomed)),
        force=command.force,
        gone=(row,),
    )


def _delete_image(command: DeleteImage, state: State, view: View) -> Plan:
    record = state.images.get(command.image)
    if record is None:
        raise NotFound(detail=f"image {command.image}")
    if record.status == "pending":
        raise Blocked(f"image is being fetched: {command.image}", detail="wait until the fetch has ended")
    doomed: tuple[Dataset, ...] = ()
    volume = view.get(names.image(command.image))
    if volume is not None and (
        dataset_id(volume) == record.volume
        or state.owned(volume.name, volume.guid, volume.createtxg) is not None
    ):
        doomed = tuple(view.under(volume.name))
        check_no_clones(doomed, view, "image")
    return Plan(
        method="DeleteImage",
        subject=names.image(command.image),
        intent=DestroyIntent(datasets=ids(doomed), image=command.image),
        gone=doomed[:1],
    )


def _create_snapshot(command: CreateSnapshot, state: State, view: View) -> Plan:
    top = existing(command.name, state, view)
    if top.kind == "snapshot":
        raise InvalidArgument("cannot create a snapshot of a snapshot")
    names.check_snapshot_dest(command.snapshot)
    targets = [top]
    if command.recursive or is_guest(top):
        targets = [r for r in view.under(top.name) if r.kind != "snapshot" and is_visible(r, state)]
    wanted = [f"{row.name}@{command.snapshot}" for row in targets]
    for name in wanted:
        if name in view:
            raise AlreadyExists.named(name)
        names.parse(name, state.pool)
    return Plan(
        method="CreateSnapshot",
        subject=f"{top.name}@{command.snapshot}",
        intent=SnapshotIntent(datasets=ids(targets), snapshot=command.snapshot, guest=guest_of(top.name)),
        reserve_bytes=sum(_cost_of_snapshot(row) for row in targets),
        answer=tuple(wanted),
    )


def _cost_of_snapshot(row: Dataset) -> int:
    """A thick volume's snapshot needs what it refers to again; a sparse one's promise grows
    by what was written, for that may be written a second time."""
    if row.kind != "volume" or row.tags.kind == "image":
        return 0
    return row.written if row.sparse else row.referenced


def _snapshot_row(name: str, state: State, view: View) -> Dataset:
    row = existing(name, state, view)
    if row.kind != "snapshot":
        raise NotSnapshot(detail=f"{name} is a {row.kind}")
    return row


def _delete_snapshot(command: DeleteSnapshot, state: State, view: View) -> Plan:
    row = _snapshot_row(command.name, state, view)
    dataset, _, snapshot = row.name.partition("@")
    doomed = [row]
    above = view.get(dataset)
    if command.recursive or (above is not None and is_guest(above)):
        doomed = _same_snapshot(dataset, snapshot, view)
    _check_not_protected(doomed, state)
    check_no_clones(doomed, view)
    return Plan(
        method="DeleteSnapshot",
        subject=row.name,
        intent=DestroyIntent(datasets=ids(doomed)),
        gone=tuple(doomed),
    )


def _same_snapshot(dataset: str, snapshot: str, view: View) -> list[Dataset]:
    return [r for r in view.under(dataset) if r.kind == "snapshot" and r.name.endswith(f"@{snapshot}")]


def _rollback_snapshot(command: RollbackSnapshot, state: State, view: View) -> Plan:
    row = _snapshot_row(command.name, state, view)
    dataset, _, snapshot = row.name.partition("@")
    above = view.get(dataset)
    assert above is not None, "a snapshot has a dataset"
    targets = [row]
    newer = _newer_than(row, view)
    if is_guest(above):
        disks = {r.name for r in view.under(dataset) if r.kind == "volume"}
        targets = [r for r in _same_snapshot(dataset, snapshot, view) if names.parent(r.name) in disks]
        missing = disks - {names.parent(t.name) for t in targets}
        if missing:
            raise Blocked(
                f"snapshot {snapshot} does not cover: {', '.join(sorted(missing))}", blockers=sorted(missing)
            )
        newer += [n for target in targets for n in _newer_than(target, view)]
    if newer and not command.destroy_more_recent:
        raise NewerSnapshots.named([n.name for n in newer])
    _check_not_protected(newer, state)
    check_no_clones(newer, view)
    volumes = [v for target in targets if (v := view.get(names.parent(target.name))) is not None]
    return Plan(
        method="RollbackSnapshot",
        subject=row.name,
        intent=RollbackIntent(snapshots=ids(targets), volumes=ids(volumes), newer=ids(newer)),
        force=command.force,
        answer=(row.name,),
    )


def _newer_than(snapshot: Dataset, view: View) -> list[Dataset]:
    siblings = view.snapshots(names.parent(snapshot.name))
    return [s for s in siblings if s.createtxg > snapshot.createtxg]


def _create_guest_disks(command: CreateGuestDisks, state: State, view: View) -> Settled | Plan:
    sizes = disk_sizes(command.disks, state, view)
    wanted: list[NewDataset] = []
    answer = []
    reserve = 0
    for number, (disk, size) in enumerate(zip(command.disks, sizes, strict=True)):
        new = _new_disk(command.guest, number, disk, size, state, view)
        answer.append(new.name)
        row = view.get(new.name)
        if row is None:
            wanted.append(new)
            reserve += size
        elif not _is_same_disk(row, new):
            raise AlreadyExists.named(new.name, detail=what_is_there(row))
    if not wanted:
        return Settled(rows=tuple(row for name in answer if (row := view.get(name)) is not None))
    return Plan(
        method="CreateGuestDisks",
        subject=names.guest(command.guest),
        intent=CreateIntent(datasets=(*missing_parents(answer[0], view), *wanted)),
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


def _delete_guest_disks(command: DeleteGuestDisks, view: View) -> Settled | Plan:
    doomed = tuple(view.under(names.guest(command.guest)))
    if not doomed:
        return Settled()
    check_no_clones(doomed, view)
    return Plan(
        method="DeleteGuestsDisks",
        subject=names.guest(command.guest),
        intent=DestroyIntent(datasets=ids(doomed)),
        force=command.force,
    )
