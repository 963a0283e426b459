"""Where received volumes of a ZFS pool come to be, and when they are seen.

A new volume grows as ``.receiving-…`` beside its place, unseen; when all was
right, one rename makes it visible with all its snapshots.  A reception that
breaks off leaves nothing: the kernel throws its part away, we what came before
it, and the next life what we could not.

Onto a volume, ``zfs receive`` works unseen until the END, which is held back
until all was verified and the volume looked at once more; the kernel itself
refuses when it was written meanwhile.  The snapshots then come one after the
other, in moments, and last their tags and the mark.  Until then
``imagestore:receiving`` stands on the volume: the guids of the base and of
what is to come.  A life that finds it there goes back to the base, unless
others have made newer snapshots: those are not ours to destroy.
"""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

import trio

from imagestore import names
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ImageStoreError,
    InUse,
    Modified,
    NotFound,
    NotSnapshot,
    NotValid,
    NotVolume,
    PoolError,
)
from imagestore.pools.base import Dataset, Receiver, Tags, Target
from imagestore.pools.zfs import programs
from imagestore.pools.zfs.failures import in_use, relative
from imagestore.pools.zfs.ground import ZfsGround, check_name, uncancelled
from imagestore.pools.zfs.programs import Setting
from imagestore.pools.zfs.receiving import RawSource, Reception, Source, StreamSource
from imagestore.pools.zfs.rows import (
    FIND_RECEIVING,
    RECEIVING,
    RECEIVING_PREFIX,
    options,
    tag_pairs,
    unsigned,
)
from imagestore.streams.snapshot import SnapshotInfo

HOP_BYTES = 1 << 20
"""What is handed to a worker thread at once, at most."""

_FEEDING = trio.CapacityLimiter(16)

_MOST_ANNOUNCED = 400
"""Guids that the value of a property has room for."""

_log = logging.getLogger(__name__)


class _Destination(Protocol):
    """What becomes of a reception's end."""

    async def admit(self, reception: Reception) -> None:
        """Whether what was verified may be released."""

    def explain(self, error: Modified) -> ImageStoreError:
        """The kernel's refusal, with the names that it does not tell."""

    async def publish(self, snapshots: Sequence[str]) -> Sequence[Dataset]:
        """All is in the pool: make it visible, tagged; the volume, then its snapshots."""

    async def undo(self, snapshots: Sequence[str]) -> None:
        """Take away what is in the pool of a reception that failed."""


def receive_stream(
    ground: ZfsGround, name: str, tags: Tags, snapshot_tags: Tags, origin: Target | None
) -> AbstractAsyncContextManager[Receiver]:
    """See ``PoolDriver.receive_stream``."""

    def source(base: SnapshotInfo | None) -> Source:
        return StreamSource(base)

    return _receive_new(ground, name, tags, snapshot_tags, source, origin)


def receive_raw(
    ground: ZfsGround, name: str, tags: Tags, snapshot: str, snapshot_tags: Tags
) -> AbstractAsyncContextManager[Receiver]:
    """See ``PoolDriver.receive_raw``."""

    def source(_base: SnapshotInfo | None) -> Source:
        from imagestore.pools.zfs.raw import RawStream  # numpy is loaded with the first image

        names.check_snapshot_dest(snapshot)
        guid = int.from_bytes(ground.entropy(8), "little") or 1
        stream = RawStream(
            snapshot=snapshot,
            guid=guid,
            creation_seconds=int(ground.clock()),
            block_bytes=ground.block_bytes,
        )
        return RawSource(stream, snapshot)

    return _receive_new(ground, name, tags, snapshot_tags, source, None)


@asynccontextmanager
async def receive_onto(
    ground: ZfsGround, volume: Target, base: Target, snapshot_tags: Tags, operation: str, force: bool
) -> AsyncIterator[Receiver]:
    """See ``PoolDriver.receive_onto``; ``force`` does not help with an open volume."""
    onto = _Onto(ground, volume, base, snapshot_tags, operation)
    row = await onto.check()
    if row.written and not force:
        raise Modified.since(volume.name, base.name)
    source = StreamSource(await _info(ground, base))
    reception = Reception(
        ground.commands,
        ground.full(volume.name),
        source,
        options=["-F"] if force else [],
        hold_snapshots=True,
    )
    async with _receiving(ground, onto, reception) as receiver:
        yield receiver


