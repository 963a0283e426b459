"""The zpool actor: the one who changes the pool.

Owns the driver, with bounded concurrency; the claims; the space ledger; the
view.  Everybody else reads the view and sends messages.  Its mailbox is never
blocked by work: each message that takes time is served by a task of its own.

Promises: an own change is in the view before its reply; a foreign one within
``refresh_seconds``, where the driver tells what was changed.  Where it only
tells that something was, the whole pool is read, and reading it takes a tenth
of the time at most.  It never asks another actor.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import assert_never

import trio
from msgspec import Struct

from imagestore import names
from imagestore.actors.base import NO_DEADLINE, Mailbox, Reply, check_deadline
from imagestore.actors.claims import Claim, ClaimTable
from imagestore.actors.ledger import Ledger
from imagestore.actors.undoing import resisting
from imagestore.actors.view import View
from imagestore.errors import Cancelled, DeadlineExceeded, ImageStoreError, NotFound, Stopping
from imagestore.pools.base import Creation, Dataset, NewFilesystem, PoolDriver, Retagging, Space, Tags, Target
from imagestore.timings import Timings

_log = logging.getLogger(__name__)

COPIES = 2
"""Volumes copied at a time.  They take minutes, so they have slots of their own."""

REST_FACTOR = 10
"""After a refresh of the view, ten times as long without one: a huge pool costs a tenth at most."""

FEW_CHANGES = 200
"""Up to so many rows are looked at one by one when others have changed them; of more, all are."""

# --- what the driver can be told ---------------------------------------------


class Create(Struct, frozen=True, kw_only=True):
    creations: tuple[Creation, ...]


class TakeSnapshot(Struct, frozen=True, kw_only=True):
    datasets: tuple[Target, ...]
    snapshot: str
    tags: Tags


class Destroy(Struct, frozen=True, kw_only=True):
    targets: tuple[Target, ...]
    force: bool = False


class RollBack(Struct, frozen=True, kw_only=True):
    snapshots: tuple[Target, ...]
    newer: tuple[Target, ...]
    operation: str
    force: bool = False


class Resize(Struct, frozen=True, kw_only=True):
    volume: Target
    size: int


class Rename(Struct, frozen=True, kw_only=True):
    target: Target
    name: str


class Adopt(Struct, frozen=True, kw_only=True):
    """Make ``parents``, then retag; if that is refused the parents go again."""

    parents: tuple[NewFilesystem, ...]
    changes: tuple[Retagging, ...]


class Retag(Struct, frozen=True, kw_only=True):
    changes: tuple[Retagging, ...]


class Publish(Struct, frozen=True, kw_only=True):
    """Copy ``snapshot``, a volume's, to the new volume ``name``; it grows as ``staging``."""

    snapshot: Target
    staging: str
    name: str
    tags: Tags
    snapshot_tags: Tags


Command = Publish | Create | TakeSnapshot | Destroy | RollBack | Resize | Rename | Adopt | Retag

# --- messages ------------------------------------------------------------------


class ClaimRequest(Struct, frozen=True, kw_only=True):
    holder: str
    claim: Claim
    deadline: float
    reply: Reply[None]


class Reserve(Struct, frozen=True, kw_only=True):
    operation: str
    size: int
    renew: bool
    reply: Reply[None]


class Execute(Struct, frozen=True, kw_only=True):
    command: Command
    reply: Reply[tuple[Dataset, ...]]


Message = ClaimRequest | Reserve | Execute


class Copying:
    """A copy under way: how much of the stream has been taken in, the scope that ends it, and as what."""

    def __init__(self) -> None:
        self.done_bytes = 0
        self.refusal: ImageStoreError = Cancelled()
        self.scope = trio.CancelScope()


