"""What a directory pool permits: the decisions, apart from the effects.

Each function looks at the catalog and either returns what is to be changed or
raises the refusal.  The driver asks twice: before it makes data files, so that
a refusal costs nothing, and inside the transaction, where the answer counts.
"""

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from imagestore import names
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    HasClones,
    Held,
    InvalidArgument,
    NewerSnapshots,
    NotFound,
    NotSnapshot,
    NotValid,
    NotVolume,
)
from imagestore.pools.base import Creation, Kind, NewClone, NewFilesystem, NewVolume, Target
from imagestore.pools.directory.catalog import Catalog, Entry
from imagestore.pools.directory.links import check_name

MAX_SIZE_BYTES = (1 << 63) - 512
"""The largest volume, if the file system takes it (off_t)."""

SECTOR_BYTES = 512


def check_size(size: int) -> None:
    """Raises InvalidArgument unless ``size``, in bytes, can be a volume's."""
    if size <= 0 or size % SECTOR_BYTES or size > MAX_SIZE_BYTES:
        raise InvalidArgument(
            detail=f"a volume's size is a multiple of {SECTOR_BYTES} from {SECTOR_BYTES} to {MAX_SIZE_BYTES}"
            f" bytes, not {size}"
        )


def check_new(catalog: Catalog, name: str, coming: Mapping[str, Kind]) -> None:
    """Whether a dataset may be made as ``name``; ``coming`` are those made before it in the same step.

    Raises NotValid, AlreadyExists, NotFound (parent).
    """
    if name in coming or (not name or catalog.find(name) is not None):
        raise AlreadyExists.named(name)
    check_name(name)
    parent = names.parent(name)
    kind = coming.get(parent)
    if kind is None:
        entry = catalog.find(parent)
        if entry is None:
            raise NotFound(detail=f"{parent}, which {name} would be in, does not exist")
        kind = entry.dataset.kind
    if kind != "filesystem":
        raise NotValid(detail=f"{parent} is a {kind} and holds no other datasets")


def check_creations(catalog: Catalog, creations: Sequence[Creation]) -> list[Entry | None]:
    """Returns the origin of each creation that is a clone.

    Raises InvalidArgument (size), NotValid, AlreadyExists, NotFound, NotSnapshot, NotVolume.
    """
    coming: dict[str, Kind] = {}
    origins: list[Entry | None] = []
    for creation in creations:
        check_new(catalog, creation.name, coming)
        coming[creation.name] = "filesystem" if isinstance(creation, NewFilesystem) else "volume"
        if isinstance(creation, NewVolume):
            check_size(creation.size)
        origins.append(check_origin(catalog, creation.origin) if isinstance(creation, NewClone) else None)
    return origins


def check_origin(catalog: Catalog, target: Target) -> Entry:
    """Returns the snapshot that a clone is made of. Raises NotFound, NotSnapshot, NotVolume."""
    origin = catalog.require(target)
    if origin.dataset.kind != "snapshot":
        raise NotSnapshot(detail=f"{target.name}: clones are made of snapshots")
    if not origin.file:
        raise NotVolume(detail=f"{target.name} is a file system's snapshot")
    return origin


def check_snapshot(catalog: Catalog, targets: Sequence[Target], snapshot: str) -> list[Entry]:
    """Returns the datasets to snapshot.  Raises InvalidArgument, NotFound, AlreadyExists."""
    entries = [catalog.require(target) for target in targets]
    for entry in entries:
        if entry.dataset.kind == "snapshot":
            raise InvalidArgument("cannot create a snapshot of a snapshot")
    if len({entry.dataset.createtxg for entry in entries}) != len(entries):
        raise InvalidArgument(detail="a dataset is named twice")
    for entry in entries:
        name = f"{entry.dataset.name}@{snapshot}"
        check_name(name)
        if catalog.find(name) is not None:
            raise AlreadyExists.named(name)
    return entries


def check_destroy(catalog: Catalog, targets: Sequence[Target], held: Collection[int]) -> list[Entry]:
    """Returns what is to go.  ``held`` are the createtxgs of snapshots being sent.

    Raises NotFound, Blocked (the root; children that stay), HasClones, Held.
    """
    entries = [catalog.require(target) for target in targets]
    going = {entry.dataset.createtxg for entry in entries}
    if any(entry.dataset.name == "" for entry in entries):
        raise Blocked("the pool's root cannot be destroyed")
    staying = sorted(
        {
            child.dataset.name
            for entry in entries
            if entry.dataset.kind != "snapshot"
            for child in catalog.subtree(entry.dataset.name)
            if child.dataset.createtxg not in going
        }
    )
    if staying:
        raise Blocked(f"dataset has children: {', '.join(staying)}", blockers=staying)
    _check_free(catalog, entries, going, held)
    return entries


