"""Drift: where the pool differs from what the journal says is ours.

A pure comparison.  Same identity under another name was renamed by someone; an
identity that is nowhere was destroyed by someone, also when a foreign dataset
has taken the name.  What was never ours is no drift.
"""

from imagestore.actors.view import View
from imagestore.events.catalogue import DatasetCreated, DatasetLost, DatasetRenamed, Event
from imagestore.events.state import DatasetRecord, State
from imagestore.pools.base import Identity


def drift(state: State, view: View) -> tuple[Event, ...]:
    """The events that bring the state in line with the pool, in the order to apply them."""
    identities = {row.identity: row for row in view.under("")}
    lost: list[Event] = []
    moved: list[tuple[DatasetRecord, str]] = []
    for record in state.datasets.values():
        row = identities.get(Identity(record.guid, record.createtxg))
        if row is None:
            lost.append(DatasetLost(name=record.name, guid=record.guid, createtxg=record.createtxg))
        elif row.name != record.name:
            moved.append((record, row.name))
    return (*lost, *_renames(state, moved, {event.name for event in lost if isinstance(event, DatasetLost)}))


def _renames(state: State, moved: list[tuple[DatasetRecord, str]], freed: set[str]) -> list[Event]:
    """A rename whose new name is still taken by another of ours is told as lost and found again."""
    taken = set(state.datasets) - freed
    renamed: list[Event] = []
    found: list[Event] = []
    for record, name in moved:
        if name in taken:
            renamed.append(DatasetLost(name=record.name, guid=record.guid, createtxg=record.createtxg))
            found.append(_found(record, name))
        else:
            renamed.append(
                DatasetRenamed(name=record.name, new_name=name, guid=record.guid, createtxg=record.createtxg)
            )
            taken.add(name)
        taken.discard(record.name)
    return [*renamed, *found]


def _found(record: DatasetRecord, name: str) -> DatasetCreated:
    return DatasetCreated(
        name=name,
        kind=record.kind,
        role=record.role,
        guid=record.guid,
        createtxg=record.createtxg,
        size_bytes=record.size_bytes,
        origin=record.origin,
        image=record.image,
        guest=record.guest,
        disk=record.disk,
    )
