"""One image's fetch: accepted, transferred into staging, published.

Owns the way from the intent to the outcome of a single fetch.  The image grows
under a reserved staging name that no listing shows; when it is verified it is
tagged with what it is and renamed into place.  A refusal of any kind, and
being cancelled, is journaled as the image's failure; nothing of it stays in
the pool or the spool.

What a crash leaves, by the last step that was done:

=====================  ==========================================================
intent durable         the fetch is queued again under its id
bytes in the spool     the same; it goes on behind them
staged                 staging is destroyed, and made again from the spool
renamed into place     the operation is finished; its spool is removed
spool removed, failed  the fetch is queued again, and begins anew
outcome durable        a spool that is left is removed at the next start
=====================  ==========================================================
"""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Literal

import trio
from msgspec import Struct, field
from msgspec.structs import replace

from imagestore import names
from imagestore.actors.base import Reply
from imagestore.actors.claims import Claim
from imagestore.actors.effects import RAW_SNAPSHOT, image_facts
from imagestore.actors.imagedecisions import check_free_id
from imagestore.actors.operation import Operations
from imagestore.actors.origin import SERVICE, Origin, UploadedBody
from imagestore.actors.plans import Plan, complete_image
from imagestore.actors.space import Ahead, SpaceKeeper
from imagestore.actors.spool import Spool, Spools
from imagestore.actors.targets import Destination
from imagestore.actors.transfer import Order, Phase, Transferred, TransferSettings, transfer
from imagestore.actors.unpacking import in_thread
from imagestore.actors.zpool import Rename, Retag, ZpoolActor
from imagestore.errors import AlreadyExists, Cancelled, FetchFailed, ImageStoreError, NotFound
from imagestore.events.catalogue import FetchIntent, ImageFailed, ImageRequested, OperationFinished
from imagestore.events.state import ImageRecord
from imagestore.model import Progress
from imagestore.pools.base import Dataset, Intake, Receiver, Retagging, Tags
from imagestore.streams.signatures import Kind

_log = logging.getLogger(__name__)


class Fetch(Struct, kw_only=True, eq=False):
    """One image being fetched, and who waits for it.

    ``origin`` holds the sha256 that is required: the one that was given, or
    the one that the image had when it was here before.
    """

    image: str
    type: str
    operation: str
    principal: str
    waiters: list[Reply[None]]
    origin: Origin = SERVICE
    upload: UploadedBody | None = None
    status: Literal["pending", "downloading", "importing"] = "pending"
    progress: Progress | None = None
    is_accepted: bool = False
    is_publishing: bool = False
    """It can no longer be cancelled."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    cancelled_by: str = ""

    def report(self, phase: Phase, done: int, total: int | None) -> None:
        self.status = phase
        self.progress = Progress(done_bytes=done, total_bytes=total)

    def cancel(self, principal: str) -> bool:
        """Stop it; it ends soon, and as cancelled if nothing else ends it first. False: it is too late."""
        if self.is_publishing or not self.is_accepted:
            return False
        self.cancelled_by = self.cancelled_by or principal
        self.scope.cancel(reason="the fetch was cancelled")
        return True


class Fetching(Struct, frozen=True, kw_only=True):
    """What all fetches share.  ``service`` is the setting ``image_service``; without ``spools``
    nothing is kept for another life."""

    service: str
    settings: TransferSettings
    spools: Spools | None = None


def required(origin: Origin, record: ImageRecord | None) -> Origin:
    """``origin`` with the sha256 that its body must have, given what is known of the image.

    Raises:
        AlreadyExists: another is wanted than the image had when it was here.
    """
    known = record.known_sha256 if record is not None else ""
    if not known or origin.sha256 == known:
        return origin
    if not origin.sha256:
        return replace(origin, sha256=known)
    assert record is not None
    raise AlreadyExists(
        f"image {record.id} is known with another content: sha256 {known}",
        detail="delete the image first, or give this content another id",
    )


async def accept(fetch: Fetch, operations: Operations) -> bool:
    """Make the intent durable. False: the image is there after all. Nothing happened if this raises.

    The claim lets a deletion of the image that is under way end first: its
    datasets go before the journal says so, and in between the image looks as
    if it were free.
    """
    name = names.image(fetch.image)
    async with operations.zpool.claimed(fetch.operation, Claim(exclusive=(name,))):
        fetch.origin = required(fetch.origin, operations.state.images.get(fetch.image))
        if complete_image(fetch.image, operations.state, operations.zpool.view) is not None:
            return False
        check_free_id(fetch.image, operations.state)
        origin = fetch.origin
        intent = FetchIntent(
            image=fetch.image,
            staging=names.staging(fetch.operation),
            source=origin.source,
            type=fetch.type,
            sha256=origin.sha256,
            size_bytes=origin.size_bytes,
        )
        plan = Plan(method="RequestImage", subject=name, intent=intent)
        requested = ImageRequested(image=fetch.image, type=fetch.type, source=origin.source)
        await operations.begin(fetch.operation, plan, principal=fetch.principal, with_it=[requested])
    fetch.is_accepted = True
    operations.trace("fetch-accepted")
    return True


async def carry_out(
    fetch: Fetch,
    operations: Operations,
    fetching: Fetching,
    *,
    turn: AbstractAsyncContextManager[object],
) -> None:
    """Transfer and publish an accepted fetch when it has its ``turn``, and journal how it ended.

    Raises what went wrong, after that was journaled; Cancelled when it was
    stopped.  Cancelling from outside leaves the operation under way, for the
    next life, nothing in the pool, and in the spool what came.
    """
    spool = fetching.spools.open(fetch.operation) if fetching.spools is not None else None
    try:
        with fetch.scope:
            async with turn:
                transferred = await _transfer(fetch, operations, fetching, spool)
                fetch.is_publishing = True
                with trio.CancelScope(shield=True):
                    await _publish(fetch, operations, transferred)
                    await _forget(spool)
                return
        raise Cancelled(f"fetch of image {fetch.image} was cancelled by {fetch.cancelled_by}")
    except ImageStoreError as error:
        with trio.CancelScope(shield=True):
            await _fail(fetch, operations, spool, error)
        raise


async def _forget(spool: Spool | None) -> None:
    if spool is not None:
        await in_thread(spool.remove)


async def _fail(fetch: Fetch, operations: Operations, spool: Spool | None, error: ImageStoreError) -> None:
    operations.zpool.ledger.release(fetch.operation)
    await _forget(spool)
    failed = ImageFailed(image=fetch.image, reason=str(error))
    if not isinstance(error, Cancelled):
        await operations.fail(fetch.operation, error, principal=fetch.principal, happened=[failed])
        return
    await _discard_staging(fetch, operations.zpool)
    finished = OperationFinished(outcome="cancelled", error=str(error), error_type=type(error).__name__)
    await operations.conclude(fetch.operation, [failed, finished], fetch.cancelled_by)


async def _discard_staging(fetch: Fetch, zpool: ZpoolActor) -> None:
    """It may have been cancelled just when the pool had all of it."""
    name = names.staging(fetch.operation)
    try:
        staged = [await zpool.driver.get(name)]
    except NotFound:
        return
    await zpool.refresh()
    staged = list(zpool.view.under(name)) or staged
    await zpool.clear(staged[::-1])


async def _transfer(
    fetch: Fetch, operations: Operations, fetching: Fetching, spool: Spool | None
) -> Transferred:
    """Bring the image into staging. An unexpected error is this fetch's alone: nothing is published yet."""
    zpool = operations.zpool
    taken = zpool.view.get(names.image(fetch.image))
    if taken is not None:
        raise AlreadyExists.named(taken.name, detail="it is in the pool and is not this store's image")
    order = Order(image=fetch.image, service=fetching.service, origin=fetch.origin, upload=fetch.upload)
    ahead = Ahead(zpool, f"{fetch.operation} spool")
    destination = _destination(fetch, zpool, fetching.spools, ahead)
    try:
        return await transfer(
            order, destination, settings=fetching.settings, progress=fetch.report, spool=spool
        )
    except ImageStoreError:
        raise
    except Exception as error:
        _log.exception("fetch of image %s failed unexpectedly", fetch.image)
        raise FetchFailed(f"internal error while fetching: {type(error).__name__}") from error
    finally:
        ahead.release()


