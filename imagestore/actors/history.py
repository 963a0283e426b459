"""What the store remembers of its operations: those under way, and the last ones that ended.

Owns one entry for each, from the moment a request is queued: so it can be
shown, waited for and cancelled under one id from the start.  From its
acceptance on an entry says what the journal says, told by :meth:`History.observe`
in the order of events; older operations are found through the journal's index
(``actors/archive.py``).  What was refused, was cancelled before it began, or
found everything done is in no journal, and remembered here only.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

import trio
from msgspec import Struct, field

from imagestore.errors import Cancelled, ImageStoreError, Stopping, TooLate
from imagestore.events.catalogue import (
    Envelope,
    OperationFinished,
    OperationResumed,
    OperationStarted,
)
from imagestore.events.selection import alias_of
from imagestore.events.state import OperationRecord
from imagestore.events.subjects import datasets_of

KEPT = 10_000
"""So many operations that have ended are remembered."""

EFFECTS = 100
"""So many of what an operation caused are told one by one; the journal has them all."""

Status = Literal["queued", "running", "succeeded", "failed", "cancelled", "refused"]


class Effect(Struct, frozen=True, kw_only=True, gc=False):
    """One event that an operation caused: its seq, its type, and what it is about."""

    seq: int
    event: str
    subject: str


class Receipt(Protocol):
    """Where a caller is told, while it waits, the id of its operation, and when that is accepted."""

    operation: str
    accepted: trio.Event


class Ticket(Struct, frozen=True, kw_only=True):
    """What a request says of itself when it is queued.

    ``key`` and ``request`` are hashes (see ``actors/keys.py``), ``shown`` goes
    into ``OperationStarted.shown``.
    """

    method: str
    subject: str
    principal: str
    key: str = ""
    request: str = ""
    shown: str = ""
    receipt: Receipt | None = None


class Entry(Struct, kw_only=True, eq=False):
    """One operation.  Times in nanoseconds since 1970, 0 while unknown; seqs are 0 out of the journal."""

    id: str
    method: str
    subject: str
    principal: str
    cause: str = ""
    key: str = ""
    request: str = ""
    shown: str = ""
    status: Status = "queued"
    queued_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    first_seq: int = 0
    last_seq: int = 0
    attempts: int = 0
    error: str = ""
    error_type: str = ""
    left_behind: tuple[str, ...] = ()
    effects: list[Effect] = field(default_factory=list)
    effects_total: int = 0
    receipts: list[Receipt] = field(default_factory=list)
    refuse: Callable[[ImageStoreError], None] | None = None
    scope: trio.CancelScope | None = None
    done: trio.Event | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it can still be taken out of where it waits."""
        return self.status == "queued" and not (self.scope is None and self.refuse is None)

    @property
    def has_ended(self) -> bool:
        return self.status not in ("queued", "running")