@asynccontextmanager
async def _receive_new(
    ground: ZfsGround,
    name: str,
    tags: Tags,
    snapshot_tags: Tags,
    make_source: Callable[[SnapshotInfo | None], Source],
    origin: Target | None,
) -> AsyncIterator[Receiver]:
    check_name(name, ground.pool)
    await _check_free(ground, name)
    base = None
    given = [("compression", ground.compression), *(pair for pair in tag_pairs(tags) if pair[1])]
    if origin is not None:
        (row,) = await ground.meant([origin])
        if row.kind != "snapshot":
            raise NotSnapshot(detail=f"{row.name}: clones are made of snapshots")
        base = await _info(ground, origin)
        given.append(("origin", ground.full(origin.name)))
    if not await ground.has_volmode(names.parent(name)):
        given.append(("volmode", ground.volmode))
    new = _New(ground, name, snapshot_tags)
    reception = Reception(
        ground.commands,
        ground.full(new.hidden),
        make_source(base),
        options=options(given),
        hold_snapshots=False,
    )
    async with _receiving(ground, new, reception) as receiver:
        yield receiver


@asynccontextmanager
async def _receiving(
    ground: ZfsGround, destination: _Destination, reception: Reception
) -> AsyncIterator[Receiver]:
    receiver = ZfsReceiver(destination, reception)
    try:
        yield receiver
    finally:
        await receiver.abort()


async def _info(ground: ZfsGround, base: Target) -> SnapshotInfo:
    """What the guard must know of the snapshot that a stream is from."""
    row = await ground.get(base.name)
    properties = await ground.properties(names.parent(base.name), "volblocksize")
    return SnapshotInfo(
        name=ground.full(base.name),
        guid=row.guid,
        volsize=row.volsize,
        volblocksize=unsigned(properties.get("volblocksize", "")),
        creation_seconds=row.creation,
    )


async def _check_free(ground: ZfsGround, name: str) -> None:
    """Whether a dataset can be made as ``name``. Raises AlreadyExists, NotFound, NotValid."""
    with suppress(NotFound):
        await ground.get(name)
        raise AlreadyExists.named(name)
    parent = await ground.get(names.parent(name))
    if parent.kind != "filesystem":
        raise NotValid(detail=f"{parent.name} is a {parent.kind} and holds no other datasets")


class _New:
    """A volume that is not there yet."""

    def __init__(self, ground: ZfsGround, name: str, snapshot_tags: Tags) -> None:
        self._ground = ground
        self._name = name
        self._snapshot_tags = snapshot_tags
        parent = names.parent(name)
        unseen = f"{RECEIVING_PREFIX}{ground.entropy(8).hex()}"
        self.hidden = f"{parent}/{unseen}" if parent else unseen

    async def admit(self, reception: Reception) -> None:
        pass

    def explain(self, error: Modified) -> ImageStoreError:
        return error

    async def publish(self, snapshots: Sequence[str]) -> Sequence[Dataset]:
        ground = self._ground
        every = [self._name, *(f"{self._name}@{snapshot}" for snapshot in snapshots)]
        received = await ground.received([f"{self.hidden}@{snapshot}" for snapshot in snapshots])
        pairs = [pair for pair in tag_pairs(self._snapshot_tags) if pair[1]]
        await programs.set_properties(ground.commands, [Setting(target, pairs) for target in received])
        with ground.changing([self.hidden, *every]) as done:
            await ground.rename(self.hidden, self._name)
            await ground.wait_for_nodes([self._name])
            done()
            return await ground.rows(every)

    async def undo(self, snapshots: Sequence[str]) -> None:
        ground = self._ground

        async def destroy() -> None:
            with suppress(NotFound):
                await ground.change("zfs", "destroy", "-r", ground.full(self.hidden))

        await ground.retry_busy([self.hidden], destroy)


class _Onto:
    """A volume with a newest snapshot, the base."""

    def __init__(
        self, ground: ZfsGround, volume: Target, base: Target, snapshot_tags: Tags, operation: str
    ) -> None:
        self._ground = ground
        self._volume = volume
        self._base = base
        self._snapshot_tags = snapshot_tags
        self._operation = operation
        self._coming: Sequence[int] = ()
        self._last = ""

    async def check(self) -> Dataset:
        """The volume as it is. Raises NotFound, NotVolume, Blocked, InUse."""
        ground = self._ground
        row, base = await ground.meant([self._volume, self._base])
        if row.kind != "volume":
            raise NotVolume(detail=f"{row.name} is a {row.kind}")
        snapshots = [d for d in await ground.under(row.name) if d.kind == "snapshot"]
        if not snapshots or snapshots[-1].identity != base.identity:
            newest = snapshots[-1].name if snapshots else "none"
            raise Blocked(
                f"{base.name} is not the newest snapshot of {row.name}",
                blockers=[newest],
                detail=f"the newest is {newest}",
            )
        if users := await ground.users(row.name):
            raise in_use(row.name, users)
        return row

    async def admit(self, reception: Reception) -> None:
        self._last = (await self.check()).tags.last
        self._coming = reception.held_guids
        await self._set([(RECEIVING, announcement(self._base.guid, self._coming))])

    def explain(self, error: Modified) -> ImageStoreError:
        return Modified.since(self._volume.name, self._base.name)

    async def publish(self, snapshots: Sequence[str]) -> Sequence[Dataset]:
        ground, name = self._ground, self._volume.name
        made = await ground.rows([f"{name}@{snapshot}" for snapshot in snapshots])
        pairs = [pair for pair in tag_pairs(self._snapshot_tags) if pair[1]]
        settings = [
            Setting(self._volume, [("imagestore:last", self._operation), (RECEIVING, "")]),
            *(Setting(row.target, pairs) for row in made),
        ]
        every = [name, *(row.name for row in made)]
        with ground.changing(every) as done:
            await programs.set_properties(ground.commands, settings)
            done()
            return await ground.rows(every)

    async def undo(self, snapshots: Sequence[str]) -> None:
        if self._coming:
            await _go_back(self._ground, self._volume.name, self._base.guid, self._coming, self._last)

    async def _set(self, pairs: list[tuple[str, str]]) -> None:
        await programs.set_properties(self._ground.commands, [Setting(self._volume, pairs)])


