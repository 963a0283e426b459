"""What differs between two states of one history: for "what happened in between" without reading it all.

Pure.  A dataset is the same while its identity is (guid and createtxg),
whatever its name.  States do not know what is in a volume: that it went back
to a snapshot, or took a stream, the events in between tell (``contents``).
Of a token nobody is told its hash.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from msgspec import Struct, structs

from imagestore.events.catalogue import DatasetReceived, DatasetRolledBack, Envelope
from imagestore.events.state import DatasetRecord, Key, OperationRecord, State, TokenRecord

Change = Literal["added", "removed", "changed"]
What = Literal["dataset", "image", "alias", "source", "token", "operation"]
Fields = dict[str, str]

_NO_CONTENTS: Mapping[Key, str] = {}


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that differs.

    ``was`` and ``now`` are text: of what changed the fields that did, of what came or went all that say
    something.  Fields in ``_ns`` are nanoseconds since 1970, in ``_bytes`` bytes; a guid is hexadecimal.
    """

    change: Change
    what: What
    name: str
    was: Fields = {}
    now: Fields = {}


def contents(events: Iterable[Envelope]) -> dict[Key, str]:
    """The volumes whose content was replaced as a whole, by identity, and what is in them since."""
    replaced: dict[Key, str] = {}
    for envelope in events:
        event = envelope.event
        if isinstance(event, DatasetRolledBack):
            how = "rolled back"
        elif isinstance(event, DatasetReceived):
            how = "received"
        else:
            continue
        replaced[event.guid, event.createtxg] = f"{event.snapshot.name} {how} at seq {envelope.seq}"
    return replaced


def difference(
    before: State, after: State, replaced: Mapping[Key, str] = _NO_CONTENTS
) -> Iterator[Difference]:
    """What differs: datasets, images, aliases, sources, tokens, operations; each in the order of names.

    ``replaced`` are the :func:`contents` of the events in between.  An operation that was under way and
    is no more has ended; one that began and ended in between is in neither state.
    """
    yield from _datasets(_by_identity(before), _by_identity(after), replaced)
    yield from _named("image", _images(before), _images(after))
    yield from _named("alias", _aliases(before), _aliases(after))
    yield from _named("source", _records(before.sources), _records(after.sources))
    yield from _named("token", _tokens(before.tokens), _tokens(after.tokens))
    for ended in sorted(before.operations.keys() - after.operations.keys()):
        was = _order(before.operations[ended])
        yield Difference(change="removed", what="operation", name=ended, was=was, now={"status": "ended"})
    for begun in sorted(after.operations.keys() - before.operations.keys()):
        now = _order(after.operations[begun])
        yield Difference(change="added", what="operation", name=begun, now=now)


def _order(record: OperationRecord) -> Fields:
    return {"status": "under way", "method": record.method, "subject": record.subject}


# --- datasets, by identity ---------------------------------------------------


def _by_identity(state: State) -> dict[Key, DatasetRecord]:
    return {(record.guid, record.createtxg): record for record in state.datasets.values()}


def _datasets(
    before: dict[Key, DatasetRecord], after: dict[Key, DatasetRecord], replaced: Mapping[Key, str]
) -> Iterator[Difference]:
    found = [
        Difference(
            change="removed", what="dataset", name=before[key].name, was=_telling(_dataset(before[key]))
        )
        for key in before.keys() - after.keys()
    ]
    found += [
        Difference(change="added", what="dataset", name=after[key].name, now=_telling(_dataset(after[key])))
        for key in after.keys() - before.keys()
    ]
    for key in before.keys() & after.keys():
        was, now = _fields(before[key]), _fields(after[key])
        if key in replaced:
            now["content"] = replaced[key]
        found += _changed("dataset", after[key].name, was, now)
    yield from sorted(found, key=lambda each: (each.name, each.change))


def _dataset(record: DatasetRecord) -> Fields:
    """What tells a dataset from another one of its name."""
    fields = _fields(record)
    return {name: fields[name] for name in ("role", "size_bytes", "origin")} | {"guid": f"{record.guid:x}"}


# --- what has a name and nothing else ----------------------------------------


def _named(what: What, before: Mapping[str, Fields], after: Mapping[str, Fields]) -> Iterator[Difference]:
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield Difference(change="removed", what=what, name=name, was=_telling(before[name]))
        elif name not in before:
            yield Difference(change="added", what=what, name=name, now=_telling(after[name]))
        else:
            yield from _changed(what, name, before[name], after[name])


def _images(state: State) -> dict[str, Fields]:
    hidden = {image: {"hidden": "until its last clone goes"} for image in state.retired}
    return {name: fields | hidden.get(name, {}) for name, fields in _records(state.images).items()}


def _aliases(state: State) -> dict[str, Fields]:
    return {alias: {"image": image} for alias, image in state.aliases.items()}


def _tokens(tokens: Mapping[str, TokenRecord]) -> dict[str, Fields]:
    return {
        name: {field: text for field, text in fields.items() if field != "sha256"}
        for name, fields in _records(tokens).items()
    }


def _records(records: Mapping[str, Struct]) -> dict[str, Fields]:
    return {name: _fields(record) for name, record in records.items()}


# --- fields ------------------------------------------------------------------


def _changed(what: What, name: str, was: Fields, now: Fields) -> Iterator[Difference]:
    fields = [field for field in {**was, **now} if was.get(field, "") != now.get(field, "")]
    if fields:
        yield Difference(
            change="changed",
            what=what,
            name=name,
            was={field: was[field] for field in fields if field in was},
            now={field: now[field] for field in fields if field in now},
        )


def _telling(fields: Fields) -> Fields:
    """Without what is not set, and what is the thing's name."""
    return {
        name: text for name, text in fields.items() if text not in ("", "0") and name not in ("id", "name")
    }


def _fields(record: Struct) -> Fields:
    return {name: _text(value) for name, value in structs.asdict(record).items()}


def _text(value: object) -> str:
    name = getattr(value, "name", None)
    return "" if value is None else name if isinstance(name, str) else str(value)
