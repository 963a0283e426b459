"""Opening a journal for writing: the lock, the replay, the torn tail.

Owns what is changed before the first append: leftovers of what was being made
are removed, a torn tail is saved beside its segment and cut off.  Idempotent:
a crash anywhere in it leaves a directory on which it does the same again.
Blocks; the journal runs it in a worker thread.
"""

import contextlib
import os

from msgspec import Struct

from imagestore.errors import JournalError, JournalLocked
from imagestore.events import frame as frames
from imagestore.events.catalogue import JournalCut
from imagestore.events.files import Files, publish, read_file, write_all
from imagestore.events.log import LogWalk, Place, Survey, load_checkpoint, require_beginning, survey
from imagestore.events.replay import fold
from imagestore.events.scan import Cursor, last_nonzero
from imagestore.events.segment import LOCK, TEMPORARY, cut_name, segment_name
from imagestore.events.state import State


class Recovered(Struct, kw_only=True):
    """A journal ready to be appended to.

    ``number`` is the segment to go on in, 0 when there is none yet; the next
    group goes to ``cursor.offset``.  ``exhausted`` tells that the next group
    must begin a new segment.  ``cuts`` are not in the journal yet.
    ``replayed`` counts the events that came from the log, not from a checkpoint.
    """

    journal: bytes
    state: State
    number: int
    cursor: Cursor
    last_frame: int
    exhausted: bool
    cuts: tuple[JournalCut, ...]
    checkpoints: tuple[int, ...]
    replayed: int
    warnings: tuple[str, ...]


def take_lock(files: Files, directory: str, pid: int) -> int:
    """Lock the directory; the descriptor holds the lock until it is closed.

    Raises:
        JournalLocked: another process has it; its pid is named.
        JournalError: the directory cannot be made or written.
    """
    try:
        return _lock(files, directory, pid)
    except OSError as error:
        raise JournalError(
            f"journal {directory} cannot be opened for writing: {error.strerror or error}",
            detail="give --journal a directory that this user may write, on a disk that works",
        ) from error


def _lock(files: Files, directory: str, pid: int) -> int:
    files.make_directory(directory)
    descriptor = files.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT)
    try:
        if not files.lock(descriptor):
            holder = files.read(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise JournalLocked(
                f"journal {directory} is in use by process {holder}",
                detail="stop that store first; to look beside it: imagestore journal verify --journal "
                f"{directory}",
            )
        files.truncate(descriptor, 0)
        files.write(descriptor, f"{pid}\n".encode(), 0)
    except BaseException:
        files.close(descriptor)
        raise
    return descriptor


def recover(files: Files, directory: str, new_journal: bytes) -> Recovered:
    """Replay the journal in ``directory``, locked by the caller; cut a torn tail.

    ``new_journal`` becomes the UUID when there is no journal yet.

    Raises:
        Corrupt, JournalTooNew: see the texts; nothing was changed but leftovers.
        OSError: the disk failed while cutting.
    """
    found = survey(files, directory)
    for name in found.names.temporary:
        files.remove(os.path.join(directory, name))
    if found.torn_header:
        _save_torn_segment(files, found)
    if not found.headers:
        return _fresh(found, new_journal)
    loaded = load_checkpoint(files, found)
    require_beginning(found, loaded)
    state = loaded.checkpoint.state if loaded.checkpoint is not None else State()
    known = state.seq
    walk = LogWalk(files, found, loaded.place)
    fold(directory, walk, state)
    number, cursor = walk.end.number, walk.end.cursor
    warnings = list(loaded.warnings)
    if walk.torn is not None:
        warnings.append(_cut(files, directory, number, cursor.offset))
    _make_durable(files, directory, number, cursor)
    return Recovered(
        journal=found.journal,
        state=state,
        number=number,
        cursor=cursor,
        last_frame=walk.end.last_frame,
        exhausted=found.torn_header,
        cuts=_unrecorded_cuts(files, directory, walk.end),
        checkpoints=found.names.checkpoints,
        replayed=state.seq - known,
        warnings=tuple(warnings),
    )


def _fresh(found: Survey, new_journal: bytes) -> Recovered:
    """A journal that has no segment yet."""
    cuts = tuple(_cut_event(0, name=cut.name, number=1, offset=0) for cut in found.names.cuts)
    cursor = Cursor(offset=0, seq=0, group=0, group_offset=0, hash=frames.first_hash(new_journal))
    return Recovered(
        journal=new_journal,
        state=State(),
        number=0,
        cursor=cursor,
        last_frame=0,
        exhausted=True,
        cuts=cuts,
        checkpoints=(),
        replayed=0,
        warnings=(),
    )


def _cut(files: Files, directory: str, number: int, offset: int) -> str:
    """Save what follows ``offset`` beside the segment, then take it off the segment."""
    path = os.path.join(directory, segment_name(number))
    data = read_file(files, path, offset)
    size = offset + len(data)
    data = data[: last_nonzero(data)]
    saved_as = _save(files, directory, number, offset, data)
    descriptor = files.open(path, os.O_RDWR)
    try:
        files.truncate(descriptor, offset)
        files.sync(descriptor)
        with contextlib.suppress(OSError):  # a full disk: the segment stays shorter
            files.allocate(descriptor, 0, size)
            files.sync(descriptor)
    finally:
        files.close(descriptor)
    return (
        f"{segment_name(number)} was torn: {len(data)} bytes from offset {offset} on are kept in {saved_as}"
    )


def _save_torn_segment(files: Files, found: Survey) -> None:
    """Put a segment aside that a crash left without a header, and so without frames."""
    number = found.names.segments[-1]
    path = os.path.join(found.directory, segment_name(number))
    if number == 1 and found.names.checkpoints:
        return  # its checkpoints prove that it had been durable: _fresh refuses
    data = read_file(files, path)
    _save(files, found.directory, number, 0, data[: last_nonzero(data)])
    files.remove(path)
    files.sync_directory(found.directory)


def _save(files: Files, directory: str, number: int, offset: int, data: bytes) -> str:
    """Keep cut bytes under the first free name; the same bytes are kept once."""
    attempt = 1
    while True:
        name = cut_name(number, offset, attempt)
        path = os.path.join(directory, name)
        if not files.exists(path):
            publish(files, directory, name, data, temporary=name + TEMPORARY)
            return name
        if read_file(files, path) == data:
            return name
        attempt += 1


def _make_durable(files: Files, directory: str, number: int, cursor: Cursor) -> None:
    """Make durable what was read, before a group follows it.

    It may be in the page cache only.  The last group, which none follows that
    would prove it, is written again: where its flush failed the kernel has
    marked the pages clean, and another flush alone would write nothing.
    """
    path = os.path.join(directory, segment_name(number))
    start = min(cursor.group_offset, cursor.offset)
    group = read_file(files, path, start, cursor.offset - start)
    descriptor = files.open(path, os.O_RDWR)
    try:
        write_all(files, descriptor, group, start)
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    files.sync_directory(directory)


def _unrecorded_cuts(files: Files, directory: str, end: Place) -> tuple[JournalCut, ...]:
    """The cuts behind the last frame: the group that would have recorded them is not there."""
    last = (end.number, end.last_frame)
    return tuple(
        _cut_event(
            len(read_file(files, os.path.join(directory, cut.name))),
            name=cut.name,
            number=cut.number,
            offset=cut.offset,
        )
        for cut in survey(files, directory).names.cuts
        if (cut.number, cut.offset) > last
    )


def _cut_event(length: int, *, name: str, number: int, offset: int) -> JournalCut:
    return JournalCut(segment=segment_name(number), offset=offset, length=length, saved_as=name)
