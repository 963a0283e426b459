"""What Quart-Trio and Hypercorn get wrong for us, put right in one place.

Measured with trio 0.35, hypercorn 0.18, quart 0.22, quart-trio 0.12; each shim
has a test in ``tests/http/test_shims.py`` that fails without it, and goes when
its test passes without it:

* :func:`shield_final_send`: Quart-Trio cancels its handler by the disconnect
  that the last send provokes, in the middle of Hypercorn's clean-up; the
  connection is then neither closed nor timed out.
* :class:`BoundedStream`: a send is shielded, as half an answer would spoil the next,
  and has no deadline by itself, so a client that stops reading would block its
  handler, and shutdown, for ever.  After a refused body Hypercorn closes at
  once, and the reset that the unread bytes provoke can overtake the refusal.
  The connection of a client that has hung up is kept until the time for idle
  ones has passed, a minute.
* :func:`read_body`: Quart takes in request bodies without back-pressure and
  counts only what is unread; bodies are read here, counted, and timed.
* :func:`drop_rest`: Hypercorn's reader waits for ever in the queue of a request
  that was answered and not read to its end, and the connection with it.
* :func:`replay`: hands a body that was read to an application that reads it again.

TCP_USER_TIMEOUT is not among them: :class:`BoundedStream` bounds every send in
this process, also while shutting down, which that option cannot.
``RESPONSE_TIMEOUT`` does not reach downloads, which do not pass through Quart.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, Event

from imagestore.pipes import InPipe

SEND_SLICE_BYTES = 64 << 10
"""A client must take this much within the stall time."""

LINGER_SECONDS = 1.0
LINGER_BYTES = 8 << 20
"""How long, and for how much, the rest of a refused body is read and dropped."""

HANGUP_SECONDS = 0.25
"""How long after a hang-up a request that had been read just before it may still begin."""

FAST_BYTES = 256 << 10
"""Most bytes of one read while a body comes faster than it is read; an upload is 1.4 times as fast."""

RECEIVE_BYTES = 64 << 10
"""Most bytes of one read otherwise."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class BodyTooLarge(Exception):
    """The request's body is over the limit; the rest of it is unread."""


class BodyTooSlow(Exception):
    """The request's body did not arrive within its time."""


class ClientGone(Exception):
    """The client hung up before its request, or its answer, was whole."""


