"""One stream's reception: judged by its heading, brought into the pool, published.

Owns the way from an upload's first byte to the outcome.  Nothing is journaled
before the heading says what the stream is and where it belongs.  A new volume
grows under a reserved staging name that no listing shows and is renamed into
place when it is whole; onto a volume the driver brings all at once.  Claims
are held only while that is done, never for the length of an upload; what was
judged at the beginning is judged again then.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing

import trio

from imagestore.actors.effects import facts, named, parents_made, received_tags, target
from imagestore.actors.incoming import check_same, claim_of, judge
from imagestore.actors.operation import JUDGEMENTS, Operations
from imagestore.actors.plans import Plan
from imagestore.actors.space import SpaceKeeper
from imagestore.actors.unpacking import Unpacking
from imagestore.actors.upload import Upload
from imagestore.actors.view import promised_bytes
from imagestore.actors.zpool import Create, Rename
from imagestore.errors import (
    ContentRefused,
    ImageStoreError,
    Stopping,
    TemporarilyUnavailable,
)
from imagestore.events.catalogue import ReceiveIntent
from imagestore.pools import base
from imagestore.pools.base import Dataset, Receiver, Tags
from imagestore.streams.content import Decoder, Piece
from imagestore.streams.heading import check_stream, cut_in_heading, heading_of
from imagestore.streams.snapshot import SnapshotInfo

_log = logging.getLogger(__name__)

METHOD = "ReceiveVolume"


async def receive(upload: Upload, operations: Operations) -> tuple[Dataset, ...]:
    """Bring an upload in. Returns the volume, then the snapshots that came.

    Raises what is wrong, after it was journaled if anything was.  Cancelled,
    it journals that as well: nothing of it is left for another life.
    """
    async with aclosing(_unpacked(upload)) as pieces:
        heading, start = await _heading(pieces)
        operation = upload.operation or operations.new_id()
        intent = judge(upload.order, heading, operation, operations.state, operations.zpool.view)
        plan = Plan(method=METHOD, subject=intent.name, intent=intent, force=upload.order.force)
        await operations.begin(operation, plan, principal=upload.principal)
        operations.trace("receive-accepted")
        reception = _Reception(upload, operations, operation, intent, heading)
        try:
            return await reception.bring(start, pieces)
        except ImageStoreError as error:
            with trio.CancelScope(shield=True):
                await reception.fail(error)
            raise
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await reception.fail(Stopping())
            raise


async def _unpacked(upload: Upload) -> AsyncGenerator[Piece, None]:
    """The stream's bytes, as they come. Raises ContentRefused: it is none, or broke off."""
    decoder, unpacking = Decoder(), Unpacking()
    async with aclosing(_works(upload, decoder)) as works:
        async for work in works:
            more = True
            while more:
                piece, more = await unpacking.step(work)
                check_stream(decoder)
                if piece:
                    yield piece


async def _works(upload: Upload, decoder: Decoder) -> AsyncGenerator[Iterator[Piece], None]:
    """What there is to decode, batch by batch, then the end."""
    received = 0
    async for batch in upload.batches:
        received += len(batch)
        yield decoder.feed(batch)
    if not upload.is_whole:
        raise ContentRefused(f"the upload broke off after {received} bytes")
    yield decoder.finish()


async def _heading(pieces: AsyncIterator[Piece]) -> tuple[SnapshotInfo, bytes]:
    """What the stream says of itself, and the bytes that were read for that."""
    start = bytearray()
    async for piece in pieces:
        start += piece
        heading = heading_of(start)
        if heading is not None:
            return heading, bytes(start)
    raise cut_in_heading(start)


