"""Histories for the journal's tests: what is appended, and what must be read back."""

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import msgspec
import pytest

from imagestore.errors import JournalError
from imagestore.events import frame as frames
from imagestore.events import recovery
from imagestore.events.catalogue import (
    CreateIntent,
    DatasetCreated,
    DestroyIntent,
    Envelope,
    JournalCut,
    JournalOpened,
    NewBlank,
    OperationFinished,
    OperationStarted,
)
from imagestore.events.files import Files
from imagestore.events.journal import Entry, Journal, JournalSettings, open_journal
from imagestore.events.log import LogWalk, survey
from imagestore.identifiers import uuid7_maker

DIRECTORY = "/journal"
SMALL = JournalSettings(segment_bytes=4096, checkpoint_events=10**9, threads=False, idle_seconds=1e9)
NEW_JOURNAL = bytes(range(16))


def started(operation: str, size_bytes: int = 1 << 20) -> Entry:
    name = f"vol-{operation}"
    return Entry(
        operation=operation,
        principal="local",
        event=OperationStarted(
            method="CreateVolume",
            subject=name,
            intent=CreateIntent(datasets=(NewBlank(name=name, size_bytes=size_bytes),)),
            reserved_bytes=size_bytes,
        ),
    )


def finished(operation: str) -> list[Entry]:
    """The outcome of :func:`started`: two events, one batch."""
    number = int(operation)
    made = DatasetCreated(
        name=f"vol-{operation}",
        kind="volume",
        role="volume",
        guid=1000 + number,
        createtxg=number,
        size_bytes=1 << 20,
    )
    return [
        Entry(operation=operation, event=made),
        Entry(operation=operation, event=OperationFinished(outcome="succeeded")),
    ]


def deletion(operation: str) -> Entry:
    intent = DestroyIntent(datasets=())
    return Entry(
        operation=operation, event=OperationStarted(method="DeleteDataset", subject="vol", intent=intent)
    )


@contextmanager
def newer(alias: str) -> Iterator[None]:
    """A newer imagestore writes: it calls events of ``alias`` what this one does not know."""
    encode, decode = frames.encode_body, frames.decode_body
    theirs = b'"invented-later"'
    ours = f'"{alias}"'.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "encode_body", lambda events: encode(events).replace(ours, theirs))
        patch.setattr(frames, "decode_body", lambda body: decode(body.replace(theirs, ours)))
        yield


@asynccontextmanager
async def opened(
    disk: Files, settings: JournalSettings = SMALL, *, seed: int = 1, start_ns: int = 10**18
) -> AsyncIterator[Journal]:
    """A journal on ``disk`` with a clock that ticks by one and identifiers from ``seed``."""
    now_ns = start_ns

    def clock() -> int:
        nonlocal now_ns
        now_ns += 1
        return now_ns

    new_id = uuid7_maker(clock, random.Random(seed))
    async with open_journal(
        DIRECTORY, now_ns=clock, new_id=new_id, files=disk, settings=settings, host="host", version="test"
    ) as journal:
        yield journal


async def record(
    disk: Files, operations: Sequence[int], settings: JournalSettings = SMALL, *, seed: int = 1
) -> list[Envelope]:
    """Open, run operations (two appends each), close; return what was acknowledged."""
    acknowledged: list[Envelope] = []
    async with opened(disk, settings, seed=seed) as journal:
        for number in operations:
            acknowledged += await journal.append([started(str(number))])
            acknowledged += await journal.append(finished(str(number)))
    return acknowledged


def events_on(disk: Files) -> list[Envelope]:
    """All events of the journal on ``disk``, read from the first segment on."""
    found = survey(disk, DIRECTORY)
    if not found.headers:
        return []
    return [envelope for _, frame in LogWalk(disk, found) for envelope in frames.decode_body(frame.body)]


def recover(disk: Files) -> list[Envelope]:
    """Recover as an opening does, then return all events that are there."""
    recovered = recovery.recover(disk, DIRECTORY, NEW_JOURNAL)
    events = events_on(disk)
    assert recovered.state.seq == len(events)
    return events


def refusal(disk: Files) -> str:
    """The text of the error with which the journal on ``disk`` is refused, "" if it is not."""
    try:
        recovery.recover(disk, DIRECTORY, NEW_JOURNAL)
    except JournalError as error:
        return f"{type(error).__name__}: {error} [{error.detail}]"
    return ""


def is_prefix(shorter: Sequence[Envelope], longer: Sequence[Envelope]) -> bool:
    return list(shorter) == list(longer[: len(shorter)])


def ours(events: Sequence[Envelope]) -> list[Envelope]:
    """The events that the tests appended: without those of the journal about itself."""
    return [event for event in events if not isinstance(event.event, JournalOpened | JournalCut)]


def frames_of(disk: Files) -> list[tuple[int, int, int, int]]:
    """Segment, offset, end and commit group of every frame."""
    found = survey(disk, DIRECTORY)
    return [
        (number, frame.offset, frame.offset + 80 + -(-len(frame.body) // 8) * 8, frame.group)
        for number, frame in LogWalk(disk, found)
    ]


def same(left: object, right: object) -> bool:
    return msgspec.json.encode(left) == msgspec.json.encode(right)
