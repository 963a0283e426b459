"""One image's fetch: accepted, transferred into staging, published.

Owns the way from the intent to the outcome of a single fetch.  The image grows
under a reserved staging name that no listing shows; when it is verified it is
tagged with what it is and renamed into place.  A refusal of any kind is
journaled as the image's failure; nothing of it stays in the pool.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import trio
from msgspec import Struct

from imagestore import names
from imagestore.actors.base import Reply
from imagestore.actors.claims import Claim
from imagestore.actors.effects import RAW_SNAPSHOT, image_facts
from imagestore.actors.imageservice import ImageAddress
from imagestore.actors.operation import Operations
from imagestore.actors.plans import Plan, complete_image
from imagestore.actors.space import SpaceKeeper
from imagestore.actors.transfer import Kind, Phase, Transferred, TransferSettings, transfer
from imagestore.actors.zpool import Rename, Retag, ZpoolActor
from imagestore.errors import AlreadyExists, FetchFailed, ImageStoreError
from imagestore.events.catalogue import FetchIntent, ImageFailed, ImageRequested
from imagestore.model import Progress
from imagestore.pools.base import Receiver, Retagging, Tags

_log = logging.getLogger(__name__)


class Fetch(Struct, kw_only=True, eq=False):
    """One image being fetched, and who waits for it."""

    image: str
    type: str
    operation: str
    principal: str
    waiters: list[Reply[None]]
    status: Literal["pending", "downloading", "importing"] = "pending"
    progress: Progress | None = None

    def report(self, phase: Phase, done: int, total: int | None) -> None:
        self.status = phase
        self.progress = Progress(done_bytes=done, total_bytes=total)


async def accept(fetch: Fetch, operations: Operations) -> bool:
    """Make the intent durable. False: the image is there after all. Nothing happened if this raises.

    The claim lets a deletion of the image that is under way end first: its
    datasets go before the journal says so, and in between the image looks as
    if it were free.
    """
    name = names.image(fetch.image)
    async with operations.zpool.claimed(fetch.operation, Claim(exclusive=(name,))):
        if complete_image(fetch.image, operations.state, operations.zpool.view) is not None:
            return False
        intent = FetchIntent(image=fetch.image, staging=names.staging(fetch.operation), type=fetch.type)
        plan = Plan(method="RequestImage", subject=name, intent=intent)
        requested = ImageRequested(image=fetch.image, type=fetch.type)
        await operations.begin(fetch.operation, plan, principal=fetch.principal, with_it=[requested])
    operations.trace("fetch-accepted")
    return True


async def carry_out(
    fetch: Fetch, operations: Operations, *, service: str, settings: TransferSettings
) -> None:
    """Transfer and publish an accepted fetch, and journal how it ended.

    Raises what went wrong, after that was journaled.  Cancelling leaves the
    operation under way, for the next life, and nothing in the pool.
    """
    try:
        transferred = await _transfer(fetch, operations, service, settings)
        with trio.CancelScope(shield=True):
            await _publish(fetch, operations, transferred)
    except ImageStoreError as error:
        with trio.CancelScope(shield=True):
            await _fail(fetch, operations, error)
        raise


async def _fail(fetch: Fetch, operations: Operations, error: ImageStoreError) -> None:
    await operations.zpool.reserve(fetch.operation, 0)
    failed = ImageFailed(image=fetch.image, reason=str(error))
    await operations.fail(fetch.operation, error, principal=fetch.principal, happened=[failed])


async def _transfer(
    fetch: Fetch, operations: Operations, service: str, settings: TransferSettings
) -> Transferred:
    """Bring the image into staging. An unexpected error is this fetch's alone: nothing is published yet."""
    zpool = operations.zpool
    taken = zpool.view.get(names.image(fetch.image))
    if taken is not None:
        raise AlreadyExists.named(taken.name, detail="it is in the pool and is not this store's image")

    @asynccontextmanager
    async def sink(kind: Kind) -> AsyncIterator[Receiver]:
        async with _receiver(fetch, zpool, kind) as receiver:
            yield SpaceKeeper(receiver, zpool, fetch.operation)

    try:
        address = ImageAddress(image=fetch.image, service=service)
        return await transfer(address, sink, settings=settings, progress=fetch.report)
    except ImageStoreError:
        raise
    except Exception as error:
        _log.exception("fetch of image %s failed unexpectedly", fetch.image)
        raise FetchFailed(f"internal error while fetching: {type(error).__name__}") from error


@asynccontextmanager
async def _receiver(fetch: Fetch, zpool: ZpoolActor, kind: Kind) -> AsyncIterator[Receiver]:
    name = names.staging(fetch.operation)
    tags = Tags(op=fetch.operation, kind="staging", image=fetch.image)
    snapshot_tags = Tags(op=fetch.operation, kind="snapshot", image=fetch.image)
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