class ZpoolActor:
    """See the module. Start it with ``await nursery.start(zpool.run)``."""

    def __init__(
        self,
        driver: PoolDriver,
        *,
        concurrency: int = 8,
        mailbox: int = 1024,
        refresh_seconds: float = 0.5,
    ) -> None:
        self.driver = driver
        self.view = View()
        self.ledger = Ledger()
        self.timings = Timings()
        self.check_writable: Callable[[], None] = lambda: None
        """Raises ReadOnly once the journal failed: the pool is not changed any more then."""
        self.on_release: Callable[[], None] = lambda: None
        """Called when an operation has ended and given its claim up."""
        self._mailbox: Mailbox[Message] = Mailbox(mailbox)
        self._claims: ClaimTable[str] = ClaimTable()
        self._claimants: dict[str, Reply[None]] = {}
        self._slots = trio.CapacityLimiter(concurrency)
        self._copies = trio.CapacityLimiter(COPIES)
        self._copying: dict[str, Copying] = {}
        self._broken_off = False
        self._refresh_seconds = refresh_seconds
        self._generation = -1
        self._looking = trio.Lock()

    @property
    def pool(self) -> str:
        return self.driver.name

    # -- the actor ------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until the mailbox is closed and drained."""
        await self.refresh()
        async with trio.open_nursery() as nursery:
            refresher = trio.CancelScope()
            nursery.start_soon(self._keep_fresh, refresher)
            task_status.started()
            try:
                while True:
                    self._dispatch(await self._mailbox.receive(), nursery)
            except trio.EndOfChannel:
                refresher.cancel(reason="the zpool actor ends")

    def close(self) -> None:
        """Take no new messages; :meth:`run` returns when those under way are answered."""
        self._mailbox.close()

    def break_off(self) -> None:
        """End the copies under way, and begin no others: they take minutes, and nothing of them is kept."""
        self._broken_off = True
        for copying in self._copying.values():
            copying.refusal = Stopping()
            copying.scope.cancel(reason="the store is shutting down")

    def copying(self, operation: str) -> "Copying | None":
        """The copy that the operation is making, for reads of its progress, and to end it by its scope."""
        return self._copying.get(operation)

    def _dispatch(self, message: Message, nursery: trio.Nursery) -> None:
        match message:
            case ClaimRequest():
                self._claim(message)
            case Reserve(size=0):
                self.ledger.release(message.operation)
                message.reply.put(None)
            case Reserve():
                nursery.start_soon(self._reserve, message)
            case Execute():
                nursery.start_soon(self._execute, message)
            case _:
                assert_never(message)

    def _claim(self, request: ClaimRequest) -> None:
        if request.reply.abandoned:
            return
        if trio.current_time() > request.deadline:
            request.reply.fail(DeadlineExceeded())
            return
        self._claimants[request.holder] = request.reply
        if self._claims.request(request.holder, request.claim):
            self._grant(request.holder)

    def _grant(self, holder: str) -> None:
        """Tell the holder. One that has gone away releases what it is granted (see ``claimed``)."""
        self._claimants.pop(holder).put(None)

    async def _reserve(self, message: Reserve) -> None:
        try:
            self.check_writable()
            space = await self.driver.space()
            if message.reply.abandoned:
                return  # its claim may have ended already: nobody would release the reservation
            if message.renew:
                self.ledger.release(message.operation)
            self.ledger.reserve(
                message.operation,
                message.size,
                available=space.available,
                promised=self.view.promised_bytes,
            )
        except Exception as error:
            message.reply.fail(error)
        else:
            message.reply.put(None)

    async def _execute(self, message: Execute) -> None:
        try:
            async with self._copies if isinstance(message.command, Publish) else self._slots:
                self.check_writable()
                began = trio.current_time()
                rows = await self._drive(message.command)
                self.timings.commands[type(message.command).__name__].observe(trio.current_time() - began)
        except Exception as error:
            message.reply.fail(error)
        else:
            message.reply.put(rows)

    async def _drive(self, command: Command) -> tuple[Dataset, ...]:
        """Do it, and put what came of it into the view."""
        rows: Sequence[Dataset]
        match command:
            case Create():
                rows = await self.driver.create(command.creations)
                self._put_made(rows, rows[0].tags.op)
            case TakeSnapshot():
                rows = await self.driver.snapshot(command.datasets, command.snapshot, command.tags)
                again = await self._again([names.parent(row.name) for row in rows])
                self._put_made((*rows, *again), command.tags.op)
            case Destroy():
                bereft = self.view.bereft_of({target.name for target in command.targets})
                await self.driver.destroy(command.targets, force=command.force)
                self.view.remove(target.name for target in command.targets)
                rows = await self._again(bereft)
            case RollBack():
                rows = await self.driver.rollback(
                    command.snapshots,
                    destroy=command.newer,
                    operation=command.operation,
                    force=command.force,
                )
                self.view.remove(target.name for target in command.newer)
            case Resize():
                rows = (await self.driver.resize(command.volume, command.size),)
            case Rename():
                rows = await self.driver.rename(command.target, command.name)
                self.view.remove([row.name for row in self.view.under(command.target.name)])
                self._put_made(rows, rows[0].tags.op)
            case Publish():
                rows = await self._publish(command)
                self._put_made(rows, command.tags.op)
            case Adopt():
                rows = await self._adopt(command)
            case Retag():
                rows = await self.driver.retag(command.changes)
            case _:
                assert_never(command)
        self.view.put(rows)
        return tuple(rows)

    async def _publish(self, command: Publish) -> Sequence[Dataset]:
        """Copy the snapshot into staging, and rename it when it is whole."""
        staged = await self._copy(command)
        self.check_writable()
        try:
            return await self.driver.rename(staged[0].target, command.name)
        except ImageStoreError:
            await self.driver.destroy([row.target for row in reversed(staged)], force=True)
            raise
        finally:
            self.view.remove(row.name for row in staged)

    async def _copy(self, command: Publish) -> Sequence[Dataset]:
        """Send the snapshot to ourselves, checked like any stream. Raises Stopping or Cancelled, too."""
        if self._broken_off:
            raise Stopping
        copying = self._copying[command.tags.op] = Copying()
        with copying.scope:
            try:
                async with (
                    self.driver.send(command.snapshot) as pieces,
                    self.driver.receive_stream(
                        command.staging, command.tags, snapshot_tags=command.snapshot_tags, read_only=True
                    ) as receiver,
                ):
                    async for piece in pieces:
                        await receiver.feed(piece)
                        copying.done_bytes += len(piece)
                    return await receiver.finish()
            finally:
                del self._copying[command.tags.op]
        raise copying.refusal

    async def _adopt(self, command: Adopt) -> Sequence[Dataset]:
        made = await self.driver.create(command.parents) if command.parents else ()
        try:
            return (*made, *await self.driver.retag(command.changes))
        except ImageStoreError:
            self.view.put(made)
            if made:
                with resisting(made):
                    await self._drive(Destroy(targets=tuple(row.target for row in reversed(made))))
            raise

    def _put_made(self, rows: Sequence[Dataset], operation: str) -> None:
        """Put rows that an operation made; what they promise, or have set aside, is reserved no longer."""
        before = self.view.promised_bytes
        set_aside = sum(row.volsize for row in rows if not row.sparse and row.name not in self.view)
        self.view.put(rows)
        self.ledger.hand_over(operation, self.view.promised_bytes - before + set_aside)

    async def _again(self, changed: Sequence[str]) -> Sequence[Dataset]:
        """Rows that an own change altered beside those that it answered with.

        Those that cannot be read stay as they were: the change itself succeeded.
        """
        with contextlib.suppress(ImageStoreError):
            return await self.driver.existing(changed)
        return ()

    # -- the view ---------------------------------------------------------------

    async def refresh(self) -> None:
        """Read the whole pool. Own mutations that overlap keep their rows."""
        async with self._looking:
            await self._refresh()

    async def _refresh(self) -> None:
        generation = await self.driver.generation()
        await self.driver.changes()  # the list has them
        self.view.begin_refresh()
        try:
            rows = await self.driver.list()
        except BaseException:
            self.view.abandon_refresh()
            raise
        self.view.end_refresh(rows)
        self._generation = generation

    async def look_again(self, datasets: Sequence[str]) -> None:
        """Read these, and their snapshots, now: what is not ours may have changed since others told."""
        async with self._looking:
            known = [row.name for name in datasets for row in self.view.snapshots(name)]
            await self._look_again([*datasets, *known])

    async def _look_again(self, changed: Sequence[str]) -> None:
        """Read what others have changed, and what that changes beside it."""
        wanted = self.view.affected_by(changed)
        self.view.begin_refresh()
        try:
            rows = await self.driver.existing(wanted)
        except BaseException:
            self.view.abandon_refresh()
            raise
        self.view.end_refresh(rows, of=set(wanted))

    async def _follow(self) -> None:
        """Bring the view up to date with what others did."""
        async with self._looking:
            generation = await self.driver.generation()
            if generation != self._generation:
                await self._refresh()
            elif changed := await self.driver.changes():
                self._generation = -1  # if this fails, all is read: nobody tells it again
                if len(changed) <= FEW_CHANGES:
                    await self._look_again(changed)
                    self._generation = generation
                else:
                    await self._refresh()

    async def _keep_fresh(self, scope: trio.CancelScope) -> None:
        took = 0.0
        blind = False
        with scope:
            while True:
                await trio.sleep(max(self._refresh_seconds, took * REST_FACTOR))
                began = trio.current_time()
                try:
                    await self._follow()
                    blind = False
                except ImageStoreError as error:
                    if not blind:
                        _log.warning("the pool cannot be read, what others do to it is not seen: %s", error)
                    blind = True
                took = trio.current_time() - began

    # -- what other actors call ---------------------------------------------------

    @asynccontextmanager
    async def claimed(
        self, operation: str, claim: Claim, *, deadline: float = NO_DEADLINE
    ) -> AsyncIterator[None]:
        """Hold ``claim`` for ``operation``; claim and reservation end with the block.

        Raises:
            DeadlineExceeded: it was not granted in time; nothing is held.
        """
        try:
            await self._ask_for_claim(operation, claim, deadline)
            check_deadline(deadline)
            yield
        finally:
            self._release(operation)

    def _release(self, operation: str) -> None:
        """At once, not through the mailbox: nothing waits while a task is being cancelled.

        A request that is still in the mailbox was abandoned by this.
        """
        self.ledger.release(operation)
        self._claimants.pop(operation, None)
        for holder in self._claims.release(operation):
            self._grant(holder)
        self.on_release()

    async def _ask_for_claim(self, operation: str, claim: Claim, deadline: float) -> None:
        with trio.move_on_at(deadline):
            await self._mailbox.ask(
                lambda reply: ClaimRequest(holder=operation, claim=claim, deadline=deadline, reply=reply)
            )
            return
        raise DeadlineExceeded

    async def reserve(self, operation: str, size: int, *, renew: bool = False) -> None:
        """Set the operation's reservation to ``size`` bytes.

        ``renew`` tells that what it had reserved before is used up.  Raises NoSpace.
        """
        await self._mailbox.ask(
            lambda reply: Reserve(operation=operation, size=size, renew=renew, reply=reply)
        )

    async def execute(self, command: Command) -> tuple[Dataset, ...]:
        """Have the driver do ``command``; its rows are in the view when this returns.

        Cancelling the asker does not cancel the command.
        """
        return await self._mailbox.ask(lambda reply: Execute(command=command, reply=reply))

    def received(self, rows: Sequence[Dataset], operation: str) -> None:
        """Take into the view what a receiver of the driver has made visible for ``operation``."""
        self._put_made(rows, operation)

    async def discard(self, rows: Sequence[Dataset]) -> None:
        """Destroy what a change that failed has made; see :func:`imagestore.actors.undoing.resisting`."""
        if rows:
            with resisting(rows):
                await self.clear(rows)

    async def clear(self, rows: Sequence[Dataset]) -> None:
        """Destroy what an earlier life has left; if a part is gone already, the next start does it."""
        with contextlib.suppress(NotFound):
            await self.execute(Destroy(targets=tuple(row.target for row in rows), force=True))

    async def space(self) -> Space:
        """Total, and what may still be promised to new volumes, in bytes."""
        space = await self.driver.space()
        free = self.ledger.free_bytes(space.available, self.view.promised_bytes)
        return Space(total=space.total, available=free)
