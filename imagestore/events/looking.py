"""Looking into the journal's past by its index, bounded: for people who wait for the answer.

Pure over what an index finds and reads.  ``explain --journal`` reads everything
instead, and needs nobody's patience but its own.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct, structs

from imagestore.events.catalogue import DatasetAdopted, DatasetCreated, DatasetRenamed, Envelope
from imagestore.events.eventtext import describe
from imagestore.events.lineage import Lineage, explain
from imagestore.events.selection import Filter, alias_of

LOOKED_AT = 10_000
"""Events that one search for a text looks at; the next page goes on behind them."""

PIECE_EVENTS = 500

STORY_EVENTS = 1_000
OLDEST_EVENTS = 50
"""So many of the newest events, and of the oldest, are told of one dataset."""

STORY_NAMES = 24
"""So many names, of the dataset and of what it came from, are followed."""


class Looked(Protocol):
    """What is needed of an index."""

    def search(self, wanted: Filter, *, last: int | None = None) -> Sequence[int]: ...
    def named(self, dataset: str, *, most: int, oldest: int = 0) -> Sequence[int]: ...
    def read(self, seqs: Iterable[int]) -> Iterable[Envelope]: ...


class Page(Struct, frozen=True, kw_only=True):
    """Events, the newest first; ``next`` is where to go on (``Filter.before_seq``), 0 at the beginning."""

    events: tuple[Envelope, ...]
    next: int = 0


class Story(Struct, frozen=True, kw_only=True):
    lineage: Lineage
    truncated: bool = False


def search(index: Looked, wanted: Filter, *, text: str, limit: int) -> Page:
    """The newest ``limit`` events that ``wanted`` asks for and that have all words of ``text``."""
    words = text.casefold().split()
    size = PIECE_EVENTS if words else limit
    found: list[Envelope] = []
    looked_at = 0
    while True:
        seqs = index.search(wanted, last=size)
        for envelope in sorted(index.read(seqs), key=lambda each: -each.seq):
            if _has(envelope, words):
                found.append(envelope)
            if len(found) == limit:
                return Page(events=tuple(found), next=envelope.seq if envelope.seq > 1 else 0)
        looked_at += len(seqs)
        if len(seqs) < size or seqs[0] <= 1:
            return Page(events=tuple(found))
        if looked_at >= LOOKED_AT:
            return Page(events=tuple(found), next=seqs[0])
        wanted = structs.replace(wanted, before_seq=seqs[0])


def _has(envelope: Envelope, words: Sequence[str]) -> bool:
    if not words:
        return True
    event = envelope.event
    said = f"{alias_of(event)} {describe(event)} {envelope.principal} {envelope.operation}".casefold()
    return all(word in said for word in words)


def story(index: Looked, dataset: str) -> Story:
    """What :func:`imagestore.events.lineage.explain` tells of a dataset, out of the events about it alone."""
    names = [dataset]
    events: dict[int, Envelope] = {}
    truncated = False
    for name in names:  # it grows meanwhile
        seqs = index.named(name, most=STORY_EVENTS, oldest=OLDEST_EVENTS)
        truncated = truncated or len(seqs) >= STORY_EVENTS
        for envelope in index.read([seq for seq in seqs if seq not in events]):
            events[envelope.seq] = envelope
        for envelope in (events[seq] for seq in seqs):
            names += [each for each in _related(envelope, name) if each not in names]
        if len(names) > STORY_NAMES:
            truncated = True
            del names[STORY_NAMES:]
    told = [events[seq] for seq in sorted(events)]
    return Story(lineage=explain(dataset, lambda: told), truncated=truncated)


def _related(envelope: Envelope, name: str) -> tuple[str, ...]:
    """Other names that the story of ``name`` leads to: what it was called, and what it is a clone of."""
    match envelope.event:
        case DatasetRenamed(name=before, new_name=after) if name in (before, after):
            return (before, after)
        case DatasetCreated() | DatasetAdopted() as made if made.name == name and made.origin is not None:
            return (made.origin.name, made.origin.name.partition("@")[0])
        case _:
            return ()
