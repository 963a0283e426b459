"""What differs between two states of one history: for "what happened in between" without reading it all.

Pure.  A dataset is the same while its identity is (guid and createtxg),
whatever its name.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, structs

from imagestore.events.state import DatasetRecord, ImageRecord, Key, OperationRecord, State

Change = Literal["added", "removed", "changed"]


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that differs.  ``was`` and ``now`` hold the fields that do, as text."""

    change: Change
    what: Literal["dataset", "image", "operation"]
    name: str
    was: dict[str, str] = {}
    now: dict[str, str] = {}


def difference(before: State, after: State) -> Iterator[Difference]:
    """What differs, datasets first, then images, then operations under way; each in the order of names."""
    yield from _datasets(_by_identity(before), _by_identity(after))
    yield from _images(before.images, after.images)
    for ended in sorted(before.operations.keys() - after.operations.keys()):
        was = _order(before.operations[ended])
        yield Difference(change="removed", what="operation", name=ended, was=was)
    for begun in sorted(after.operations.keys() - before.operations.keys()):
        now = _order(after.operations[begun])
        yield Difference(change="added", what="operation", name=begun, now=now)


def _order(record: OperationRecord) -> dict[str, str]:
    return {"method": record.method, "subject": record.subject}


def _by_identity(state: State) -> dict[Key, DatasetRecord]:
    return {(record.guid, record.createtxg): record for record in state.datasets.values()}


def _datasets(before: dict[Key, DatasetRecord], after: dict[Key, DatasetRecord]) -> Iterator[Difference]:
    removed, added = before.keys() - after.keys(), after.keys() - before.keys()
    found = [Difference(change="removed", what="dataset", name=before[key].name) for key in removed]
    found += [Difference(change="added", what="dataset", name=after[key].name) for key in added]
    for key in before.keys() & after.keys():
        was, now = _fields(before[key]), _fields(after[key])
        if was != now:
            found.append(_changed("dataset", after[key].name, was, now))
    yield from sorted(found, key=lambda each: (each.name, each.change))


def _images(before: dict[str, ImageRecord], after: dict[str, ImageRecord]) -> Iterator[Difference]:
    for image in sorted(before.keys() | after.keys()):
        if image not in after:
            yield Difference(change="removed", what="image", name=image)
        elif image not in before:
            yield Difference(change="added", what="image", name=image)
        elif (was := _fields(before[image])) != (now := _fields(after[image])):
            yield _changed("image", image, was, now)


def _changed(
    what: Literal["dataset", "image"], name: str, was: dict[str, str], now: dict[str, str]
) -> Difference:
    fields = [field for field in now if was[field] != now[field]]
    return Difference(
        change="changed",
        what=what,
        name=name,
        was={field: was[field] for field in fields},
        now={field: now[field] for field in fields},
    )


def _fields(record: DatasetRecord | ImageRecord) -> dict[str, str]:
    return {name: _text(value) for name, value in structs.asdict(record).items()}


def _text(value: object) -> str:
    name = getattr(value, "name", None)
    return "" if value is None else name if isinstance(name, str) else str(value)
