"""A journal's directory, read as one log.

Owns what must hold between segments (numbers, headers, the chain across them)
and the walk over all frames.  Reads only, takes no lock, changes nothing; works
beside a running store.  What is wrong is raised with file, offset, seq and the
command to run next.
"""

import errno
import os
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from imagestore.errors import Corrupt, JournalError, JournalTooNew
from imagestore.events import checkpoint as checkpoints
from imagestore.events import frame as frames
from imagestore.events.files import Files, read_file
from imagestore.events.scan import Cursor, Damage, Frame, Walk
from imagestore.events.segment import (
    ARCHIVED,
    HEADER_BYTES,
    VERSION,
    Names,
    SegmentHeader,
    checkpoint_name,
    decode_header,
    segment_name,
    sort_names,
)


class Archived(Struct, frozen=True, kw_only=True):
    """Segments 1 to ``last`` were moved to ``place``; with them went all events up to ``last_seq``.

    ``last_group`` and ``hash`` (hex) are those of the last frame that went.
    """

    journal: str
    last: int
    last_seq: int
    last_group: int
    hash: str
    place: str

    def leads_to(self, header: SegmentHeader) -> bool:
        """Whether ``header`` is that of the segment behind them."""
        return (header.journal.hex(), header.first_seq, header.last_group, header.previous.hex()) == (
            self.journal,
            self.last_seq + 1,
            self.last_group,
            self.hash,
        )


def read_archived(files: Files, directory: str) -> Archived | None:
    """What was archived, if anything. Raises Corrupt: the file that says so cannot be read."""
    path = os.path.join(directory, ARCHIVED)
    if not files.exists(path):
        return None
    try:
        return msgspec.json.decode(read_file(files, path), type=Archived)
    except OSError as error:
        raise unreadable(directory, ARCHIVED, error) from error
    except msgspec.MsgspecError as error:
        raise corrupt(directory, ARCHIVED, 0, 0, f"it does not say what was archived: {error}") from error


class Survey(Struct, frozen=True, kw_only=True):
    """What a directory holds, by names and segment headers.

    ``headers`` are those of all segments from the first on that was not archived;
    ``torn_header`` tells that one more segment follows whose header never became
    durable.  ``archived`` says which segments were moved away.
    """

    directory: str
    names: Names
    headers: tuple[SegmentHeader, ...]
    torn_header: bool = False
    archived: Archived | None = None

    @property
    def last(self) -> int:
        """The number of the last segment that has a header."""
        return self.headers[-1].number

    def header(self, number: int) -> SegmentHeader | None:
        """The header of segment ``number``; None behind the last, and of archived ones."""
        index = number - self.headers[0].number
        return self.headers[index] if 0 <= index < len(self.headers) else None

    @property
    def journal(self) -> bytes:
        """The journal's UUID, b"" of an empty directory."""
        return self.headers[0].journal if self.headers else b""


class Place(Struct, frozen=True, kw_only=True):
    """A place in the log: in segment ``number``, behind the frame at ``last_frame`` (0: none in it)."""

    number: int
    cursor: Cursor
    last_frame: int = 0


def corrupt(directory: str, name: str, offset: int, seq: int, reason: str) -> Corrupt:
    """The refusal that names file, offset, seq and the command to run next."""
    return Corrupt(
        f"journal is damaged: {os.path.join(directory, name)} at offset {offset}, seq {seq}: {reason}",
        detail=f"run: imagestore journal verify --journal {directory}; "
        f"then: imagestore journal salvage --journal {directory} --to NEW",
    )


