"""How waiting appends become one commit group.

Owns that decision: which batches go in, their envelopes and frames, where the
group goes and whether it begins a new segment.  Pure but for the clock and the
identifiers that are handed in: nothing is written here.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
import trio
from msgspec import Struct

from imagestore.errors import Rejected
from imagestore.events import frame as frames
from imagestore.events.catalogue import DestroyIntent, Envelope, Event, OperationStarted
from imagestore.events.expectation import Expectation
from imagestore.events.scan import Cursor
from imagestore.events.segment import HEADER_BYTES, SegmentHeader
from imagestore.events.state import State
from imagestore.events.tail import Group

MAX_GROUP_BYTES = 4 << 20
"""A commit group takes no further batch beyond this size."""


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """An event to be appended, and what its envelope says beside it."""

    event: Event
    operation: str = ""
    cause: str = ""
    principal: str = ""


class Request:
    """One append on its way.

    ``task`` is the caller that waits for it, if it still does; ``deadline`` is
    when it stops to, in trio's time.
    """

    __slots__ = ("body", "deadline", "entries", "envelopes", "error", "stage", "task")

    def __init__(self, entries: Sequence[Entry], deadline: float = math.inf) -> None:
        self.entries = entries
        self.deadline = deadline
        self.stage: Literal["queued", "withdrawn", "begun", "done"] = "queued"
        self.task: trio.lowlevel.Task | None = None
        self.envelopes: tuple[Envelope, ...] = ()
        self.body = b""
        self.error: Exception | None = None

    def end(self, error: Exception | None = None) -> None:
        """Settle it and wake the caller."""
        self.stage = "done"
        self.error = error
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


class Stamp(Struct, frozen=True, kw_only=True):
    """Where envelopes get their time and identifiers."""

    now_ns: Callable[[], int]
    new_id: Callable[[], str]


class Composed(Struct, frozen=True, kw_only=True):
    """A group ready to be committed, and where the log stands once it is."""

    group: Group
    requests: tuple[Request, ...]
    cursor: Cursor
    number: int
    last_frame: int


class End(Struct, frozen=True, kw_only=True):
    """The end of the log: what the next group follows.  ``capacity`` is segment ``number``'s size."""

    journal: bytes
    number: int
    cursor: Cursor
    last_frame: int
    capacity: int


def is_essential(entries: Sequence[Entry]) -> bool:
    """Whether a batch may spend the reserve: everything but the start of work that takes space."""
    for entry in entries:
        if isinstance(entry.event, OperationStarted) and not isinstance(entry.event.intent, DestroyIntent):
            return False
    return True


def prepare(requests: Iterable[Request], state: State, cursor: Cursor, stamp: Stamp) -> list[Request]:
    """Give requests their envelopes and bodies, in order, and return those that can be written.

    The others are settled with ValueError (an event that does not follow, or
    that could not be read back) or Rejected (too large).
    """
    expected = Expectation(state)
    time_ns = stamp.now_ns()
    new_id = stamp.new_id
    seq = cursor.seq
    ready: list[Request] = []
    for request in requests:
        envelopes = []
        try:
            expected.admit([(entry.operation, entry.event) for entry in request.entries])
            for position, entry in enumerate(request.entries, seq + 1):
                envelope = Envelope(
                    id=new_id(),
                    seq=position,
                    time_ns=time_ns,
                    operation=entry.operation,
                    cause=entry.cause,
                    principal=entry.principal,
                    event=entry.event,
                )
                envelopes.append(envelope)
            body = frames.encode_body(envelopes)
            frames.decode_body(body)  # what cannot be read back must not become durable
        except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
            request.end(ValueError(f"events cannot be journaled: {error}"))
            continue
        if len(body) > frames.MAX_BODY_BYTES:
            request.end(Rejected(f"a batch of {len(body)} bytes is over {frames.MAX_BODY_BYTES}"))
            continue
        seq += len(envelopes)
        request.envelopes = tuple(envelopes)
        request.body = body
        request.stage = "begun"
        ready.append(request)
    return ready


def compose(requests: Sequence[Request], end: End, segment_bytes: int) -> Composed:
    """Lay the frames of prepared ``requests`` out; none makes an empty group."""
    bodies = [(request.body, len(request.envelopes)) for request in requests] or [(b"[]", 0)]
    length = sum(frames.HEADER.size + frames.padded(len(body)) for body, _ in bodies)
    cursor, number = end.cursor, end.number
    header = None
    start = cursor.offset
    if number == 0 or start + length > end.capacity:
        number += 1
        start = HEADER_BYTES
        header = SegmentHeader(
            journal=end.journal,
            number=number,
            first_seq=cursor.seq + 1,
            last_group=cursor.group,
            previous=cursor.hash,
        )
    group, seq, previous = cursor.group + 1, cursor.seq, cursor.hash
    offset = last_frame = start
    pieces: list[bytes] = []
    for body, count in bodies:
        piece, previous = frames.encode_frame(
            body, seq=seq + 1, count=count, group=group, group_offset=start, previous=previous
        )
        pieces.append(piece)
        last_frame = offset
        offset += len(piece)
        seq += count
    return Composed(
        group=Group(
            data=b"".join(pieces),
            offset=start,
            header=header,
            segment_bytes=max(segment_bytes, HEADER_BYTES + length),
            essential=all(is_essential(request.entries) for request in requests),
        ),
        requests=tuple(requests),
        cursor=Cursor(offset=offset, seq=seq, group=group, group_offset=start, hash=previous),
        number=number,
        last_frame=last_frame,
    )
