"""The journal's writer: the only way to change the state.

Owns the live state and the order of all events.  ``append`` gives a batch of
events and returns when they are durable *and* applied.  One writer: batches
that wait while a flush is under way become the next commit group, one write and
one flush.  Only ``Journal._finish`` calls ``apply``, synchronously, batch by
batch in the order of seq, and only then wakes the callers.

What it promises about an append:

* It returned: the batch survives kill -9, a crash of the system and power loss.
* ``Rejected``, ``ReadOnly``, ``Stopping``, ``ValueError``: certainly not written.
* ``OutcomeUnknown``: it may survive, whole; a restart decides.
* Cancelled: not written, or written whole and applied.

After any error of a write or a flush the journal is poisoned for good: the
kernel has marked the pages clean, so a second flush would lie.

It knows nothing of pools, actors or HTTP.  :mod:`imagestore.events.journal` opens it.
"""

import collections
import logging
import math
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from imagestore.errors import OutcomeUnknown, ReadOnly, Rejected, Stopping
from imagestore.events import checkpoint as checkpoints
from imagestore.events import recovery
from imagestore.events.catalogue import Envelope, JournalOpened
from imagestore.events.commitgroup import (
    MAX_GROUP_BYTES,
    Composed,
    End,
    Entry,
    Request,
    Stamp,
    compose,
    is_essential,
    prepare,
)
from imagestore.events.files import Files
from imagestore.events.flusher import Flusher
from imagestore.events.settings import Failure, JournalSettings, JournalStatistics
from imagestore.events.state import State, apply
from imagestore.events.tail import NoRoom, Tail, publish_checkpoint

logger = logging.getLogger("imagestore.journal")

_KEPT_CHECKPOINTS = 2

T = TypeVar("T")


