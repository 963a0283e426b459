"""What must hold of journal, state, view and pool, whatever happened.

Every function says what is wrong, line by line; nothing is an empty list.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from imagestore import names
from imagestore.actors.zpool import ZpoolActor
from imagestore.events import reader
from imagestore.events.catalogue import (
    DatasetLost,
    DatasetRenamed,
    DestroyIntent,
    Envelope,
    FetchIntent,
    JournalOpened,
    OperationFinished,
    OperationStarted,
)
from imagestore.events.state import State, apply
from imagestore.pools.base import Identity
from tests.events.disk import MemoryDisk
from tests.simulation.network import IMAGES
from tests.simulation.poolground import PoolGround, content


def events_on(disk: MemoryDisk) -> list[Envelope]:
    """Everything that a reader finds. Raises JournalError."""
    copy = MemoryDisk(disk.directory, disk.contents())
    return list(reader.read(copy.directory, files=copy))


def check_journal(events: Sequence[Envelope], acknowledged: Mapping[int, str], state: State) -> Iterator[str]:
    """What was acknowledged is in it, at its place; its fold is the state."""
    there = {envelope.seq: envelope.id for envelope in events}
    lost = [seq for seq, event in acknowledged.items() if there.get(seq) != event]
    if lost:
        yield f"the journal has lost what it acknowledged: {len(lost)} events from seq {lost[0]} on"
    folded = State()
    for envelope in events:
        apply(folded, envelope)
    if msgspec.json.encode(folded) != msgspec.json.encode(state):
        yield "the state is not the fold of the journal"


def check_drift(events: Sequence[Envelope]) -> Iterator[str]:
    """In this life so far nothing of ours was found gone or renamed."""
    opened = max(n for n, envelope in enumerate(events) if isinstance(envelope.event, JournalOpened))
    for envelope in events[opened:]:
        if isinstance(envelope.event, DatasetLost | DatasetRenamed):
            yield f"drift, and nobody else was there: {envelope.event}"


def check_strangers(events: Sequence[Envelope], foreign: set[Identity], ground: PoolGround) -> Iterator[str]:
    """What strangers made is there, unless somebody asked for its end."""
    foreign -= {
        Identity(dataset.guid, dataset.createtxg)
        for envelope in events
        if isinstance(envelope.event, OperationStarted) and isinstance(envelope.event.intent, DestroyIntent)
        for dataset in envelope.event.intent.datasets
    }
    there = {entry.dataset.identity for entry in ground.entries.values()}
    for identity in sorted(foreign - there):
        yield f"a stranger's dataset was destroyed: {identity}"


def left_behind(events: Sequence[Envelope]) -> set[Identity]:
    """What the journal says could not be undone."""
    return {
        Identity(dataset.guid, dataset.createtxg)
        for envelope in events
        if isinstance(envelope.event, OperationFinished)
        for dataset in envelope.event.left_behind
    }


def check_together(
    state: State, ground: PoolGround, zpool: ZpoolActor, *, left: set[Identity]
) -> Iterator[str]:
    """Journal's state, view and pool say the same. ``left`` is what could not be undone."""
    rows = {name: ground.measured(entry) for name, entry in ground.entries.items()}
    view = {row.name: row for row in zpool.view.under("")}
    for name in sorted({*rows, *view}):
        if rows.get(name) != view.get(name):
            yield f"the view has {view.get(name)}, the pool {rows.get(name)}"
    for record in state.datasets.values():
        row = rows.get(record.name)
        if row is None or row.identity != Identity(record.guid, record.createtxg):
            yield f"{record.name} is ours by the journal, and not in the pool: {row}"
        elif not row.tags.op:
            yield f"{record.name} is ours by the journal, and carries no tag of ours"
        elif (row.kind, row.volsize) != (record.kind, record.size_bytes):
            yield f"{record.name} is {row} in the pool and {record} in the journal"
    for row in rows.values():
        is_known = row.tags.op in state.operations or row.identity in left
        if row.tags.op and not is_known and state.owned(row.name, row.guid, row.createtxg) is None:
            yield f"{row.name} was made by {row.tags.op}, and the journal does not know it"


def check_images(state: State, ground: PoolGround) -> Iterator[str]:
    """An image that is complete is in the pool, whole, and is what the service has."""
    for record in state.images.values():
        if record.status == "pending" and record.operation not in state.operations:
            yield f"image {record.id} is pending, and nobody fetches it"
        if record.status != "complete":
            continue
        served, entry = IMAGES[record.id], ground.find(names.image(record.id))
        if entry is None or record.volume is None:
            yield f"image {record.id} is complete, and not there"
            continue
        dataset = entry.dataset
        if content(ground.blocks[dataset.createtxg], dataset.volsize) != served.raw:
            yield f"image {record.id} has not the content that the service sent"
        if dataset.tags.kind != "image":
            yield f"image {record.id} is tagged {dataset.tags}"
        if (record.sha256 or dataset.tags.sha256) != served.sha256:
            yield f"image {record.id} has the digest {record.sha256!r}, not that of what came"


def check_rest(state: State, zpool: ZpoolActor) -> Iterator[str]:
    """Nobody works: nothing is under way, nothing is claimed or reserved."""
    for record in state.operations.values():
        yield f"{record.method} {record.subject} has not ended"
    claims = len(zpool._claims)
    if claims:
        yield f"{claims} claims are left"
    if zpool.ledger.reserved_bytes:
        yield f"{zpool.ledger.reserved_bytes} bytes are reserved for nobody"


def check_recovered(state: State) -> Iterator[str]:
    """After recovery only fetches are under way."""
    for record in state.operations.values():
        if not isinstance(record.intent, FetchIntent):
            yield f"{record.method} {record.subject} of an earlier life has not ended"
        elif not record.attempts:
            yield f"{record.subject} was taken up again, and the journal does not say so"


def fetching(state: State) -> set[str]:
    """The images that are being fetched."""
    intents = [record.intent for record in state.operations.values()]
    return {intent.image for intent in intents if isinstance(intent, FetchIntent)}


def digest(trace: int, ground: PoolGround) -> str:
    """One value for all that happened in a history."""
    rows = repr([(entry.dataset.name, entry.dataset.guid) for entry in ground.entries.values()])
    return f"{trace:08x}-{hashlib.sha256(rows.encode()).hexdigest()[:8]}"