class History:
    """See the module.  Belongs to trio's thread; nothing in it waits but :meth:`wait_ended`."""

    def __init__(self, *, new_id: Callable[[], str], now_ns: Callable[[], int], kept: int = KEPT) -> None:
        self._new_id = new_id
        self._now_ns = now_ns
        self._kept = kept
        self._under_way: dict[str, Entry] = {}
        self._ended: OrderedDict[str, Entry] = OrderedDict()
        self._by_key: dict[str, Entry] = {}
        self._closed = False

    # -- asking ------------------------------------------------------------------

    def find(self, operation: str) -> Entry | None:
        return self._under_way.get(operation) or self._ended.get(operation)

    def under_way(self) -> Iterable[Entry]:
        """Queued and running, in the order in which they came."""
        return self._under_way.values()

    def unjournaled(self) -> Iterable[Entry]:
        """Ended without ever having been accepted, the newest first."""
        return (entry for entry in reversed(self._ended.values()) if not entry.first_seq)

    def ended(self) -> Iterable[Entry]:
        """Those that have ended and are remembered, the newest first."""
        return reversed(self._ended.values())

    def bound(self, key: str) -> Entry | None:
        """The newest accepted operation that is bound to a key's hash."""
        return self._by_key.get(key)

    async def wait_ended(self, entry: Entry) -> None:
        """Return once the operation has ended. Raises Stopping when the store ends first."""
        if entry.has_ended:
            await trio.lowlevel.checkpoint()
            return
        if entry.done is None:
            entry.done = trio.Event()
        if not self._closed:
            await entry.done.wait()
        if not entry.has_ended:
            raise Stopping

    # -- queued ----------------------------------------------------------------------

    def queue(self, ticket: Ticket, refuse: Callable[[ImageStoreError], None] | None = None) -> str:
        """Give a request its id. ``refuse`` answers it if it is cancelled before it is taken up."""
        operation = self._new_id()
        self._under_way[operation] = entry = Entry(
            id=operation,
            method=ticket.method,
            subject=ticket.subject,
            principal=ticket.principal,
            key=ticket.key,
            request=ticket.request,
            shown=ticket.shown,
            queued_ns=self._now_ns(),
            refuse=refuse,
        )
        if ticket.receipt is not None:
            ticket.receipt.operation = operation
            entry.receipts.append(ticket.receipt)
        return operation

    def drop(self, operation: str) -> None:
        """Forget a request that found no place in a mailbox."""
        entry = self._under_way.pop(operation, None)
        if entry is not None:
            for receipt in entry.receipts:
                receipt.operation = ""

    def take_up(self, operation: str, scope: trio.CancelScope) -> None:
        """The request is out of its mailbox: from now on ``scope`` cancels it, until it is accepted."""
        entry = self._under_way.get(operation)
        if entry is not None:
            entry.scope = scope

    def join(self, operation: str, other: str) -> None:
        """A request turned out to ask for what ``other`` is doing already."""
        entry = self._under_way.pop(operation, None)
        joined = self.find(other)
        if entry is None or joined is None:
            return
        for receipt in entry.receipts:
            receipt.operation = other
            if joined.first_seq:
                receipt.accepted.set()
        joined.receipts += entry.receipts

    def accepting(self, operation: str) -> Entry | None:
        """It is about to be journaled: too late to cancel. None of an operation that nobody queued."""
        entry = self._under_way.get(operation)
        if entry is not None:
            entry.status = "running"
            entry.scope = entry.refuse = None
        return entry

    def conclude(self, operation: str, error: ImageStoreError | None = None) -> None:
        """A request has been answered.  Says nothing new of one that was accepted."""
        entry = self._under_way.get(operation)
        if entry is None or entry.first_seq:
            return
        if error is not None:
            entry.status = "cancelled" if isinstance(error, Cancelled) else "refused"
            entry.error, entry.error_type = str(error), type(error).__name__
        else:
            entry.status = "succeeded"
        self._end(entry, self._now_ns())

    def cancel(self, entry: Entry) -> None:
        """Cancel what was not accepted yet. Raises TooLate."""
        if not entry.is_waiting:
            raise too_late(entry)
        if entry.scope is not None:
            entry.scope.cancel(reason="the operation was cancelled")
        elif entry.refuse is not None:
            error = Cancelled()
            entry.refuse(error)
            self.conclude(entry.id, error)

    # -- what the journal says -------------------------------------------------------

    def remember(self, records: Iterable[OperationRecord]) -> None:
        """Take in what an earlier life left under way."""
        for record in records:
            entry = self._under_way[record.id] = Entry(
                id=record.id,
                method=record.method,
                subject=record.subject,
                principal=record.principal,
                key=record.key,
                request=record.request,
                status="running",
                started_ns=record.started_ns,
                first_seq=record.seq,
                attempts=record.attempts,
            )
            if entry.key:
                self._by_key[entry.key] = entry

    def observe(self, envelopes: Sequence[Envelope]) -> None:
        """Events have been applied; called by the journal, in their order."""
        for envelope in envelopes:
            if envelope.operation:
                self._observe(envelope)

    def _observe(self, envelope: Envelope) -> None:
        event = envelope.event
        entry = self._under_way.get(envelope.operation)
        if isinstance(event, OperationStarted):
            if entry is None:
                entry = self._under_way[envelope.operation] = Entry(
                    id=envelope.operation, method="", subject="", principal=""
                )
            tell(entry, envelope)
            if entry.key:
                self._by_key[entry.key] = entry
            for receipt in entry.receipts:
                receipt.accepted.set()
        elif entry is not None:
            tell(entry, envelope)
            if entry.has_ended:
                self._end(entry, envelope.time_ns)

    def _end(self, entry: Entry, time_ns: int) -> None:
        entry.finished_ns = time_ns
        entry.refuse = entry.scope = None
        entry.receipts = []
        del self._under_way[entry.id]
        self._ended[entry.id] = entry
        if len(self._ended) > self._kept:
            _, oldest = self._ended.popitem(last=False)
            if self._by_key.get(oldest.key) is oldest:
                del self._by_key[oldest.key]
        if entry.done is not None:
            entry.done.set()

    def close(self) -> None:
        """Whoever waits is told that the store stops."""
        self._closed = True
        for entry in self._under_way.values():
            if entry.done is not None:
                entry.done.set()


def too_late(entry: Entry) -> TooLate:
    """The refusal to cancel it, which says why."""
    if entry.has_ended:
        return TooLate(f"operation has ended: it was {entry.status}", blockers=(entry.id,))
    detail = "it is being carried out and will end by itself"
    return TooLate("operation cannot be cancelled any more", blockers=(entry.id,), detail=detail)


def tell(entry: Entry, envelope: Envelope) -> None:
    """Add to an entry what one of its operation's events says."""
    event = envelope.event
    match event:
        case OperationStarted():
            entry.method, entry.subject = event.method, event.subject
            entry.principal, entry.cause = envelope.principal, envelope.cause
            entry.key, entry.request = event.key, event.request
            entry.status = "running"
            entry.started_ns, entry.first_seq = envelope.time_ns, envelope.seq
        case OperationResumed():
            entry.attempts = event.attempt
        case OperationFinished():
            entry.status = event.outcome
            entry.error, entry.error_type = event.error, event.error_type
            entry.left_behind = tuple(dataset.name for dataset in event.left_behind)
            entry.finished_ns, entry.last_seq = envelope.time_ns, envelope.seq
        case _:
            entry.effects_total += 1
            if len(entry.effects) < EFFECTS:
                subject = next(datasets_of(event), "")
                entry.effects.append(Effect(seq=envelope.seq, event=alias_of(event), subject=subject))


def entry_of(envelopes: Iterable[Envelope]) -> Entry | None:
    """The entry that an operation's events make, its start among them; None without it."""
    entry: Entry | None = None
    for envelope in envelopes:
        if isinstance(envelope.event, OperationStarted):
            entry = Entry(id=envelope.operation, method="", subject="", principal="")
        if entry is not None:
            tell(entry, envelope)
    return entry
