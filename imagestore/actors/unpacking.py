"""Unpacking what comes from outside, in worker threads and in bounded steps.

All that comes in at once, fetched or uploaded, shares one limiter of threads.
"""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import trio

from imagestore.errors import ContentRefused
from imagestore.streams.content import Piece

STEP_BYTES = 512 << 10
"""So much is decoded, and at most one piece of the decoder's more, before the receiver has to take it."""

T = TypeVar("T")


class Unpacking:
    """Counts what a body unpacks to.  Raises ContentRefused beyond ``limit_bytes``."""

    def __init__(self, *, limit_bytes: int | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._unpacked_bytes = 0

    async def step(self, work: Iterator[Piece]) -> tuple[Piece, bool]:
        """About STEP_BYTES out of ``work``, and whether there may be more: a body can unpack to much."""
        return await in_thread(lambda: self._step(work))

    def count(self, size: int) -> None:
        """So many bytes more were unpacked. Raises ContentRefused."""
        self._unpacked_bytes += size
        if self._limit_bytes is not None and self._unpacked_bytes > self._limit_bytes:
            raise ContentRefused(f"image is over the limit of {self._limit_bytes} bytes")

    def _step(self, work: Iterator[Piece]) -> tuple[Piece, bool]:
        pieces: list[Piece] = []
        size = 0
        more = False
        for piece in work:
            pieces.append(piece)
            size += len(piece)
            self.count(len(piece))
            if size >= STEP_BYTES:
                more = True
                break
        # One copy here is cheaper than a receiver's thread woken for every piece.
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), more


_limiter = trio.lowlevel.RunVar[trio.CapacityLimiter]("imagestore unpacking")


async def in_thread(function: Callable[[], T]) -> T:
    """Run a step of a body's way in a worker thread, not cancellable.

    All transfers together hash and unpack on every processor but one, which is the event loop's.
    With one thread a transfer, four of them made the loop three times as late, and were not faster.
    """
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(max(1, len(os.sched_getaffinity(0)) - 1))
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(function, limiter=limiter)
