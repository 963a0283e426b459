"""The journal's past, asked for by actors: operations that nobody remembers, and bound keys.

Owns the journal's index (:mod:`imagestore.events.index`), which it keeps close
behind the journal in a thread of its own, one question at a time.  Whatever is
answered covers every event that was applied before the question.
"""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import trio

from imagestore.errors import JournalError, TemporarilyUnavailable
from imagestore.events.catalogue import Envelope
from imagestore.events.index import Bound, Index, IndexLost
from imagestore.events.indexqueries import Wanted
from imagestore.events.looking import Page, Story, search, story
from imagestore.events.selection import Filter
from imagestore.events.state import State

_log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
"""Between one look at what the journal has gained and the next."""

BEHIND_EVENTS = 20_000
"""An index that lacks more than these, about a second's work, is being built."""

_Answer = TypeVar("_Answer")


class Watched(Protocol):
    """What the archive needs of the journal."""

    @property
    def state(self) -> State: ...

    async def wait_past(self, seq: int) -> None: ...


class Archive:
    """See the module. Start it with ``await nursery.start(archive.run)``.

    With ``threads`` off everything runs on trio's thread, and the index is
    only brought up to date when it is asked: for simulations.

    Raises, whatever is asked:
        JournalError: the journal cannot be read.
        TemporarilyUnavailable: the index cannot be written.
    """

    def __init__(self, journal: Watched, index: Index, *, threads: bool = True) -> None:
        self._journal = journal
        self._index = index
        self._threads = threads
        self._one = trio.CapacityLimiter(1)
        self._keeping_up = trio.Event()
        self._closing = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until :meth:`close`."""
        try:
            async with trio.open_nursery() as nursery:
                if self._threads:
                    nursery.start_soon(self._keep_up)
                task_status.started()
                await self._closing.wait()
                nursery.cancel_scope.cancel(reason="the store is shutting down")
        finally:
            self._index.close()

    def keep_up(self) -> None:
        """From now on keep the index close behind the journal, asked or not: a start has no time for it."""
        self._keeping_up.set()

    def close(self) -> None:
        self._closing.set()

    @property
    def is_behind(self) -> bool:
        """Whether an answer would have to wait for the index to be built."""
        return self._journal.state.seq - self._index.seq > BEHIND_EVENTS

    async def _keep_up(self) -> None:
        await self._keeping_up.wait()
        pause = PAUSE_SECONDS
        while True:
            await trio.sleep(pause)
            await self._journal.wait_past(self._index.seq)
            pause = PAUSE_SECONDS
            try:
                await self._ask(lambda index: None)
            except (JournalError, TemporarilyUnavailable) as error:
                _log.warning("the index of the journal is behind: %s %s", error, error.detail)
                pause *= 60

    async def story(self, operation: str, *, most: int = 1000) -> list[Envelope]:
        """An operation's events: of more than ``most`` the first, and its end. [] of an unknown one."""
        return await self._ask(lambda index: list(index.read(index.operation(operation, most=most))))

    async def operations(self, wanted: Wanted) -> list[tuple[str, list[Envelope]]]:
        """Ids of the operations wanted, the newest first, each with its first event and its last, if any."""

        def ask(index: Index) -> list[tuple[str, list[Envelope]]]:
            found = index.operations(wanted)
            seqs = {seq for _, first, last in found for seq in (first, last) if seq is not None}
            events = {envelope.seq: envelope for envelope in index.read(sorted(seqs))}
            return [
                (operation, [events[seq] for seq in (first, last) if seq is not None])
                for operation, first, last in found
            ]

        return await self._ask(ask)

    async def bound(self, key: str) -> Bound | None:
        """The newest operation that is bound to an idempotency key's hash."""
        return await self._ask(lambda index: index.bound(key))

    async def beginnings(self, seq: int) -> Sequence[Envelope]:
        """How the operations began that were under way after event ``seq``."""
        return await self._ask(lambda index: list(index.read(index.under_way(seq))))

    async def find(self, wanted: Filter, *, first: int) -> list[int]:
        """The seqs of the ``first`` events that are asked for, in order."""
        return await self._ask(lambda index: index.search(wanted, first=first))

    async def first_of_last(self, wanted: Filter, last: int) -> int | None:
        """The seq at which the ``last`` events that are asked for begin; None of no event."""
        return await self._ask(lambda index: index.first_of_last(wanted, last))

    async def read(self, seqs: Sequence[int]) -> list[Envelope]:
        """The events of these ascending seqs."""
        return await self._ask(lambda index: list(index.read(seqs)))

    async def search(self, wanted: Filter, *, text: str, limit: int) -> Page:
        """The newest events that are asked for; see :func:`imagestore.events.looking.search`."""
        return await self._ask(lambda index: search(index, wanted, text=text, limit=limit))

    async def explain(self, dataset: str) -> Story:
        """A dataset's past; see :func:`imagestore.events.looking.story`."""
        return await self._ask(lambda index: story(index, dataset))

    async def _ask(self, question: Callable[[Index], _Answer]) -> _Answer:
        up_to = self._journal.state.seq

        def work() -> _Answer:
            self._index.catch_up(up_to=up_to)
            try:
                return question(self._index)
            except (IndexLost, LookupError) as lost:
                _log.warning("the index of the journal is made anew: %s", lost)
                self._index.rebuild()
                self._index.catch_up(up_to=up_to)
                return question(self._index)

        try:
            if not self._threads:
                await trio.lowlevel.checkpoint()
                return work()
            return await trio.to_thread.run_sync(work, limiter=self._one)
        except (sqlite3.Error, OSError, IndexLost) as error:
            raise TemporarilyUnavailable(
                detail=f"the index of the journal ({self._index.path}) cannot be used: {error}"
            ) from error
