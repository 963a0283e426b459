"""Idempotency keys: the same request again is the same operation, and has the same answer.

Owns which keys are in flight, and the tasks that carry keyed requests: a key
is claimed before its request gets into any mailbox, and whoever comes with it
while it is in flight waits for the one answer.  An accepted operation binds
its key, in the journal: so an answer can be given again, from what the journal
says happened, in this life or another, for seven days; a failure is the same failure
again.  What was refused before it was accepted, or found everything done, has
bound nothing; nor has what was cut short by the end of a life and undone in the
next: the request that comes again does it.

A key is its caller's: two callers may use the same one.  The journal gets a
hash of both, and a hash of the request with the key in it: who reads it can
guess at neither without knowing the key.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence

import trio
from msgspec import Struct

from imagestore.actors.archive import Archive
from imagestore.actors.base import Reply
from imagestore.actors.history import History, Receipt
from imagestore.errors import JournalError, KeyReused, Stopping, TemporarilyUnavailable
from imagestore.events.catalogue import Envelope, OperationFinished

DAY_NS = 86_400 * 1_000_000_000
KEPT_NS = 7 * DAY_NS
"""How long an operation's key stands for it, from its acceptance."""

INTERRUPTED = "Interrupted"
"""The ``error_type`` with which recovery ends what it undoes."""

MOST_IN_FLIGHT = 4096

PATIENCE_SECONDS = 5.0
"""How often a waiting request looks whether the journal still works."""

ADVICE = "use a new key for every new request"


class Key(Struct, frozen=True, kw_only=True):
    """A caller's key and its request, as hashes in hexadecimal."""

    key: str
    request: str


def key_of(key: str, *, principal: str, method: str, request: bytes) -> Key:
    """The hashes for a caller's ``key``; ``request`` is its canonical JSON."""
    secret = hashlib.blake2b(key.encode(), digest_size=32).digest()
    owner = hashlib.blake2b(principal.encode(), key=secret, digest_size=16, person=b"imagestore-key")
    what = hashlib.blake2b(
        method.encode() + b"\0" + request, key=secret, digest_size=16, person=b"imagestore-what"
    )
    return Key(key=owner.hexdigest(), request=what.hexdigest())


_Perform = Callable[[], Awaitable[Struct]]
_Again = Callable[[Sequence[Envelope]], Awaitable[Struct]]


class _Claim(Struct, kw_only=True, eq=False):
    """A request in flight, with its key or without one."""

    key: Key | None
    reply: Reply[Struct]
    receipt: Receipt | None = None


def was_undone(finished: OperationFinished) -> bool:
    """Whether the operation was cut short by the end of its life, and undone: nobody was told of any
    outcome, and nothing is left of it."""
    return finished.error_type == INTERRUPTED and not finished.left_behind


class Keys:
    """See the module. Start it with ``await nursery.start(keys.run)``.

    ``check_writable`` raises once nothing can be journaled any more: what is
    under way then has no end in this life.
    """

    def __init__(
        self,
        history: History,
        archive: Archive,
        *,
        now_ns: Callable[[], int],
        check_writable: Callable[[], None],
    ) -> None:
        self._history = history
        self._archive = archive
        self._now_ns = now_ns
        self._check_writable = check_writable
        self._claims: dict[str, _Claim] = {}
        self._nursery: trio.Nursery | None = None
        self._closing = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host requests until :meth:`close`, then until each has been answered."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self._closing.wait()

    def close(self) -> None:
        """Take no new ones."""
        self._closing.set()

    def begin(self, perform: _Perform) -> Reply[Struct]:
        """Carry out a request without a key, whose caller need not wait for the answer.

        Raises TemporarilyUnavailable, Stopping: not now.
        """
        claim = _Claim(key=None, reply=Reply())
        self._start(claim, perform)
        return claim.reply

    def claim(
        self,
        key: Key,
        receipt: Receipt,
        perform: _Perform,
        again: _Again,
        *,
        frees: Callable[[OperationFinished], bool] = was_undone,
    ) -> tuple[Reply[Struct], Receipt]:
        """Begin the request, or join it: where its answer comes, and who is told of its operation.

        Args:
            key: whose, and for what.
            receipt: told of the operation if this is the first to come.
            perform: carries the request out.
            again: makes the answer, or raises the failure, of an operation that ended, from its events.
            frees: whether an end frees the key.

        Raises:
            KeyReused: the key stands for another request, in flight.
            TemporarilyUnavailable, Stopping: not now.
        """
        claim = self._claims.get(key.key)
        if claim is not None:
            if claim.key != key:
                raise KeyReused(detail=ADVICE)
            return claim.reply, claim.receipt or receipt
        claim = _Claim(key=key, receipt=receipt, reply=Reply())

        async def once() -> Struct:
            operation = await self._bound(key)
            if operation is None:
                return await perform()
            receipt.operation = operation
            events = await self._ended(operation)
            finished = events[-1].event
            if isinstance(finished, OperationFinished) and frees(finished):
                return await perform()
            receipt.accepted.set()
            return await again(events)

        self._start(claim, once)
        self._claims[key.key] = claim
        return claim.reply, receipt

    def _start(self, claim: _Claim, perform: _Perform) -> None:
        if self._closing.is_set() or self._nursery is None:
            raise Stopping
        if len(self._nursery.child_tasks) >= MOST_IN_FLIGHT:
            raise TemporarilyUnavailable(detail=f"{MOST_IN_FLIGHT} requests with a key are in flight")
        self._nursery.start_soon(self._carry, claim, perform)

    async def _carry(self, claim: _Claim, perform: _Perform) -> None:
        """One request. Its failure, whatever it is, is its answer, and nobody else's."""
        error: BaseException = Stopping()
        answer: Struct | None = None
        try:
            answer = await perform()
        except Exception as failure:
            error = failure
        finally:
            if claim.key is not None:
                del self._claims[claim.key.key]
            if answer is not None:
                claim.reply.put(answer)
            else:
                claim.reply.fail(error)

    async def _bound(self, key: Key) -> str | None:
        """The operation that the key stands for. Raises KeyReused."""
        oldest = self._now_ns() - KEPT_NS
        entry = self._history.bound(key.key)
        if entry is not None:
            if entry.has_ended and entry.started_ns < oldest:
                return None
            request, operation = entry.request, entry.id
        else:
            bound = await self._archive.bound(key.key)
            if bound is None or bound.started_ns < oldest:
                return None
            story = await self._archive.story(bound.operation, most=2)
            if not story:
                raise JournalError("the operation that the key stands for is not in the journal any more")
            request, operation = getattr(story[0].event, "request", ""), bound.operation
        if request != key.request:
            raise KeyReused(detail=ADVICE)
        return operation

    async def _ended(self, operation: str) -> Sequence[Envelope]:
        """The events of an operation, once it has ended."""
        entry = self._history.find(operation)
        while entry is not None and not entry.has_ended:
            self._check_writable()
            with trio.move_on_after(PATIENCE_SECONDS):
                await self._history.wait_ended(entry)
        return await self._archive.story(operation)
