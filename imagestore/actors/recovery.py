"""Recovery: from a replayed journal and a pool as it is, to a store that may serve.

Owns the order: staging of other lives is destroyed, never trusted; what was
under way is finished, gone on with, undone or queued again (``verdicts``);
what others did to ours is recorded (``drift``); the two roots are made.  Every
step is journaled before and after, so recovery may itself die anywhere.
"""

import logging
from typing import assert_never

from imagestore import names
from imagestore.actors.drift import drift
from imagestore.actors.fetcher import Fetcher
from imagestore.actors.operation import Operations
from imagestore.actors.plans import Plan
from imagestore.actors.verdicts import Finish, GoOn, Requeue, Undo, verdict
from imagestore.actors.zpool import Destroy
from imagestore.errors import ImageStoreError
from imagestore.events.catalogue import (
    CreateIntent,
    DatasetId,
    Event,
    FetchIntent,
    ImageFailed,
    NewParent,
    OperationFinished,
    OperationResumed,
)
from imagestore.events.state import OperationRecord
from imagestore.pools.base import Target

_log = logging.getLogger(__name__)

PRINCIPAL = "recovery"

SUPERSEDED = "never begun: the image was asked for again"


async def recover(operations: Operations, fetcher: Fetcher) -> None:
    """Bring journal and pool together. The zpool actor runs; nothing else does yet."""
    await _destroy_staging(operations)
    for record in list(operations.state.operations.values()):
        await _settle(record, operations, fetcher)
        operations.trace("recovery-settled")
    await _record_drift(operations)
    await _make_roots(operations)


async def _record_drift(operations: Operations) -> None:
    events = drift(operations.state, operations.zpool.view)
    if events:
        _log.warning("%d datasets of ours were renamed or destroyed by someone", len(events))
        await operations.record("", events, principal=PRINCIPAL)


async def _destroy_staging(operations: Operations) -> None:
    """Whatever lies under a staging name is of an earlier life: none runs yet."""
    prefix = f"{names.IMAGES}/{names.STAGING_PREFIX}"
    staged = [row for row in operations.zpool.view.under(names.IMAGES) if row.name.startswith(prefix)]
    if staged:
        await operations.zpool.clear(staged)
    operations.trace("recovery-staging-destroyed")


async def _settle(record: OperationRecord, operations: Operations, fetcher: Fetcher) -> None:
    """End one operation of an earlier life, or queue it again."""
    ruling = verdict(record, operations.zpool.view)
    if not isinstance(ruling, Finish):
        resumed = OperationResumed(attempt=record.attempts + 1)
        await operations.record(record.id, [resumed], principal=PRINCIPAL)
    match ruling:
        case Finish():
            await operations.finish(record.id, ruling.facts, principal=PRINCIPAL)
        case GoOn():
            await _go_on(record, ruling, operations)
        case Undo():
            await _undo(record, ruling, operations)
        case Requeue():
            if _is_current(record, operations):
                fetcher.requeue(record)
            else:
                await _undo(record, Undo(targets=(), reason=SUPERSEDED), operations)
        case _:
            assert_never(ruling)
    _log.warning("%s %s of an earlier life: %s", record.method, record.id, type(ruling).__name__)


def _is_current(record: OperationRecord, operations: Operations) -> bool:
    """Whether a fetch is the one that its image waits for.

    One whose acceptance the journal confirmed too late was never begun, and
    the image may have been asked for again, or be there, since.
    """
    intent = record.intent
    image = operations.state.images.get(intent.image) if isinstance(intent, FetchIntent) else None
    return image is not None and image.operation == record.id


async def _go_on(record: OperationRecord, ruling: GoOn, operations: Operations) -> None:
    """Destroy what is left. A refusal ends the operation as failed; what had gone is recorded."""
    happened = list(ruling.gone)
    try:
        if ruling.targets:
            await operations.zpool.execute(Destroy(targets=ruling.targets, force=record.force))
    except ImageStoreError as error:
        await operations.fail(record.id, error, principal=PRINCIPAL, happened=happened)
        return
    assert not isinstance(record.intent, FetchIntent)
    everything = verdict(record, operations.zpool.view)
    assert isinstance(everything, GoOn), "nothing is left of the targets"
    await operations.finish(record.id, (*everything.gone, *ruling.then), principal=PRINCIPAL)


async def _undo(record: OperationRecord, ruling: Undo, operations: Operations) -> None:
    """Destroy what was made. What resists is named in the outcome."""
    left: tuple[Target, ...] = ()
    if ruling.targets:
        try:
            await operations.zpool.execute(Destroy(targets=ruling.targets, force=True))
        except ImageStoreError as error:
            _log.error("undoing %s left datasets behind: %s", record.id, error)
            left = ruling.targets
    failed: tuple[Event, ...] = ()
    if isinstance(record.intent, FetchIntent) and _is_current(record, operations):
        failed = (ImageFailed(image=record.intent.image, reason=ruling.reason),)
    finished = OperationFinished(
        outcome="failed",
        error=ruling.reason,
        error_type="Interrupted",
        left_behind=tuple(DatasetId(name=t.name, guid=t.guid, createtxg=t.createtxg) for t in left),
    )
    await operations.conclude(record.id, (*failed, finished), PRINCIPAL)


async def _make_roots(operations: Operations) -> None:
    """``images`` and ``guests``, and nothing else in the pool's names."""
    missing = tuple(
        NewParent(name=name) for name in (names.IMAGES, names.GUESTS) if name not in operations.zpool.view
    )
    if not missing:
        return
    operation = operations.new_id()
    plan = Plan(method="Start", subject="", intent=CreateIntent(datasets=missing))
    await operations.carry_out(operation, plan, principal="imagestore")
