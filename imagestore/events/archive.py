"""Moving old segments of a journal to cold storage, because somebody asked for it.

Owns the order in which that is safe::

    copy, verified -> checkpoint -> event (durable) -> the file ``archived`` -> the segments go

A crash anywhere leaves segments that are both here and there, never neither;
the next ``archive`` goes on.  A store starts from a checkpoint afterwards; to
replay from nothing, or to read the old events, the segments are copied back.
"""

import os
from functools import partial

import msgspec
from msgspec import Struct

from imagestore.errors import Corrupt, JournalError
from imagestore.events.backup import backup, require_apart, segment_bytes
from imagestore.events.catalogue import SegmentsArchived
from imagestore.events.commitgroup import Entry
from imagestore.events.files import SYSTEM_FILES, Files, publish
from imagestore.events.journal import open_journal
from imagestore.events.log import Archived, Survey, load_checkpoint, survey
from imagestore.events.segment import ARCHIVED, TEMPORARY, segment_name
from imagestore.events.settings import DEFAULT_SETTINGS, JournalSettings
from imagestore.events.writer import away


class Moved(Struct, frozen=True, kw_only=True):
    """Segments ``first`` to ``last`` are in the archive now; ``last`` is 0 if there were none to move."""

    first: int
    last: int
    last_seq: int


async def archive(
    directory: str,
    to: str,
    *,
    principal: str,
    keep: int = 1,
    files: Files = SYSTEM_FILES,
    settings: JournalSettings = DEFAULT_SETTINGS,
) -> Moved:
    """Move all segments but the last ``keep`` of the journal in ``directory`` to the directory ``to``.

    ``to`` is new, empty, or holds what was archived or backed up of this journal before.

    Raises:
        JournalLocked: a store runs on the journal.
        JournalError: ``to`` holds something else, or is the journal itself, or no checkpoint can
            stand in for the segments.
        Corrupt: the journal is damaged; nothing was moved.
    """
    require_apart(directory, to)
    place = os.path.abspath(to)
    async with open_journal(directory, settings=settings, files=files) as journal:
        found = await away(partial(survey, files, directory), settings)
        last = found.last - keep
        first = found.headers[0].number
        if last < first:
            return Moved(first=first, last=0, last_seq=0)
        await away(partial(_copy, files, found, place, last), settings)
        await journal.checkpoint()
        await away(partial(_require_checkpoint, files, directory, last), settings)
        marker = _marker(found, last, place)
        await journal.append([_entry(marker, first, principal)])
        await away(partial(_move, files, directory, marker), settings)
        return Moved(first=first, last=last, last_seq=marker.last_seq)


def _copy(files: Files, found: Survey, place: str, last: int) -> None:
    """Copy the segments, then read the copies once more from the disk they are on."""
    backup(found.directory, place, files=files, last=last)
    for number in range(found.headers[0].number, last + 1):
        ours = segment_bytes(files, found.directory, number, None)
        if segment_bytes(files, place, number, None) != ours:
            raise Corrupt(f"the copy of {segment_name(number)} in {place} is not what was written")


def _require_checkpoint(files: Files, directory: str, last: int) -> None:
    loaded = load_checkpoint(files, survey(files, directory))
    if loaded.place is None or loaded.place.number <= last:
        raise JournalError(
            f"journal {directory} has no usable checkpoint behind segment {last}; nothing was moved",
            detail="; ".join(loaded.warnings) or "mend the disk that the journal is on, then try again",
        )


def _marker(found: Survey, last: int, place: str) -> Archived:
    following = found.header(last + 1)
    assert following is not None
    return Archived(
        journal=found.journal.hex(),
        last=last,
        last_seq=following.first_seq - 1,
        last_group=following.last_group,
        hash=following.previous.hex(),
        place=place,
    )


def _entry(marker: Archived, first: int, principal: str) -> Entry:
    event = SegmentsArchived(
        first=first, last=marker.last, last_seq=marker.last_seq, hash=marker.hash, place=marker.place
    )
    return Entry(event=event, principal=principal)


def _move(files: Files, directory: str, marker: Archived) -> None:
    data = msgspec.json.encode(marker)
    publish(files, directory, ARCHIVED, data, temporary=ARCHIVED + TEMPORARY)
    for number in survey(files, directory).names.segments:
        if number <= marker.last:
            files.remove(os.path.join(directory, segment_name(number)))
    files.sync_directory(directory)
