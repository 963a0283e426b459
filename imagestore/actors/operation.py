"""The life of a change, in one place.

    claim what it touches -> judge -> reserve -> OperationStarted (durable)
      -> the pool does it -> facts + OperationFinished (durable, one batch)

Owns the order of these steps and what an error means at each of them:

* before the intent is durable, the request alone fails and nothing happened;
* a refusal of the pool after it is the operation's outcome, journaled;
* a journal that fails after it makes the store read-only: what happened is
  decided by the next start-up;
* anything unexpected after it ends the process, which the journal makes safe.

``trace`` is called at each named step; tests kill the process there.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import trio
from msgspec import structs

from imagestore.actors import zpool as pool_commands
from imagestore.actors.base import check_deadline
from imagestore.actors.commands import Adopt, Command
from imagestore.actors.decisions import claim_of, decide
from imagestore.actors.effects import driver_command, facts, named, parents_made, shown
from imagestore.actors.history import History
from imagestore.actors.plans import Plan, Settled
from imagestore.actors.zpool import ZpoolActor
from imagestore.errors import (
    Cancelled,
    ImageStoreError,
    InUse,
    JournalError,
    OutcomeUnknown,
    PoolStuck,
    ReadOnly,
    TemporarilyUnavailable,
)
from imagestore.events.catalogue import (
    DatasetCreated,
    Envelope,
    Event,
    OperationFinished,
    OperationStarted,
    ReceiveIntent,
)
from imagestore.events.journal import Entry
from imagestore.events.settings import Failure
from imagestore.events.state import State
from imagestore.pools.base import Dataset

_log = logging.getLogger(__name__)

Trace = Callable[[str], None]

BATCH_EVENTS = 20_000
"""Events of one batch: about 6 MB of the 32 MiB that a frame takes."""

JUDGEMENTS = 16
"""How often a command is judged anew because the pool changed while it waited for its claim."""


class Writable(Protocol):
    """What operations need of the journal."""

    @property
    def state(self) -> State: ...

    @property
    def failed(self) -> Failure | None: ...

    async def append(self, entries: Sequence[Entry]) -> Sequence[Envelope]: ...

    def watch(self, observer: Callable[[Sequence[Envelope]], None]) -> None: ...


@contextmanager
def _failing_alone() -> Iterator[None]:
    """Before the intent nothing has happened: what strikes unexpectedly is this request's failure, no more.

    Raises ImageStoreError in place of it.
    """
    try:
        yield
    except ImageStoreError:
        raise
    except Exception as error:
        _log.exception("a request failed unexpectedly; nothing was changed")
        raise ImageStoreError(detail=f"{type(error).__name__}, see the log") from error


class Operations:
    """Carries commands through their life. Shared by all actors; holds no queue."""

    def __init__(
        self,
        journal: Writable,
        zpool: ZpoolActor,
        *,
        new_id: Callable[[], str],
        now_ns: Callable[[], int] = time.time_ns,
        trace: Trace = lambda step: None,
    ) -> None:
        self._journal = journal
        self.zpool = zpool
        self.new_id = new_id
        self.trace = trace
        self.read_only_reason = ""
        self._unknown: set[str] = set()
        """Operations whose outcome the journal refused. Few: nothing begins any more then."""
        zpool.check_writable = self.check_writable
        self.now_ns = now_ns
        self.began_ns = now_ns()
        self.began_seq = journal.state.seq
        self.timings = zpool.timings
        self.history = History(new_id=new_id, now_ns=now_ns)
        self.history.remember(journal.state.operations.values())
        journal.watch(self.history.observe)

    @property
    def state(self) -> State:
        return self._journal.state

    def check_writable(self) -> None:
        """Raises ReadOnly once the journal failed, or an outcome could not be journaled."""
        if self.read_only_reason:
            raise ReadOnly(detail=self.read_only_reason)
        if self._journal.failed is not None:
            raise ReadOnly(detail=self._journal.failed.reason)

    # -- commands -----------------------------------------------------------------

    async def perform(
        self, command: Command, *, principal: str, deadline: float, operation: str = ""
    ) -> tuple[Dataset, ...]:
        """Judge ``command`` and carry it out. Returns the rows that answer it.

        ``operation`` is its id if it has one already.

        Raises what ``decide`` and the pool refuse with, NoSpace, ReadOnly,
        DeadlineExceeded (not begun), OutcomeUnknown.
        """
        self.check_writable()
        check_deadline(deadline)
        operation = operation or self.new_id()
        for _ in range(JUDGEMENTS):
            with _failing_alone():
                claim = claim_of(command, self.state, self.zpool.view)
            async with self.zpool.claimed(operation, claim, deadline=deadline):
                with _failing_alone():
                    if isinstance(command, Adopt):  # what is not ours, others may have marked just now
                        await self.zpool.look_again(command.volumes)
                    if claim_of(command, self.state, self.zpool.view) != claim:
                        continue
                    judged = decide(command, self.state, self.zpool.view)
                    if isinstance(judged, Settled):
                        return judged.rows
                    await self.check_users(judged)
                return await self.carry_out(operation, judged, principal=principal)
        raise TemporarilyUnavailable(detail="the datasets that it touches keep changing")

    async def carry_out(
        self, operation: str, plan: Plan, *, principal: str, before: Sequence[Event] = ()
    ) -> tuple[Dataset, ...]:
        """From the intent to the outcome of a plan whose claim is held."""
        with _failing_alone():
            if plan.reserve_bytes:
                await self.zpool.reserve(operation, plan.reserve_bytes)
        self.trace("before-intent")
        await self.begin(operation, plan, principal=principal, cause=plan.cause)
        self.trace("after-intent")
        try:
            command = driver_command(operation, plan.intent, force=plan.force)
            if command is not None:
                await self.zpool.execute(command)
        except ImageStoreError as error:
            stays = parents_made(plan.intent, operation, self.zpool.view)
            await self.fail(operation, error, principal=principal, happened=stays)
            raise
        self.trace("after-effect")
        happened = facts(plan.intent, operation, self.zpool.view)
        await self.finish(operation, happened, principal=principal)
        self.trace("after-outcome")
        return (*plan.gone, *named(self.zpool.view, plan.answer))

    async def check_users(self, plan: Plan) -> None:
        """Refuse what would pull a disk away from a process, before anything is journaled."""
        if plan.force:
            return
        command = driver_command("", plan.intent, force=False)
        if isinstance(command, pool_commands.Destroy):
            volumes = [target.name for target in command.targets]
        elif isinstance(command, pool_commands.Adopt):
            volumes = [change.target.name for change in command.changes]
        elif isinstance(command, pool_commands.RollBack):
            volumes = [target.name.partition("@")[0] for target in command.snapshots]
        else:
            return
        for name in volumes:
            row = self.zpool.view.get(name)
            if row is None or row.kind != "volume":
                continue
            users = await self.zpool.driver.users(name)
            if users:
                raise InUse.by(name, users)

    # -- intent and outcome -----------------------------------------------------------

    async def begin(
        self, operation: str, plan: Plan, *, principal: str, with_it: Sequence[Event] = (), cause: str = ""
    ) -> None:
        """Make the intent durable. Nothing happened if this raises."""
        self.check_writable()
        entry = self.history.accepting(operation)
        started = OperationStarted(
            method=plan.method,
            subject=plan.subject,
            intent=plan.intent,
            reserved_bytes=plan.reserve_bytes,
            force=plan.force,
        )
        if entry is not None and entry.key:
            started = structs.replace(
                started,
                key=entry.key,
                request=entry.request,
                answer=plan.answer,
                gone=tuple(map(shown, plan.gone)),
                shown=entry.shown,
            )
        await self._append([self.entry(e, operation, principal, cause) for e in (started, *with_it)])

    async def finish(self, operation: str, happened: Sequence[Event], *, principal: str) -> None:
        """Make facts and success durable, in one batch."""
        answer = tuple(map(shown, named(self.zpool.view, self._to_be_shown(operation, happened))))
        await self.conclude(
            operation, (*happened, OperationFinished(outcome="succeeded", answer=answer)), principal
        )

    def _to_be_shown(self, operation: str, happened: Sequence[Event]) -> Sequence[str]:
        """The datasets that the answer shows, if it may have to be given again."""
        record = self.state.operations.get(operation)
        if record is None or not record.key:
            return ()
        if not isinstance(record.intent, ReceiveIntent):
            return record.answer
        came = [e.name for e in happened if isinstance(e, DatasetCreated) and e.kind == "snapshot"]
        return (record.intent.name, *came)

    async def fail(
        self, operation: str, error: ImageStoreError, *, principal: str, happened: Sequence[Event] = ()
    ) -> None:
        """Make the failure durable, and what did happen before it.

        A change that has not ended has not failed: the next life waits for it, and decides.
        """
        if isinstance(error, PoolStuck):
            raise self._leave_open(operation, f"the outcome of {operation} is not known: {error}") from error
        finished = OperationFinished(
            outcome="cancelled" if isinstance(error, Cancelled) else "failed",
            error=str(error),
            error_type=type(error).__name__,
        )
        await self.conclude(operation, (*happened, finished), principal)

    async def conclude(self, operation: str, events: Sequence[Event], principal: str) -> None:
        """Append the last events of an operation; a journal that refuses them makes the store read-only.

        Raises:
            OutcomeUnknown: the pool was changed and the journal could not say so; it
                will not be told anything else of this operation in this life either.
        """
        if operation in self._unknown:
            raise OutcomeUnknown(self.read_only_reason)
        try:
            await self.record(operation, events, principal=principal)
        except (JournalError, ReadOnly) as error:
            reason = f"the outcome of {operation} could not be journaled: {error}"
            raise self._leave_open(operation, reason) from error

    def _leave_open(self, operation: str, reason: str) -> OutcomeUnknown:
        """Nothing is changed any more in this life; the next one ends the operation."""
        self._unknown.add(operation)
        self.read_only_reason = reason
        _log.critical("%s; the store is read-only until it is restarted", reason)
        return OutcomeUnknown(reason, detail="restart the store")

    async def record(self, operation: str, events: Sequence[Event], *, principal: str) -> None:
        """Append events of an operation under way, or of none ("").

        One batch, unless there are more than a frame takes: then the last batch
        ends the operation, and what the others say is said again if it never comes.
        """
        for first in range(0, len(events), BATCH_EVENTS):
            batch = events[first : first + BATCH_EVENTS]
            await self._append([self.entry(e, operation, principal) for e in batch])

    async def _append(self, entries: Sequence[Entry]) -> None:
        began = trio.current_time()
        await self._journal.append(entries)
        self.timings.append.observe(trio.current_time() - began)
        for entry in entries:
            if isinstance(entry.event, OperationFinished):
                self.timings.ended[entry.event.outcome] += 1

    @staticmethod
    def entry(event: Event, operation: str, principal: str, cause: str = "") -> Entry:
        return Entry(event=event, operation=operation, cause=cause, principal=principal)
