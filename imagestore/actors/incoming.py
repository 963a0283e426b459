"""What a stream that comes in means for the pool: a new volume, a clone, or a new state of a volume.

Pure functions of (name, heading, state, view).  They judge twice: when the
heading has come, before anything is journaled, and when all is there and the
claims are held.
"""

import re

from msgspec import Struct

from imagestore import names
from imagestore.actors.claims import Claim
from imagestore.actors.decisions import check_free_name
from imagestore.actors.plans import (
    dataset_id,
    guest_of,
    is_visible,
    missing_parents,
    outermost_missing,
    what_is_there,
)
from imagestore.actors.view import View
from imagestore.errors import AlreadyExists, Blocked, NotFound, NotVolume
from imagestore.events.catalogue import ReceiveIntent
from imagestore.events.state import State
from imagestore.pools.base import Dataset
from imagestore.streams.snapshot import SnapshotInfo

_DISK = re.compile(r"guests/[^/]+/disk-(0|[1-9][0-9]*)\Z")


class Order(Struct, frozen=True, kw_only=True):
    """What was asked: have a stream as ``name``; ``force`` discards what was written since its base."""

    name: str
    force: bool = False


def check_order(order: Order, state: State, view: View) -> None:
    """What can be said before anything of the stream is there. Raises NotValid, NotVolume, AlreadyExists."""
    check_free_name(order.name)
    row = view.get(order.name)
    if row is None:
        missing_parents(order.name, view)
    elif not is_visible(row, state):
        raise AlreadyExists.named(order.name, detail="it is being made")
    elif row.kind != "volume":
        raise NotVolume(detail=f"{order.name} is a {row.kind}")


def judge(order: Order, heading: SnapshotInfo, operation: str, state: State, view: View) -> ReceiveIntent:
    """What to do with the stream whose first snapshot is ``heading``.

    Raises:
        AlreadyExists: a full stream, and the name is taken; or one of its snapshots' is.
        NotFound: its base is not in the pool.
        Blocked: its base is not the newest snapshot.
        NotValid, NotVolume: the name is none, or another kind of dataset's.
    """
    check_order(order, state, view)
    row = view.get(order.name)
    if row is not None:
        return _onto(row, heading, operation, view)
    base = _origin(order.name, heading, state, view) if heading.from_guid else None
    disk = _DISK.match(order.name)
    return ReceiveIntent(
        name=order.name,
        staging=names.staging(operation),
        base=dataset_id(base) if base is not None else None,
        parents=tuple(missing_parents(order.name, view)),
        image=base.tags.image if base is not None else "",
        guest=guest_of(order.name),
        disk=disk[1] if disk is not None else "",
    )


def _onto(row: Dataset, heading: SnapshotInfo, operation: str, view: View) -> ReceiveIntent:
    if not heading.from_guid:
        raise AlreadyExists.named(row.name, detail=f"the stream is a full one; {what_is_there(row)}")
    snapshots = view.snapshots(row.name)
    newest = snapshots[-1] if snapshots else None
    if newest is None or newest.guid != heading.from_guid:
        there = f"{newest.name} with guid {newest.guid}" if newest is not None else "none"
        raise Blocked(
            f"most recent snapshot of {row.name} is not the stream's base: {there}",
            blockers=(newest.name,) if newest is not None else (),
            detail=f"the stream is incremental from guid {heading.from_guid}",
        )
    if any(snapshot.name == f"{row.name}@{heading.snapshot}" for snapshot in snapshots):
        raise AlreadyExists.named(f"{row.name}@{heading.snapshot}")
    return ReceiveIntent(
        name=row.name,
        staging=names.staging(operation),
        volume=dataset_id(row),
        base=dataset_id(newest),
        guest=guest_of(row.name),
    )


def _origin(name: str, heading: SnapshotInfo, state: State, view: View) -> Dataset:
    """The origin of a new clone, by its guid, which may stand in the pool more than once."""
    if not heading.is_clone:
        raise NotFound(
            detail=f"the stream is incremental from guid {heading.from_guid}, and {name} does not exist: "
            "receive what it is from first"
        )
    found = (
        row
        for row in view.under("")
        if row.guid == heading.from_guid and row.kind == "snapshot" and row.volsize and is_visible(row, state)
    )
    origin = next(found, None)
    if origin is None:
        raise NotFound(
            detail=f"the clone's origin, a snapshot with guid {heading.from_guid}, is not in the pool"
        )
    return origin


def claim_of(intent: ReceiveIntent, view: View) -> Claim:
    """What publishing changes, and leans on."""
    if intent.volume is not None:
        return Claim(exclusive=(intent.name,))
    shared = (intent.base.name,) if intent.base is not None else ()
    return Claim(exclusive=(outermost_missing(intent.name, view), intent.staging), shared=shared)


def check_same(planned: ReceiveIntent, now: ReceiveIntent) -> None:
    """Raises Blocked unless what was journaled is what is to be done now; parents may have come meanwhile."""
    same = (planned.volume, planned.base) == (now.volume, now.base)
    if not same or not set(now.parents) <= set(planned.parents):
        raise Blocked(f"dataset was changed while it was received: {planned.name}", blockers=(planned.name,))
