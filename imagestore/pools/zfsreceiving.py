"""Receives volumes into a ZFS pool: send streams and raw disk images.

What comes goes into ``.receiving-…`` beside its place, unseen, through
``zfs receive``; when all was right, one rename makes it visible with all its
snapshots.  A reception that breaks off leaves nothing: the kernel throws its
part away, we what came before it, and the next life what we could not.

No byte of a stranger's stream reaches ``zfs receive`` before it was verified
(``streams.guard``), and the last END not before the caller says that the body
was right.  A package comes out of the guard as plain streams, one reception
each.  Raw images are made into a stream on the way (``zfsraw``).

Feeding runs in a worker thread and waits for the child there; it is not
cancellable in the middle of a piece.
"""

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Protocol

import trio
from msgspec import Struct

from imagestore import names
from imagestore.errors import (
    AlreadyExists,
    ImageStoreError,
    NotFound,
    NotValid,
    PoolError,
    StreamError,
)
from imagestore.pools.base import Dataset, Receiver, Tags
from imagestore.pools.zfscommands import Commands
from imagestore.pools.zfsfailures import failure
from imagestore.pools.zfsground import COMPRESSION, VOLMODE, ZfsGround, check_name, uncancelled
from imagestore.pools.zfsraw import RawStream
from imagestore.pools.zfsrows import RECEIVING_PREFIX, options, tag_pairs
from imagestore.streams.guard import ReceiveGuard

HOP_BYTES = 1 << 20
"""What is handed to a worker thread at once, at most."""

END_SECONDS = 300.0
"""How long a child may take to end after the last byte."""


class Part(Struct, frozen=True, gc=False):
    """Bytes for the running ``zfs receive``; ``snapshot`` is set when they end its stream."""

    data: memoryview
    snapshot: str | None = None


class Source(Protocol):
    """Makes plain streams of what comes."""

    def feed(self, data: memoryview) -> Iterator[Part]: ...

    def finish(self) -> Iterator[Part]: ...


class StreamSource:
    """A stranger's send stream."""

    def __init__(self) -> None:
        self._guard = ReceiveGuard()
        self._snapshots: set[str] = set()

    def feed(self, data: memoryview) -> Iterator[Part]:
        for passed in self._guard.feed(data):
            yield self._part(passed.data, passed.snapshot.snapshot if passed.snapshot else None)

    def finish(self) -> Iterator[Part]:
        for passed in self._guard.finish():
            yield self._part(passed.data, passed.snapshot.snapshot if passed.snapshot else None)

    def _part(self, data: memoryview, snapshot: str | None) -> Part:
        if snapshot is not None:
            try:
                names.check_snapshot_dest(snapshot)
            except ImageStoreError as error:
                raise StreamError(f"the stream's snapshot cannot be stored: {error.detail}") from error
            if snapshot in self._snapshots:
                raise StreamError(f"the stream has two snapshots named {snapshot}")
            self._snapshots.add(snapshot)
        return Part(data, snapshot)


class RawSource:
    """A raw disk image."""

    def __init__(self, stream: RawStream, snapshot: str) -> None:
        self._stream = stream
        self._snapshot = snapshot

    def feed(self, data: memoryview) -> Iterator[Part]:
        return map(Part, self._stream.feed(data))

    def finish(self) -> Iterator[Part]:
        before: Part | None = None
        for piece in self._stream.finish():
            if before is not None:
                yield before
            before = Part(piece)
        assert before is not None
        yield Part(before.data, self._snapshot)


