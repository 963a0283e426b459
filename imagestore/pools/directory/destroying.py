"""Destroying datasets, and rolling volumes back, in a directory pool.

Both take something away: writers are kept out with leases from the check to
the commit, rows go before files, and what the links showed changes after the
commit.
"""

from collections.abc import Sequence
from functools import partial

import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore.pools.base import Dataset, Target
from imagestore.pools.directory import rules
from imagestore.pools.directory.ground import Ground
from imagestore.pools.directory.groupcommit import Step
from imagestore.pools.inuse import Leases


async def destroy(ground: Ground, targets: Sequence[Target], force: bool) -> None:
    """See ``PoolDriver.destroy``."""
    async with ground.turn(targets), ground.leased() as leases:
        await ground.work("destroying datasets", partial(_check_destroy, ground, targets, leases, force))
        with trio.CancelScope(shield=True):
            files = await ground.change_even_if_full(partial(_record_destroy, ground, targets, leases))
            await ground.remove(files)


def _check_destroy(ground: Ground, targets: Sequence[Target], leases: Leases, force: bool) -> None:
    with ground.catalog.lock:
        entries = rules.check_destroy(ground.catalog, targets, ground.held)
    if not force:
        ground.lease([entry for entry in entries if entry.dataset.kind == "volume"], leases)


def _record_destroy(ground: Ground, targets: Sequence[Target], leases: Leases, step: Step) -> list[str]:
    leases.check_intact([target.name for target in targets])
    entries = rules.check_destroy(step.catalog, targets, ground.held)
    for entry in entries:
        step.catalog.delete(entry)
        ground.forget(entry.dataset.createtxg)
    gone = [entry.dataset.name for entry in entries if entry.dataset.kind != "snapshot"]
    step.after.append(lambda: ground.tree.remove(gone))
    return [entry.file for entry in entries if entry.file]


class _RolledBack(Struct, frozen=True):
    datasets: tuple[Dataset, ...]
    old_files: tuple[str, ...]


async def rollback(
    ground: Ground, snapshots: Sequence[Target], destroy: Sequence[Target], operation: str, force: bool
) -> Sequence[Dataset]:
    """See ``PoolDriver.rollback``."""
    volumes = await ground.look("looking up volumes", partial(_volumes, ground, snapshots))
    async with ground.turn(volumes), ground.leased() as leases, ground.new_files() as made:
        prepare = partial(_make_files, ground, snapshots, destroy, leases, force, made)
        files = await ground.copying("rolling back", prepare)
        with trio.CancelScope(shield=True):
            record = partial(_record_rollback, ground, snapshots, destroy, operation, leases, files)
            done = await ground.change(record, made)
            await ground.remove(done.old_files)
        return done.datasets


def _volumes(ground: Ground, snapshots: Sequence[Target]) -> list[Target]:
    """The datasets that the snapshots are of."""
    for target in snapshots:
        ground.catalog.require(target)
    return [ground.existing(target.name.partition("@")[0]).dataset.target for target in snapshots]


def _make_files(
    ground: Ground,
    snapshots: Sequence[Target],
    destroy: Sequence[Target],
    leases: Leases,
    force: bool,
    made: list[str],
) -> list[str]:
    """The new data file of each dataset, "" for a file system."""
    with ground.catalog.lock:
        plans, _ = rules.check_rollback(ground.catalog, snapshots, destroy, ground.held)
    if not force:
        ground.lease([plan.dataset for plan in plans], leases)
    files = []
    for plan in plans:
        file = ""
        if plan.snapshot.file:
            ground.tree.check_free(plan.dataset.dataset.name, directory=False)
            file = ground.copy(plan.snapshot, made)
            if not plan.dataset.dataset.sparse:
                file = ground.thicken(file, made)
            ground.files.take_rights(file, plan.dataset.file)
        files.append(file)
    ground.checkpoint("files made")
    return files


def _record_rollback(
    ground: Ground,
    snapshots: Sequence[Target],
    destroy: Sequence[Target],
    operation: str,
    leases: Leases,
    files: Sequence[str],
    step: Step,
) -> _RolledBack:
    leases.check_intact([target.name for target in snapshots])
    plans, doomed = rules.check_rollback(step.catalog, snapshots, destroy, ground.held)
    datasets: list[Dataset] = []
    old: list[str] = []
    for plan, file in zip(plans, files, strict=True):
        datasets.append(_swap(ground, plan, file, operation, step))
        if plan.dataset.file:
            old.append(plan.dataset.file)
    for entry in doomed:
        step.catalog.delete(entry)
        if entry.file:
            old.append(entry.file)
    return _RolledBack(tuple(datasets), tuple(old))


def _swap(ground: Ground, plan: rules.Rollback, file: str, operation: str, step: Step) -> Dataset:
    """Give a dataset the new data file, and the tag that says which operation did it."""
    before = plan.dataset.dataset
    dataset = replace(
        before, volsize=plan.snapshot.dataset.volsize, tags=replace(before.tags, last=operation)
    )
    return ground.replace_file(plan.dataset, dataset, file, step)