class Journal:
    """An open journal; made by :func:`open_journal`.  All methods belong to trio's thread."""

    def __init__(
        self,
        directory: str,
        recovered: recovery.Recovered,
        tail: Tail,
        stamp: Stamp,
        files: Files,
        settings: JournalSettings,
    ) -> None:
        self.directory = directory
        self.state: State = recovered.state
        self.warnings = recovered.warnings
        self.replayed = recovered.replayed
        self.failed: Failure | None = None
        self._end = End(
            journal=recovered.journal,
            number=recovered.number,
            cursor=recovered.cursor,
            last_frame=recovered.last_frame,
            capacity=0 if recovered.exhausted else tail.capacity,
        )
        self._tail = tail
        self._stamp = stamp
        self._files = files
        self._settings = settings
        self._queue: collections.deque[Request] = collections.deque()
        self._room = trio.lowlevel.ParkingLot()
        self._under_way: Composed | None = None
        self._gathering = False
        self._closing = False
        self._proven = True
        self._flush_began = 0.0
        self._last_flush = 0.0
        self.measure_flush: Callable[[float], None] = lambda seconds: None
        """Told how many seconds each commit group took."""
        self._appends = self._groups = 0
        self._unrecorded_cuts = recovered.cuts
        self._cuts = len(recovered.cuts)
        self._next_deadline = math.inf
        self._deadline_moved = trio.Event()
        self._failure = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()
        self._quiet = trio.lowlevel.ParkingLot()
        self._unproven = trio.Event()
        self._checkpoint_due = trio.Event()
        self._checkpoint_seq = recovered.checkpoints[-1] if recovered.checkpoints else 0
        self._checkpoints = list(recovered.checkpoints)
        self._checkpoint_count = 0
        self._observers: list[Callable[[Sequence[Envelope]], None]] = []
        self._bug: BaseException | None = None
        self._bug_found = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._flusher = Flusher(tail.commit, self._flushed, threads=settings.threads)

    # --- what others ask ---------------------------------------------------

    @property
    def uuid(self) -> str:
        """The journal's own identifier, canonical text; stays the same for ever."""
        return str(uuid.UUID(bytes=self._end.journal))

    @property
    def epoch(self) -> int:
        """How often the journal was opened for writing, this time included."""
        return self.state.epoch

    @property
    def head(self) -> tuple[int, str]:
        """Seq of the last event and hash of the last frame (hex), all durable."""
        return self._end.cursor.seq, self._end.cursor.hash.hex()

    def statistics(self) -> JournalStatistics:
        under_way = trio.current_time() - self._flush_began if self._under_way is not None else 0.0
        return JournalStatistics(
            seq=self.state.seq,
            appends=self._appends,
            groups=self._groups,
            queued=len(self._queue),
            last_flush_seconds=self._last_flush,
            flush_under_way_seconds=under_way,
            checkpoints=self._checkpoint_count,
            cuts=self._cuts,
        )

    def trouble(self, *, stalled_after_seconds: float = 5.0) -> str:
        """Why the store is not ready to change anything, in one line; "" if it is."""
        if self.failed is not None:
            return f"read-only: the journal failed: {self.failed.reason}"
        under_way = self.statistics().flush_under_way_seconds
        if under_way > stalled_after_seconds:
            return f"the journal's disk does not answer: a flush has taken {under_way:.0f} s so far"
        return ""

    async def wait_failed(self) -> Failure:
        """Return once the journal is poisoned."""
        await self._failure.wait()
        assert self.failed is not None
        return self.failed

    def watch(self, observer: Callable[[Sequence[Envelope]], None]) -> None:
        """Have ``observer`` told of events as they are applied, in order, before their callers are.

        It must be quick, and not raise: an exception poisons the journal.
        """
        self._observers.append(observer)

    async def wait_past(self, seq: int) -> None:
        """Return once an event after ``seq`` has been applied."""
        while self.state.seq <= seq:
            await self._changed.park()

    # --- append ------------------------------------------------------------

    async def append(self, entries: Sequence[Entry], *, timeout: float | None = None) -> tuple[Envelope, ...]:
        """Make ``entries`` durable, all or none, apply them, and return their envelopes.

        ``timeout`` in seconds (None: the settings').  See the module for what
        cancelling means.

        Raises:
            Rejected: certainly not written: no room, too large, or its turn did not come in time.
            OutcomeUnknown: the disk failed or did not answer in time.
            ReadOnly: the journal had failed before.
            Stopping: the journal is being closed.
            ValueError: the events do not follow from the state, or could not be read back.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not entries:
            raise ValueError("an append needs at least one entry")
        seconds = self._settings.append_seconds if timeout is None else timeout
        deadline = trio.current_time() + seconds
        if len(self._queue) >= self._settings.queue_limit:
            with trio.move_on_at(deadline):
                while len(self._queue) >= self._settings.queue_limit and self._is_open():
                    await self._room.park()
            if len(self._queue) >= self._settings.queue_limit and self._is_open():
                raise Rejected(f"the journal's queue was full for {seconds:g} s; nothing was written")
        self._require_open()
        request = Request(entries, deadline)
        self._queue.append(request)
        if self._under_way is None and not self._gathering:
            self._begin()
        if request.stage != "done":
            if deadline < self._next_deadline:
                self._next_deadline = deadline
                self._deadline_moved.set()
            request.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(partial(self._abandon, request))
        if request.error is not None:
            raise request.error
        return request.envelopes

    def _abandon(self, request: Request, _: object = None) -> trio.lowlevel.Abort:
        """A caller goes away; it takes a request with it whose turn had not come."""
        request.task = None
        if request.stage == "queued":
            request.stage = "withdrawn"
            self._queue.remove(request)
            self._room.unpark()
        return trio.lowlevel.Abort.SUCCEEDED

    async def _enforce_deadlines(self) -> None:
        """Wake the callers whose time is up: one task for all, since a scope for each doubled an append."""
        while True:
            with trio.move_on_at(self._next_deadline):
                await self._deadline_moved.wait()
            self._deadline_moved = trio.Event()
            now = trio.current_time()
            begun = self._under_way.requests if self._under_way is not None else ()
            waiting = [request for request in (*begun, *self._queue) if request.task is not None]
            for request in waiting:
                if request.deadline <= now:
                    self._expire(request)
            left = [request.deadline for request in waiting if request.deadline > now]
            self._next_deadline = min(left, default=math.inf)

    def _expire(self, request: Request) -> None:
        task = request.task
        assert task is not None
        if request.stage == "begun":
            request.error = OutcomeUnknown("the journal's disk did not answer in time")
        else:
            request.error = Rejected("the journal's disk was busy for too long; nothing was written")
        self._abandon(request)
        trio.lowlevel.reschedule(task)

    def _is_open(self) -> bool:
        return self.failed is None and not self._closing

    def _require_open(self) -> None:
        if self.failed is not None:
            raise ReadOnly(detail=self.failed.reason)
        if self._closing:
            raise Stopping

    # --- one commit group --------------------------------------------------

    def _begin(self) -> None:
        """Make a commit group of what waits and hand it to the flusher."""
        size = 0
        taken: list[Request] = []
        while self._queue and size < MAX_GROUP_BYTES:
            ready = self._queue.popleft()
            taken.append(ready)
            size += 512 * len(ready.entries)
        self._room.unpark(count=len(taken))
        try:
            requests = prepare(taken, self.state, self._end.cursor, self._stamp)
        except BaseException as bug:
            for request in taken:
                if request.stage != "done":
                    request.end(RuntimeError(f"nothing was written: {bug!r}"))
            raise
        if requests:
            self._submit(requests)
        elif self._queue:
            self._begin()
        else:
            self._quiet.unpark_all()

    def _submit(self, requests: Sequence[Request]) -> None:
        self._under_way = compose(requests, self._end, self._settings.segment_bytes)
        self._flush_began = trio.current_time()
        self._flusher.submit(self._under_way.group)

    def _flushed(self, error: BaseException | None) -> None:
        """What the flusher calls on trio's thread; must not raise there."""
        group, self._under_way = self._under_way, None
        assert group is not None
        try:
            self._finish(group, error)
        except BaseException as bug:
            self._poison(f"a bug: {bug!r}", begun=group.requests)
            self._bug = bug
            self._bug_found.set()

    def _finish(self, group: Composed, error: BaseException | None) -> None:
        self._last_flush = trio.current_time() - self._flush_began
        self.measure_flush(self._last_flush)
        if error is None:
            self._acknowledge(group)
            self._go_on(gather=len(group.requests) > 1)
        elif isinstance(error, NoRoom):
            self._turn_away(group)
        elif isinstance(error, OSError):
            self._poison(error.strerror or str(error), begun=group.requests)
        else:
            raise error

    def _acknowledge(self, group: Composed) -> None:
        """The group is durable: apply it, then wake its callers."""
        self._end = End(
            journal=self._end.journal,
            number=group.number,
            cursor=group.cursor,
            last_frame=group.last_frame,
            capacity=self._tail.capacity,
        )
        self._groups += 1
        for request in group.requests:
            for envelope in request.envelopes:
                apply(self.state, envelope)
            for observe in self._observers:
                observe(request.envelopes)
        for request in group.requests:
            request.end()
        self._appends += len(group.requests)
        self._proven = not group.requests
        if group.requests:
            self._unproven.set()
            self._changed.unpark_all()
            if self.state.seq - self._checkpoint_seq >= self._settings.checkpoint_events:
                self._checkpoint_due.set()

    def _turn_away(self, group: Composed) -> None:
        """The disk is full and nothing was written: what takes space goes, the rest tries again."""
        essential = [request for request in group.requests if is_essential(request.entries)]
        again = essential if len(essential) < len(group.requests) else []
        for request in group.requests:
            if request not in again:
                request.end(Rejected("no space left on device for the journal; nothing was written"))
        if again:
            for request in again:
                request.stage = "queued"
            self._queue.extendleft(reversed(again))
            self._begin()
        else:
            self._go_on(gather=False)

    def _poison(self, reason: str, *, begun: Sequence[Request] = ()) -> None:
        if self.failed is None:
            self.failed = Failure(reason=reason, seq=self.state.seq)
            logger.critical("journal %s failed and is read-only now: %s", self.directory, reason)
            self._failure.set()
        for request in begun:
            if request.stage == "done":
                continue
            request.end(OutcomeUnknown(f"the journal failed: {reason}", detail="restart the store"))
        while self._queue:
            self._queue.popleft().end(ReadOnly(detail=reason))
        self._room.unpark_all()
        self._changed.unpark_all()
        self._quiet.unpark_all()

    def _go_on(self, *, gather: bool) -> None:
        """Begin the next group: at once, or after the callers just woken had their turn to append."""
        if gather:
            self._gathering = True
            self._token.run_sync_soon(self._gather, 1)
        elif self._queue:
            self._begin()
        else:
            self._quiet.unpark_all()

    def _gather(self, passes: int) -> None:
        if passes:
            self._token.run_sync_soon(self._gather, passes - 1)
            return
        self._gathering = False
        if self.failed is None:
            self._go_on(gather=False)

    # --- beside the appends ------------------------------------------------

    async def _prove_when_idle(self) -> None:
        """After some idle time, write an empty group: it proves that the last one was durable."""
        while True:
            await self._unproven.wait()
            self._unproven = trio.Event()
            while self._needs_proof():
                seq = self.state.seq
                await trio.sleep(self._settings.idle_seconds)
                if self._is_idle() and self._needs_proof() and seq == self.state.seq:
                    self._submit(())
                    await self._calm()

    def _needs_proof(self) -> bool:
        return not self._proven and self.failed is None

    def _is_idle(self) -> bool:
        return self._under_way is None and not self._gathering and not self._queue

    async def _write_checkpoints(self) -> None:
        while True:
            await self._checkpoint_due.wait()
            await self.checkpoint()
            self._checkpoint_due = trio.Event()

    async def checkpoint(self) -> None:
        """Write a checkpoint of the state as it is now.  Appends go on meanwhile.

        A checkpoint that cannot be written is only a warning.
        """
        if self.state.seq == self._checkpoint_seq or self.failed is not None:
            await trio.lowlevel.checkpoint()
            return
        seq = self._checkpoint_seq = self.state.seq
        anchor = checkpoints.Anchor(
            journal=self._end.journal,
            segment=self._end.number,
            offset=self._end.last_frame,
            seq=seq,
            hash=self._end.cursor.hash,
        )
        data = checkpoints.encode(anchor, checkpoints.encode_state(self.state))
        kept = [old for old in self._checkpoints if old != seq][-(_KEPT_CHECKPOINTS - 1) :]
        obsolete = [old for old in self._checkpoints if old not in kept and old != seq]
        work = partial(publish_checkpoint, self._files, self.directory, seq, data, obsolete)
        try:
            await away(work, self._settings)
        except OSError as error:
            logger.warning("checkpoint of seq %d could not be written: %s", seq, error)
            return
        self._checkpoints = [*kept, seq]
        self._checkpoint_count += 1

    async def _raise_bugs(self) -> None:
        await self._bug_found.wait()
        assert self._bug is not None
        raise self._bug

    async def _calm(self) -> None:
        while self.failed is None and not self._is_idle():
            await self._quiet.park()

    # --- what open_journal calls ---------------------------------------------

    async def journal_opening(self, opened: JournalOpened) -> None:
        """The first append of this life: the new epoch, after the cuts that were made for it."""
        cuts, self._unrecorded_cuts = self._unrecorded_cuts, ()
        await self.append([*(Entry(event=cut) for cut in cuts), Entry(event=opened)])

    async def run(self) -> None:
        """What goes on beside the appends, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._prove_when_idle)
            nursery.start_soon(self._write_checkpoints)
            nursery.start_soon(self._raise_bugs)
            nursery.start_soon(self._enforce_deadlines)

    async def close(self) -> bool:
        """Write what was accepted, prove it, checkpoint, end the thread.  Shielded, bounded.

        Returns False when a write is still under way: then the lock must be kept.
        """
        self._closing = True
        self._room.unpark_all()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._settings.close_seconds):
            await self._calm()
            if self._needs_proof():
                self._submit(())
                await self._calm()
            await self.checkpoint()
        if self._under_way is not None:
            return False
        self._flusher.stop()
        self._tail.close()
        return True


async def away(work: Callable[[], T], settings: JournalSettings) -> T:
    """Run blocking work in a worker thread, with a limiter of its own."""
    if not settings.threads:
        await trio.lowlevel.checkpoint()
        return work()
    return await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))
