"""One connection, from its bytes to Hypercorn's HTTP/1 and back.

Owns the reading and the writing of a connection, and the tasks of its requests.
It takes the place of Hypercorn's ``TCPServer``, which costs a short call half
of its time in turns of trio's scheduler: it starts a task for each time of
idleness and ends it again, takes a lock that waits for a turn with each piece
that it sends, also with empty ones, and waits for a turn with each message
between protocol and application.  Here a call waits only for what is not there
yet.  And a body that is in a pipe goes to the socket without being copied.

How long a connection may be idle is for its :class:`~imagestore.http.shims.BoundedStream`.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, ConnectionState, Scope
from hypercorn.utils import parse_socket_addr

from imagestore.http.shims import BoundedStream, ClientGone
from imagestore.pipes import InPipe

CONNECTION = "imagestore.connection"
"""The key in an ASGI scope's ``state`` under which the connection is."""


class Connection:
    """Hypercorn's HTTP/1 over ``stream``.  Each request's scope has ``state``."""

    def __init__(
        self,
        application: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: ConnectionState,
        stream: BoundedStream,
    ) -> None:
        """Raises OSError when the client has gone."""
        client, server = (
            parse_socket_addr(stream.socket.family, address)
            for address in (stream.socket.getpeername(), stream.socket.getsockname())
        )
        state[CONNECTION] = self
        self.stream = stream
        self._requests = _Requests(stream)
        self._sending = trio.Lock()
        self._protocol = _Http1(
            application, config, context, self._requests, state, False, client, server, self._send
        )

    async def run(self) -> None:
        """Serve until the connection is closed, and close it."""
        try:
            async with self._requests:
                await self._protocol.initiate()
                await self._read()
        finally:
            await self._close()

    async def _read(self) -> None:
        while True:
            try:
                data = await self.stream.receive_some()
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            await self._protocol.handle(RawData(bytes(data)))
            if not data:
                break
        await self._protocol.handle(Closed())

    async def _send(self, event: Event) -> None:
        if isinstance(event, RawData):
            if event.data or self.stream.holds_back:
                await self._send_bytes(event.data)
        elif isinstance(event, Closed):
            await self._close()
            await self._protocol.handle(Closed())

    @property
    def takes_pipes(self) -> bool:
        """Whether :meth:`send_in_pipe` may be called."""
        return self.stream.plain

    async def send_in_pipe(self, piece: InPipe) -> None:
        """Send ``piece`` as the next of the body that is being sent, past Hypercorn, framed by h11.

        Raises ClientGone.
        """
        connection = self._protocol.connection
        assert isinstance(connection, h11.Connection)
        # h11 hands the piece back untouched, between what goes before it and what goes behind it.
        framed: Sequence[bytes | InPipe] | None = connection.send_with_data_passthrough(
            h11.Data(data=piece)  # type: ignore[arg-type]  # h11 documents: for this method, what has a length
        )
        assert framed is not None
        try:
            async with self._sending:
                for part in framed:
                    if isinstance(part, InPipe):
                        await self.stream.splice(part)
                    elif piece:
                        await self.stream.send_all(part)
                    else:
                        self.stream.hold(part)  # the end of a chunk goes with the beginning of the next
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone from error

    async def _send_bytes(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # a request that is cut off answers nothing
        if not self._sending.locked():
            data = self.stream.send_at_once(data)
            if not data:
                return
        try:
            with trio.CancelScope(shield=True):  # half a head or half a chunk would spoil what follows
                async with self._sending:
                    await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._protocol.handle(Closed())

    async def _close(self) -> None:
        with suppress(trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            await self.stream.send_eof()
        await self.stream.aclose()


class _Http1(H11Protocol):
    """Who asks for HTTP/2 on the way is answered in HTTP/1, as by the original.

    There a client that opens no window held its answer, and with it the end of the server, for ever.
    """

    async def _check_protocol(self, event: h11.Request) -> None:
        pass


class _Requests(TaskGroup):
    """The tasks that serve the requests of one connection."""

    def __init__(self, stream: BoundedStream) -> None:
        super().__init__()
        self._stream = stream

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        inbox = _Inbox(config.max_app_queue_size)

        async def serve() -> None:
            try:
                await _handle(
                    app, config, scope, inbox.take, send, trio.to_thread.run_sync, trio.from_thread.run
                )
            finally:
                self._stream.end_request()

        self._stream.begin_request()
        self.spawn(serve)
        return inbox.put


class _Inbox:
    """What has come for a request, ``bound`` messages at most: a memory channel that costs no turn."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._messages: deque[ASGIReceiveEvent] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    async def put(self, message: ASGIReceiveEvent) -> None:
        while len(self._messages) >= self._bound:
            await self._changed.park()
        self._messages.append(message)
        self._changed.unpark_all()

    async def take(self) -> ASGIReceiveEvent:
        while not self._messages:
            await self._changed.park()
        self._changed.unpark_all()
        return self._messages.popleft()
