"""Sending a volume's snapshot from a directory pool as a ZFS send stream.

What a stream says depends on the catalog and the snapshot's data file alone,
neither of which changes, so it is the same every time.  Snapshots being sent
are held: they cannot be destroyed before the last reader is done.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from msgspec import Struct

from imagestore import names
from imagestore.errors import NotFound, NotSnapshot, NotValid, NotVolume
from imagestore.pools.base import Target
from imagestore.pools.directory.catalog import Catalog, Entry
from imagestore.pools.directory.ground import Ground
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.writer import write_stream

PIECE_BYTES = 256 << 10
"""Shorter pieces of the stream are put together to at least this length."""


class _Side(Struct, frozen=True):
    """A snapshot and its open data file."""

    info: SnapshotInfo
    file: int


@asynccontextmanager
async def send(
    ground: Ground, snapshot: Target, base: Target | None, skip: int
) -> AsyncIterator[AsyncIterator[bytes | memoryview]]:
    """See ``PoolDriver.send``."""
    async with _opened(ground, snapshot, base, skip) as stream:
        pieces = _Pieces(ground, stream)
        try:
            yield pieces
        finally:
            pieces.end()


async def send_bytes(ground: Ground, snapshot: Target, base: Target | None) -> int:
    """See ``PoolDriver.send_bytes``."""

    async with _opened(ground, snapshot, base, 0) as stream:
        count = partial(_count, stream)
        return await ground.streaming("measuring a stream", count, trio.CapacityLimiter(1))


def _count(stream: Iterator[memoryview]) -> int:
    return sum(map(len, stream))


@asynccontextmanager
async def _opened(
    ground: Ground, snapshot: Target, base: Target | None, skip: int
) -> AsyncIterator[Iterator[memoryview]]:
    """The stream, to be made in worker threads; its snapshots are held meanwhile."""
    held = [target.createtxg for target in (snapshot, base) if target is not None]
    for createtxg in held:
        ground.held[createtxg] = ground.held.get(createtxg, 0) + 1
    files: list[int] = []
    try:
        yield await ground.look("sending a snapshot", partial(_open, ground, snapshot, base, skip, files))
    finally:
        for file in files:
            os.close(file)
        for createtxg in held:
            ground.held[createtxg] -= 1
            if not ground.held[createtxg]:
                del ground.held[createtxg]


def _open(
    ground: Ground, snapshot: Target, base: Target | None, skip: int, files: list[int]
) -> Iterator[memoryview]:
    with ground.catalog.lock:
        entry = _sendable(ground.catalog, snapshot)
        base_entry = None if base is None else _base(ground.catalog, entry, base)
    side = _side(ground, entry, base_entry, files)
    if base_entry is None:
        return _from(skip, write_stream(side.file, side.info))
    base_side = _side(ground, base_entry, None, files)
    return _from(skip, write_stream(side.file, side.info, base=base_side.info, base_fd=base_side.file))


def _from(skip: int, stream: Iterator[memoryview]) -> Iterator[memoryview]:
    """``stream`` without its first ``skip`` bytes. A reader that goes away need not wait for them."""
    for piece in stream:
        trio.from_thread.check_cancelled()
        if skip < len(piece):
            yield piece[skip:]
        skip = max(0, skip - len(piece))


def _sendable(catalog: Catalog, target: Target) -> Entry:
    entry = catalog.require(target)
    if entry.dataset.kind != "snapshot":
        raise NotSnapshot(detail=target.name)
    if not entry.file:
        raise NotVolume(detail=f"{target.name} is a file system's snapshot")
    return entry


def _base(catalog: Catalog, snapshot: Entry, target: Target) -> Entry:
    """Raises NotValid unless ``target`` is an earlier snapshot of the volume, or its origin."""
    base = _sendable(catalog, target)
    volume = catalog.find(names.parent(snapshot.dataset.name))
    assert volume is not None, "a snapshot without its volume"
    is_earlier = (
        names.parent(base.dataset.name) == volume.dataset.name
        and base.dataset.createtxg < snapshot.dataset.createtxg
    )
    if not is_earlier and volume.origin_txg != base.dataset.createtxg:
        raise NotValid(
            detail=f"{target.name} is no earlier snapshot of {volume.dataset.name}, nor its origin"
        )
    return base


def _side(ground: Ground, entry: Entry, base: Entry | None, files: list[int]) -> _Side:
    try:
        file = os.open(ground.files.path(entry.file), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(detail=f"{entry.dataset.name} was destroyed") from None
    files.append(file)
    dataset = entry.dataset
    info = SnapshotInfo(
        name=names.full(dataset.name, ground.layout.name),
        guid=dataset.guid,
        volsize=dataset.volsize,
        volblocksize=entry.block_size,
        creation_seconds=dataset.creation,
        from_guid=0 if base is None else base.dataset.guid,
        is_clone=base is not None and names.parent(base.dataset.name) != names.parent(dataset.name),
    )
    return _Side(info, file)


class _Pieces(AsyncIterator[bytes | memoryview]):
    """The stream's pieces, each made in a worker thread when it is asked for."""

    def __init__(self, ground: Ground, stream: Iterator[memoryview]) -> None:
        self._ground = ground
        self._stream: Iterator[memoryview] = stream
        self._limiter = trio.CapacityLimiter(1)

    def end(self) -> None:
        self._stream = iter(())

    async def __anext__(self) -> bytes | memoryview:
        piece = await self._ground.streaming("sending a snapshot", self._next, self._limiter)
        if piece is None:
            raise StopAsyncIteration
        return piece

    def _next(self) -> bytes | memoryview | None:
        gathered = bytearray()
        for piece in self._stream:
            if not gathered and len(piece) >= PIECE_BYTES:
                return piece
            gathered += piece
            if len(gathered) >= PIECE_BYTES:
                break
        return bytes(gathered) if gathered else None
