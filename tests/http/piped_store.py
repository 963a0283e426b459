"""A store whose streams come out of a pipe, for whoever can take them from there."""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import msgspec

from imagestore.model import SnapshotRequest
from imagestore.pipes import InPipe
from imagestore.service import LOCAL, Caller, Download
from tests.http.gated_store import StreamingStore

PIECE_BYTES = 40_000
"""No more fits at once into a pipe of any machine for sure."""


def copied(store: StreamingStore) -> StreamingStore:
    """The same store: nothing in it comes out of a pipe."""
    return store


class Piped(StreamingStore):
    """Another store's stream, through a pipe where that is wanted."""

    def __init__(self, store: StreamingStore) -> None:
        super().__init__(store.first)
        self._store = store
        self.went_through_pipe = False

    async def piece(self, number: int) -> bytes | None:
        return await self._store.piece(number)

    def download(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, offset: int = 0, in_pipe: bool = False
    ) -> AbstractAsyncContextManager[Download]:
        self.went_through_pipe = in_pipe
        return self._piped(request) if in_pipe else super().download(request, caller, offset=offset)

    @asynccontextmanager
    async def _piped(self, request: SnapshotRequest) -> AsyncIterator[Download]:
        async with self._download(request) as download, aclosing(through_pipe(download.chunks)) as chunks:
            yield msgspec.structs.replace(download, chunks=chunks)


async def through_pipe(
    chunks: AsyncIterator[bytes | memoryview | InPipe],
) -> AsyncGenerator[InPipe, None]:
    reader, writer = os.pipe()
    try:
        async for chunk in chunks:
            content = bytes(chunk)
            for start in range(0, len(content), PIECE_BYTES):
                piece = InPipe(reader, os.write(writer, content[start : start + PIECE_BYTES]))
                yield piece
                assert not piece, "not all was taken out"
    finally:
        os.close(reader)
        os.close(writer)
