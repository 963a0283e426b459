"""Receiving a stream onto a volume of a directory pool: a new state of it, with new snapshots.

The stream is applied to a copy of the base, the volume's newest snapshot; one
transaction gives the copy to the volume and adds the snapshots.  What was
written to the volume since its base would be lost by that, so it must be
nothing, unless the caller forces it.  That is looked for twice: before the
stream comes, so that a refusal costs little, and before the commit, with
writers kept out by a lease, where the answer counts; the second look only
reads what was touched since the first.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore.errors import AlreadyExists, Modified, NotFound
from imagestore.pools.base import Dataset, Receiver, Tags, Target
from imagestore.pools.directory import rules
from imagestore.pools.directory.catalog import Entry
from imagestore.pools.directory.datafile import changed_bytes, extents, same_content
from imagestore.pools.directory.ground import Ground
from imagestore.pools.directory.groupcommit import Step
from imagestore.pools.directory.receiving import (
    Arrived,
    open_copy,
    reception,
    record_snapshots,
    snapshot_info,
)
from imagestore.pools.directory.sinks import StreamSink
from imagestore.pools.directory.snapshotting import CLOCK_TICK_NS
from imagestore.pools.inuse import Leases


@asynccontextmanager
async def receive_onto(
    ground: Ground, volume: Target, base: Target, snapshot_tags: Tags, operation: str, force: bool
) -> AsyncIterator[Receiver]:
    """See ``PoolDriver.receive_onto``."""
    onto = _Onto(ground, volume, base, snapshot_tags, operation, force)
    await ground.work("receiving onto a volume", onto.check)
    async with reception(ground, onto, partial(StreamSink, snapshot_info(ground, onto.base))) as receiver:
        yield receiver


class _Seen(Struct, frozen=True):
    """A data file at a moment at which it was found to have its snapshot's content."""

    file: str
    modified_ns: int
    size: int


class _Onto:
    """The destination that is a volume with a newest snapshot."""

    base: Entry

    def __init__(
        self, ground: Ground, volume: Target, base: Target, snapshot_tags: Tags, operation: str, force: bool
    ) -> None:
        self._ground = ground
        self._volume = volume
        self._base = base
        self._snapshot_tags = snapshot_tags
        self._operation = operation
        self._force = force
        self._seen: _Seen | None = None

    def check(self) -> None:
        """Find the base, and whether the volume still has its content; in a worker thread.

        Raises NotFound, NotVolume, Blocked, InUse, Modified.
        """
        with self._ground.catalog.lock:
            volume, self.base = rules.check_onto(self._ground.catalog, self._volume, self._base)
        self._ground.tree.check_free(volume.dataset.name, directory=False)
        if not self._force:
            leases = Leases()
            try:
                self._ground.lease([volume], leases)
            finally:
                leases.release()
            self._check_unmodified(volume)

    def begin(self, made: list[str]) -> int:
        return open_copy(self._ground, self.base, made)

    async def publish(self, arrived: Arrived) -> tuple[Dataset, ...]:
        ground = self._ground
        async with ground.turn([self._volume]), ground.leased() as leases:
            volume, file = await ground.work("receiving onto a volume", partial(self._take, arrived, leases))
            arrived = replace(arrived, file=file)
            with trio.CancelScope(shield=True):
                record = partial(self._record, arrived, volume, leases)
                datasets = await ground.change(record, arrived.made)
                await ground.remove([volume.file])
            return datasets

    def _take(self, arrived: Arrived, leases: Leases) -> tuple[Entry, str]:
        """The volume as it is to be replaced, writers kept away from it, and its new data file."""
        with self._ground.catalog.lock:
            volume, _ = rules.check_onto(self._ground.catalog, self._volume, self._base)
        if not self._force:
            self._ground.lease([volume], leases)
            self._check_unmodified(volume)
        file = arrived.file
        if not volume.dataset.sparse:
            file = self._ground.thicken(file, arrived.made)
        self._ground.files.take_rights(file, volume.file)
        return volume, file

    def _check_unmodified(self, volume: Entry) -> None:
        """Raises Modified."""
        began_ns = time.time_ns()
        status = os.stat(self._ground.files.path(volume.file))
        seen = _Seen(volume.file, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        if not self._has_content_of_base(volume):
            raise Modified.since(volume.dataset.name, self.base.dataset.name)
        # What is written this very moment may leave the date as it is.
        self._seen = seen if began_ns - seen.modified_ns > CLOCK_TICK_NS else None

    def _has_content_of_base(self, volume: Entry) -> bool:
        if volume.dataset.volsize != self.base.dataset.volsize:
            return False
        files = self._ground.files
        paths = files.path(self.base.file), files.path(volume.file)
        try:
            if (
                files.reflink
                and changed_bytes(*map(extents, paths)) == changed_bytes(*map(extents, paths[::-1])) == 0
            ):
                return True
            return same_content(*paths, trio.from_thread.check_cancelled)
        except FileNotFoundError:
            raise NotFound(detail=f"the data of {volume.dataset.name} or of its snapshot") from None

    def _record(self, arrived: Arrived, taken: Entry, leases: Leases, step: Step) -> tuple[Dataset, ...]:
        leases.check_intact([self._volume.name])
        volume, base = rules.check_onto(step.catalog, self._volume, self._base)
        if volume.file != taken.file or volume.dataset.volsize != taken.dataset.volsize:
            raise NotFound(detail=f"{self._volume.name} was changed while a stream came onto it")
        for brought in arrived.brought:
            name = f"{self._volume.name}@{brought.snapshot}"
            if step.catalog.find(name) is not None:
                raise AlreadyExists.named(name)
        before = volume.dataset
        changed = replace(
            before, volsize=arrived.brought[-1].volsize, tags=replace(before.tags, last=self._operation)
        )
        dataset = self._ground.replace_file(volume, changed, arrived.file, step)
        snapshots = record_snapshots(
            self._ground, before.name, self._snapshot_tags, arrived.brought, base.file, step
        )
        return dataset, *snapshots
