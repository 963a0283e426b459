"""The body of a plain HTTP answer of known length, read from its socket in a worker thread.

Owns the split of a connection: :class:`HeadReader` gives an HTTP library no byte
beyond the head, so the body still lies in the socket when the library has
understood the head; :func:`body` then reads it in large pieces, in a thread.

Why: through the library every byte is copied three times on trio's thread,
2.7 s of its time for a GiB; four fetches at once made everybody else wait.
"""

import socket
import time
from collections.abc import AsyncGenerator

import trio

PIECE_BYTES = 512 << 10
"""How much is read before it is given away, unless the sender pauses."""

PAUSE_SECONDS = 0.2
"""How long a read goes on before it looks whether it was cancelled, or gives away what it has."""

_END = b"\r\n\r\n"


class Stalled(Exception):
    """No byte came in time."""


class Truncated(Exception):
    """The connection ended before the body did."""


class HeadReader:
    """Reads an answer's head from a socket, and nothing behind it."""

    def __init__(self, plain: trio.socket.SocketType) -> None:
        self.socket = plain
        self.is_complete = False
        """The head of the final answer was read whole, and not a byte more."""
        self._head = b""

    async def read(self, most: int) -> bytes:
        """Some bytes of the head; b"" at the end of the connection."""
        waiting = await self.socket.recv(most, socket.MSG_PEEK)
        before = len(self._head)
        self._head += waiting
        end = self._head.find(_END, max(0, before - len(_END) + 1))
        taken = len(waiting) if end < 0 else end + len(_END) - before
        if end >= 0:
            # After an interim answer (100, 103) comes another head.
            self.is_complete = not self._head.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1"))
            self._head = b""
        return await self.socket.recv(taken) if taken else b""


async def body(plain: trio.socket.SocketType, length: int, stall: float) -> AsyncGenerator[memoryview, None]:
    """The ``length`` bytes that lie in ``plain``, in pieces; each is the reader's to keep.

    ``stall`` is how many seconds may pass without a byte.

    Raises:
        Stalled, Truncated, OSError: while iterated.
    """
    own = plain.dup()
    limiter = trio.CapacityLimiter(1)
    try:
        blocking = socket.socket(fileno=own.detach())
    finally:
        own.close()
    with blocking:
        blocking.settimeout(PAUSE_SECONDS)
        while length:
            piece = await trio.to_thread.run_sync(
                _fill, blocking, min(length, PIECE_BYTES), stall, limiter=limiter
            )
            length -= len(piece)
            yield piece


def _fill(plain: socket.socket, size: int, stall: float) -> memoryview:
    """Up to ``size`` bytes, fewer when the sender pauses or is slow. In a worker thread."""
    piece = memoryview(bytearray(size))
    got = 0
    began = time.monotonic()
    deadline = began + stall
    while got < size:
        try:
            count = plain.recv_into(piece[got:])
        except TimeoutError:
            trio.from_thread.check_cancelled()
            if got:
                break
            if time.monotonic() > deadline:
                raise Stalled from None
            continue
        if not count:
            if got:
                break
            raise Truncated
        got += count
        if time.monotonic() - began > PAUSE_SECONDS:
            break
    return piece[:got]
