"""The summary that people look at first: how the store is, what runs, what failed of late.

Owns which failures still count: one that was done since, or whose object is
gone, is told and no longer a reason for attention.  What is judged is judged
by :mod:`imagestore.condition`.
"""

import contextlib
from collections.abc import Iterable, Sequence

import trio

from imagestore import __version__
from imagestore.actors.history import Entry, entry_of
from imagestore.condition import Facts, judge
from imagestore.errors import ImageStoreError
from imagestore.events.indexqueries import Wanted
from imagestore.methods.audit import AuditMethods
from imagestore.methods.imagelife import ImageLifeMethods
from imagestore.methods.operations import OperationMethods
from imagestore.model import DriftRequest
from imagestore.pools.base import Space
from imagestore.screen import (
    DriftStatus,
    JournalStatus,
    PoolStatus,
    Status,
    StatusRequest,
    StatusResponse,
)
from imagestore.service import LOCAL, Caller, Readiness
from imagestore.times import show_time

SPACE_SECONDS = 2.0
"""A pool that has not told its space by then is shown without."""

DRIFT_REST_SECONDS = 10.0
DRIFT_REST_FACTOR = 100
"""The whole pool is compared with the journal no more often, and in a hundredth of the time."""

DAY_NS = 86_400 * 1_000_000_000

MOST_OPERATIONS = 50
"""Of those under way, and of those that failed, in one answer."""

EARLIER_OPERATIONS = 1_000
"""Of earlier lives of the store so many are looked at for failures."""


class StatusMethods(OperationMethods, ImageLifeMethods, AuditMethods):
    """See the module."""

    _earlier: Sequence[Entry] | None = None
    """What earlier lives of the store did within a day, the newest first, once it was asked."""
    _drift = DriftStatus()
    _drift_due = float("-inf")

    def readiness(self) -> Readiness:
        """See ``imagestore.service.Service.readiness``."""
        raise NotImplementedError

    async def get_status(self, request: StatusRequest, caller: Caller = LOCAL) -> StatusResponse:
        """How the store is, in one word with reason and next command, and in numbers."""
        actors = self._running()
        space = await self._space()
        drift = await self._drifted(caller)
        now_ns = actors.now_ns()
        failures = await self._failures(now_ns - DAY_NS)
        running = list(actors.operations.history.under_way())
        pool = self._pool(space)
        facts = self._facts(pool, drift, [entry for entry, counts in failures if counts])
        return StatusResponse(
            status=Status(
                version=__version__,
                now=show_time(now_ns) or "",
                condition=judge(facts),
                pool=pool,
                journal=self._journal_status(),
                drift=drift,
                running=tuple(map(self._operation, running[:MOST_OPERATIONS])),
                running_total=len(running),
                failures=tuple(self._operation(entry) for entry, _ in failures[:MOST_OPERATIONS]),
                failures_total=len(failures),
            )
        )

    def _facts(self, pool: PoolStatus, drift: DriftStatus, failures: Sequence[Entry]) -> Facts:
        actors = self._running()
        readiness = self.readiness()
        images = map(self._image, actors.operations.state.images.values())
        return Facts(
            trouble=readiness.reason,
            pool_trouble="" if pool.health == "ok" else pool.health,
            read_only=readiness.read_only,
            stopping="shutting down" in readiness.reason,
            is_zfs=pool.driver == "zfs",
            pool=pool.name,
            size_bytes=pool.size_bytes,
            available_bytes=pool.available_bytes,
            promised_bytes=pool.promised_bytes,
            lost=drift.lost,
            renamed=drift.renamed,
            broken_images=tuple(image.id for image in images if image.status == "error"),
            failures=tuple(f"{entry.method} {entry.subject}: {entry.error}" for entry in failures),
            failed_operation=failures[0].id if failures else "",
        )

    # -- pool and journal --------------------------------------------------------------

    async def _space(self) -> Space | None:
        with trio.move_on_after(SPACE_SECONDS), contextlib.suppress(ImageStoreError):
            return await self._running().zpool.driver.space()
        return None

    def _pool(self, space: Space | None) -> PoolStatus:
        actors = self._running()
        zpool, state = actors.zpool, actors.operations.state
        health = zpool.driver.trouble() or "ok"
        if space is None:
            return PoolStatus(name=zpool.pool, driver=state.driver, health=health)
        promised = zpool.view.promised_bytes
        return PoolStatus(
            name=zpool.pool,
            driver=state.driver,
            health=health,
            size_bytes=space.total,
            used_bytes=max(0, space.total - space.available),
            available_bytes=space.available,
            promised_bytes=promised,
            reserved_bytes=zpool.ledger.reserved_bytes,
            free_bytes=zpool.ledger.free_bytes(space.available, promised),
        )

    def _journal_status(self) -> JournalStatus:
        actors = self._running()
        seq, digest = actors.journal.head
        statistics = actors.journal.statistics()
        return JournalStatus(
            seq=seq,
            head=digest,
            epoch=actors.operations.state.epoch,
            flush_p99_seconds=actors.operations.timings.flush.quantile(0.99),
            last_flush_seconds=statistics.last_flush_seconds,
            queued=statistics.queued,
        )

    async def _drifted(self, caller: Caller) -> DriftStatus:
        began = trio.current_time()
        if began >= self._drift_due:
            datasets = (await self.get_drift(DriftRequest(), caller)).datasets
            count = [dataset.change for dataset in datasets].count
            self._drift = DriftStatus(lost=count("lost"), renamed=count("renamed"), foreign=count("foreign"))
            took = trio.current_time() - began
            self._drift_due = began + max(DRIFT_REST_SECONDS, DRIFT_REST_FACTOR * took)
        return self._drift

    # -- failures --------------------------------------------------------------------------

    async def _failures(self, since_ns: int) -> list[tuple[Entry, bool]]:
        """Those since then, the newest first, and whether each still counts."""
        actors = self._running()
        if self._earlier is None:
            began = actors.operations.began_seq + 1
            wanted = Wanted(since_ns=since_ns, before=began, limit=EARLIER_OPERATIONS)
            found = await actors.archive.operations(wanted)
            entries = [entry_of(events) for _, events in found]
            history = actors.operations.history
            self._earlier = [each for each in entries if each is not None and history.find(each.id) is None]
        return failed([*actors.operations.history.ended(), *self._earlier], since_ns)


def failed(entries: Iterable[Entry], since_ns: int) -> list[tuple[Entry, bool]]:
    """The journaled failures since then, and whether nothing has put each of them right.

    ``entries`` have ended, the newest first.
    """
    done: set[tuple[str, str]] = set()
    found = []
    for entry in entries:
        key = (entry.method, entry.subject)
        if entry.status == "succeeded":
            done.add(key)
            if entry.method.startswith("Delete"):
                done.add(("", entry.subject))
        elif entry.status == "failed" and entry.finished_ns >= since_ns:
            found.append((entry, key not in done and ("", entry.subject) not in done))
            done.add(key)
    return found
