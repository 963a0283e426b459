"""The event feed: the journal's events from any place on, and on into those that come.

Owns the tail: the last events, kept once for all readers.  A reader is a place
in the log and nothing else: while it is within the tail it is served from
there, behind it out of the journal's files, and it may fall behind and catch up
as often as it likes.  What a filter asks of the files is found by the journal's
index, unless that is far behind itself.  So no event is left out or told twice,
and a slow reader costs a list of places at most.  Only what was applied, and so is durable, is
told.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

import msgspec
import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore.errors import JournalError
from imagestore.events.catalogue import Envelope
from imagestore.events.files import SYSTEM_FILES, Files
from imagestore.events.follow import Follower
from imagestore.events.selection import Filter, Selector, alias_of

TAIL_EVENTS = 4096
"""So many of the last events are at hand."""

PAGE_EVENTS = 256
"""About so many are looked at in one go."""

FOUND_EVENTS = 10_000
"""So many places are taken from the index at a time."""

READERS_OF_FILES = 4
"""So many readers at a time are served out of the journal's files."""

_encode = msgspec.json.Encoder().encode


class Told(Struct, frozen=True, kw_only=True):
    """One event as readers get it: ``data`` is its envelope as JSON."""

    seq: int
    type: str
    data: bytes


class _Kept(Struct, kw_only=True, eq=False):
    """An event of the tail; it is encoded when the first reader wants it."""

    envelope: Envelope
    told: Told | None = None

    def tell(self) -> Told:
        if self.told is None:
            self.told = told(self.envelope)
        return self.told


def told(envelope: Envelope) -> Told:
    return Told(seq=envelope.seq, type=alias_of(envelope.event), data=_encode(envelope))


class Past(Protocol):
    """The journal's index, as a reader needs it.  Whatever it tells covers every event that was applied."""

    @property
    def is_behind(self) -> bool:
        """Whether it is so far behind the journal that an answer would have to wait."""

    async def find(self, wanted: Filter, *, first: int) -> list[int]:
        """The seqs of the events that ``wanted`` asks for, in order; the ``first`` so many of them."""

    async def read(self, seqs: Sequence[int]) -> list[Envelope]:
        """The events of these seqs."""

    async def beginnings(self, seq: int) -> Sequence[Envelope]:
        """How the operations began that were under way after event ``seq``."""


class Feed:
    """See the module.  ``seq`` is the last event that was applied; without a ``past`` files are read whole.

    With ``threads`` off files are read on trio's thread: for simulations.
    """

    def __init__(
        self,
        directory: str,
        seq: int,
        *,
        past: Past | None = None,
        tail_events: int = TAIL_EVENTS,
        files: Files = SYSTEM_FILES,
        threads: bool = True,
    ) -> None:
        self.seq = seq
        self.directory = directory
        self.past = past
        self.files = files
        self._tail: deque[_Kept] = deque(maxlen=tail_events)
        self._grown = trio.lowlevel.ParkingLot()
        self._threads = threads
        self._limiter = trio.CapacityLimiter(READERS_OF_FILES)
        self.is_closed = False

    def observe(self, envelopes: Sequence[Envelope]) -> None:
        """Events have been applied; called by the journal, in their order."""
        self._tail.extend(_Kept(envelope=envelope) for envelope in envelopes)
        self.seq = envelopes[-1].seq
        self._grown.unpark_all()

    def close(self) -> None:
        """Every reader comes to its end."""
        self.is_closed = True
        self._grown.unpark_all()

    def reader(self, after: int, selector: Selector) -> "FeedReader":
        """A reader of what ``selector`` takes after event ``after``."""
        return FeedReader(self, after, selector)

    async def wait_past(self, seq: int) -> None:
        """Return once there is an event after ``seq``, or the feed is closed."""
        while self.seq <= seq and not self.is_closed:
            await self._grown.park()

    def at_hand(self, after: int) -> Sequence[_Kept] | None:
        """The next events after ``after`` in the tail; None if it begins later."""
        if not self._tail or self._tail[0].envelope.seq > after + 1:
            return None
        begin = after + 1 - self._tail[0].envelope.seq
        return list(islice(self._tail, begin, begin + PAGE_EVENTS))

    async def read(self, follower: Follower) -> list[Envelope]:
        """The next events out of the files."""
        seq = self.seq
        if not self._threads:
            await trio.lowlevel.checkpoint()
            return follower.more(up_to=seq, most=PAGE_EVENTS)
        return await trio.to_thread.run_sync(
            lambda: follower.more(up_to=seq, most=PAGE_EVENTS), limiter=self._limiter
        )


class FeedReader:
    """One reader; made by :meth:`Feed.reader`.

    ``position`` is the last event that was looked at, wanted or not: where to
    go on after a pause.
    """

    def __init__(self, feed: Feed, after: int, selector: Selector) -> None:
        self.position = after
        self._feed = feed
        self._selector = selector
        self._follower: Follower | None = None
        self._found: list[int] = []
        self._found_up_to = 0

    async def next(self) -> list[Told] | None:
        """The next events that are wanted, perhaps none of those looked at; None at the feed's end.

        Cancelling it loses nothing.

        Raises:
            JournalError: the journal cannot be read, or its beginning was archived.
            TemporarilyUnavailable: its index cannot be used.
        """
        await trio.lowlevel.checkpoint()
        await self._feed.wait_past(self.position)
        if self._feed.is_closed:
            return None
        if self._found:
            return await self._read_found()
        kept = self._feed.at_hand(self.position)
        if kept is not None:
            self._follower = None
            self.position = kept[-1].envelope.seq
            return [each.tell() for each in kept if self._selector.takes(each.envelope)]
        past = self._feed.past
        if past is None or past.is_behind or self._selector.wanted.takes_all:
            return await self._read_files()
        await self._find(past)
        return []

    async def _find(self, past: Past) -> None:
        """Where the next events stand that are wanted; goes on behind them as if all had been looked at."""
        end = self._feed.seq
        wanted = replace(self._selector.wanted, from_seq=self.position + 1, before_seq=end + 1)
        found = await past.find(wanted, first=FOUND_EVENTS)
        if len(found) == FOUND_EVENTS:
            end = found[-1]
        if wanted.has_subject:
            for envelope in await past.beginnings(end):
                self._selector.takes(envelope)  # so that the rest of what it is about is told
        self._follower, self._found, self._found_up_to = None, found, end
        if not found:
            self.position = end

    async def _read_found(self) -> list[Told]:
        assert self._feed.past is not None
        page = self._found[:PAGE_EVENTS]
        envelopes = await self._feed.past.read(page)
        del self._found[:PAGE_EVENTS]
        self.position = page[-1] if self._found else self._found_up_to
        return [told(envelope) for envelope in envelopes]

    async def _read_files(self) -> list[Told]:
        if self._follower is None:
            self._follower = Follower(self._feed.directory, self.position + 1, files=self._feed.files)
        found = await self._feed.read(self._follower)
        if not found or found[0].seq != self.position + 1:
            self._follower = None
            raise JournalError(f"event {self.position + 1} is not in the journal any more")
        self.position = found[-1].seq
        return [told(envelope) for envelope in found if self._selector.takes(envelope)]
