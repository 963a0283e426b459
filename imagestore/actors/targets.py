"""Where decoded content goes when it is not a receiver of the pool's alone: files of the spool.

Owns two ways into the pool that lead over a file.  A raw disk that came as it
is lies in the spool already, and where the pool can, that file becomes the
volume's.  A disk format has to be there whole; then another program makes a
raw disk of it, which goes into the pool as any raw disk does.
"""

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import trio
from msgspec import Struct

from imagestore.actors.origin import Convert
from imagestore.actors.spool import READ_BYTES, Spool
from imagestore.actors.unpacking import in_thread
from imagestore.errors import ContentRefused
from imagestore.pools.base import Dataset, Receiver
from imagestore.streams import files
from imagestore.streams.signatures import DiskFormat, Kind

OpenSink = Callable[[Kind], AbstractAsyncContextManager[Receiver]]
"""Opens a receiver of a plain stream or of a raw disk image, once a body at most."""

TakeOver = Callable[[str, int], Awaitable[tuple[Dataset, ...]]]
"""Makes the file at a path, of so many bytes, the data of a volume without copying it.
The path may still be there afterwards; it then names the volume's own data."""

Room = Callable[[int], Awaitable[None]]
"""Called before so many bytes more are written into the pool's own space. Raises NoSpace."""


class Destination(Struct, frozen=True, kw_only=True):
    """Where an image goes.  ``take_over`` is None where the pool cannot make the spool's files its own,
    ``room`` where the spool takes none of the pool's space."""

    sink: OpenSink
    take_over: TakeOver | None = None
    room: Room | None = None


class SpoolTarget:
    """The content lies in the spool's own file: a Receiver that is only told so.

    ``bring`` brings a file of so many bytes into the pool.
    """

    def __init__(self, bring: Callable[[int], Awaitable[tuple[Dataset, ...]]]) -> None:
        self._bring = bring
        self._length = 0

    def count(self, size: int) -> None:
        """So many bytes more of the file are content."""
        self._length += size

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        self.count(len(data))

    async def finish(self) -> tuple[Dataset, ...]:
        return await self._bring(self._length)

    async def abort(self) -> None:
        """Nothing is in the pool."""


class UnpackedTarget:
    """A disk format that came packed: unpacked into a file of its own. A Receiver."""

    def __init__(self, spool: Spool, bring: Callable[[int], Awaitable[tuple[Dataset, ...]]]) -> None:
        self._spool = spool
        self._bring = bring
        self._length = 0

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        await in_thread(partial(self._spool.write_unpacked, self._length, memoryview(data)))
        self._length += len(data)

    async def finish(self) -> tuple[Dataset, ...]:
        return await self._bring(self._length)

    async def abort(self) -> None:
        """The spool is cleaned by whoever has it."""


async def take_over_body(spool: Spool, take_over: TakeOver, size: int) -> tuple[Dataset, ...]:
    """Make the spool's file, a raw disk of ``size`` bytes, the volume's."""
    if not size:
        raise ContentRefused("content is a disk of no bytes")
    await in_thread(partial(spool.complete, size))
    return await take_over(spool.path, size)


class Conversion(Struct, frozen=True, kw_only=True):
    """How a disk format becomes a raw disk, and where that goes."""

    content: DiskFormat
    spool: Spool
    convert: Convert
    destination: Destination
    limit_bytes: int | None

    async def bring(self, source: str, length: int) -> tuple[Dataset, ...]:
        """Convert the file ``source``, of ``length`` bytes, and bring the disk into the pool."""
        disk = self.spool.disk_path
        # Zeros at its end are a hole that the file may not reach over, and formats care for their length.
        await in_thread(partial(os.truncate, source, length))
        await self.convert(source, self.content, disk, self.limit_bytes)
        status = await trio.to_thread.run_sync(os.stat, disk)
        if self.destination.take_over is not None:
            return await self.destination.take_over(disk, status.st_size)
        async with self.destination.sink("raw") as receiver:
            await _feed_file(receiver, disk, status.st_size)
            return await receiver.finish()


async def _feed_file(receiver: Receiver, path: str, size: int) -> None:
    file = await trio.to_thread.run_sync(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for at in range(0, size, READ_BYTES):
            piece = bytearray(min(READ_BYTES, size - at))
            await in_thread(partial(files.read_full, file, at, [memoryview(piece)]))
            await receiver.feed(piece)
    finally:
        os.close(file)