def unreadable(directory: str, name: str, error: OSError) -> JournalError:
    """What an error of the disk means while reading: damage, never the end of the log."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not name:
        return JournalError(f"there is no journal {directory}", detail="name its directory with --journal")
    if error.errno == errno.EACCES:
        return JournalError(
            f"journal {directory} cannot be read: {error.strerror} {name}".rstrip(),
            detail="run as the user that owns the journal",
        )
    return Corrupt(
        f"journal is damaged: {os.path.join(directory, name)} cannot be read: {error.strerror or error}",
        detail=f"mend the disk; copy {directory} elsewhere; "
        f"run: imagestore journal verify --journal {directory}; "
        f"then: imagestore journal salvage --journal {directory} --to NEW",
    )


def survey(files: Files, directory: str) -> Survey:
    """Look at all names and headers.

    Raises:
        Corrupt: a stray file; a segment is missing, renamed, doubled or foreign; all are gone.
        JournalTooNew: a segment needs a newer reader.
    """
    try:
        names = sort_names(files.list(directory))
    except OSError as error:
        raise unreadable(directory, "", error) from error
    if names.stray:
        raise Corrupt(
            f"journal {directory} holds files that do not belong there: {', '.join(names.stray)}",
            detail=f"move them elsewhere; to look at the journal run: "
            f"imagestore journal verify --journal {directory}",
        )
    archived = read_archived(files, directory) if names.segments else None
    missing = sorted(set(range(1, max(names.segments, default=0) + 1)) - set(names.segments))
    first = max(missing, default=0) + 1
    if missing and (archived is None or first > archived.last + 1):
        absent = [number for number in missing if archived is None or number > archived.last]
        raise corrupt(
            directory,
            segment_name(absent[0]),
            0,
            0,
            f"segment {absent[0]} is missing, later ones are there",
        )
    headers: list[SegmentHeader] = []
    for number in range(first, max(names.segments, default=0) + 1):
        header = _header(files, directory, number)
        if header is None:
            if number == names.segments[-1] and _holds_no_frame(files, directory, number):
                if not headers:
                    _refuse_lost(directory, names)
                return Survey(
                    directory=directory,
                    names=names,
                    headers=tuple(headers),
                    torn_header=True,
                    archived=archived,
                )
            raise corrupt(directory, segment_name(number), 0, 0, "the segment's header is damaged")
        _check_header(directory, number, header, headers, archived)
        headers.append(header)
    if not headers:
        _refuse_lost(directory, names)
    return Survey(directory=directory, names=names, headers=tuple(headers), archived=archived)


def _refuse_lost(directory: str, names: Names) -> None:
    """Raises Corrupt if other files tell that there were segments."""
    lost = [cut.name for cut in names.cuts if (cut.number, cut.offset) != (1, 0)]
    lost += [checkpoint_name(seq) for seq in names.checkpoints]
    if lost:
        raise Corrupt(
            f"journal {directory} has lost its segments: there are only {', '.join(lost)}",
            detail="bring the segments back from a backup, or name an empty directory with --journal",
        )


def _header(files: Files, directory: str, number: int) -> SegmentHeader | None:
    name = segment_name(number)
    try:
        return decode_header(read_file(files, os.path.join(directory, name), 0, HEADER_BYTES))
    except OSError as error:
        raise unreadable(directory, name, error) from error


def _holds_no_frame(files: Files, directory: str, number: int) -> bool:
    """Whether nothing in the segment proves that its header had been durable."""
    name = segment_name(number)
    try:
        data = read_file(files, os.path.join(directory, name))
    except OSError as error:
        raise unreadable(directory, name, error) from error
    found = data.find(frames.MAGIC)
    while found != -1:
        if frames.decode_header(data, found) is not None:
            return False
        found = data.find(frames.MAGIC, found + 1)
    return True


def _check_header(
    directory: str,
    number: int,
    header: SegmentHeader,
    before: list[SegmentHeader],
    archived: Archived | None,
) -> None:
    name = segment_name(number)
    if header.oldest_reader > VERSION:
        raise JournalTooNew(
            f"journal {directory} was written by a newer imagestore: {name} is of format {header.version} "
            f"and needs a reader of format {header.oldest_reader}, this one reads {VERSION}",
            detail="install that imagestore or a newer one; nothing was changed",
        )
    if header.number != number:
        reason = f"the file is segment {header.number}: it was renamed or doubled"
        raise corrupt(directory, name, 0, header.first_seq, reason)
    if not before and number > 1:
        assert archived is not None
        if number == archived.last + 1 and not archived.leads_to(header):
            reason = f"it does not follow the segments that file {ARCHIVED} says were archived"
            raise corrupt(directory, name, 0, header.first_seq, reason)
    elif not before:
        fits = (header.first_seq, header.last_group) == (1, 0)
        if not fits or header.previous != frames.first_hash(header.journal):
            raise corrupt(directory, name, 0, header.first_seq, "it is not the first segment of a journal")
    elif header.journal != before[0].journal:
        raise corrupt(directory, name, 0, header.first_seq, "the segment is of another journal")
    elif header.first_seq < before[-1].first_seq or header.last_group < before[-1].last_group:
        raise corrupt(directory, name, 0, header.first_seq, "the segment begins before the one before it")


def beginning(header: SegmentHeader) -> Place:
    """The place before a segment's first frame."""
    cursor = Cursor(
        offset=HEADER_BYTES,
        seq=header.first_seq - 1,
        group=header.last_group,
        group_offset=0,
        hash=header.previous,
    )
    return Place(number=header.number, cursor=cursor)


