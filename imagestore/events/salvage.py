"""Salvage: what is whole of a damaged journal, as a new journal elsewhere.

Never in place and never by itself: somebody typed it.  The copy holds every
event before the first damage; what the copy lacks still stands in the original.
Blocks.
"""

from msgspec import Struct

from imagestore.errors import Corrupt, JournalError
from imagestore.events.backup import put_segment, require_apart, require_empty, segment_bytes
from imagestore.events.files import SYSTEM_FILES, Files
from imagestore.events.log import LogWalk, survey
from imagestore.events.replay import fold_frame
from imagestore.events.segment import HEADER_BYTES
from imagestore.events.state import State

_WITHOUT_IT = (
    "put names and headers right by hand, or restore a backup; without one, history is lost: "
    "imagestore recover --pool POOL --journal NEW-DIRECTORY"
)


class Salvaged(Struct, frozen=True, kw_only=True):
    """``seq`` is the last event of the copy; ``damage`` why it ends there, "" if it is complete."""

    seq: int
    segments: int
    damage: str


def salvage(directory: str, to: str, *, files: Files = SYSTEM_FILES) -> Salvaged:
    """Copy the frames of ``directory`` before the first damage into the new directory ``to``.

    Raises:
        JournalError: ``to`` is not empty, or nothing can be saved: names or headers are wrong.
    """
    require_apart(directory, to)
    require_empty(files, to, "--to")
    try:
        found = survey(files, directory)
    except Corrupt as error:
        raise Corrupt(str(error), detail=f"nothing can be salvaged: {_WITHOUT_IT}") from error
    if not found.headers:
        raise JournalError(f"there is nothing to salvage in {directory}")
    walk = LogWalk(files, found)
    state = State()
    damage = ""
    number, offset = 1, HEADER_BYTES
    try:
        for number, frame in walk:
            offset = frame.offset
            if frame.count:
                fold_frame(directory, number, frame, state)
        number, offset = walk.end.number, walk.end.cursor.offset
    except Corrupt as error:
        damage = str(error)
        if (walk.end.number, walk.end.cursor.offset) > (number, offset):
            number, offset = walk.end.number, walk.end.cursor.offset
    for copied in range(1, number + 1):
        put_segment(
            files, to, copied, segment_bytes(files, directory, copied, offset if copied == number else None)
        )
    return Salvaged(seq=state.seq, segments=number, damage=damage)
