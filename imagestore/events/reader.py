"""Reading a journal without opening it: for audit, listings and offline looks.

Takes no lock, changes nothing and works beside a running store: a group that is
being written is not there yet, and no damage.  All functions block.
"""

import os
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from imagestore.errors import JournalError, JournalTooNew
from imagestore.events import checkpoint as checkpoints
from imagestore.events.catalogue import Envelope, JournalOpened
from imagestore.events.files import SYSTEM_FILES, Files, read_file
from imagestore.events.log import (
    Archived,
    LogWalk,
    Place,
    Survey,
    anchored,
    beginning,
    load_checkpoint,
    require_beginning,
    survey,
)
from imagestore.events.replay import events_of, fold, fold_frame
from imagestore.events.segment import checkpoint_name
from imagestore.events.state import State


def read(directory: str, from_seq: int = 1, *, files: Files = SYSTEM_FILES) -> Iterator[Envelope]:
    """All events from ``from_seq`` on, in order, up to the end as it is now; archived ones are left out.

    Raises, while iterated:
        JournalError: there is no journal, it is damaged (Corrupt), or too new.
    """
    found = survey(files, directory)
    if found.headers:
        walk = LogWalk(files, found, _segment_of(found, from_seq), beside_a_writer=True)
        yield from events_of(walk, found, from_seq)


def archived(directory: str, *, files: Files = SYSTEM_FILES) -> Archived | None:
    """Which events are not in the journal any more because they were archived, and where they are.

    Raises as :func:`read`.
    """
    found = survey(files, directory)
    return found.archived if found.headers and found.headers[0].number > 1 else None


def seq_at(directory: str, time_ns: int, *, files: Files = SYSTEM_FILES) -> int:
    """The last event before the first that is later than ``time_ns`` (nanoseconds since 1970); 0 if none is.

    Raises as :func:`read`.
    """
    last = 0
    for envelope in read(directory, files=files):
        if envelope.time_ns > time_ns:
            break
        last = envelope.seq
    return last


def head(directory: str, *, files: Files = SYSTEM_FILES) -> tuple[int, str]:
    """Seq of the last event and hash of the last frame in hex; (0, "") of an empty directory.

    Raises:
        JournalError: there is no journal, its last segment is damaged (Corrupt), or it is too new.
    """
    found = survey(files, directory)
    if not found.headers:
        return 0, ""
    walk = LogWalk(files, found, beginning(found.headers[-1]), beside_a_writer=True)
    for _ in walk:
        pass
    return walk.end.cursor.seq, walk.end.cursor.hash.hex()


def replay(directory: str, *, up_to: int | None = None, files: Files = SYSTEM_FILES) -> State:
    """The state after event ``up_to``, or at the end.

    Raises:
        JournalError: there is no journal, it is damaged (Corrupt), or too new.
    """
    found = survey(files, directory)
    if not found.headers:
        return State()
    loaded = load_checkpoint(files, found, up_to=up_to)
    require_beginning(found, loaded)
    state = loaded.checkpoint.state if loaded.checkpoint is not None else State()
    fold(directory, LogWalk(files, found, loaded.place, beside_a_writer=True), state, up_to=up_to)
    return state


class Finding(Struct, frozen=True, kw_only=True):
    """``damage`` makes the store refuse, or lie; a ``note`` does not.

    ``newer``: whole, and of a newer imagestore: this one cannot tell what it says, and refuses it.
    """

    kind: Literal["damage", "newer", "note"]
    text: str
    advice: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """What :func:`verify` saw.  ``hash`` is the last whole frame's, in hex."""

    directory: str
    journal: str
    segments: int
    frames: int
    seq: int
    hash: str
    epoch: int
    checkpoints: int
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Literal["whole", "newer", "damaged"]:
        """``newer`` if nothing that this imagestore can check is damaged."""
        kinds = {finding.kind for finding in self.findings}
        return "damaged" if "damage" in kinds else "newer" if "newer" in kinds else "whole"

    @property
    def whole(self) -> bool:
        return self.verdict == "whole"


class Head(Struct, frozen=True, kw_only=True):
    """The last event's seq and the last frame's hash in hex: who keeps them can tell a rewritten journal."""

    seq: int
    hash: str


def verify(directory: str, *, expected: Head | None = None, files: Files = SYSTEM_FILES) -> Report:
    """Check every segment, frame, link, event and checkpoint; never raises for damage.

    Behind the first damaged frame the following segments are still checked, each from its own header;
    behind an event of a newer imagestore all the rest, but for what the events say.
    ``expected`` is a head that was written down elsewhere: a journal that does not lead
    through it is damaged.

    Raises:
        JournalError: there is no journal at all.
    """
    if not files.exists(directory):
        raise JournalError(f"there is no journal {directory}", detail="name its directory with --journal")
    try:
        found = survey(files, directory)
    except JournalError as error:
        return _report(directory, None, _Tally(files, None), [_finding(error)])
    tally = _Tally(files, found, expected)
    findings: list[Finding] = []
    if found.headers:
        findings += tally.walk_all()
    if found.headers and found.headers[0].number > 1 and found.archived is not None:
        text = f"segments 1 to {found.headers[0].number - 1} are archived in {found.archived.place}"
        findings.append(Finding(kind="note", text=text))
    if found.torn_header:
        findings.append(Finding(kind="note", text="the last segment never got a header: it is put aside"))
    return _report(directory, found, tally, [*findings, *tally.check_expected(), *tally.check_checkpoints()])