def announcement(base: int, coming: Sequence[int]) -> str:
    """The value of ``RECEIVING``: guids in hexadecimal; of very many the first."""
    return " ".join(f"{guid:x}" for guid in (base, *coming[:_MOST_ANNOUNCED]))


async def _go_back(ground: ZfsGround, name: str, base_guid: int, coming: Collection[int], last: str) -> None:
    """Undo a reception that was broken off among its last steps; ``last`` stays the volume's mark."""
    volume, *below = await ground.under(name)
    snapshots = [row for row in below if row.kind == "snapshot" and names.parent(row.name) == name]
    base = next((row for row in snapshots if row.guid == base_guid), None)
    if base is not None:
        newer = [row for row in snapshots if row.createtxg > base.createtxg]
        ours = [row.target for row in newer if row.guid in coming]
        if ours and len(ours) == len(newer):
            with ground.changing([name, *(target.name for target in ours)]) as done:
                await programs.rollback(ground.commands, [base.target], ours, last)
                done()
        elif ours:
            _log.warning(
                "a stream onto %s was broken off and stays as it is: others have made newer snapshots", name
            )
    await programs.set_properties(ground.commands, [Setting(volume.target, [(RECEIVING, "")])])


async def undo_broken_off(ground: ZfsGround) -> None:
    """Take away what a life before this one was receiving: it was never whole, or never seen."""
    answer = await ground.commands.program(FIND_RECEIVING, [ground.pool], changes=False)
    for name, announced in sorted(answer.items()) if isinstance(answer, dict) else ():
        if not isinstance(announced, str) or announced == "":
            await ground.change("zfs", "destroy", "-r", name)
            continue
        volume = relative(name, ground.pool)
        try:
            base, *coming = (int(word, 16) for word in announced.split())
        except ValueError:
            _log.warning("%s of %s is not ours: %r", RECEIVING, volume, announced)
            continue
        last = (await ground.get(volume)).tags.last
        try:
            await _go_back(ground, volume, base, coming, last)
        except InUse as error:
            _log.error("a stream onto %s was broken off and cannot be undone now: %s", volume, error)


class ZfsReceiver:
    """A reception on its way; implements :class:`imagestore.pools.base.Receiver`."""

    def __init__(self, destination: _Destination, reception: Reception) -> None:
        self._destination = destination
        self._reception = reception
        self._usable = True
        self._ended = False

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._take_turn()
        view = memoryview(data).cast("B")
        await trio.lowlevel.checkpoint()
        for at in range(0, len(view), HOP_BYTES):
            piece = view[at : at + HOP_BYTES]
            await trio.to_thread.run_sync(self._reception.feed, piece, limiter=_FEEDING)
        self._usable = True

    async def finish(self) -> tuple[Dataset, ...]:
        self._take_turn()
        made = await uncancelled(self._finish)
        self._ended = True
        return tuple(made)

    async def _finish(self) -> Sequence[Dataset]:
        await trio.to_thread.run_sync(self._reception.finish, limiter=_FEEDING)
        await self._destination.admit(self._reception)
        try:
            await trio.to_thread.run_sync(self._reception.release, limiter=_FEEDING)
        except Modified as error:
            raise self._destination.explain(error) from None
        return await self._destination.publish(self._reception.snapshots)

    async def abort(self) -> None:
        if not self._ended:
            self._ended = True
            await uncancelled(self._abort)

    async def _abort(self) -> None:
        await trio.to_thread.run_sync(self._reception.stop, limiter=_FEEDING)
        await self._destination.undo(self._reception.snapshots)

    def _take_turn(self) -> None:
        """After any error nothing but abort goes on."""
        if self._ended or not self._usable:
            raise PoolError("the receiver has failed, or was finished or aborted")
        self._usable = False
