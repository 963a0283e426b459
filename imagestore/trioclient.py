"""The client for programs that run on trio: the methods of ``OperationClient``, to be awaited.

Owns the way from one to the other, and cancellation.  Every call runs in a
worker thread, because the wire blocks; ``most_calls`` bounds them.  Promises: a
cancelled call raises at once and its connection is broken off; its thread ends
when it notices, within the seconds that a connection may take to be made.  What
the store has accepted by then goes on there, as it does when any client goes away.

Nothing of the methods is written here but their names: arguments, answers and
errors are those of :mod:`imagestore.client` and :mod:`imagestore.operationclient`.
"""

import functools
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

import trio

from imagestore.endpoint import DEFAULT_SERVER, NO_CREDENTIALS, Credentials
from imagestore.operationclient import FOR_EVER_SECONDS, FeedEvent, OperationClient
from imagestore.wire import Changing

MOST_CALLS = 40

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class _Interrupted(Exception):
    """The call was cancelled; nobody waits for what its thread does."""


class _Call(OperationClient):
    """The client of one call, which can be broken off from another thread."""

    def __init__(self, like: OperationClient) -> None:
        self.__dict__.update(vars(like))  # its address and credentials are read once
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._interrupted = False

    def connected(self, connection: socket.socket) -> None:
        with self._lock:
            if self._interrupted:
                raise _Interrupted
            self._connection = connection

    def interrupt(self) -> None:
        """Break off the connection there is, and let none be made any more."""
        with self._lock:
            self._interrupted = True
            if self._connection is not None:
                # That of the socket itself: the thread is in the middle of what TLS does with it.
                with suppress(OSError):
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)


def _awaited(
    method: Callable[Concatenate[OperationClient, _Parameters], _Result],
) -> Callable[Concatenate["TrioClient", _Parameters], Coroutine[Any, Any, _Result]]:
    """``method``, to be awaited."""

    async def call(client: "TrioClient", /, *given: _Parameters.args, **named: _Parameters.kwargs) -> _Result:
        one = client.one_call()
        return await client.in_thread(one, functools.partial(method, one, *given, **named))

    functools.update_wrapper(call, method)
    return call