def _destination(fetch: Fetch, zpool: ZpoolActor, spools: Spools | None, ahead: Ahead) -> Destination:
    @asynccontextmanager
    async def sink(kind: Kind) -> AsyncIterator[Receiver]:
        async with _receiver(fetch, zpool, kind) as receiver:
            yield SpaceKeeper(receiver, zpool, fetch.operation)

    intake = zpool.driver.intake
    if intake is None or spools is None or spools.directory != intake.directory:
        return Destination(sink=sink)
    return Destination(sink=sink, take_over=partial(_take_over, fetch, intake), room=ahead)


def _tags(fetch: Fetch) -> tuple[Tags, Tags]:
    """Of the volume in staging, and of its snapshots."""
    return (
        Tags(op=fetch.operation, kind="staging", image=fetch.image),
        Tags(op=fetch.operation, kind="snapshot", image=fetch.image),
    )


async def _take_over(fetch: Fetch, intake: Intake, path: str, size: int) -> tuple[Dataset, ...]:
    tags, snapshot_tags = _tags(fetch)
    name = names.staging(fetch.operation)
    return await intake.take_over(path, size, name, tags, snapshot=RAW_SNAPSHOT, snapshot_tags=snapshot_tags)


@asynccontextmanager
async def _receiver(fetch: Fetch, zpool: ZpoolActor, kind: Kind) -> AsyncIterator[Receiver]:
    name = names.staging(fetch.operation)
    tags, snapshot_tags = _tags(fetch)
    if kind == "stream":
        opened = zpool.driver.receive_stream(name, tags, snapshot_tags=snapshot_tags, read_only=True)
    else:
        opened = zpool.driver.receive_raw(
            name, tags, snapshot=RAW_SNAPSHOT, snapshot_tags=snapshot_tags, read_only=True
        )
    async with opened as receiver:
        yield receiver


async def _publish(fetch: Fetch, operations: Operations, transferred: Transferred) -> None:
    """Tag the verified image with what it is, rename it into place, journal that it is complete."""
    zpool = operations.zpool
    name = names.image(fetch.image)
    staged = transferred.datasets[0]
    operations.trace("fetch-staged")
    async with zpool.claimed(fetch.operation, Claim(exclusive=(name, staged.name))):
        tags = Tags(op=fetch.operation, kind="image", image=fetch.image, sha256=transferred.sha256)
        try:
            await zpool.execute(Retag(changes=(Retagging(target=staged.target, tags=tags),)))
            await zpool.execute(Rename(target=staged.target, name=name))
        except ImageStoreError:
            await zpool.discard(transferred.datasets)
            raise
        operations.trace("fetch-published")
        volume = zpool.view.get(name)
        assert volume is not None, "it was renamed there"
        await operations.finish(
            fetch.operation, image_facts(fetch.image, volume, zpool.view), principal=fetch.principal
        )
    operations.trace("fetch-finished")
