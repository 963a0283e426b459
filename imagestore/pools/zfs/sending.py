"""Sends snapshots of a ZFS pool: the bytes of ``zfs send``, read from a pipe.

The kernel keeps a snapshot from being destroyed while it is sent; the driver
keeps its base, too (``ZfsGround.sending``).  A consumer that goes away ends the child,
which is reaped before the snapshot is let go.

``zfs send`` writes record by record: whoever wakes for each write does little
else.  So a worker thread reads until a piece is full; who takes pieces in the
pipe itself gets them once there is enough in it.
"""

import fcntl
import os
import subprocess
import sys
import termios
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Final, TypeVar

import trio

from imagestore import names
from imagestore.errors import NotSnapshot, NotValid, NotVolume, PoolError
from imagestore.pipes import InPipe
from imagestore.pools.base import Dataset, Target
from imagestore.pools.zfs.failures import failure
from imagestore.pools.zfs.ground import ZfsGround, uncancelled

PIECE_BYTES: Final = 1 << 20
"""A piece is so long, but for the last."""

_PIPE_BYTES: Final = 1 << 20
_ENOUGH_BYTES: Final = _PIPE_BYTES // 4
_GATHER_SECONDS: Final = 0.002
"""How long it is waited for more when there is not enough in the pipe."""

_REAP_SECONDS: Final = 60.0

_Piece = TypeVar("_Piece", memoryview, InPipe)

_READING = trio.CapacityLimiter(64)


def check_base(snapshot: Dataset, base: Dataset | None, dataset: Dataset) -> None:
    """Whether there is a stream of ``snapshot`` of the volume ``dataset``, from ``base``.

    Raises NotVolume, NotValid.
    """
    if dataset.kind != "volume":
        raise NotVolume(detail=f"{dataset.name} is a file system; snapshots of volumes are sent")
    if base is None:
        return
    is_own = names.parent(base.name) == dataset.name and base.createtxg < snapshot.createtxg
    if base.kind != "snapshot" or not (is_own or base.name == dataset.origin):
        raise NotValid(
            detail=f"{base.name} is neither an earlier snapshot of {dataset.name} nor what it was cloned from"
        )


@asynccontextmanager
async def send(
    ground: ZfsGround, target: Target, base_target: Target | None, skip: int = 0
) -> AsyncIterator[AsyncIterator[bytes | memoryview]]:
    """See ``PoolDriver.send``."""
    async with _sending(ground, target, base_target, partial(_pieces, skip=skip)) as pieces:
        yield pieces


@asynccontextmanager
async def send_in_pipe(
    ground: ZfsGround, target: Target, base_target: Target | None
) -> AsyncIterator[AsyncIterator[InPipe]]:
    """See ``PoolDriver.send_in_pipe``."""
    async with _sending(ground, target, base_target, _pieces_in_pipe) as pieces:
        yield pieces


@asynccontextmanager
async def _sending(
    ground: ZfsGround,
    target: Target,
    base_target: Target | None,
    read: "Callable[[_Pipe], AsyncGenerator[_Piece, None]]",
) -> AsyncIterator[AsyncIterator[_Piece]]:
    """The pieces that ``read`` finds in the pipe of a child, which ends when the context does."""
    snapshot, *bases = await ground.meant([target] if base_target is None else [target, base_target])
    if snapshot.kind != "snapshot":
        raise NotSnapshot(detail=f"{snapshot.name}: snapshots are sent")
    check_base(snapshot, bases[0] if bases else None, await ground.get(names.parent(snapshot.name)))
    from_base: list[str] = ["-i", ground.full(bases[0].name)] if bases else []
    words = ["zfs", "send", *from_base, ground.full(snapshot.name)]
    kept = [row.identity for row in (snapshot, *bases)]
    ground.sending.update(kept)
    try:
        ground.commands.check_alive()
        child = ground.commands.start(words)
        pipe = _Pipe(child)
        try:
            async with aclosing(_whole(read(pipe), child, words, ground.pool)) as pieces:
                yield pieces
        finally:
            await uncancelled(_end, child, pipe)
    finally:
        ground.sending.subtract(kept)


async def send_bytes(ground: ZfsGround, target: Target, base_target: Target | None) -> int:
    """See ``PoolDriver.send_bytes``: what ``zfs send -n`` says is an estimate, so it is counted."""
    async with send(ground, target, base_target) as pieces:
        return sum([len(piece) async for piece in pieces])


async def _whole(
    pieces: AsyncGenerator[_Piece, None], child: subprocess.Popen[bytes], words: list[str], pool: str
) -> AsyncGenerator[_Piece, None]:
    """``pieces``, and at their end the child's word that these were all."""
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
    rest, complaint = await trio.to_thread.run_sync(child.communicate, abandon_on_cancel=True)
    if child.returncode:
        raise failure(words, complaint.decode(errors="replace"), pool)
    if rest:
        raise PoolError(f"zfs send went on behind its end by {len(rest)} bytes")


async def _pieces_in_pipe(pipe: "_Pipe") -> AsyncGenerator[InPipe, None]:
    while count := await pipe.filled():
        yield InPipe(pipe.descriptor, count)


async def _pieces(pipe: "_Pipe", skip: int) -> AsyncGenerator[memoryview, None]:
    buffer = memoryview(bytearray(PIECE_BYTES))
    filled = PIECE_BYTES
    while filled == PIECE_BYTES:
        filled = await trio.to_thread.run_sync(pipe.fill, buffer, abandon_on_cancel=True, limiter=_READING)
        if skip < filled:
            yield buffer[skip:filled]
        skip = max(0, skip - filled)


class _Pipe:
    """What a child writes, for threads; one that is not waited for any more may still be at it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        self._file = child.stdout
        self._reading = threading.Lock()
        with suppress(OSError):  # a user's pipes may be limited
            fcntl.fcntl(self._file.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def descriptor(self) -> int:
        return self._file.fileno()

    async def filled(self) -> int:
        """How many bytes are in it, when there are some; 0 at the end of the stream."""
        await trio.lowlevel.wait_readable(self._file)
        count = _in_it(self._file.fileno())
        if 0 < count < _ENOUGH_BYTES:
            await trio.sleep(_GATHER_SECONDS)
            count = _in_it(self._file.fileno())
        return count

    def fill(self, buffer: memoryview) -> int:
        """Read until the buffer is full or the stream ends; how many bytes there are. Blocks."""
        filled = 0
        with self._reading:
            while not self._file.closed and filled < len(buffer):
                count = os.readv(self._file.fileno(), [buffer[filled:]])
                if not count:
                    break
                filled += count
        return filled

    def close(self) -> None:
        """Blocks until nobody reads."""
        with self._reading:
            self._file.close()


def _in_it(descriptor: int) -> int:
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


async def _end(child: subprocess.Popen[bytes], pipe: _Pipe) -> None:
    """Kill it if it runs, and reap it: that ends its pipe, and whoever still reads that."""
    if child.returncode is None:
        with suppress(OSError):
            child.kill()
        with trio.move_on_after(_REAP_SECONDS):
            await trio.to_thread.run_sync(child.wait, abandon_on_cancel=True)
    if child.returncode is None:
        raise PoolError("zfs send does not end: the pool is stuck")
    await trio.to_thread.run_sync(pipe.close)
    assert child.stderr is not None
    child.stderr.close()