class _Reception:
    """An accepted reception."""

    def __init__(
        self,
        upload: Upload,
        operations: Operations,
        operation: str,
        intent: ReceiveIntent,
        heading: SnapshotInfo,
    ) -> None:
        self._upload = upload
        self._operations = operations
        self._zpool = operations.zpool
        self._operation = operation
        self._intent = intent
        self._heading = heading
        self._snapshot_tags = Tags(op=operation, kind="snapshot", image=intent.image, guest=intent.guest)

    async def bring(self, start: Piece, pieces: AsyncIterator[Piece]) -> tuple[Dataset, ...]:
        """From the intent to the outcome."""
        if self._intent.volume is not None:
            return await self._bring_onto(start, pieces)
        staged = await self._bring_new(start, pieces)
        self._operations.trace("receive-staged")
        with trio.CancelScope(shield=True):
            await self._publish(staged)
        return self._rows(staged)

    async def fail(self, error: ImageStoreError) -> None:
        await self._zpool.reserve(self._operation, 0)
        stays = parents_made(self._intent, self._operation, self._zpool.view)
        await self._operations.fail(self._operation, error, principal=self._upload.principal, happened=stays)

    async def _feed(self, receiver: Receiver, start: Piece, pieces: AsyncIterator[Piece]) -> None:
        """An unexpected error is this upload's alone: nothing is published yet."""
        keeper = SpaceKeeper(receiver, self._zpool, self._operation)
        try:
            await keeper.feed(start)
            async for piece in pieces:
                await keeper.feed(piece)
        except ImageStoreError:
            raise
        except Exception as error:
            _log.exception("reception of %s failed unexpectedly", self._intent.name)
            raise ContentRefused(f"internal error while receiving: {type(error).__name__}") from error

    # -- a new volume -----------------------------------------------------------------

    async def _bring_new(self, start: Piece, pieces: AsyncIterator[Piece]) -> tuple[Dataset, ...]:
        intent = self._intent
        async with self._zpool.driver.receive_stream(
            intent.staging,
            received_tags(self._operation, intent),
            snapshot_tags=self._snapshot_tags,
            origin=target(intent.base) if intent.base is not None else None,
        ) as receiver:
            await self._feed(receiver, start, pieces)
            return await receiver.finish()

    async def _publish(self, staged: tuple[Dataset, ...]) -> None:
        """Give what is whole its name, under a claim that is right when it is granted."""
        view = self._zpool.view
        try:
            for _ in range(JUDGEMENTS):
                claim = claim_of(self._intent, view)
                async with self._zpool.claimed(self._operation, claim):
                    if claim_of(self._intent, view) == claim:
                        await self._put_in_place(staged)
                        await self._conclude()
                        return
            raise TemporarilyUnavailable(detail="the datasets that it touches keep changing")
        except ImageStoreError:
            if self._intent.name not in view or not self._is_ours(self._intent.name):
                await self._zpool.discard(staged[::-1])
            raise

    def _is_ours(self, name: str) -> bool:
        row = self._zpool.view.get(name)
        return row is not None and row.tags.op == self._operation

    async def _put_in_place(self, staged: tuple[Dataset, ...]) -> None:
        zpool, volume = self._zpool, staged[0]
        now = self._judge_again()
        await zpool.reserve(self._operation, promised_bytes(volume), renew=True)
        made: tuple[Dataset, ...] = ()
        if now.parents:
            tags = [Tags(op=self._operation, kind="parent", guest=parent.guest) for parent in now.parents]
            made = await zpool.execute(
                Create(
                    creations=tuple(
                        base.NewFilesystem(name=parent.name, tags=tag)
                        for parent, tag in zip(now.parents, tags, strict=True)
                    )
                )
            )
        try:
            await zpool.execute(Rename(target=volume.target, name=now.name))
        except ImageStoreError:
            await zpool.discard(made[::-1])
            raise

    # -- onto a volume ------------------------------------------------------------------

    async def _bring_onto(self, start: Piece, pieces: AsyncIterator[Piece]) -> tuple[Dataset, ...]:
        intent = self._intent
        assert intent.volume is not None
        assert intent.base is not None
        async with self._zpool.driver.receive_onto(
            target(intent.volume),
            base=target(intent.base),
            snapshot_tags=self._snapshot_tags,
            operation=self._operation,
            force=self._upload.order.force,
        ) as receiver:
            await self._feed(receiver, start, pieces)
            self._operations.trace("receive-staged")
            with trio.CancelScope(shield=True):
                rows = await self._publish_onto(receiver)
        return self._rows(rows)

    async def _publish_onto(self, receiver: Receiver) -> tuple[Dataset, ...]:
        zpool = self._zpool
        async with zpool.claimed(self._operation, claim_of(self._intent, zpool.view)):
            self._judge_again()
            await zpool.reserve(self._operation, self._growth(), renew=True)
            rows = await receiver.finish()
            zpool.received(rows, self._operation)
            await self._conclude()
        return rows

    def _growth(self) -> int:
        """What the volume may then write beyond what it may now: what it has written, once more."""
        row = self._zpool.view.get(self._intent.name)
        return row.written if row is not None and row.sparse else 0

    # -- both ---------------------------------------------------------------------------

    def _judge_again(self) -> ReceiveIntent:
        operations = self._operations
        now = judge(self._upload.order, self._heading, self._operation, operations.state, self._zpool.view)
        check_same(self._intent, now)
        return now

    async def _conclude(self) -> None:
        """Journal what is in the pool now."""
        operations = self._operations
        operations.trace("receive-published")
        happened = facts(self._intent, self._operation, self._zpool.view)
        await operations.finish(self._operation, happened, principal=self._upload.principal)
        operations.trace("receive-finished")

    def _rows(self, came: tuple[Dataset, ...]) -> tuple[Dataset, ...]:
        """What came, as it is now under its name."""
        beside = len(came[0].name)
        return named(self._zpool.view, [self._intent.name + row.name[beside:] for row in came])