class _Tally:
    """The walk of a verification: counts, and the state where a checkpoint claims to know it."""

    def __init__(self, files: Files, found: Survey | None, expected: Head | None = None) -> None:
        self._expected = expected
        self._met_expected = False
        self.frames = 0
        self.state = State()
        self.end: Place | None = None
        self._files = files
        self._survey = found
        self._folds = True
        self._states: dict[int, bytes] = {}

    def walk_all(self) -> list[Finding]:
        found = self._survey
        assert found is not None
        findings: list[Finding] = []
        start: Place | None = beginning(found.headers[0])
        if found.headers[0].number > 1:
            self._begin_behind_the_archive(found)
        while start is not None:
            walk = LogWalk(self._files, found, start, beside_a_writer=True)
            try:
                self._walk(walk, findings)
                start = None
            except JournalError as error:
                findings.append(_finding(error))
                self._folds = False
                following = found.header(walk.end.number + 1)
                start = beginning(following) if following is not None else None
            self.end = walk.end
            if walk.torn is not None:
                text = (
                    f"an unfinished group at the end, from offset {walk.torn.offset} on: {walk.torn.reason}"
                )
                findings.append(Finding(kind="note", text=text))
        return findings

    def _walk(self, walk: LogWalk, findings: list[Finding]) -> None:
        assert self._survey is not None
        wanted = set(self._survey.names.checkpoints)
        for number, frame in walk:
            self.frames += 1
            head = self._expected
            if head is not None and frame.seq + frame.count - 1 == head.seq and frame.hash.hex() == head.hash:
                self._met_expected = True
            if self._folds and frame.count and frame.seq > self.state.seq:
                try:
                    fold_frame(self._survey.directory, number, frame, self.state)
                except JournalTooNew as error:
                    findings.append(self._newer(error))
                    self._folds = False
                    continue
                if self.state.seq in wanted:
                    self._states[self.state.seq] = checkpoints.encode_state(self.state)

    def _newer(self, error: JournalTooNew) -> Finding:
        """An event that this imagestore does not know, and whose it is: he who opened the journal last."""
        assert self._survey is not None
        opened = ""
        try:
            for envelope in read(self._survey.directory, files=self._files):
                if isinstance(envelope.event, JournalOpened):
                    opened = envelope.event.version
        except JournalTooNew:
            pass  # it ends where we are
        advice = f"use imagestore {opened}, which wrote it, or a newer one" if opened else error.detail
        return Finding(kind="newer", text=str(error), advice=advice)

    def _begin_behind_the_archive(self, found: Survey) -> None:
        """The fold goes on from the newest checkpoint: the events before it are elsewhere."""
        loaded = load_checkpoint(self._files, found)
        if loaded.checkpoint is not None:
            self.state = loaded.checkpoint.state
        else:
            self._folds = False

    def check_expected(self) -> list[Finding]:
        head = self._expected
        if head is None or self._met_expected:
            return []
        end = self.end.cursor.seq if self.end is not None else 0
        if end < head.seq:
            text = f"the journal ends at seq {end}, before the head written down at seq {head.seq}"
        else:
            text = f"no frame that ends at seq {head.seq} has the hash {head.hash}: history was rewritten"
        advice = "compare with a backup: imagestore journal verify --journal BACKUP --head SEQ:HASH"
        return [Finding(kind="damage", text=text, advice=advice)]

    def check_checkpoints(self) -> list[Finding]:
        found = self._survey
        assert found is not None
        findings: list[Finding] = []
        for seq in found.names.checkpoints:
            name = checkpoint_name(seq)
            try:
                checkpoint = checkpoints.decode(read_file(self._files, os.path.join(found.directory, name)))
            except FileNotFoundError:
                continue  # a running store has just removed it
            except OSError as error:
                findings.append(
                    Finding(kind="note", text=f"{name} cannot be read: {error.strerror or error}")
                )
                continue
            if isinstance(checkpoint, checkpoints.Unusable):
                findings.append(Finding(kind="note", text=f"{name} is ignored: {checkpoint.reason}"))
                continue
            place = anchored(self._files, found, checkpoint.anchor)
            known = self._states.get(seq)
            if isinstance(place, str):
                findings.append(Finding(kind="note", text=f"{name} is ignored: {place}"))
            elif known is not None and checkpoints.encode_state(checkpoint.state) != known:
                findings.append(
                    Finding(
                        kind="damage",
                        text=f"{name} holds another state than the events up to seq {seq} give",
                        advice=f"remove {os.path.join(found.directory, name)}; the segments hold everything",
                    )
                )
        return findings


def _finding(error: JournalError) -> Finding:
    kind: Literal["newer", "damage"] = "newer" if isinstance(error, JournalTooNew) else "damage"
    return Finding(kind=kind, text=str(error), advice=error.detail)


def _report(directory: str, found: Survey | None, tally: _Tally, findings: list[Finding]) -> Report:
    cursor = tally.end.cursor if tally.end is not None else None
    return Report(
        directory=directory,
        journal=found.journal.hex() if found is not None else "",
        segments=len(found.headers) if found is not None else 0,
        frames=tally.frames,
        seq=cursor.seq if cursor is not None else 0,
        hash=cursor.hash.hex() if cursor is not None else "",
        epoch=tally.state.epoch,
        checkpoints=len(found.names.checkpoints) if found is not None else 0,
        findings=tuple(findings),
    )


def _segment_of(found: Survey, seq: int) -> Place:
    """The beginning of the last segment that begins at ``seq`` or before."""
    earlier = [header for header in found.headers if header.first_seq <= seq]
    return beginning(earlier[-1] if earlier else found.headers[0])
