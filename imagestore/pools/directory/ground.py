"""The ground that every change of a directory pool stands on.

Owns how work is done on an open pool: which worker threads it runs in, whose
turn it is to change a dataset's content, what happens to new data files when
a change fails, and how sizes are measured.  Knows nothing of what a change is.

SQLite and files are touched in worker threads only, each kind of work under a
limiter of its own, so that a slow disk starves none of the others.  All share
the catalog's one connection: a look waits for the commit under way, and a
commit for no more than a page of a listing.
"""

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import trio
from msgspec.structs import replace

from imagestore.errors import ImageStoreError, InUse, NoSpace, NotFound, PoolError
from imagestore.pools.base import Dataset, Kind, Tags, Target
from imagestore.pools.directory.catalog import Entry
from imagestore.pools.directory.datafile import VOLUME_MODE
from imagestore.pools.directory.failures import pool_failures
from imagestore.pools.directory.groupcommit import GroupCommit, Step
from imagestore.pools.directory.opening import Opened, make_reserve, random_guid, spend_reserve
from imagestore.pools.inuse import Leases, writers

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Ground:
    """An open pool.  ``held`` counts, by createtxg, the sends that keep a snapshot."""

    def __init__(
        self,
        opened: Opened,
        lock: int,
        *,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        checkpoint: Callable[[str], None],
    ) -> None:
        self.opened = opened
        self.layout = opened.layout
        self.files = opened.files
        self.tree = opened.tree
        self.catalog = opened.catalog
        self.checkpoint = checkpoint
        self.held: dict[int, int] = {}
        self.measured: dict[int, tuple[int, int]] = {}
        """``written`` and ``referenced`` of volumes as last measured, by createtxg."""
        self._lock: int | None = lock
        self._clock = clock
        self._entropy = entropy
        self._commits = GroupCommit(opened.catalog, opened.files, checkpoint)
        # The kernel makes reflinks of one file one at a time: more threads only get in each other's way.
        self._copying = trio.CapacityLimiter(1 if opened.files.reflink else 4)
        self._working = trio.CapacityLimiter(4)
        self._looking = trio.CapacityLimiter(2)
        self._listing = trio.CapacityLimiter(1)
        self._turns: dict[int, _Turn] = {}

    async def close(self) -> None:
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        with trio.CancelScope(shield=True):
            await self._commits.drain()
            await trio.to_thread.run_sync(self._release, lock, limiter=self._listing)

    def _release(self, lock: int) -> None:
        self.catalog.close()
        os.close(lock)

    # -- worker threads -----------------------------------------------------------

    async def look(self, doing: str, function: Callable[[], T]) -> T:
        """Run a short look at the pool.  ``doing`` is for the text of an error."""
        return await self._run(self._looking, doing, function)

    async def scan(self, doing: str, function: Callable[[], T]) -> T:
        """Run a long look at the catalog, one at a time."""
        return await self._run(self._listing, doing, function)

    async def copying(self, doing: str, function: Callable[[], T]) -> T:
        """Make data files."""
        return await self._run(self._copying, doing, function)

    async def streaming(self, doing: str, function: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        """Run a step of a send or a reception, under its own limiter."""
        return await self._run(limiter, doing, function)

    async def work(self, doing: str, function: Callable[[], T]) -> T:
        """Any other work on data files, of any length."""
        return await self._run(self._working, doing, function)

    async def change(self, change: Callable[[Step], T], made: list[str] | None = None) -> T:
        """Apply a change to the catalog and return once it is durable; not cancellable.

        ``made`` are the new data files that it names; the list is emptied,
        since they are the catalog's now.
        """
        self._check_open()
        result = await self._commits.run(change, tuple(made or ()))
        if made is not None:
            made.clear()
        return result

    async def change_even_if_full(self, change: Callable[[Step], T]) -> T:
        """As :meth:`change`, for deletions: on a full disk the reserve is spent."""
        try:
            return await self.change(change)
        except NoSpace:
            await self.work("spending the reserve", partial(spend_reserve, self.layout))
            return await self.change(change)

    async def _run(self, limiter: trio.CapacityLimiter, doing: str, function: Callable[[], T]) -> T:
        self._check_open()
        return await trio.to_thread.run_sync(guarded, doing, function, limiter=limiter)

    def _check_open(self) -> None:
        if self._lock is None:
            raise PoolError(f"pool {self.layout.name} is closed")

    # -- data files -----------------------------------------------------------------

    @asynccontextmanager
    async def new_files(self) -> AsyncIterator[list[str]]:
        """A list for the names of new data files; those still in it are removed if the body raises."""
        made: list[str] = []
        try:
            yield made
        except BaseException:
            if made:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self.discard, made, limiter=self._working)
            raise

    def discard(self, made: list[str]) -> None:
        """Remove new data files that no change has named. In a worker thread."""
        # A catalog that failed in COMMIT may name them after a restart: that open decides.
        if not self._commits.failed:
            self.files.remove(made)
        made.clear()

    def copy(self, snapshot: Entry, made: list[str]) -> str:
        """A writable copy of a snapshot's data file. In a worker thread. Raises NotFound, OSError."""
        try:
            file = self.files.copy(snapshot.file, progress=trio.from_thread.check_cancelled)
        except FileNotFoundError:
            raise NotFound(detail=f"{snapshot.dataset.name} was destroyed") from None
        made.append(file)
        return file

    def set_apart(self, file: str, made: list[str], *, mode: int) -> str:
        """Put a copy that shares no block with any other file in place of a new data file.

        In a worker thread.  Returns the name under which it now is. Raises OSError.
        """
        if not self.files.reflink:
            return file
        apart = self.files.copy_apart(file, mode=mode, progress=trio.from_thread.check_cancelled)
        made.append(apart)
        self.files.remove([file])
        made.remove(file)
        return apart

    def thicken(self, file: str, made: list[str]) -> str:
        """As :meth:`set_apart`, and with room for all of a thick volume."""
        apart = self.set_apart(file, made, mode=VOLUME_MODE)
        self.files.fill(apart)
        return apart

    async def remove(self, files: Collection[str]) -> None:
        """Unlink data files that nothing names any more, and see that the reserve is there."""

        def unlink() -> None:
            self.files.remove(files)
            self.checkpoint("files removed")
            make_reserve(self.layout)

        try:
            await self.work("removing data files", unlink)
        except ImageStoreError as error:
            _log.warning("data files are left until the next open: %s", error)

    def lease(self, volumes: Sequence[Entry], leases: Leases) -> None:
        """Keep writers away from the volumes. Raises InUse if one has a writer already."""
        for entry in volumes:
            # A data file that is missing has no writer.
            with contextlib.suppress(FileNotFoundError):
                if entry.file and not leases.take(self.files.path(entry.file)):
                    raise InUse.by(entry.dataset.name, seen_writers(self.files.path(entry.file)))

    @asynccontextmanager
    async def leased(self) -> AsyncIterator[Leases]:
        """Leases that end with the body."""
        leases = Leases()
        try:
            yield leases
        finally:
            leases.release()

    # -- whose turn it is -----------------------------------------------------------

    @asynccontextmanager
    async def turn(self, datasets: Sequence[Target]) -> AsyncIterator[None]:
        """One change of a dataset's content at a time, first come, first served."""
        async with contextlib.AsyncExitStack() as stack:
            # Everybody takes turns in the same order, so that nobody waits in a circle.
            for createtxg in sorted({target.createtxg for target in datasets}):
                await stack.enter_async_context(self._turn_of(createtxg))
            yield

    @asynccontextmanager
    async def _turn_of(self, createtxg: int) -> AsyncIterator[None]:
        turn = self._turns.setdefault(createtxg, _Turn())
        turn.wanted_by += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted_by -= 1
            if not turn.wanted_by:
                del self._turns[createtxg]

    # -- datasets -------------------------------------------------------------------

    def existing(self, name: str) -> Entry:
        """Raises NotFound."""
        entry = self.catalog.find(name)
        if entry is None:
            raise NotFound(detail=name)
        return entry

    def new_dataset(self, name: str, kind: Kind, tags: Tags) -> Dataset:
        """A dataset as of now, with a new guid; the catalog gives it its createtxg."""
        return Dataset(
            name=name,
            kind=kind,
            guid=random_guid(self._entropy),
            createtxg=0,
            creation=int(self._clock()),
            tags=tags,
        )

    def publish(self, entry: Entry, step: Step) -> Entry:
        """Put a file system or volume into the tree and the catalog. Raises PoolError, OSError."""
        name = entry.dataset.name
        if self.tree.make(name, entry.file):
            step.undo.callback(self.tree.remove, [name])
        return step.catalog.insert(entry)

    def replace_file(self, before: Entry, dataset: Dataset, file: str, step: Step) -> Dataset:
        """Give a dataset another data file ("": it has none), and the size and tags of ``dataset``.

        Returns it as it now is.  Raises PoolError, OSError.
        """
        allocated = self.files.allocated(file) if file else 0
        dataset = replace(dataset, written=0, referenced=allocated)
        step.catalog.set_content(replace(before, dataset=dataset, file=file, baseline=allocated))
        self.forget(dataset.createtxg)
        if file:
            # Made now, while a full disk can still refuse it; put in place when all is durable.
            temporary = os.path.join(self.layout.links, file)
            self.tree.prepare(dataset.name, file, temporary)
            step.undo.callback(os.unlink, temporary)
            step.after.append(lambda: self.tree.replace(dataset.name, temporary))
        return dataset

    def rebase(self, volume: Entry, allocated: int, step: Step) -> None:
        """Count the volume's ``written`` from now on."""
        if volume.file:
            dataset = replace(volume.dataset, written=0, referenced=allocated)
            step.catalog.set_content(replace(volume, dataset=dataset, baseline=allocated))
            step.after.append(lambda: self.forget(volume.dataset.createtxg))

    def forget(self, createtxg: int) -> None:
        """Drop what was measured of a volume."""
        self.measured.pop(createtxg, None)

    def measure(self, entry: Entry) -> Dataset:
        """The dataset with sizes as they are now. In a worker thread."""
        dataset = entry.dataset
        if dataset.kind != "volume":
            return dataset
        try:
            allocated = self.files.allocated(entry.file)
        except FileNotFoundError:
            return dataset
        written = written_bytes(allocated, entry.baseline, dataset.volsize)
        return replace(dataset, written=written, referenced=allocated)


class _Turn:
    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.wanted_by = 0


def guarded(doing: str, function: Callable[[], T]) -> T:
    """Run ``function``; see :func:`imagestore.pools.directory.failures.pool_failures`."""
    with pool_failures(doing):
        return function()


def written_bytes(allocated: int, baseline: int, volsize: int) -> int:
    """A volume's ``written``: never more than what was really written since ``baseline``."""
    return min(max(allocated - baseline, 0), volsize)


def seen_writers(path: str) -> Sequence[str]:
    """Who has ``path`` open for writing, when somebody has."""
    return writers(path) or ("pid ? (not visible to the store)",)
