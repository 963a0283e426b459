"""Group commit: changes of the catalog that arrive together share one transaction.

Owns the writing.  Each change is a function that reads and writes the catalog
inside a savepoint of its own, so that one that is refused leaves the others
alone; all of them become durable with one fsync.  Whoever comes first commits
everything that waits.

The order of a batch, all in one worker thread::

    fsync the new data files and their directory   (before the catalog names them)
    BEGIN; each change; COMMIT
    what each change wanted done after it became durable (links)

Only the transaction holds the catalog's lock: who looks something up does not
wait for data files.

A COMMIT that fails for another reason than a full disk may or may not survive
a restart.  The catalog is then not written any more: every later change is
refused, and new data files are left for the next open to judge.
"""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

import trio

from imagestore.errors import ImageStoreError, PoolError
from imagestore.pools.directory.catalog import Catalog
from imagestore.pools.directory.datafile import DataFiles
from imagestore.pools.directory.failures import pool_failures

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Step:
    """What a change works with: the catalog, and what to do when it is undone or durable.

    ``undo`` runs if the change does not become durable, ``after`` once it has,
    in order; what fails there is logged, since the change stands.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.undo = ExitStack()
        self.after: list[Callable[[], None]] = []


class _Waiting:
    def __init__(self, change: Callable[[Step], None], files: Sequence[str], step: Step) -> None:
        self.change = change
        self.files = files
        self.step = step
        self.done = False
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.step.undo.close()
            self.error = error


class GroupCommit:
    """The queue before the catalog.  ``checkpoint`` is called at each named point (for crash tests)."""

    def __init__(self, catalog: Catalog, files: DataFiles, checkpoint: Callable[[str], None]) -> None:
        self.failed = False
        self._catalog = catalog
        self._files = files
        self._checkpoint = checkpoint
        self._lock = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)
        self._waiting: list[_Waiting] = []

    async def run(self, change: Callable[[Step], T], files: Sequence[str]) -> T:
        """Apply ``change`` and return its result once it is durable.

        ``files`` are the data files that it will name; they are synced first.
        Not cancellable: it happens, or it raises.  Raises what ``change``
        raises, NoSpace, PoolError.
        """
        results: list[T] = []
        waiting = _Waiting(lambda step: results.append(change(step)), files, Step(self._catalog))
        self._waiting.append(waiting)
        with trio.CancelScope(shield=True):
            async with self._lock:
                if not waiting.done:
                    batch, self._waiting = self._waiting, []
                    await trio.to_thread.run_sync(self._commit, batch, limiter=self._limiter)
        if waiting.error is not None:
            raise waiting.error
        (result,) = results
        return result

    async def drain(self) -> None:
        """Wait until nothing is being committed."""
        async with self._lock:
            pass

    def _commit(self, batch: list[_Waiting]) -> None:
        try:
            self._sync(batch)
            self._transact([waiting for waiting in batch if waiting.error is None])
        except Exception as error:
            for waiting in batch:
                waiting.fail(error)
        finally:
            for waiting in batch:
                waiting.done = True

    def _sync(self, batch: list[_Waiting]) -> None:
        for waiting in batch:
            try:
                with pool_failures("making a data file durable"):
                    for name in waiting.files:
                        self._files.sync(name)
            except ImageStoreError as error:
                waiting.fail(error)
        if any(waiting.files for waiting in batch):
            try:
                with pool_failures("making data files durable"):
                    self._files.sync_directory()
            except ImageStoreError as error:
                for waiting in batch:
                    waiting.fail(error)
            self._checkpoint("files durable")

    def _transact(self, batch: list[_Waiting]) -> None:
        if self.failed:
            for waiting in batch:
                waiting.fail(PoolError("the pool's catalog failed; restart the store after mending the disk"))
            return
        try:
            with self._catalog.lock, pool_failures("writing the catalog"):
                self._write(batch)
        except ImageStoreError as error:
            for waiting in batch:
                waiting.fail(error)
            return
        self._checkpoint("committed")
        for waiting in batch:
            if waiting.error is None:
                _finish(waiting.step)
        self._checkpoint("linked")

    def _write(self, batch: list[_Waiting]) -> None:
        self._catalog.begin()
        try:
            for waiting in batch:
                self._perform(waiting)
            self._checkpoint("before commit")
            self._end()
        except BaseException:
            self._catalog.roll_back()
            raise

    def _perform(self, waiting: _Waiting) -> None:
        """Run one change in its savepoint; what SQLite itself fails at fails the batch."""
        self._catalog.savepoint()
        try:
            with pool_failures("changing the pool"):
                waiting.change(waiting.step)
        except Exception as error:
            waiting.fail(error)
            if not self._catalog.in_transaction:
                raise
            self._catalog.roll_back_to_savepoint()
        else:
            self._catalog.release_savepoint()

    def _end(self) -> None:
        try:
            self._catalog.commit()
        except sqlite3.Error as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                self.failed = True
            raise


def _finish(step: Step) -> None:
    for action in step.after:
        try:
            action()
        except (ImageStoreError, OSError) as error:
            _log.error("after a change of the pool, to be mended at the next open: %s", error)
