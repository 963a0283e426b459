"""Snapshots of a directory pool: copies of several disks at one instant.

Owns the question when copies made one after the other are still of one
instant: when nobody could write between the first and the last (all are
leased), or when nobody did (no modification time has moved).
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore.errors import InUse, NotFound
from imagestore.pools.base import Dataset, Tags, Target
from imagestore.pools.directory import rules
from imagestore.pools.directory.catalog import Catalog, Entry
from imagestore.pools.directory.datafile import SNAPSHOT_MODE, DataFiles, changed_bytes, extents
from imagestore.pools.directory.ground import Ground, seen_writers
from imagestore.pools.directory.groupcommit import Step
from imagestore.pools.inuse import Leases

_TRIES = 20
_PAUSE_SECONDS = 0.03

CLOCK_TICK_NS = 20_000_000
"""Kernels before 6.13 date writes by a clock that ticks every 1 to 10 ms: what was
written less than two ticks ago could be written again without its date moving."""


class Copy(Struct, frozen=True, kw_only=True):
    """The data file made of ``source``, "" for a file system.

    ``allocated`` and ``written`` in bytes, see ``pools/directory.py``.
    """

    source: Entry
    file: str
    allocated: int
    written: int


async def snapshot(ground: Ground, volumes: Sequence[Target], snapshot: str, tags: Tags) -> Sequence[Dataset]:
    """See ``PoolDriver.snapshot``."""
    async with ground.turn(volumes), ground.new_files() as made:
        copies = await _copy_at_one_instant(ground, volumes, snapshot, made)
        return await ground.change(partial(_record, ground, snapshot, tags, copies), made)


async def _copy_at_one_instant(
    ground: Ground, volumes: Sequence[Target], snapshot: str, made: list[str]
) -> list[Copy]:
    attempt = partial(
        _copy,
        ground.catalog,
        ground.files,
        volumes,
        snapshot,
        made=made,
        progress=trio.from_thread.check_cancelled,
    )
    for _ in range(_TRIES):
        copies = await ground.copying("copying disks", attempt)
        if copies is not None:
            if not ground.files.reflink or all(copy.source.dataset.sparse for copy in copies):
                await ground.look("copying disks", partial(ground.checkpoint, "files made"))
                return copies
            return await ground.copying("copying disks", partial(_set_apart, ground, copies, made))
        await trio.sleep(_PAUSE_SECONDS)
    raise InUse(
        f"disks are being written, no common instant found: {', '.join(v.name for v in volumes)}",
        detail="pause the guest while it is snapshotted",
    )


def _set_apart(ground: Ground, copies: Sequence[Copy], made: list[str]) -> list[Copy]:
    """Take the copies of thick volumes from their blocks: a volume that shares them would need others
    as soon as it is written, and its room was promised."""
    apart = []
    for copy in copies:
        if copy.file and not copy.source.dataset.sparse:
            file = ground.set_apart(copy.file, made, mode=SNAPSHOT_MODE)
            allocated = ground.files.allocated(file)
            copy = replace(copy, file=file, allocated=allocated, written=allocated)
        apart.append(copy)
    ground.checkpoint("files made")
    return apart


def _record(
    ground: Ground, snapshot: str, tags: Tags, copies: Sequence[Copy], step: Step
) -> Sequence[Dataset]:
    rules.check_snapshot(step.catalog, [copy.source.dataset.target for copy in copies], snapshot)
    taken = []
    for copy in copies:
        source = copy.source
        current = step.catalog.require(source.dataset.target)
        if current.file != source.file or current.dataset.volsize != source.dataset.volsize:
            raise NotFound(detail=f"{source.dataset.name} was changed while it was snapshotted")
        dataset = replace(
            ground.new_dataset(f"{source.dataset.name}@{snapshot}", "snapshot", tags),
            volsize=source.dataset.volsize,
            written=copy.written,
            referenced=copy.allocated,
        )
        entry = Entry(dataset=dataset, file=copy.file, block_size=source.block_size)
        taken.append(step.catalog.insert(entry).dataset)
        thick = source.file and not source.dataset.sparse
        ground.rebase(current, ground.files.allocated(source.file) if thick else copy.allocated, step)
    return taken


def _copy(
    catalog: Catalog,
    files: DataFiles,
    targets: Sequence[Target],
    snapshot: str,
    *,
    made: list[str],
    progress: Callable[[], None],
) -> list[Copy] | None:
    """Copy all volumes among ``targets`` as they are at one instant.

    The new files' names are added to ``made``.  None: a disk was written
    between the copies, which are gone again; another try may be luckier.

    Raises what rules.check_snapshot raises, InUse, OSError.
    """
    with catalog.lock:
        entries = rules.check_snapshot(catalog, targets, snapshot)
        bases = {entry.dataset.createtxg: _base(catalog, entry) for entry in entries}
    volumes = [entry for entry in entries if entry.file]
    with closing(_ReleasedLeases()) as leases:
        open_paths = _open_paths(files, volumes, leases)
        quiet_since = _modification_times(open_paths) if len(volumes) > 1 else {}
        if any(time.time_ns() - modified < CLOCK_TICK_NS for modified in quiet_since.values()):
            return None
        copied: dict[int, str] = {}
        for entry in volumes:
            file = files.copy(entry.file, mode=SNAPSHOT_MODE, progress=progress)
            made.append(file)
            copied[entry.dataset.createtxg] = file
        if _modification_times(list(quiet_since)) != quiet_since:
            files.remove(made)
            made.clear()
            return None
        if not files.reflink:
            leases.check_intact([entry.dataset.name for entry in volumes])
    return [
        _measured(files, entry, copied.get(entry.dataset.createtxg, ""), bases[entry.dataset.createtxg])
        for entry in entries
    ]


class _ReleasedLeases(Leases):
    def close(self) -> None:
        self.release()


def _open_paths(files: DataFiles, volumes: Sequence[Entry], leases: Leases) -> list[str]:
    """Lease what can be leased; returns the paths that somebody has open for writing."""
    open_paths = []
    for entry in volumes:
        path = files.path(entry.file)
        if leases.take(path):
            continue
        if not files.reflink:
            raise InUse.by(entry.dataset.name, seen_writers(path))
        open_paths.append(path)
    return open_paths


def _modification_times(paths: Sequence[str]) -> dict[str, int]:
    return {path: os.stat(path).st_mtime_ns for path in paths}


def _base(catalog: Catalog, volume: Entry) -> Entry | None:
    """What a new snapshot's ``written`` counts from: the snapshot before it, or the origin."""
    snapshots = catalog.snapshots(volume.dataset.name)
    if snapshots:
        return snapshots[-1]
    return None if volume.origin_txg is None else catalog.by_txg(volume.origin_txg)


def _measured(files: DataFiles, source: Entry, file: str, base: Entry | None) -> Copy:
    if not file:
        return Copy(source=source, file="", allocated=0, written=0)
    allocated = files.allocated(file)
    written = allocated
    if files.reflink and base is not None:
        written = changed_bytes(extents(files.path(base.file)), extents(files.path(file)))
    return Copy(source=source, file=file, allocated=allocated, written=written)
