"""A pool and a journal with a long past: many live datasets, many events.

Made with the store's own driver and journal, so that what is measured is what
a store of that age would meet.  The pool and the journal must have been begun
by a store (which marks them as belonging together) that has stopped.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from imagestore.events.catalogue import (
    CreateIntent,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DestroyIntent,
    NewBlank,
    NewParent,
    OperationFinished,
    OperationStarted,
    SnapshotIntent,
)
from imagestore.events.journal import Entry, open_journal
from imagestore.identifiers import uuid7_maker
from imagestore.pools.base import Dataset, NewFilesystem, NewVolume, Tags
from imagestore.pools.directory.driver import open_directory_pool

DISK_BYTES = 1 << 20
GUESTS_PER_BATCH = 500
PAST_PER_BATCH = 200
"""Snapshots that came and went, in one append: six events each."""

EVENTS_PER_PAST = 6


async def add_guests(pool: Path, journal: Path, numbers: range) -> None:
    """Make guests ``bench-<number>`` of one disk: two datasets and four events each."""
    new_id = uuid7_maker()
    driver = await open_directory_pool(str(pool), create=False)
    try:
        async with open_journal(str(journal)) as log:
            for batch in _batches(numbers, GUESTS_PER_BATCH):
                made = {f"bench-{number}": new_id() for number in batch}
                rows = await driver.create(
                    [
                        creation
                        for guest, operation in made.items()
                        for creation in (
                            NewFilesystem(
                                name=f"guests/{guest}", tags=Tags(op=operation, kind="parent", guest=guest)
                            ),
                            NewVolume(
                                name=f"guests/{guest}/disk-0",
                                size=DISK_BYTES,
                                tags=Tags(op=operation, kind="disk", guest=guest, disk="0"),
                            ),
                        )
                    ]
                )
                await log.append(_creations(made, {row.name: row for row in rows}))
    finally:
        await driver.close()


async def add_past(journal: Path, events: int) -> None:
    """Append snapshots that were taken and destroyed again until ``events`` is reached.

    Closing the journal writes a checkpoint after the last of them.
    """
    new_id = uuid7_maker()
    async with open_journal(str(journal)) as log:
        while (missing := events - log.state.seq) > 0:
            count = min(PAST_PER_BATCH, -(-missing // EVENTS_PER_PAST))
            first = log.state.seq
            await log.append([entry for number in range(count) for entry in _past(new_id, first + number)])


def _creations(made: Mapping[str, str], rows: Mapping[str, Dataset]) -> list[Entry]:
    entries = []
    for guest, operation in made.items():
        parent, disk = rows[f"guests/{guest}"], rows[f"guests/{guest}/disk-0"]
        intent = CreateIntent(
            datasets=(
                NewParent(name=parent.name, guest=guest),
                NewBlank(name=disk.name, size_bytes=DISK_BYTES, guest=guest, disk="0"),
            )
        )
        for event in (
            OperationStarted(method="CreateGuestDisks", subject=guest, intent=intent),
            DatasetCreated(
                name=parent.name,
                kind="filesystem",
                role="parent",
                guid=parent.guid,
                createtxg=parent.createtxg,
                guest=guest,
            ),
            DatasetCreated(
                name=disk.name,
                kind="volume",
                role="disk",
                guid=disk.guid,
                createtxg=disk.createtxg,
                size_bytes=DISK_BYTES,
                guest=guest,
                disk="0",
            ),
            OperationFinished(outcome="succeeded"),
        ):
            entries.append(Entry(event=event, operation=operation, principal="bench"))
    return entries


def _past(new_id: Callable[[], str], number: int) -> list[Entry]:
    """A snapshot taken, then destroyed: two operations."""
    volume = DatasetId(name="guests/bench-0/disk-0", guid=1, createtxg=1)
    snapshot = DatasetId(name=f"{volume.name}@{number}", guid=number + 2, createtxg=number + 2)
    taken, gone = new_id(), new_id()
    take = SnapshotIntent(datasets=(volume,), snapshot=str(number), guest="bench-0")
    return [
        Entry(event=event, operation=operation, principal="bench")
        for operation, event in (
            (taken, OperationStarted(method="CreateSnapshot", subject=volume.name, intent=take)),
            (
                taken,
                DatasetCreated(
                    name=snapshot.name,
                    kind="snapshot",
                    role="snapshot",
                    guid=snapshot.guid,
                    createtxg=snapshot.createtxg,
                    guest="bench-0",
                ),
            ),
            (taken, OperationFinished(outcome="succeeded")),
            (
                gone,
                OperationStarted(
                    method="DeleteSnapshot", subject=snapshot.name, intent=DestroyIntent(datasets=(snapshot,))
                ),
            ),
            (
                gone,
                DatasetDestroyed(name=snapshot.name, guid=snapshot.guid, createtxg=snapshot.createtxg),
            ),
            (gone, OperationFinished(outcome="succeeded")),
        )
    ]


def _batches(numbers: range, size: int) -> Iterator[range]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