class LogWalk:
    """Walks all frames from ``start`` on (None: the journal's first).

    Iterate once; the end is then at ``end``, and ``torn`` is the damage at it
    that a crash explains, if there is any.  Every frame comes with its
    segment's number.

    ``beside_a_writer``: what looks damaged is read again, as the writer may
    have been writing it.

    Raises, while iterated:
        Corrupt: anything that a crash does not explain.
    """

    def __init__(
        self, files: Files, found: Survey, start: Place | None = None, *, beside_a_writer: bool = False
    ) -> None:
        assert found.headers
        self.end = start if start is not None else beginning(found.headers[0])
        self.torn: Damage | None = None
        self._files = files
        self._survey = found
        self._again = beside_a_writer

    def __iter__(self) -> Iterator[tuple[int, Frame]]:
        while True:
            number = self.end.number
            yield from self._segment(number)
            following = self._survey.header(number + 1)
            if following is None:
                return
            self._check_link(following)
            self.end = beginning(following)

    def _segment(self, number: int) -> Iterator[tuple[int, Frame]]:
        sealed = number < self._survey.last or self._survey.torn_header
        last_frame = self.end.last_frame
        while True:
            start = self.end.cursor.offset
            walk = Walk(self._read(number, start), self.end.cursor, base=start)
            for frame in walk:
                last_frame = frame.offset
                yield number, frame
            progress = walk.cursor.offset > start
            self.end = Place(number=number, cursor=walk.cursor, last_frame=last_frame)
            if walk.damage is None or not (self._again and progress):
                break
        if walk.damage is None:
            return
        if sealed or not walk.damage.torn:
            damage = walk.damage
            raise corrupt(
                self._survey.directory, segment_name(number), damage.offset, damage.seq, damage.reason
            )
        self.torn = walk.damage

    def _read(self, number: int, offset: int) -> bytes:
        name = segment_name(number)
        try:
            return read_file(self._files, os.path.join(self._survey.directory, name), offset)
        except OSError as error:
            raise unreadable(self._survey.directory, name, error) from error

    def _check_link(self, following: SegmentHeader) -> None:
        cursor = self.end.cursor
        if (following.first_seq, following.last_group, following.previous) != (
            cursor.seq + 1,
            cursor.group,
            cursor.hash,
        ):
            raise corrupt(
                self._survey.directory,
                segment_name(self.end.number),
                cursor.offset,
                cursor.seq + 1,
                f"its frames end at seq {cursor.seq}, but the next segment goes on with seq "
                f"{following.first_seq} or with another hash",
            )


class Loaded(Struct, frozen=True, kw_only=True):
    """The newest checkpoint that fits the log, if any, and why others were ignored."""

    place: Place | None
    checkpoint: checkpoints.Checkpoint | None
    warnings: tuple[str, ...]


def require_beginning(found: Survey, loaded: "Loaded") -> None:
    """Raises JournalError: the log's beginning was archived, and no checkpoint stands in for it."""
    if loaded.checkpoint is None and found.headers[0].number > 1:
        assert found.archived is not None
        raise JournalError(
            f"journal {found.directory} needs the segments before number {found.headers[0].number}, which "
            f"were archived in {found.archived.place}: no usable checkpoint reaches past them",
            detail=f"copy them back: cp {found.archived.place}/segment-* {found.directory}/",
        )


def load_checkpoint(files: Files, found: Survey, *, up_to: int | None = None) -> Loaded:
    """Find the newest usable checkpoint (of seq ``up_to`` at most)."""
    warnings: list[str] = []
    for seq in reversed(found.names.checkpoints):
        if up_to is not None and seq > up_to:
            continue
        name = checkpoint_name(seq)
        try:
            checkpoint = checkpoints.decode(read_file(files, os.path.join(found.directory, name)))
        except OSError as error:
            warnings.append(f"checkpoint {name} is ignored: {error.strerror or error}")
            continue
        if isinstance(checkpoint, checkpoints.Unusable):
            warnings.append(f"checkpoint {name} is ignored: {checkpoint.reason}")
            continue
        place = anchored(files, found, checkpoint.anchor)
        if isinstance(place, str):
            warnings.append(f"checkpoint {name} is ignored: {place}")
            continue
        return Loaded(place=place, checkpoint=checkpoint, warnings=tuple(warnings))
    return Loaded(place=None, checkpoint=None, warnings=tuple(warnings))


def anchored(files: Files, found: Survey, anchor: checkpoints.Anchor) -> Place | str:
    """The place in the log behind the anchor's frame, or why the anchor does not fit the log."""
    if anchor.journal != found.journal:
        return "it is of another journal"
    if found.header(anchor.segment) is None:
        return "it is newer than the log, or of a part that was archived"
    path = os.path.join(found.directory, segment_name(anchor.segment))
    try:
        head = read_file(files, path, anchor.offset, frames.HEADER.size)
        header = frames.decode_header(head, 0)
        if header is None:
            return "it is newer than the log"
        body = read_file(files, path, anchor.offset + frames.HEADER.size, header.body_bytes)
    except OSError as error:
        return f"the log cannot be read where it ends: {error.strerror or error}"
    if frames.frame_hash(head + body) != anchor.hash or header.seq + header.count - 1 != anchor.seq:
        return "the log goes another way"
    cursor = Cursor(
        offset=anchor.offset + frames.HEADER.size + frames.padded(header.body_bytes),
        seq=anchor.seq,
        group=header.group,
        group_offset=header.group_offset,
        hash=anchor.hash,
    )
    return Place(number=anchor.segment, cursor=cursor, last_frame=anchor.offset)
