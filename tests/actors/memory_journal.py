"""A journal in memory that fails where it is told to. Implements ``operation.Writable``."""

from collections.abc import Callable, Sequence

from imagestore.events.catalogue import Envelope, Event
from imagestore.events.journal import Entry
from imagestore.events.settings import Failure
from imagestore.events.state import State, apply


class MemoryJournal:
    """Applies what is appended. ``fault`` is called with each batch before it is taken; may raise."""

    def __init__(self) -> None:
        self.state = State(pool="pool")
        self.failed: Failure | None = None
        self.batches: list[list[Event]] = []
        self.fault: Callable[[list[Event]], None] = lambda events: None
        self._observers: list[Callable[[Sequence[Envelope]], None]] = []

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch]

    async def append(self, entries: Sequence[Entry]) -> Sequence[Envelope]:
        events = [entry.event for entry in entries]
        self.fault(events)
        envelopes = [
            Envelope(
                id=f"event-{self.state.seq + number}",
                seq=self.state.seq + number,
                time_ns=0,
                operation=entry.operation,
                cause=entry.cause,
                principal=entry.principal,
                event=entry.event,
            )
            for number, entry in enumerate(entries, 1)
        ]
        for envelope in envelopes:
            apply(self.state, envelope)
        self.batches.append(events)
        for observe in self._observers:
            observe(envelopes)
        return envelopes

    def watch(self, observer: Callable[[Sequence[Envelope]], None]) -> None:
        self._observers.append(observer)
