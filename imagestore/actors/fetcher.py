"""The fetch queue: the owner of ``images/<id>``.

Owns who fetches what: requests for one image join one fetch; ``max_pending``
counts images, not callers; ``workers`` images are transferred at a time, in
the order in which they were asked for.  Callers come and go, the fetch goes
on until it ends or is cancelled by its operation's id.  Deleting images, and
whatever else changes what lies in ``images/``, is served beside, kept apart
by claims, and as many at a time as the mailbox holds.

A fetch that was accepted ends, in this life or the next: what recovery finds
under way comes in through :meth:`Fetcher.requeue` under its old operation,
and who asks for its image again joins it.
"""

from typing import assert_never

import trio
from msgspec import Struct

from imagestore.actors.base import Mailbox, Reply, check_deadline
from imagestore.actors.commands import DeleteImage
from imagestore.actors.fetch import Fetch, Fetching, accept, carry_out, required
from imagestore.actors.mutator import Mutate, serve
from imagestore.actors.operation import Operations
from imagestore.actors.origin import SERVICE, Origin, UploadedBody
from imagestore.actors.plans import complete_image
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ImageStoreError,
    Stopping,
    TemporarilyUnavailable,
)
from imagestore.events.catalogue import FetchIntent
from imagestore.events.state import OperationRecord


class RequestImage(Struct, frozen=True, kw_only=True):
    """Have the image fetched unless it is there.  Answered when it is usable.

    ``upload`` is the content of an upload, whose ``origin`` says that it is one.
    ``operation`` is the id that the request was given when it was queued, if any.
    """

    image: str
    type: str
    principal: str
    deadline: float
    reply: Reply[None]
    origin: Origin = SERVICE
    upload: UploadedBody | None = None
    operation: str = ""


Message = RequestImage | Mutate


