"""Decisions: what a command means for this state and this pool.

Pure functions of (command, state, view).  ``claim_of`` says what a command
must hold before it may be judged; ``decide`` judges it: it raises a refusal,
or returns :class:`Settled` (it is so already) or :class:`Plan` (what to
journal as the intent).  Nothing here waits, writes or knows trio.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

from imagestore import names
from imagestore.actors import adoption, guestdisks, imagedecisions, sources, tokens
from imagestore.actors.claims import Claim
from imagestore.actors.commands import (
    Adopt,
    CloneImage,
    Command,
    CreateGuestDisks,
    CreateSnapshot,
    CreateToken,
    CreateVolume,
    DeleteDataset,
    DeleteGuestDisks,
    DeleteImage,
    DeleteSnapshot,
    PublishImage,
    ReapImage,
    RegisterSource,
    Release,
    RemoveAlias,
    RemoveSource,
    ResizeVolume,
    ReviveImage,
    RevokeToken,
    RollbackSnapshot,
    SetAlias,
)
from imagestore.actors.plans import (
    Plan,
    Settled,
    check_no_clones,
    complete_image,
    dataset_id,
    existing,
    guest_of,
    ids,
    is_guest,
    is_visible,
    missing_parents,
    outermost_missing,
    what_is_there,
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
    NotVolume,
)
from imagestore.events.catalogue import (
    CreateIntent,
    DestroyIntent,
    NewBlank,
    NewClone,
    ResizeIntent,
    RollbackIntent,
    SnapshotIntent,
)
from imagestore.events.state import State
from imagestore.pools.base import Dataset
from imagestore.tokens import principal_of

# --- claims ----------------------------------------------------------------------


def claim_of(command: Command, state: State, view: View) -> Claim:
    """What ``command`` changes (exclusive) and leans on (shared), as the pool is now."""
    match command:
        case CreateVolume(name=name):
            return Claim(exclusive=(outermost_missing(name, view),))
        case CloneImage(name=name, image=image):
            return Claim(exclusive=(outermost_missing(name, view),), shared=(_leaning_on(image, state),))
        case ResizeVolume(name=name):
            return Claim(exclusive=(name,))
        case DeleteDataset(name=name):
            return Claim(exclusive=(name.partition("@")[0],))
        case DeleteImage(image=image) | ReapImage(image=image) | ReviveImage(image=image):
            return Claim(exclusive=(names.image(image),))
        case PublishImage(image=image):
            return Claim(exclusive=(names.image(image),))
        case SetAlias(alias=alias, image=image):
            return Claim(exclusive=(names.image(alias),), shared=(names.image(image),))
        case RemoveAlias(alias=alias):
            return Claim(exclusive=(names.image(alias),))
        case RegisterSource(image=image) | RemoveSource(image=image):
            return Claim(exclusive=(names.image(image),))
        case CreateToken(name=name) | RevokeToken(name=name):
            return Claim(exclusive=(principal_of(name),))
        case CreateSnapshot(name=name):
            return Claim(exclusive=_all_of(name, state, view))
        case DeleteSnapshot(name=name) | RollbackSnapshot(name=name):
            return Claim(exclusive=_all_of(names.parent(name), state, view))
        case CreateGuestDisks(guest=guest, disks=disks):
            images = sorted({_leaning_on(disk.image, state) for disk in disks if disk.image})
            inside, *elsewhere = guestdisks.subtrees(guest, state, view)
            return Claim(exclusive=(outermost_missing(inside, view), *elsewhere), shared=tuple(images))
        case DeleteGuestDisks(guest=guest):
            return Claim(exclusive=guestdisks.subtrees(guest, state, view))
        case Adopt():
            return adoption.claim_of_adoption(command, view)
        case Release(name=name):
            return Claim(exclusive=(name,))
        case _:
            assert_never(command)


def _all_of(dataset: str, state: State, view: View) -> tuple[str, ...]:
    """The subtrees that a change of ``dataset`` may reach: of a guest, wherever its disks stand."""
    row = view.get(dataset)
    if row is not None and is_guest(row):
        return guestdisks.subtrees(guest_of(dataset), state, view)
    return (dataset,)


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
        case ResizeVolume():
            return _resize_volume(command, state, view)
        case DeleteDataset():
            return _delete_dataset(command, state, view)
        case DeleteImage():
            return imagedecisions.delete_image(command, state, view)
        case ReapImage():
            return imagedecisions.reap_image(command, state, view)
        case ReviveImage():
            return imagedecisions.revive_image(command, state, view)
        case PublishImage():
            return imagedecisions.publish_image(command, state, view)
        case SetAlias():
            return imagedecisions.set_alias(command, state, view)
        case RemoveAlias():
            return imagedecisions.remove_alias(command, state)
        case RegisterSource():
            return sources.register_source(command, state)
        case RemoveSource():
            return sources.remove_source(command, state)
        case CreateToken():
            return tokens.create_token(command, state)
        case RevokeToken():
            return tokens.revoke_token(command, state)
        case CreateSnapshot():
            return _create_snapshot(command, state, view)
        case DeleteSnapshot():
            return _delete_snapshot(command, state, view)
        case RollbackSnapshot():
            return _rollback_snapshot(command, state, view)
        case CreateGuestDisks():
            return guestdisks.create_guest_disks(command, state, view)
        case DeleteGuestDisks():
            return guestdisks.delete_guest_disks(command, state, view)
        case Adopt():
            return adoption.adopt(command, state, view)
        case Release():
            return adoption.release(command, state, view)
        case _:
            assert_never(command)


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
        is_same = row.volsize == command.size and not (command.thick and row.sparse)
        if row.kind == "volume" and is_same and not row.origin:
            return Settled(rows=(row,))
        raise AlreadyExists.named(command.name, detail=what_is_there(row))
    blank = NewBlank(
        name=command.name, size_bytes=command.size, guest=guest_of(command.name), thick=command.thick
    )
    return Plan(
        method="CreateVolume",
        subject=command.name,
        intent=CreateIntent(datasets=(*missing_parents(command.name, view), blank)),
        reserve_bytes=thick_bytes(command.size) if command.thick else command.size,
        answer=(command.name,),
    )


def _resize_volume(command: ResizeVolume, state: State, view: View) -> Settled | Plan:
    check_free_name(command.name)
    row = existing(command.name, state, view)
    if row.kind != "volume":
        raise NotVolume(detail=f"{row.name} is a {row.kind}")
    if row.volsize == command.size:
        return Settled(rows=(row,))
    if command.size < row.volsize:
        raise InvalidArgument(
            f"volume is larger: {row.name}",
            detail=f"it has {row.volsize} bytes; a smaller size would cut off data",
        )
    more = command.size - row.volsize
    return Plan(
        method="ResizeVolume",
        subject=row.name,
        intent=ResizeIntent(volume=dataset_id(row), size_bytes=command.size),
        reserve_bytes=more if row.sparse else thick_bytes(more),
        answer=(row.name,),
    )


def thick_bytes(size: int) -> int:
    """The most that a thick volume of ``size`` bytes sets aside, metadata included, in bytes."""
    return size + size // 32 + (4 << 20)


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
    imagedecisions.check_not_retired(command.image, state)
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


def _create_snapshot(command: CreateSnapshot, state: State, view: View) -> Plan:
    top = existing(command.name, state, view)
    if top.kind == "snapshot":
        raise InvalidArgument("cannot create a snapshot of a snapshot")
    names.check_snapshot_dest(command.snapshot)
    targets = [top]
    if command.recursive or is_guest(top):
        targets = [r for r in _below(top, state, view) if r.kind != "snapshot"]
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


def _below(top: Dataset, state: State, view: View) -> Sequence[Dataset]:
    """A dataset and all below it; of a guest, its disks elsewhere, too."""
    if is_guest(top):
        return guestdisks.whole(guest_of(top.name), state, view)
    return [row for row in view.under(top.name) if is_visible(row, state)]


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
    if above is not None and (command.recursive or is_guest(above)):
        doomed = _of_snapshot(_below(above, state, view), snapshot)
    _check_not_protected(doomed, state)
    check_no_clones(doomed, view)
    return Plan(
        method="DeleteSnapshot",
        subject=row.name,
        intent=DestroyIntent(datasets=ids(doomed)),
        gone=tuple(doomed),
    )


def _same_snapshot(dataset: str, snapshot: str, view: View) -> list[Dataset]:
    return _of_snapshot(view.under(dataset), snapshot)


def _of_snapshot(rows: Iterable[Dataset], snapshot: str) -> list[Dataset]:
    return [row for row in rows if row.kind == "snapshot" and row.name.endswith(f"@{snapshot}")]


def _rollback_snapshot(command: RollbackSnapshot, state: State, view: View) -> Plan:
    row = _snapshot_row(command.name, state, view)
    dataset, _, snapshot = row.name.partition("@")
    above = view.get(dataset)
    assert above is not None, "a snapshot has a dataset"
    targets = [row]
    newer = _newer_than(row, view)
    if is_guest(above):
        everything = _below(above, state, view)
        disks = {r.name for r in everything if r.kind == "volume"}
        targets = [r for r in _of_snapshot(everything, snapshot) if names.parent(r.name) in disks]
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
