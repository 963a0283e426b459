"""Which events somebody wants to see.

Pure.  A filter on what an event is about (dataset, guest, image) also takes
the rest of its operation: who, resumed when, ended how.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from imagestore.events.catalogue import Envelope, Event, OperationFinished, PoolAttached
from imagestore.events.subjects import datasets_of, guests_of, images_of
from imagestore.names import is_within


class Filter(Struct, frozen=True, kw_only=True):
    """Which events to show; None asks for nothing.  Times in nanoseconds since 1970.

    ``types`` are aliases of events, () means all.
    """

    who: str | None = None
    dataset: str | None = None
    guest: str | None = None
    image: str | None = None
    operation: str | None = None
    types: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    from_seq: int = 1
    before_seq: int | None = None

    @property
    def takes_all(self) -> bool:
        """Whether every event between the two seqs is asked for."""
        return replace(self, from_seq=1, before_seq=None) == Filter()

    @property
    def has_subject(self) -> bool:
        """Whether it asks what an event is about, so that whole operations must be followed."""
        return not (self.dataset is None and self.guest is None and self.image is None)


class Selector:
    """Picks from events that come in order, and remembers which operations it follows.

    ``pool`` is the pool's name, for datasets asked for by their full name;
    the journal tells it when it comes by.
    """

    def __init__(self, wanted: Filter, *, pool: str = "") -> None:
        self.wanted = wanted
        self._pool = pool
        self._followed: set[str] = set()

    def takes(self, envelope: Envelope) -> bool:
        """Whether the event is wanted.  To be asked of each event, in order."""
        event = envelope.event
        if isinstance(event, PoolAttached):
            self._pool = event.pool.rstrip("/").rpartition("/")[2]
        if self.wanted.has_subject:
            if not (envelope.operation in self._followed or is_about(event, self.wanted, self._pool)):
                return False
            if envelope.operation:
                self._followed.add(envelope.operation)
            if isinstance(event, OperationFinished):
                self._followed.discard(envelope.operation)
        return _is_from(envelope, self.wanted)


def select(envelopes: Iterable[Envelope], wanted: Filter) -> Iterator[Envelope]:
    """The events that ``wanted`` asks for, in order."""
    return filter(Selector(wanted).takes, envelopes)


def is_about(event: Event, wanted: Filter, pool: str) -> bool:
    """Whether the event is about the dataset (or one below it), guest and image asked for."""
    if wanted.dataset is not None:
        asked = {wanted.dataset, wanted.dataset.removeprefix(f"{pool}/")}
        if not any(is_within(name, subtree) for name in datasets_of(event) for subtree in asked):
            return False
    if wanted.guest is not None and wanted.guest not in guests_of(event):
        return False
    return wanted.image is None or wanted.image in images_of(event)


def alias_of(event: Event) -> str:
    """An event's type as the journal names it."""
    return str(type(event).__struct_config__.tag)


SHORT_CHARACTERS = 8


def short(operation: str) -> str:
    """The end of an operation's id, which differs from its neighbours' (its beginning is the time)."""
    return operation[-SHORT_CHARACTERS:]


def _is_from(envelope: Envelope, wanted: Filter) -> bool:
    return (
        envelope.seq >= wanted.from_seq
        and (wanted.before_seq is None or envelope.seq < wanted.before_seq)
        and (wanted.who is None or envelope.principal == wanted.who)
        and (wanted.operation is None or wanted.operation in (envelope.operation, short(envelope.operation)))
        and (not wanted.types or alias_of(envelope.event) in wanted.types)
        and (wanted.since_ns is None or envelope.time_ns >= wanted.since_ns)
        and (wanted.until_ns is None or envelope.time_ns <= wanted.until_ns)
    )