class TrioClient:
    """The methods of a store, to be awaited; parameters as of :class:`~imagestore.wire.Wire`.

    ``most_calls`` may be under way at once, open downloads and feeds included
    while they wait; further ones wait their turn.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        timeout: float | None = None,
        changing: Changing = Changing(),  # noqa: B008 (it is frozen)
        credentials: Credentials = NO_CREDENTIALS,
        most_calls: int = MOST_CALLS,
    ) -> None:
        self._client = OperationClient(server, timeout=timeout, changing=changing, credentials=credentials)
        self._limiter = trio.CapacityLimiter(most_calls)
        self.server = self._client.server

    list_images = _awaited(OperationClient.list_images)
    get_image = _awaited(OperationClient.get_image)
    request_image = _awaited(OperationClient.request_image)
    upload_image = _awaited(OperationClient.upload_image)
    list_sources = _awaited(OperationClient.list_sources)
    register_source = _awaited(OperationClient.register_source)
    remove_source = _awaited(OperationClient.remove_source)
    delete_image = _awaited(OperationClient.delete_image)
    describe_images = _awaited(OperationClient.describe_images)
    set_image_alias = _awaited(OperationClient.set_image_alias)
    remove_image_alias = _awaited(OperationClient.remove_image_alias)
    publish_image = _awaited(OperationClient.publish_image)
    collect_images = _awaited(OperationClient.collect_images)
    clone_image = _awaited(OperationClient.clone_image)

    list_volumes = _awaited(OperationClient.list_volumes)
    create_volume = _awaited(OperationClient.create_volume)
    resize_volume = _awaited(OperationClient.resize_volume)
    get_volume = _awaited(OperationClient.get_volume)
    delete_dataset = _awaited(OperationClient.delete_dataset)
    receive = _awaited(OperationClient.receive)
    foresee_receive = _awaited(OperationClient.foresee_receive)

    get_drift = _awaited(OperationClient.get_drift)
    adopt = _awaited(OperationClient.adopt)
    adopt_original = _awaited(OperationClient.adopt_original)
    release = _awaited(OperationClient.release)

    create_snapshot = _awaited(OperationClient.create_snapshot)
    get_snapshot = _awaited(OperationClient.get_snapshot)
    list_snapshots = _awaited(OperationClient.list_snapshots)
    delete_snapshot = _awaited(OperationClient.delete_snapshot)
    rollback_snapshot = _awaited(OperationClient.rollback_snapshot)

    verify_disks = _awaited(OperationClient.verify_disks)
    create_guest_disks = _awaited(OperationClient.create_guest_disks)
    delete_guests_disks = _awaited(OperationClient.delete_guests_disks)
    describe_guest = _awaited(OperationClient.describe_guest)
    describe_guests = _awaited(OperationClient.describe_guests)

    create_token = _awaited(OperationClient.create_token)
    list_tokens = _awaited(OperationClient.list_tokens)
    revoke_token = _awaited(OperationClient.revoke_token)

    get_operation = _awaited(OperationClient.get_operation)
    list_operations = _awaited(OperationClient.list_operations)
    cancel_operation = _awaited(OperationClient.cancel_operation)
    wait_operation = _awaited(OperationClient.wait_operation)

    ready = _awaited(OperationClient.ready)
    metrics = _awaited(OperationClient.metrics)
    get_status = _awaited(OperationClient.get_status)
    search_events = _awaited(OperationClient.search_events)
    explain_dataset = _awaited(OperationClient.explain_dataset)

    @asynccontextmanager
    async def download(
        self, snapshot: str, *, base: str = "", offset: int = 0, etag: str = ""
    ) -> AsyncIterator["TrioStream"]:
        """See ``Client.download``."""
        one = self.one_call()
        opening = one.download(snapshot, base=base, offset=offset, etag=etag)
        stream = await self.in_thread(one, opening.__enter__)
        try:
            async with aclosing(self._each(one, iter(stream))) as pieces:
                yield TrioStream(pieces, first=stream.first, size=stream.size, etag=stream.etag)
        finally:
            one.interrupt()
            with trio.CancelScope(shield=True):  # it waits for a reader that was cancelled, and for no longer
                await trio.to_thread.run_sync(opening.__exit__, None, None, None)

    @asynccontextmanager
    async def events(
        self,
        filters: Mapping[str, str],
        *,
        after: int | None = None,
        until: int | None = None,
        last: int | None = None,
        retry_seconds: float = FOR_EVER_SECONDS,
    ) -> AsyncIterator[AsyncIterator[FeedEvent]]:
        """The feed, followed until ``until`` or the context's end. See ``OperationClient.events``."""
        one = self.one_call()
        feed = one.events(filters, after=after, until=until, last=last, retry_seconds=retry_seconds)
        try:
            async with aclosing(self._each(one, feed)) as told:
                yield told
        finally:
            one.interrupt()

    def one_call(self) -> _Call:
        return _Call(self._client)

    async def in_thread(self, one: _Call, work: Callable[[], _Result]) -> _Result:
        """What ``work``, which ``one`` does, returns; cancelling breaks it off."""
        try:
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        except trio.Cancelled:
            one.interrupt()
            raise

    async def _each(self, one: _Call, things: Iterator[_Result]) -> AsyncGenerator[_Result, None]:
        while found := await self.in_thread(one, functools.partial(_next, things)):
            yield found[0]


def _next(things: Iterator[_Result]) -> tuple[_Result] | None:
    """The next of them, None at their end."""
    for thing in things:
        return (thing,)
    return None


class TrioStream:
    """A download: pieces, each valid until the next is asked for. ``first``, ``size``, ``etag``: see
    :class:`~imagestore.wire.Stream`."""

    def __init__(self, pieces: AsyncIterator[memoryview], *, first: int, size: int | None, etag: str) -> None:
        self._pieces = pieces
        self.first = first
        self.size = size
        self.etag = etag

    def __aiter__(self) -> AsyncIterator[memoryview]:
        return self._pieces