def _check_free(catalog: Catalog, entries: Sequence[Entry], going: set[int], held: Collection[int]) -> None:
    snapshots = [entry for entry in entries if entry.dataset.kind == "snapshot"]
    clones = sorted(
        {
            clone.dataset.name
            for entry in snapshots
            for clone in catalog.clones(entry)
            if clone.dataset.createtxg not in going
        }
    )
    if clones:
        raise HasClones.of("snapshot", clones)
    holding = sorted(entry.dataset.name for entry in snapshots if entry.dataset.createtxg in held)
    if holding:
        raise Held.named(holding)


def check_onto(catalog: Catalog, volume: Target, base: Target) -> tuple[Entry, Entry]:
    """Returns the volume that a stream goes onto and its newest snapshot, which must be ``base``.

    Raises NotFound, NotVolume, Blocked (it is not the newest).
    """
    entry = catalog.require(volume)
    if entry.dataset.kind != "volume":
        raise NotVolume(detail=volume.name)
    snapshots = catalog.snapshots(volume.name)
    newest = snapshots[-1] if snapshots else None
    if newest is None or newest.dataset.identity != base.identity:
        name = newest.dataset.name if newest is not None else "none"
        raise Blocked(
            f"most recent snapshot of {volume.name} is not the stream's base: {name}", blockers=(name,)
        )
    return entry, newest


class Rollback(Struct, frozen=True, kw_only=True):
    """One dataset, and the snapshot it goes back to."""

    dataset: Entry
    snapshot: Entry


def check_rollback(
    catalog: Catalog, snapshots: Sequence[Target], destroy: Sequence[Target], held: Collection[int]
) -> tuple[list[Rollback], list[Entry]]:
    """Returns what goes back to what, and the snapshots that are destroyed.

    Raises NotFound, NotSnapshot, InvalidArgument (two snapshots of one
    dataset), NewerSnapshots, HasClones, Held.
    """
    doomed = [_snapshot(catalog, target) for target in destroy]
    destroyed = {entry.dataset.createtxg for entry in doomed}
    plans = [_plan_rollback(catalog, _snapshot(catalog, target)) for target in snapshots]
    if len({plan.dataset.dataset.createtxg for plan in plans}) != len(plans):
        raise InvalidArgument(detail="two snapshots of one dataset")
    newer = [entry.dataset for plan in plans for entry in _newer(catalog, plan.snapshot)]
    unnamed = [dataset.name for dataset in newer if dataset.createtxg not in destroyed]
    if unnamed:
        raise NewerSnapshots.named(unnamed)
    _check_free(catalog, doomed, destroyed, held)
    return plans, doomed


def _snapshot(catalog: Catalog, target: Target) -> Entry:
    entry = catalog.require(target)
    if entry.dataset.kind != "snapshot":
        raise NotSnapshot(detail=entry.dataset.name)
    return entry


def _plan_rollback(catalog: Catalog, snapshot: Entry) -> Rollback:
    dataset = catalog.find(names.parent(snapshot.dataset.name))
    assert dataset is not None, "a snapshot without its dataset"
    return Rollback(dataset=dataset, snapshot=snapshot)


def _newer(catalog: Catalog, snapshot: Entry) -> list[Entry]:
    return [
        entry
        for entry in catalog.snapshots(names.parent(snapshot.dataset.name))
        if entry.dataset.createtxg > snapshot.dataset.createtxg
    ]


def check_rename(catalog: Catalog, target: Target, name: str) -> list[tuple[Entry, str]]:
    """Returns what moves, with the new names, in the order of ``zfs list``.

    Raises NotFound, AlreadyExists, NotValid, InvalidArgument.
    """
    entry = catalog.require(target)
    if entry.dataset.name == "":
        raise InvalidArgument(detail="the pool's root has no other name")
    if entry.dataset.kind == "snapshot":
        if names.parent(name) != names.parent(target.name) or "@" not in name:
            raise InvalidArgument(detail="a snapshot stays with its dataset")
        check_name(name)
        if catalog.find(name) is not None:
            raise AlreadyExists.named(name)
        return [(entry, name)]
    if "@" in name or name.startswith(f"{target.name}/"):
        raise InvalidArgument(detail=f"{target.name} cannot become {name}")
    check_new(catalog, name, {})
    return [(moved, name + moved.dataset.name[len(target.name) :]) for moved in catalog.subtree(target.name)]
