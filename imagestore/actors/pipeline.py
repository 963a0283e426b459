"""The way of one body from its bytes into the pool: hashed, kept in the spool, decoded, received.

Owns the steps and their order, in one pass over the bytes.  Hashing, the
spool and decoding run in threads that all fetches share, so that the event
loop keeps a processor.  The next piece is decoded while the pool takes the
one before: an import takes as long as the slower of the two, not as both.

A pipeline outlives a broken connection: the next one goes on behind
``received_bytes``.  Whatever is wrong with the content ends it; a new one
then begins at the first byte.  :meth:`Pipeline.aclose` leaves no receiver;
the spool stays as it is.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial

import trio
from msgspec import Struct

from imagestore.actors.origin import Convert
from imagestore.actors.spool import Kept, Spool
from imagestore.actors.targets import (
    Conversion,
    Destination,
    Room,
    SpoolTarget,
    UnpackedTarget,
    take_over_body,
)
from imagestore.actors.unpacking import Unpacking, in_thread
from imagestore.errors import NoSpace
from imagestore.pools.base import Dataset, Receiver
from imagestore.streams.content import Decoder, Piece
from imagestore.streams.signatures import Content, DiskFormat


class Imported(Struct, frozen=True, kw_only=True):
    """What came into the pool: the volume, then its snapshots; and what the body was."""

    content: Content
    datasets: tuple[Dataset, ...]


class Pipeline:
    """See the module.  ``spool`` is the fetch's own; without it or ``convert`` disk formats are refused."""

    def __init__(
        self,
        destination: Destination,
        *,
        spool: Spool | None,
        limit_bytes: int | None,
        convert: Convert | None,
    ) -> None:
        self.received_bytes = 0
        self.is_patched = False
        """What came is not all of one answer."""
        self._digest = hashlib.sha256()
        self._destination = destination
        self._spool = spool
        self._limit_bytes = limit_bytes
        self._convert = convert
        self._decoder = Decoder(takes_disk_formats=convert is not None and spool is not None)
        self._unpacking = Unpacking(limit_bytes=limit_bytes)
        self._stack = AsyncExitStack()
        self._target: Receiver | None = None
        self._fed = trio.Event()
        """The last piece that was given to the target has been taken, or refused."""
        self._fed.set()
        self._refusal: Exception | None = None

    @property
    def sha256(self) -> str:
        """Of what came so far, in hex."""
        return self._digest.hexdigest()

    async def replay(self, kept: Kept) -> bool:
        """Take what an earlier life kept in the spool. False: it is not what its mark says.

        Raises as :meth:`take`; what the content is accused of then may be the spool's fault.
        """
        spool = self._spool
        if spool is None or not await in_thread(partial(spool.resume, kept)):
            return False
        self.is_patched = True
        pieces = spool.read()
        while piece := await in_thread(partial(next, pieces, b"")):
            await self._take([piece], None, None)
        return self.sha256 == kept.mark.sha256

    async def take(self, batch: list[Piece], nursery: trio.Nursery) -> None:
        """The next bytes of the body. The last of them is still being fed, in ``nursery``, when
        this returns: :meth:`flush` before that ends.

        Raises:
            ContentRefused, StreamError: it is not an image that may be stored.
            NoSpace, and whatever else the receiver raises.
        """
        if self._spool is not None and self._spool.is_kept and self._destination.room is not None:
            await self._make_room(self._spool, self._destination.room, sum(map(len, batch)))
        await self._take(batch, self._spool, nursery)

    async def flush(self) -> None:
        """Wait until the target has taken all. Raises what it refuses."""
        await self._fed.wait()
        if self._refusal is not None:
            raise self._refusal

    async def finish(self) -> Imported:
        """The body was whole: verify its end and bring the image into the pool. Raises as :meth:`take`."""
        await self.flush()
        await self._drain(self._decoder.finish(), None)
        assert self._decoder.kind is not None
        assert self._target is not None
        return Imported(content=self._decoder.kind, datasets=await self._target.finish())

    async def aclose(self) -> None:
        """Throw away what is in the pool and not finished; harmless after :meth:`finish`."""
        with trio.CancelScope(shield=True):
            if self._spool is not None:
                await in_thread(partial(self._spool.mark, self.sha256))
            await self._stack.aclose()

    async def _make_room(self, spool: Spool, room: Room, size: int) -> None:
        try:
            await room(size)
        except NoSpace:
            if isinstance(self._target, SpoolTarget):
                raise
            await in_thread(spool.give_up)  # what is left is for the image itself

    async def _take(self, batch: list[Piece], spool: Spool | None, nursery: trio.Nursery | None) -> None:
        await self._drain(self._decoded(batch, spool), nursery)
        self.received_bytes += sum(map(len, batch))

    def _decoded(self, batch: list[Piece], spool: Spool | None) -> Iterator[Piece]:
        for piece in batch:
            self._digest.update(piece)
            if spool is not None:
                spool.write(piece)
                if spool.wants_mark:
                    spool.mark(self.sha256)
            yield from self._left(self._decoder.feed(piece))

    def _left(self, decoded: Iterator[Piece]) -> Iterator[Piece]:
        """What of the decoded is not in the spool's file, which is the target, already."""
        for piece in decoded:
            if isinstance(self._target, SpoolTarget):
                self._unpacking.count(len(piece))
                self._target.count(len(piece))
            else:
                yield piece

    async def _drain(self, work: Iterator[Piece], nursery: trio.Nursery | None) -> None:
        """Do ``work`` in a thread, step by step, and feed what comes out: beside the next step, in
        ``nursery``, if there is one.

        The target is opened as soon as the content's kind is known.
        """
        more = True
        while more:
            data, more = await self._unpacking.step(work)
            if self._target is None and self._decoder.kind is not None:
                await self._open(self._decoder.kind)
            if not data:
                continue
            assert self._target is not None
            await self.flush()
            if nursery is None:
                await self._target.feed(data)
            else:
                self._fed = trio.Event()
                nursery.start_soon(self._feed, self._target, data)

    async def _feed(self, target: Receiver, data: Piece) -> None:
        try:
            await target.feed(data)
        except Exception as error:
            self._refusal = error
        finally:
            self._fed.set()

    async def _open(self, content: Content) -> None:
        spool, destination = self._spool, self._destination
        is_spooled = spool is not None and spool.is_kept and not self._decoder.is_packed
        if content == "stream":
            self._target = await self._stack.enter_async_context(destination.sink("stream"))
        elif content != "raw":
            assert spool is not None
            self._target = self._conversion(content, spool, is_spooled)
        elif spool is not None and is_spooled and destination.take_over is not None:
            spool.become_image()
            self._target = SpoolTarget(partial(take_over_body, spool, destination.take_over))
        else:
            self._target = await self._stack.enter_async_context(destination.sink("raw"))

    def _conversion(self, content: DiskFormat, spool: Spool, is_spooled: bool) -> Receiver:
        assert self._convert is not None
        conversion = Conversion(
            content=content,
            spool=spool,
            convert=self._convert,
            destination=self._destination,
            limit_bytes=self._limit_bytes,
        )
        if is_spooled:
            spool.become_source()
            return SpoolTarget(partial(conversion.bring, spool.path))
        return UnpackedTarget(spool, partial(conversion.bring, spool.unpacked_path))
