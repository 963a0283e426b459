"""Receivers in memory: what a pool would do with content, and a record of what was done to them."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

import trio

from imagestore.errors import ImageStoreError, StreamError
from imagestore.pools.base import Dataset


class MemoryReceiver:
    """Keeps what it is fed.  ``whole`` is the only content whose end it accepts, as a checksum would."""

    def __init__(self, kind: Literal["stream", "raw"], whole: bytes | None, full: ImageStoreError | None):
        self.kind = kind
        self.content = bytearray()
        self.largest_piece = 0
        self.finished = False
        self.aborted = False
        self.go_on = trio.Event()
        self.go_on.set()
        self.fed = trio.Event()
        self._whole = whole
        self._full = full

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.finished
        assert not self.aborted
        self.fed.set()
        await self.go_on.wait()
        if self._full is not None:
            raise self._full
        self.content += data
        self.largest_piece = max(self.largest_piece, len(data))

    async def finish(self) -> tuple[Dataset, ...]:
        assert not self.aborted
        await trio.lowlevel.checkpoint()
        if self._whole is not None and self.content != self._whole:
            raise StreamError("stream does not end with its END record")
        self.finished = True
        volume = Dataset(name="images/a", kind="volume", guid=1, createtxg=1, volsize=len(self.content))
        return volume, Dataset(name="images/a@s", kind="snapshot", guid=2, createtxg=2)

    async def abort(self) -> None:
        self.aborted = not self.finished


class MemorySink:
    """A sink for transfers.  ``receivers`` are those it opened, in order."""

    def __init__(
        self, *, whole: bytes | None = None, full: ImageStoreError | None = None, blocked: bool = False
    ) -> None:
        self.receivers: list[MemoryReceiver] = []
        self.opened = trio.Event()
        self._whole = whole
        self._full = full
        self._blocked = blocked

    def __call__(self, kind: Literal["stream", "raw"]) -> AbstractAsyncContextManager[MemoryReceiver]:
        return self._open(kind)

    @asynccontextmanager
    async def _open(self, kind: Literal["stream", "raw"]) -> AsyncIterator[MemoryReceiver]:
        receiver = MemoryReceiver(kind, self._whole, self._full)
        if self._blocked:
            receiver.go_on = trio.Event()
        self.receivers.append(receiver)
        self.opened.set()
        try:
            yield receiver
        finally:
            await receiver.abort()

    @property
    def left(self) -> int:
        """How many receivers were neither finished nor aborted."""
        return sum(not (receiver.finished or receiver.aborted) for receiver in self.receivers)
