"""The journal's past in the words of the wire: events as lines, lives as stories.  Pure."""

from imagestore.events.catalogue import Envelope
from imagestore.events.eventtext import describe
from imagestore.events.lineage import Life, Lineage
from imagestore.events.selection import alias_of
from imagestore.screen import EventLine, ExplainResponse, LifeStory
from imagestore.times import show_time


def line_of(envelope: Envelope) -> EventLine:
    """An event as people read it."""
    return EventLine(
        seq=envelope.seq,
        time=show_time(envelope.time_ns) or "",
        who=envelope.principal,
        operation=envelope.operation,
        event=alias_of(envelope.event),
        what=describe(envelope.event),
    )


def explanation(told: Lineage, *, truncated: bool = False) -> ExplainResponse:
    """What had a name, and where the last of it came from."""
    return ExplainResponse(
        dataset=told.dataset,
        lives=tuple(map(_story, told.lives)),
        origins=tuple(map(_story, told.origins)),
        attempts=tuple(map(line_of, told.attempts)),
        truncated=truncated,
    )


def _story(life: Life) -> LifeStory:
    return LifeStory(
        names=life.names,
        role=life.role,
        guid=f"{life.guid:x}",
        txg=life.createtxg,
        origin=life.origin.name if life.origin is not None else "",
        ended=life.ended,
        events=tuple(map(line_of, life.events)),
    )