class Fetcher:
    """See the module. Start it with ``await nursery.start(fetcher.run)``."""

    def __init__(
        self,
        operations: Operations,
        fetching: Fetching,
        *,
        workers: int,
        max_pending: int,
        mailbox: int = 256,
    ) -> None:
        self._operations = operations
        self._fetching = fetching
        self._max_pending = max_pending
        self._mailbox_size = mailbox
        self._mailbox: Mailbox[Message] = Mailbox(mailbox)
        self._workers = trio.Semaphore(workers)
        self._fetches: dict[str, Fetch] = {}
        self._requeued: list[Fetch] = []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until closed. Fetches under way are broken off then; the next life takes them up."""
        async with trio.open_nursery() as mutations, trio.open_nursery() as fetches:
            for fetch in self._requeued:
                fetches.start_soon(self._live, fetch)
            self._requeued.clear()
            task_status.started()
            try:
                while True:
                    self._dispatch(await self._mailbox.receive(), mutations, fetches)
            except trio.EndOfChannel:
                fetches.cancel_scope.cancel(reason="the store is shutting down")

    def close(self) -> None:
        self._mailbox.close()

    def post_nowait(self, message: Message) -> None:
        """Raises TemporarilyUnavailable when the mailbox is full, Stopping when closed."""
        self._mailbox.post_nowait(message)

    def cancel(self, operation: str, principal: str) -> bool:
        """Stop the fetch that was accepted under this id; it has ended when its operation has.

        False: there is none, or its image is whole already.
        """
        fetch = next((fetch for fetch in self._fetches.values() if fetch.operation == operation), None)
        return fetch is not None and fetch.cancel(principal)

    def requeue(self, record: OperationRecord) -> None:
        """Take up a fetch of an earlier life. To be called before :meth:`run`."""
        intent = record.intent
        assert isinstance(intent, FetchIntent), "only fetches are requeued"
        fetch = Fetch(
            image=intent.image,
            type=intent.type,
            operation=record.id,
            principal=record.principal,
            waiters=[],
            origin=Origin(source=intent.source, sha256=intent.sha256, size_bytes=intent.size_bytes),
            is_accepted=True,
        )
        self._fetches[fetch.image] = fetch
        self._requeued.append(fetch)

    def under_way(self, image: str) -> Fetch | None:
        """The fetch of an image; None once its outcome is journaled, whoever is still to be told."""
        fetch = self._fetches.get(image)
        is_over = (
            fetch is not None
            and fetch.is_accepted
            and fetch.operation not in self._operations.state.operations
        )
        return None if is_over else fetch

    def _dispatch(self, message: Message, mutations: trio.Nursery, fetches: trio.Nursery) -> None:
        match message:
            case RequestImage():
                if message.reply.is_set:
                    return  # cancelled in the mailbox
                try:
                    self._request(message, fetches)
                except ImageStoreError as error:
                    self._answer(message, error)
            case Mutate(reply=reply) if reply.is_set:
                return  # cancelled in the mailbox
            case Mutate(command=DeleteImage(image=image)) if self.under_way(image) is not None:
                detail = "wait until the fetch has ended"
                self._answer(message, Blocked(f"image is being fetched: {image}", detail=detail))
            case Mutate() if len(mutations.child_tasks) >= self._mailbox_size:
                self._answer(message, TemporarilyUnavailable())
            case Mutate():
                mutations.start_soon(serve, message, self._operations)
            case _:
                assert_never(message)

    def _request(self, message: RequestImage, fetches: trio.Nursery) -> None:
        """Join a fetch, answer at once, or begin one: decided in one step."""
        check_deadline(message.deadline)
        fetch = self.under_way(message.image)
        if fetch is not None:
            self._join(message, fetch)
            return
        record = self._operations.state.images.get(message.image)
        origin = required(message.origin, record)
        if complete_image(message.image, self._operations.state, self._operations.zpool.view) is not None:
            if origin.is_upload:
                raise AlreadyExists(f"image exists already: {message.image}")
            self._answer(message, None)
            return
        self._operations.check_writable()
        if len(self._fetches) >= self._max_pending:
            raise TemporarilyUnavailable(detail=f"{self._max_pending} images are waiting to be fetched")
        fetch = Fetch(
            image=message.image,
            type=message.type,
            operation=message.operation or self._operations.new_id(),
            principal=message.principal,
            waiters=[message.reply],
            origin=origin,
            upload=message.upload,
        )
        self._fetches[fetch.image] = fetch
        self._operations.history.accepting(fetch.operation)
        fetches.start_soon(self._live, fetch)

    def _join(self, message: RequestImage, fetch: Fetch) -> None:
        """Whoever does not say from where is content with where it comes from."""
        wanted, coming = message.origin, fetch.origin
        differs = wanted.sha256 not in {"", coming.sha256} or wanted.source not in {"", coming.source}
        if differs or wanted.is_upload:
            raise Blocked(
                f"image is being fetched: {message.image}",
                blockers=(fetch.operation,),
                detail="from another source; wait until that fetch has ended, or cancel it",
            )
        fetch.waiters = [waiter for waiter in fetch.waiters if not waiter.abandoned]
        fetch.waiters.append(message.reply)
        self._operations.history.join(message.operation, fetch.operation)

    def _answer(self, message: RequestImage | Mutate, error: ImageStoreError | None) -> None:
        """Answer a request that needs nothing done."""
        if error is not None:
            message.reply.fail(error)
        elif isinstance(message, RequestImage):
            message.reply.put(None)
        self._operations.history.conclude(message.operation, error)

    async def _live(self, fetch: Fetch) -> None:
        """A fetch from its acceptance to its outcome; tells its waiters."""
        outcome: ImageStoreError | None = Stopping()
        try:
            if fetch.is_accepted or await accept(fetch, self._operations):
                await carry_out(fetch, self._operations, self._fetching, turn=self._workers)
            outcome = None
        except ImageStoreError as error:
            outcome = error
        finally:
            self._tell(fetch, outcome)

    def _tell(self, fetch: Fetch, error: ImageStoreError | None) -> None:
        """Take the fetch out and answer its waiters, in one step: who asks now begins anew."""
        if self._fetches.get(fetch.image) is fetch:
            del self._fetches[fetch.image]
        for waiter in fetch.waiters:
            if error is None:
                waiter.put(None)
            else:
                waiter.fail(error)
        self._operations.history.conclude(fetch.operation, error)
