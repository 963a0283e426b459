"""Mailboxes, replies and deadlines: how actors talk.

Owns the rules of a conversation.  A mailbox is a bounded memory channel with
one reader.  Inside the store a sender awaits (``ask``), which is the
back-pressure; at the edge a full mailbox is refused at once (``post_nowait``).

A reply is an event plus an outcome, set synchronously: an asker that has gone
away cannot stall the actor that answers.  Cancelling an asker never cancels
what it asked for; the answer is then dropped.
"""

import math
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from imagestore.errors import DeadlineExceeded, Stopping, TemporarilyUnavailable

Message = TypeVar("Message")
Answer = TypeVar("Answer")

NO_DEADLINE = math.inf


class Reply(Generic[Answer]):
    """Where an actor puts its answer, once."""

    __slots__ = ("_answer", "_done", "_error", "abandoned")

    def __init__(self) -> None:
        self._done = trio.Event()
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        self.abandoned = False
        """The asker has gone away: the answer will not be read."""

    @property
    def is_set(self) -> bool:
        return self._done.is_set()

    def put(self, answer: Answer) -> None:
        """Answer. Atomic; never blocks."""
        assert not self._done.is_set(), "answered twice"
        self._answer = answer
        self._done.set()

    def fail(self, error: BaseException) -> None:
        """Answer with an error, raised where the reply is awaited."""
        assert not self._done.is_set(), "answered twice"
        self._error = error
        self._done.set()

    async def wait(self) -> Answer:
        """The answer, or its error. Cancellation marks the reply as abandoned."""
        try:
            await self._done.wait()
        except trio.Cancelled:
            self.abandoned = True
            raise
        return self.result()

    async def settled(self) -> None:
        """Return once it was answered, whatever with."""
        await self._done.wait()

    def result(self) -> Answer:
        """The answer that was put, without waiting; raises its error."""
        assert self._done.is_set(), "not answered yet"
        if self._error is not None:
            raise self._error
        return self._answer  # type: ignore[return-value]  # put() stored an Answer, which may be None itself


class Mailbox(Generic[Message]):
    """The bounded inbox of one actor."""

    def __init__(self, capacity: int) -> None:
        self._send, self._receive = trio.open_memory_channel[Message](capacity)

    def close(self) -> None:
        """Take no new messages; those that are in it are still read."""
        self._send.close()

    def is_empty(self) -> bool:
        return self._receive.statistics().current_buffer_used == 0

    async def receive(self) -> Message:
        """The next message. Raises ``trio.EndOfChannel`` when closed and drained."""
        return await self._receive.receive()

    async def post(self, message: Message) -> None:
        """Put a message in, waiting for room. Raises Stopping when closed."""
        try:
            await self._send.send(message)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise Stopping from None

    def post_nowait(self, message: Message) -> None:
        """Put a message in. Raises TemporarilyUnavailable when full, Stopping when closed."""
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            raise TemporarilyUnavailable from None
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise Stopping from None

    async def ask(self, message: Callable[[Reply[Answer]], Message]) -> Answer:
        """Post ``message(reply)`` and wait for the answer."""
        reply: Reply[Answer] = Reply()
        await self.post(message(reply))
        return await reply.wait()


def deadline_in(timeout: float | None) -> float:
    """The trio time ``timeout`` seconds from now; without end for None."""
    return NO_DEADLINE if timeout is None else trio.current_time() + timeout


def check_deadline(deadline: float) -> None:
    """Raises DeadlineExceeded when a request is picked up too late to be begun."""
    if trio.current_time() > deadline:
        raise DeadlineExceeded
