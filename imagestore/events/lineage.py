"""A dataset's past: where it came from, and everything that was done to it.

Pure: events in, explanation out.  A name may have belonged to several datasets
one after the other; each is a life of its own, told by its identity (guid and
createtxg).  What a dataset was cloned from is explained with it, back to the
image that was fetched.
"""

from collections.abc import Callable, Iterable

from msgspec import Struct

from imagestore.events.catalogue import (
    DatasetAdopted,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DatasetLost,
    DatasetReleased,
    DatasetRenamed,
    Envelope,
    Event,
    OperationFinished,
    OperationResumed,
    OperationStarted,
)
from imagestore.events.state import Key
from imagestore.events.subjects import datasets_of

Events = Callable[[], Iterable[Envelope]]
"""The journal's events in order, as often as asked."""


class Life(Struct, frozen=True, kw_only=True):
    """One dataset from its making to its end.

    ``names`` are those it had, in order; ``origin`` what it was cloned from;
    ``ended`` is the seq of the event that it ended with, 0 while it lives.
    ``events`` are those about it, and the beginnings and ends of their
    operations.
    """

    guid: int
    createtxg: int
    names: tuple[str, ...]
    role: str
    origin: DatasetId | None
    ended: int
    events: tuple[Envelope, ...]


class Lineage(Struct, frozen=True, kw_only=True):
    """``lives`` had the name, oldest first; ``origins`` are what the last came from, nearest first;
    ``attempts`` are operations that would have made it and did not."""

    dataset: str
    lives: tuple[Life, ...]
    origins: tuple[Life, ...]
    attempts: tuple[Envelope, ...]


class _Draft:
    """A life that is being put together."""

    def __init__(self, made: DatasetCreated | DatasetAdopted) -> None:
        self.made = made
        self.names = [made.name]
        self.ended = 0
        self.events: dict[int, Envelope] = {}

    def call(self, name: str) -> None:
        """It has this name now."""
        if self.names[-1] != name:
            self.names.append(name)

    def life(self) -> Life:
        return Life(
            guid=self.made.guid,
            createtxg=self.made.createtxg,
            names=tuple(self.names),
            role=self.made.role,
            origin=self.made.origin,
            ended=self.ended,
            events=tuple(self.events[seq] for seq in sorted(self.events)),
        )


def explain(dataset: str, events: Events) -> Lineage:
    """Tell the past of whatever has or had the name ``dataset`` (relative to the pool)."""
    lives = _lives(events())
    named = [key for key, draft in lives.items() if dataset in draft.names]
    origins = _origins(lives, named[-1]) if named else []
    told = {key: lives[key] for key in (*named, *origins)}
    telling = _Telling(told, dataset)
    for envelope in events():
        telling.see(envelope)
    telling.end()
    return Lineage(
        dataset=dataset,
        lives=tuple(lives[key].life() for key in named),
        origins=tuple(lives[key].life() for key in origins),
        attempts=tuple(telling.attempts),
    )


def _lives(events: Iterable[Envelope]) -> dict[Key, _Draft]:
    """Every dataset that ever was, with its names and its end."""
    lives: dict[Key, _Draft] = {}
    for envelope in events:
        event = envelope.event
        match event:
            case DatasetCreated() | DatasetAdopted():
                key = (event.guid, event.createtxg)
                draft = lives.setdefault(key, _Draft(event))
                draft.ended = 0
                draft.call(event.name)
            case DatasetRenamed() if (event.guid, event.createtxg) in lives:
                lives[event.guid, event.createtxg].call(event.new_name)
            case DatasetDestroyed() | DatasetLost() if (event.guid, event.createtxg) in lives:
                lives[event.guid, event.createtxg].ended = envelope.seq
            case _:
                pass
    return lives


def _origins(lives: dict[Key, _Draft], key: Key) -> list[Key]:
    """What a dataset came from, nearest first: its origin, the volume of that, the origin of that, …"""
    found: list[Key] = []
    origin = lives[key].made.origin
    while origin is not None:
        volume = _last_named(lives, origin.name.partition("@")[0])
        steps = [each for each in ((origin.guid, origin.createtxg), volume) if each in lives]
        if not steps or steps[-1] in found:
            break
        found += steps
        origin = lives[steps[-1]].made.origin
    return found


def _last_named(lives: dict[Key, _Draft], name: str) -> Key:
    """The last dataset that had ``name``; (0, 0), which none is, if none had."""
    return next((key for key, draft in reversed(lives.items()) if name in draft.names), (0, 0))


class _UnderWay:
    """An operation, while it is read: its own events, and whom of those told it concerns."""

    def __init__(self) -> None:
        self.frame: list[Envelope] = []
        self.keys: set[Key] = set()
        self.is_wanted = False


class _Telling:
    """Goes through the events once and gives each draft those about it."""

    def __init__(self, told: dict[Key, _Draft], wanted: str) -> None:
        self.attempts: list[Envelope] = []
        self._told = told
        self._wanted = wanted
        self._names = {wanted}.union(*(draft.names for draft in told.values()))
        self._holders: dict[str, Key] = {}
        self._under_way: dict[str, _UnderWay] = {}

    def see(self, envelope: Envelope) -> None:
        event, operation = envelope.event, envelope.operation
        keys = self._concerned(event)
        for key in keys:
            self._told[key].events[envelope.seq] = envelope
        if isinstance(event, OperationStarted):
            named = self._names.intersection(datasets_of(event))
            if named:
                self._under_way[operation] = _UnderWay()
                self._under_way[operation].is_wanted = self._wanted in named
        under_way = self._under_way.get(operation)
        if under_way is not None:
            under_way.keys |= keys
            if isinstance(event, OperationStarted | OperationResumed | OperationFinished):
                under_way.frame.append(envelope)
            if isinstance(event, OperationFinished):
                self._end(self._under_way.pop(operation))
        self._keep_track(event)

    def end(self) -> None:
        """There are no more events: what is under way has no outcome yet."""
        for under_way in self._under_way.values():
            self._end(under_way)

    def _end(self, under_way: _UnderWay) -> None:
        for key in under_way.keys:
            self._told[key].events.update((envelope.seq, envelope) for envelope in under_way.frame)
        if not under_way.keys and under_way.is_wanted:
            self.attempts += under_way.frame

    def _concerned(self, event: Event) -> set[Key]:
        """Which of those told an event is about: by identity where it says one, else whoever has the name."""
        match event:
            case DatasetCreated() | DatasetAdopted() | DatasetReleased():
                return {(event.guid, event.createtxg)} & self._told.keys()
            case DatasetDestroyed() | DatasetRenamed() | DatasetLost():
                return {(event.guid, event.createtxg)} & self._told.keys()
            case _:
                return {self._holders[name] for name in datasets_of(event) if name in self._holders}

    def _keep_track(self, event: Event) -> None:
        """Who of those told has which name now."""
        match event:
            case DatasetCreated() | DatasetAdopted() if (event.guid, event.createtxg) in self._told:
                self._holders[event.name] = (event.guid, event.createtxg)
            case DatasetRenamed() if self._holders.get(event.name) == (event.guid, event.createtxg):
                self._holders[event.new_name] = self._holders.pop(event.name)
            case DatasetDestroyed() | DatasetLost():
                if self._holders.get(event.name) == (event.guid, event.createtxg):
                    del self._holders[event.name]
            case _:
                pass
