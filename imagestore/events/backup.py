"""Copies of a journal: a backup of one that is being written, and back again.

A copy holds whole frames only, up to the last one that was whole when it was
looked at; a group that is being written comes with the next backup.  Segment
by segment, each whole or not at all, the first one first: a copy that broke
off is an earlier copy.  The source is verified on the way and never changed.
Blocks.
"""

import os
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from imagestore.errors import Corrupt, JournalError
from imagestore.events.files import SYSTEM_FILES, Files, publish, read_file
from imagestore.events.log import LogWalk, Place, Survey, load_checkpoint, require_beginning, survey
from imagestore.events.replay import fold_frame
from imagestore.events.segment import ARCHIVED, TEMPORARY, checkpoint_name, segment_name
from imagestore.events.state import State


class Copied(Struct, frozen=True, kw_only=True):
    """What a copy holds: ``seq`` and ``hash`` (hex) are its head; ``written`` the segments written anew."""

    journal: str
    segments: int
    written: int
    seq: int
    hash: str


def backup(directory: str, to: str, *, last: int | None = None, files: Files = SYSTEM_FILES) -> Copied:
    """Copy the journal in ``directory``, also beside a running store, to ``to``.

    ``to`` is a new directory, or an earlier backup of the same journal: then
    only what it lacks is written.  Segments behind number ``last`` stay out.  Of a journal whose
    beginning was archived, the checkpoint that stands in for it comes along.

    Raises:
        JournalError: there is no journal, or ``to`` holds something else, or is the journal itself.
        Corrupt: the journal is damaged; nothing was written.
    """
    require_apart(directory, to)
    found = survey(files, directory)
    if not found.headers:
        raise JournalError(f"there is no journal in {directory}", detail="name its directory with --journal")
    end = _check(files, found)
    earlier = _earlier(files, to, found.journal)
    wanted = range(found.headers[0].number, (end.number if last is None else last) + 1)
    written = 0
    for number in wanted:
        data = segment_bytes(files, directory, number, end.cursor.offset if number == end.number else None)
        if number in earlier:
            before = read_file(files, os.path.join(to, segment_name(number)))
            if not data.startswith(before.rstrip(b"\0")):
                raise JournalError(
                    f"{to} is no earlier backup of {directory}: {segment_name(number)} differs",
                    detail="name a new directory with --to, and find out which of the two was changed",
                )
            if len(before) == len(data):
                continue
        put_segment(files, to, number, data)
        written += 1
    if wanted.start > 1 and not earlier:
        _put_beginning(files, found, to)
    return Copied(
        journal=found.journal.hex(),
        segments=len(wanted),
        written=written,
        seq=end.cursor.seq,
        hash=end.cursor.hash.hex(),
    )


def _check(files: Files, found: Survey) -> Place:
    """Walk and fold everything; returns the end. Raises Corrupt, JournalError."""
    walk = LogWalk(files, found, beside_a_writer=True)
    loaded = load_checkpoint(files, found)
    require_beginning(found, loaded)
    begins_late = found.headers[0].number > 1 and loaded.checkpoint is not None
    state = loaded.checkpoint.state if begins_late and loaded.checkpoint is not None else State()
    for number, frame in walk:
        if frame.count and frame.seq > state.seq:
            fold_frame(found.directory, number, frame, state)
    return walk.end


def _put_beginning(files: Files, found: Survey, to: str) -> None:
    """What stands in for an archived beginning: the checkpoints, and the file that says what was archived."""
    names = [ARCHIVED, *map(checkpoint_name, found.names.checkpoints)]
    for name in names:
        data = read_file(files, os.path.join(found.directory, name))
        publish(files, to, name, data, temporary=name + TEMPORARY)


def restore(backup_directory: str, to: str, *, files: Files = SYSTEM_FILES) -> Copied:
    """Make a journal in the new or empty directory ``to`` out of a backup.

    Raises:
        JournalError: ``to`` is not empty, or there is no backup.
        Corrupt: the backup is damaged; nothing was written.
    """
    require_empty(files, to, "--journal")
    return backup(backup_directory, to, files=files)


def require_apart(directory: str, to: str) -> None:
    """Raises JournalError if a copy in ``to`` would be put over the journal in ``directory``, or into it.

    A segment that is being written would be replaced, and one that is archived be gone.
    """
    is_inside = Path(os.path.realpath(to)).is_relative_to(os.path.realpath(directory))
    with suppress(OSError):  # the same directory, mounted at two places
        is_inside = is_inside or os.path.samefile(directory, to)
    if is_inside:
        raise JournalError(
            f"{to} is the journal {directory} itself, or lies in it",
            detail="name a directory elsewhere, best on another disk",
        )


def require_empty(files: Files, directory: str, option: str) -> None:
    """Raises JournalError if ``directory`` holds anything."""
    if files.exists(directory) and files.list(directory):
        raise JournalError(f"{directory} is not empty", detail=f"name a new directory with {option}")


def segment_bytes(files: Files, directory: str, number: int, limit: int | None) -> bytes:
    """A segment's bytes, up to offset ``limit``."""
    return read_file(files, os.path.join(directory, segment_name(number)), 0, limit)


def put_segment(files: Files, directory: str, number: int, data: bytes) -> None:
    """Write a segment durably and all at once; makes the directory."""
    files.make_directory(directory)
    name = segment_name(number)
    publish(files, directory, name, data, temporary=name + TEMPORARY)


def _earlier(files: Files, to: str, journal: bytes) -> frozenset[int]:
    """The segments of an earlier backup in ``to``. Raises JournalError: it is none of this journal."""
    if not files.exists(to) or not files.list(to):
        return frozenset()
    try:
        found = survey(files, to)
    except Corrupt as error:
        raise JournalError(f"{to} is no backup: {error}", detail="name a new directory with --to") from error
    if found.torn_header:
        name = segment_name(found.names.segments[-1])
        raise JournalError(
            f"{to} is no backup: {name} is none of a journal", detail="name a new directory with --to"
        )
    if found.journal not in (journal, b""):
        raise JournalError(
            f"{to} is a backup of journal {found.journal.hex()}, not of {journal.hex()}",
            detail="name a new directory with --to",
        )
    return frozenset(header.number for header in found.headers)
