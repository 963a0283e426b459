"""The wire's types of the one screen: how the store is, its guests, its journal.

Shapes only, as in :mod:`imagestore.model`.  Sizes in bytes, times RFC 3339 in
UTC; guids are hexadecimal text, because a browser's numbers do not hold them.
"""

from msgspec import UNSET, Struct, UnsetType

from imagestore.condition import Condition
from imagestore.model import Operation


class StatusRequest(Struct, frozen=True, kw_only=True):
    """There is nothing to say."""


class PoolStatus(Struct, frozen=True, kw_only=True):
    """``health`` is "ok", or what is wrong.  ``promised_bytes`` is what sparse volumes and clones may still
    write, ``reserved_bytes`` what operations under way have set aside, ``free_bytes`` what may be promised
    to new volumes.  A pool that does not say its space has 0 in all of them."""

    name: str
    driver: str
    health: str
    size_bytes: int = 0
    used_bytes: int = 0
    available_bytes: int = 0
    promised_bytes: int = 0
    reserved_bytes: int = 0
    free_bytes: int = 0


class JournalStatus(Struct, frozen=True, kw_only=True):
    """The last durable event and the chain's hash there; how long flushes take, in seconds.

    ``flush_p99_seconds`` is an upper bound, since the store began; None before the first.
    """

    seq: int
    head: str
    epoch: int
    flush_p99_seconds: float | None = None
    last_flush_seconds: float = 0.0
    queued: int = 0


class DriftStatus(Struct, frozen=True, kw_only=True):
    """How many datasets differ from the journal; it may be some seconds old."""

    lost: int = 0
    renamed: int = 0
    foreign: int = 0


class Status(Struct, frozen=True, kw_only=True):
    """The summary.  ``running`` are operations under way, ``failures`` those of the last day that failed,
    the newest first; both bounded, with how many there are in all."""

    version: str
    now: str
    condition: Condition
    pool: PoolStatus
    journal: JournalStatus
    drift: DriftStatus
    running: tuple[Operation, ...] = ()
    running_total: int = 0
    failures: tuple[Operation, ...] = ()
    failures_total: int = 0


class StatusResponse(Struct, frozen=True, kw_only=True):
    status: Status


class GuestsRequest(Struct, frozen=True, kw_only=True):
    """One guest by ``id``, with its snapshots; or those after the guest ``after``, ``limit`` at most."""

    id: str = ""
    after: str = ""
    limit: int = 0


class DiskSnapshot(Struct, frozen=True, kw_only=True):
    """A snapshot of a disk; ``written_bytes`` since the one before."""

    id: str
    taken: str
    written_bytes: int


class DiskStatus(Struct, frozen=True, kw_only=True):
    """A guest's disk.

    ``written_bytes`` of it hold data, those of its image among them.
    ``origin`` is the snapshot it is a clone of, ``image`` the image that
    belongs to, "" if none.
    """

    id: str
    size_bytes: int
    written_bytes: int
    device: str
    in_use: bool
    image: str = ""
    origin: str = ""
    last_snapshot: str | None = None
    snapshots: tuple[DiskSnapshot, ...] | UnsetType = UNSET


class GuestStatus(Struct, frozen=True, kw_only=True):
    """A guest; ``in_use`` when somebody has one of its disks open for writing."""

    id: str
    in_use: bool
    size_bytes: int
    written_bytes: int
    disks: tuple[DiskStatus, ...]
    last_snapshot: str | None = None


class GuestsResponse(Struct, frozen=True, kw_only=True):
    """``total`` is how many guests there are, ``next`` the next page's ``after``, "" at the end."""

    guests: tuple[GuestStatus, ...]
    total: int
    next: str = ""


class SearchRequest(Struct, frozen=True, kw_only=True):
    """Which events, the newest first: ``text`` is looked for in what an event says, in its type, its
    operation and who; the others as of the event feed. ``before`` is a seq, ``since`` a time."""

    text: str = ""
    dataset: str = ""
    guest: str = ""
    image: str = ""
    who: str = ""
    operation: str = ""
    type: str = ""
    since: str = ""
    before: int = 0
    limit: int = 0


class EventLine(Struct, frozen=True, kw_only=True):
    """One event; ``what`` says it in words."""

    seq: int
    time: str
    who: str
    operation: str
    event: str
    what: str


class SearchResponse(Struct, frozen=True, kw_only=True):
    """``next`` is what ``before`` is to be to look further back, 0 when all was looked at."""

    events: tuple[EventLine, ...]
    next: int = 0


class ExplainRequest(Struct, frozen=True, kw_only=True):
    id: str = ""


class LifeStory(Struct, frozen=True, kw_only=True):
    """One dataset from its making to its end: the names it had, the seq it ended with (0: it is there)."""

    names: tuple[str, ...]
    role: str
    guid: str
    txg: int
    origin: str
    ended: int
    events: tuple[EventLine, ...]


class ExplainResponse(Struct, frozen=True, kw_only=True):
    """What had the name, oldest first; what the last came from, nearest first; attempts that left nothing.

    ``truncated``: the past is longer than is told here; `imagestore explain --journal DIR` tells all.
    """

    dataset: str
    lives: tuple[LifeStory, ...]
    origins: tuple[LifeStory, ...]
    attempts: tuple[EventLine, ...]
    truncated: bool = False
