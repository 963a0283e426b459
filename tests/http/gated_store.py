"""Stores whose answers wait, fail midway or never end, for the tests of the server."""

from collections.abc import AsyncGenerator

import trio

from imagestore import errors
from imagestore.model import ImageRequest, ImageResponse
from imagestore.service import LOCAL, Caller
from tests.http.memory_store import MemoryStore


class GatedStore(MemoryStore):
    """``get_image`` says that it was entered, waits for the gate, and says how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = trio.Event()
        self.gate = trio.Event()
        self.left = trio.Event()
        self.was_cancelled = False

    async def get_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
        self.entered.set()
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.was_cancelled = True
            raise
        finally:
            self.left.set()
        return await super().get_image(request, caller)


class StreamingStore(MemoryStore):
    """Has a snapshot ``v@s`` whose stream is the pieces that :meth:`piece` gives."""

    def __init__(self, first: bytes) -> None:
        super().__init__()
        self.first = first
        self.snapshots["v@s"] = first
        self.closed = trio.Event()

    async def chunks(self, name: str) -> AsyncGenerator[bytes | memoryview, None]:
        number = 0
        try:
            while (piece := await self.piece(number)) is not None:
                yield piece
                number += 1
        finally:
            self.closed.set()

    async def piece(self, number: int) -> bytes | None:
        """The piece of that number; None at the end."""
        await trio.lowlevel.checkpoint()
        return self.first if number == 0 else None


class EndlessStore(StreamingStore):
    """The same piece again and again."""

    async def piece(self, number: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.first


class SilentStore(StreamingStore):
    """After the first piece the stream waits for ever."""

    async def piece(self, number: int) -> bytes | None:
        if number > 0:
            await trio.sleep_forever()
        return self.first


class HeldStore(StreamingStore):
    """After the first piece the stream says that it is held and waits for the gate; then the same again."""

    def __init__(self, first: bytes) -> None:
        super().__init__(first)
        self.held = trio.Event()
        self.gate = trio.Event()

    async def piece(self, number: int) -> bytes | None:
        if number == 1:
            self.held.set()
            await self.gate.wait()
        return self.first if number < 2 else None


class FailingStore(StreamingStore):
    """After the first piece the stream fails, with ``error``."""

    def __init__(self, first: bytes, error: Exception) -> None:
        super().__init__(first)
        self._error = error

    async def piece(self, number: int) -> bytes | None:
        if number > 0:
            raise self._error
        return self.first


POOL_FAILED = errors.PoolError("zfs send: I/O error")
