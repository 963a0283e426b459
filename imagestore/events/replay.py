"""From frames to events and to the state.

Owns decoding a frame's body into events and folding them, and what is said
when an event is unknown or does not follow.  Reads only.
"""

from collections.abc import Iterator

import msgspec

from imagestore.errors import JournalTooNew
from imagestore.events import frame as frames
from imagestore.events.catalogue import Envelope
from imagestore.events.log import LogWalk, Survey, corrupt
from imagestore.events.scan import Frame
from imagestore.events.segment import segment_name
from imagestore.events.state import State, apply


def envelopes(directory: str, number: int, frame: Frame) -> list[Envelope]:
    """The events of a whole frame.

    Raises:
        JournalTooNew: an event or a field that this imagestore does not know.
        Corrupt: the body is no list of events, or not of the promised ones.
    """
    try:
        events = frames.decode_body(frame.body)
    except msgspec.ValidationError as error:
        raise JournalTooNew(
            f"journal {directory} holds an event that this imagestore does not know: {segment_name(number)} "
            f"at offset {frame.offset}, seq {frame.seq}: {error}",
            detail="a newer imagestore wrote it: install that one; nothing was changed. To look: "
            f"imagestore journal verify --journal {directory}",
        ) from error
    except msgspec.DecodeError as error:
        reason = f"the frame's body is no list of events: {error}"
        raise corrupt(directory, segment_name(number), frame.offset, frame.seq, reason) from error
    if len(events) != frame.count or (events and events[0].seq != frame.seq):
        reason = "the frame's header and body tell of different events"
        raise corrupt(directory, segment_name(number), frame.offset, frame.seq, reason)
    return events


def fold_frame(directory: str, number: int, frame: Frame, state: State, *, up_to: int | None = None) -> None:
    """Apply a frame's events to ``state``, up to event ``up_to``.

    Raises:
        Corrupt: an event does not follow from the ones before it.
        JournalTooNew: an event that this imagestore does not know.
    """
    for envelope in envelopes(directory, number, frame):
        if up_to is not None and envelope.seq > up_to:
            return
        try:
            apply(state, envelope)
        except ValueError as error:
            raise corrupt(directory, segment_name(number), frame.offset, envelope.seq, str(error)) from error


def fold(directory: str, walk: LogWalk, state: State, *, up_to: int | None = None) -> None:
    """Apply all that ``walk`` yields to ``state``, up to event ``up_to``.

    Raises what the walk and :func:`fold_frame` raise.
    """
    for number, frame in walk:
        if up_to is not None and frame.seq > up_to:
            return
        if frame.count:
            fold_frame(directory, number, frame, state, up_to=up_to)


def events_of(walk: LogWalk, found: Survey, from_seq: int) -> Iterator[Envelope]:
    """All events from ``from_seq`` on, in order."""
    for number, frame in walk:
        if frame.seq + frame.count > from_seq and frame.count:
            for envelope in envelopes(found.directory, number, frame):
                if envelope.seq >= from_seq:
                    yield envelope