class BoundedStream(trio.abc.HalfCloseableStream):
    """A connection on which no send outlasts ``stall_seconds``; encrypted or not, Hypercorn sees no TLS."""

    def __init__(
        self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], *, stall_seconds: float
    ) -> None:
        plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        self.socket = plain.socket
        self.lingers = False
        """Whether the rest of what the client sends is dropped before closing."""
        self._stream = stream
        self.plain = plain is stream
        """Whether what is sent is the socket's own bytes."""
        self._stall_seconds = stall_seconds
        self._at_end = trio.Event()
        self._ended_by_it: set[trio.CancelScope] = set()
        self.idle_since: float | None = trio.current_time()
        """Since when no request is under way on it; None while one is."""
        self._requests = 0
        self._became_idle = trio.lowlevel.ParkingLot()
        self._hold_next = False
        self._held = b""
        self._comes_fast = False

    def begin_request(self) -> None:
        """A request is under way on it, until :meth:`end_request`."""
        self._requests += 1
        self.idle_since = None

    def end_request(self) -> None:
        self._requests -= 1
        if not self._requests:
            self.idle_since = trio.current_time()
            self._became_idle.unpark_all()

    @contextmanager
    def cancelled_by_hangup(self) -> Iterator[None]:
        """What runs within is cancelled once the client has hung up."""
        with trio.CancelScope() as scope:
            self._ended_by_it.add(scope)
            if self._at_end.is_set():
                scope.cancel(reason="the client hung up")
            try:
                yield
            finally:
                self._ended_by_it.discard(scope)

    def cut_off_after(self, seconds: float) -> None:
        """From now on no send may outlast ``seconds``, if that is less than before."""
        self._stall_seconds = min(self._stall_seconds, seconds)

    def hold_next(self) -> None:
        """Send what the next ``send_all`` is given together with what the one after it is."""
        self._hold_next = True

    def hold(self, data: bytes) -> None:
        """Send ``data`` together with what the next ``send_all`` is given."""
        self._hold_next = False
        self._held += data

    @property
    def holds_back(self) -> bool:
        """Whether something waits for the next ``send_all``."""
        return bool(self._held)

    def send_at_once(self, data: bytes) -> bytes:
        """Send what needs no waiting of a short answer; what is left, for ``send_all``."""
        if self._hold_next:
            self.hold(data)
            return b""
        if not self.plain or len(self._held) + len(data) > SEND_SLICE_BYTES:
            return data
        data, self._held = self._held + data, b""
        try:
            return data[os.write(self.socket.fileno(), data) :]
        except OSError:
            return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises trio.BrokenResourceError when the client takes nothing any more."""
        if self._hold_next:
            self.hold(bytes(data))
            return
        if self._held:
            data, self._held = self._held + data, b""
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                with trio.move_on_after(self._stall_seconds) as scope:
                    sent += await self._send_slice(view[sent:])
                if scope.cancelled_caught:
                    self.abort()
                    raise trio.BrokenResourceError("the client stopped reading")

    async def _send_slice(self, view: memoryview) -> int:
        """Send ``SEND_SLICE_BYTES`` of ``view``, or more if that needs no waiting; how many."""
        if not self.plain:
            await self._stream.send_all(view[:SEND_SLICE_BYTES])
            return min(len(view), SEND_SLICE_BYTES)
        sent = 0
        try:
            while sent < min(len(view), SEND_SLICE_BYTES):
                sent += await self.socket.send(view[sent:])
        except OSError as error:
            raise trio.BrokenResourceError("the client has gone") from error
        return sent

    async def splice(self, piece: InPipe) -> None:
        """Send ``piece`` out of its pipe; only where the stream is :attr:`plain`.

        Raises trio.BrokenResourceError when the client takes nothing any more.
        """
        while piece:
            try:
                piece.move_to(self.socket.fileno())
                await trio.lowlevel.checkpoint()
            except BlockingIOError:
                with trio.move_on_after(self._stall_seconds) as scope:
                    await trio.lowlevel.wait_writable(self.socket)
                if scope.cancelled_caught:
                    self.abort()
                    raise trio.BrokenResourceError("the client stopped reading") from None
            except OSError as error:
                raise trio.BrokenResourceError("the client has gone") from error

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        usual = FAST_BYTES if self._comes_fast else RECEIVE_BYTES
        try:
            data = await self._stream.receive_some(max_bytes or usual)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._hung_up()
            raise
        except trio.BusyResourceError:
            # The connection's reader and :meth:`aclose` both drop what a refused client still sends.
            await self._at_end.wait()
            return b""
        if not data:
            self._hung_up()
        self._comes_fast = len(data) >= RECEIVE_BYTES
        return data

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.SocketStream):
            await self._stream.send_eof()  # TLS has no half: closing says that it is the end

    async def aclose(self) -> None:
        if self.lingers and not self._at_end.is_set():
            # A connection is closed twice, by its writer and by its reader: both wait here.
            with trio.move_on_after(LINGER_SECONDS):
                await self._drain()
        self._hung_up()
        with trio.move_on_after(self._stall_seconds):  # TLS says goodbye, to somebody who may not listen
            await self._stream.aclose()

    async def close_after_hangup(self) -> None:
        """Close once the client has hung up and nothing is under way for it any more."""
        await self._at_end.wait()
        while self.idle_since is None or trio.current_time() - self.idle_since < HANGUP_SECONDS:
            await trio.sleep(HANGUP_SECONDS)
        await trio.aclose_forcefully(self._stream)

    async def close_when_idle(self, seconds: float, ending: Event) -> None:
        """Close once no request was under way for so long, or is when all are ``ending``."""
        while not ending.is_set():
            due = trio.current_time() + seconds if self.idle_since is None else self.idle_since + seconds
            if due <= trio.current_time():
                break
            with trio.move_on_at(due):
                await ending.wait()
        while self.idle_since is None:
            await self._became_idle.park()
        await self.aclose()

    def abort(self) -> None:
        """Close now and tell the client by a reset; never blocks."""
        with suppress(OSError):  # closed already
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._hung_up()
        self.socket.close()

    def _hung_up(self) -> None:
        self._at_end.set()
        for scope in self._ended_by_it:
            scope.cancel(reason="the client hung up")

    async def _drain(self) -> None:
        received = 0
        try:
            while received < LINGER_BYTES:
                data = await self.receive_some()
                if not data:
                    return
                received += len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


def shield_final_send(send: ASGISendCallable) -> ASGISendCallable:
    """``send`` whose last ``http.response.body`` cannot be cancelled half-way.

    It cannot last for ever either: :class:`BoundedStream` bounds it.
    """

    async def shielded(message: ASGISendEvent) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            with trio.CancelScope(shield=True):
                await send(message)
        else:
            await send(message)

    return shielded


async def read_body(
    receive: ASGIReceiveCallable, *, declared_bytes: int | None, limit_bytes: int, seconds: float
) -> bytes:
    """The whole body of a request.

    Args:
        receive: the ASGI receive of the request.
        declared_bytes: its Content-Length, None when it is chunked or absent.
        limit_bytes: the largest body that is taken.
        seconds: within which it must be whole.

    Raises:
        BodyTooLarge: it is longer than ``limit_bytes``, or says it will be.
        BodyTooSlow: it was not whole in time.
        ClientGone: the client hung up.
    """
    if declared_bytes is not None and declared_bytes > limit_bytes:
        raise BodyTooLarge
    pieces: list[bytes] = []
    received = 0
    with trio.move_on_after(seconds):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGone
            piece = message.get("body", b"")
            received += len(piece)
            if received > limit_bytes:
                raise BodyTooLarge
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    raise BodyTooSlow


async def drop_rest(receive: ASGIReceiveCallable) -> None:
    """Take what is left of a request out of its queue, until the connection is told to be closed."""
    while (await receive())["type"] == "http.request":
        pass


def replay(body: bytes, receive: ASGIReceiveCallable) -> ASGIReceiveCallable:
    """A receive that gives ``body`` first, then what ``receive`` gives."""
    pending = [True]

    async def replayed() -> ASGIReceiveEvent:
        if pending:
            pending.clear()
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed
