"""Verdicts: what becomes of an operation that another life left under way.

Pure functions of (operation, view).  One rule: effect whole -> finish it;
deletion -> go on, by identity; fetch -> queued again under its id; anything
else -> undo it and record it as failed.  A rollback is never repeated, nor a
stream onto a volume: their mark on the volumes tells whether it happened.
"""

from typing import assert_never

from msgspec import Struct

from imagestore import names
from imagestore.actors.effects import destroyed, facts, identity_of, image_facts, named, still_there
from imagestore.actors.view import View
from imagestore.events.catalogue import (
    AdoptIntent,
    CreateIntent,
    DestroyIntent,
    Event,
    FetchIntent,
    ImageDeleted,
    NoteIntent,
    PublishIntent,
    ReceiveIntent,
    ReleaseIntent,
    ResizeIntent,
    RollbackIntent,
    SnapshotIntent,
)
from imagestore.events.state import OperationRecord
from imagestore.pools.base import Identity, Target

MAX_ATTEMPTS = 3
"""How many lives may take an operation up before it is undone."""


class Finish(Struct, frozen=True, kw_only=True):
    """The effect is whole: journal these facts and success."""

    facts: tuple[Event, ...]


class GoOn(Struct, frozen=True, kw_only=True):
    """A deletion: destroy what is left of its targets; ``gone`` are facts already true."""

    targets: tuple[Target, ...]
    gone: tuple[Event, ...]
    then: tuple[Event, ...]


class Undo(Struct, frozen=True, kw_only=True):
    """Destroy what was made, newest first, and record the operation as failed."""

    targets: tuple[Target, ...]
    reason: str


class Requeue(Struct, frozen=True, kw_only=True):
    """A fetch: into the queue again, under its id."""


Verdict = Finish | GoOn | Undo | Requeue

INTERRUPTED = "interrupted: the store was restarted before it was whole"
GAVE_UP = f"given up after {MAX_ATTEMPTS} restarts"


def verdict(record: OperationRecord, view: View) -> Verdict:
    """What to do with an operation under way, as the pool is now."""
    intent = record.intent
    match intent:
        case CreateIntent(datasets=datasets):
            return _made(record, [new.name for new in datasets], view)
        case SnapshotIntent(datasets=datasets, snapshot=snapshot):
            return _made(record, [f"{dataset.name}@{snapshot}" for dataset in datasets], view)
        case DestroyIntent():
            return _destroyed(record, intent, view)
        case RollbackIntent(volumes=volumes):
            rows = [view.get(volume.name) for volume in volumes]
            if rows and all(row is not None and row.tags.last == record.id for row in rows):
                return Finish(facts=facts(intent, record.id, view))
            return Undo(targets=(), reason=INTERRUPTED)
        case ResizeIntent(volume=resized, size_bytes=size):
            row = view.get(resized.name)
            if row is not None and identity_of(resized) == row.identity and row.volsize == size:
                return Finish(facts=facts(intent, record.id, view))
            return Undo(targets=(), reason=INTERRUPTED)
        case FetchIntent(image=image):
            volume = view.get(names.image(image))
            if volume is not None and volume.tags.op == record.id and view.snapshots(volume.name):
                return Finish(facts=image_facts(image, volume, view))
            if record.attempts >= MAX_ATTEMPTS:
                return Undo(targets=(), reason=GAVE_UP)
            return Requeue()
        case ReceiveIntent():
            return _received(record, intent, view)
        case AdoptIntent():
            return _adopted(record, intent, view)
        case ReleaseIntent():
            return _released(record, intent, view)
        case PublishIntent(image=image):
            volume = view.get(names.image(image))
            if volume is not None and volume.tags.op == record.id:
                return Finish(facts=facts(intent, record.id, view))
            return Undo(targets=(), reason=INTERRUPTED)
        case NoteIntent():
            return Finish(facts=facts(intent, record.id, view))
        case _:
            assert_never(intent)


def _made(record: OperationRecord, wanted: list[str], view: View) -> Verdict:
    """Ours are the rows that carry this operation's tag; a foreign one of that name is not touched."""
    made = [row for name in wanted if (row := view.get(name)) is not None and row.tags.op == record.id]
    if len(made) == len(wanted):
        return Finish(facts=facts(record.intent, record.id, view))
    return Undo(targets=tuple(row.target for row in reversed(made)), reason=INTERRUPTED)


def _received(record: OperationRecord, intent: ReceiveIntent, view: View) -> Finish | Undo:
    """A new volume got its name, with its tag, when it was whole; one that was there got the mark."""
    row = view.get(intent.name)
    if row is not None:
        mark = row.tags.op if intent.volume is None else row.tags.last
        if mark == record.id:
            return Finish(facts=facts(intent, record.id, view))
    parents = [view.get(parent.name) for parent in reversed(intent.parents)]
    made = tuple(row.target for row in parents if row is not None and row.tags.op == record.id)
    return Undo(targets=made, reason=INTERRUPTED)


def _adopted(record: OperationRecord, intent: AdoptIntent, view: View) -> Finish | Undo:
    """Tags are set as one step: those that are still there carry them all, or none does."""
    found = still_there(intent.datasets, view)
    if identity_of(intent.datasets[0]) in found and all(row.tags.op == record.id for row in found.values()):
        return Finish(facts=facts(intent, record.id, view))
    parents = named(view, [parent.name for parent in reversed(intent.parents)])
    made = tuple(row.target for row in parents if row.tags.op == record.id)
    return Undo(targets=made, reason=INTERRUPTED)


def _released(record: OperationRecord, intent: ReleaseIntent, view: View) -> Finish | Undo:
    """As :func:`_adopted`: no tag is left, or all are."""
    found = still_there(intent.datasets, view)
    if found and not any(row.tags.op for row in found.values()):
        return Finish(facts=facts(intent, record.id, view))
    return Undo(targets=(), reason=INTERRUPTED)


def _destroyed(record: OperationRecord, intent: DestroyIntent, view: View) -> GoOn | Undo:
    gone = []
    left = []
    there = still_there(intent.datasets, view)
    for dataset in intent.datasets:
        row = there.get(Identity(dataset.guid, dataset.createtxg))
        if row is None:
            gone.append(destroyed(dataset))
        else:
            left.append(row.target)
    if left and record.attempts >= MAX_ATTEMPTS:
        return Undo(targets=(), reason=GAVE_UP)
    then: tuple[Event, ...] = (ImageDeleted(image=intent.image),) if intent.image else ()
    return GoOn(targets=tuple(left), gone=tuple(gone), then=then)