class Reception:
    """Runs ``zfs receive`` for each plain stream of a source.  Every method but ``kill`` blocks."""

    def __init__(
        self, commands: Commands, dataset: str, given: Sequence[tuple[str, str]], source: Source
    ) -> None:
        self._commands = commands
        self._dataset = dataset
        self._first_options = options(given)
        self._source = source
        self._child: subprocess.Popen[bytes] | None = None
        self.snapshots: list[str] = []

    def feed(self, data: memoryview) -> None:
        for part in self._source.feed(data):
            self._pass(part)

    def finish(self) -> None:
        for part in self._source.finish():
            self._pass(part)

    def kill(self) -> None:
        """End the child; its part is thrown away by the kernel."""
        child = self._child
        if child is not None:
            with suppress(OSError):
                child.kill()

    def reap(self) -> None:
        """Wait for a child that was killed."""
        child, self._child = self._child, None
        if child is not None:
            assert child.stdin is not None
            with suppress(OSError):
                child.stdin.close()
            child.stdin = None
            with suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=END_SECONDS)

    def _pass(self, part: Part) -> None:
        child = self._child
        if child is None:
            child = self._child = self._start()
        assert child.stdin is not None
        try:
            _write_all(child.stdin.fileno(), part.data)
        except BrokenPipeError:
            self._end(child)
            raise PoolError("zfs receive ended before the stream did, and did not say why") from None
        if part.snapshot is not None:
            self._end(child)
            self.snapshots.append(part.snapshot)

    def _start(self) -> subprocess.Popen[bytes]:
        self._commands.check_alive()
        given = self._first_options if not self.snapshots else []
        return self._commands.start(
            ("zfs", "receive", "-u", *given, self._dataset), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        """Close its input and wait. Raises what its text means."""
        assert child.stdin is not None
        with suppress(OSError):
            child.stdin.close()
        child.stdin = None
        try:
            _, complaint = child.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            raise PoolError(
                f"zfs receive has not ended after {END_SECONDS:.0f} seconds; "
                f"pool {self._commands.pool} is {self._commands.health() or 'stuck'}"
            ) from None
        self._child = None
        if child.returncode:
            raise failure(("zfs", "receive"), complaint.decode(errors="replace"), self._commands.pool)


def _write_all(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def receive_stream(
    ground: ZfsGround, name: str, tags: Tags, snapshot_tags: Tags
) -> AbstractAsyncContextManager[Receiver]:
    """See ``PoolDriver.receive_stream``."""
    return _receive(ground, name, tags, snapshot_tags, StreamSource)


def receive_raw(
    ground: ZfsGround, name: str, tags: Tags, snapshot: str, snapshot_tags: Tags
) -> AbstractAsyncContextManager[Receiver]:
    """See ``PoolDriver.receive_raw``."""

    def source() -> Source:
        names.check_snapshot_dest(snapshot)
        guid = int.from_bytes(ground.entropy(8), "little") or 1
        stream = RawStream(
            snapshot=snapshot,
            guid=guid,
            creation_seconds=int(ground.clock()),
            block_bytes=ground.block_bytes,
        )
        return RawSource(stream, snapshot)

    return _receive(ground, name, tags, snapshot_tags, source)


@asynccontextmanager
async def _receive(
    ground: ZfsGround, name: str, tags: Tags, snapshot_tags: Tags, source: Callable[[], Source]
) -> AsyncIterator[Receiver]:
    check_name(name, ground.pool)
    await _check_free(ground, name)
    parent = names.parent(name)
    unseen = f"{RECEIVING_PREFIX}{ground.entropy(8).hex()}"
    hidden = f"{parent}/{unseen}" if parent else unseen
    given = [COMPRESSION, *(pair for pair in tag_pairs(tags) if pair[1])]
    if not await ground.has_volmode(parent):
        given.append(VOLMODE)
    reception = Reception(ground.commands, ground.full(hidden), given, source())
    receiver = ZfsReceiver(ground, reception, name, hidden, snapshot_tags)
    try:
        yield receiver
    finally:
        await receiver.abort()


async def _check_free(ground: ZfsGround, name: str) -> None:
    """Whether a dataset can be made as ``name``. Raises AlreadyExists, NotFound, NotValid."""
    with suppress(NotFound):
        await ground.get(name)
        raise AlreadyExists.named(name)
    parent = await ground.get(names.parent(name))
    if parent.kind != "filesystem":
        raise NotValid(detail=f"{parent.name} is a {parent.kind} and holds no other datasets")


class ZfsReceiver:
    """A reception on its way; implements :class:`imagestore.pools.base.Receiver`."""

    def __init__(
        self, ground: ZfsGround, reception: Reception, name: str, hidden: str, snapshot_tags: Tags
    ) -> None:
        self._ground = ground
        self._reception = reception
        self._name = name
        self._hidden = hidden
        self._snapshot_tags = snapshot_tags
        self._ended = False

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._check_running()
        view = memoryview(data).cast("B")
        await trio.lowlevel.checkpoint()
        for at in range(0, len(view), HOP_BYTES):
            piece = view[at : at + HOP_BYTES]
            await trio.to_thread.run_sync(self._reception.feed, piece, limiter=_FEEDING)

    async def finish(self) -> tuple[Dataset, ...]:
        self._check_running()
        made = await uncancelled(self._finish)
        self._ended = True
        return tuple(made)

    async def _finish(self) -> Sequence[Dataset]:
        ground, snapshots = self._ground, self._reception.snapshots
        await trio.to_thread.run_sync(self._reception.finish, limiter=_FEEDING)
        given = [f"{key}={value}" for key, value in tag_pairs(self._snapshot_tags) if value]
        if given:
            await ground.change(
                "zfs", "set", *given, *(ground.full(f"{self._hidden}@{s}") for s in snapshots)
            )
        await ground.change("zfs", "rename", ground.full(self._hidden), ground.full(self._name))
        await ground.wait_for_nodes([self._name])
        return await ground.rows([self._name, *(f"{self._name}@{snapshot}" for snapshot in snapshots)])

    async def abort(self) -> None:
        if self._ended:
            return
        self._ended = True
        await uncancelled(self._abort)

    async def _abort(self) -> None:
        self._reception.kill()
        await trio.to_thread.run_sync(self._reception.reap, limiter=_FEEDING)
        destroy = partial(self._ground.change, "zfs", "destroy", "-r", self._ground.full(self._hidden))
        with suppress(NotFound):
            await self._ground.retry_busy([self._hidden], destroy)

    def _check_running(self) -> None:
        if self._ended:
            raise PoolError("this reception has ended")


_FEEDING = trio.CapacityLimiter(16)
