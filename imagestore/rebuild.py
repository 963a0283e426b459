"""A new journal for a pool whose own was lost: what is ours, read off the tags.

Everything the store makes carries what it is, so the objects can be listed as
before.  What happened to them cannot: the new journal says so with one
operation, ``Recover``, under which all of them appear.
"""

import time

from msgspec import Struct

from imagestore import names
from imagestore.actors.effects import created
from imagestore.actors.operation import Operations
from imagestore.actors.plans import dataset_id
from imagestore.actors.view import View
from imagestore.config import Config
from imagestore.errors import JournalError, PoolMismatch
from imagestore.events.catalogue import (
    CreateIntent,
    Event,
    ImageCompleted,
    ImageRequested,
    OperationFinished,
    OperationStarted,
    PoolAttached,
)
from imagestore.events.journal import Journal, open_journal
from imagestore.identifiers import uuid7_maker
from imagestore.pools.base import Dataset, Mark
from imagestore.store import open_pool

PRINCIPAL = "recover"
BATCH_EVENTS = 5_000


class Rebuilt(Struct, frozen=True, kw_only=True):
    """What was found. ``foreign`` datasets are in the pool and carry no tags of ours."""

    images: int
    datasets: int
    foreign: int


def events_of(view: View) -> tuple[list[Event], Rebuilt]:
    """The facts that the pool's tags tell, and how many they are."""
    ours = [row for row in view.under("") if _is_ours(row)]
    events: list[Event] = []
    images = 0
    for row in ours:
        origin = view.get(row.origin) if row.origin else None
        events.append(created(row, dataset_id(origin) if origin is not None else None))
    for row in ours:
        snapshots = view.snapshots(row.name)
        if row.tags.kind == "image" and snapshots:
            images += 1
            content = next((s for s in snapshots if s.tags.image == row.tags.image), snapshots[0])
            events.append(ImageRequested(image=row.tags.image))
            events.append(
                ImageCompleted(
                    image=row.tags.image,
                    volume=dataset_id(row),
                    snapshot=dataset_id(content),
                    size_bytes=content.volsize,
                    sha256=row.tags.sha256,
                )
            )
    foreign = len(view) - len(ours) - 1
    return events, Rebuilt(images=images, datasets=len(ours), foreign=foreign)


def _is_ours(row: Dataset) -> bool:
    staged = row.name.startswith(f"{names.IMAGES}/{names.STAGING_PREFIX}")
    return bool(row.tags.op) and bool(row.tags.kind) and not staged


def _refuse_history(journal: Journal) -> None:
    if journal.epoch:
        raise JournalError(
            f"{journal.directory} already holds a journal, opened {journal.epoch} times",
            detail="recover into an empty directory, and keep the old one: it is evidence",
        )


async def rebuild(config: Config) -> Rebuilt:
    """Write a new journal into the empty directory ``config.journal`` and give the pool its mark.

    Raises:
        JournalError: the directory already holds a journal with a history.
        PoolMismatch: the pool was never a store's.
        PoolError, PoolBusy, ConfigError: it cannot be opened.
    """
    async with open_pool(config, create=False) as driver:
        mark = await driver.mark()
        if mark is None:
            raise PoolMismatch(
                f"pool {config.pool} carries no mark of a journal: there is nothing to recover",
                detail=f"begin afresh: imagestore serve --pool {config.pool} --journal {config.journal}",
            )
        view = View()
        view.put(await driver.list())
        facts, rebuilt = events_of(view)

        async with open_journal(config.journal, admit=_refuse_history) as journal:
            operation = uuid7_maker(time.time_ns)()
            started = OperationStarted(method="Recover", subject="", intent=CreateIntent(datasets=()))
            attached = PoolAttached(driver=config.pool_address.driver, pool=driver.name)
            await journal.append([Operations.entry(e, operation, PRINCIPAL) for e in (attached, started)])
            for first in range(0, len(facts), BATCH_EVENTS):
                batch = facts[first : first + BATCH_EVENTS]
                await journal.append([Operations.entry(e, operation, PRINCIPAL) for e in batch])
            finished = OperationFinished(outcome="succeeded")
            await journal.append([Operations.entry(finished, operation, PRINCIPAL)])
            await driver.set_mark(Mark(journal=journal.uuid, epoch=journal.epoch))
    return rebuilt
