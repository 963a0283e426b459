"""Reading on: a journal's events from any place, as far as they go, again and again.

Owns a place in the log and how to get from there to the next frame, a little
at a time: nothing is read twice, and no more is held than a frame or a window.
Works beside a running store; takes no lock, changes nothing.  Every method blocks.
"""

import os
from collections.abc import Iterator

from imagestore.events import checkpoint as checkpoints
from imagestore.events import frame as frames
from imagestore.events.catalogue import Envelope
from imagestore.events.files import SYSTEM_FILES, Files, read_file
from imagestore.events.log import Place, Survey, anchored, beginning, corrupt, survey, unreadable
from imagestore.events.replay import envelopes
from imagestore.events.scan import Cursor, Frame, Walk
from imagestore.events.segment import HEADER_BYTES, SegmentHeader, decode_header, segment_name

WINDOW_BYTES = 256 << 10
"""So much is read at a time, unless one frame is larger."""


class Follower:
    """Goes through the journal in ``directory`` from event ``from_seq`` on.

    ``start`` is a place in the log before that event; without it the beginning
    of the event's segment is.

    Raises, whenever it reads:
        JournalError: there is no journal, it is damaged (Corrupt), or too new.
    """

    def __init__(
        self,
        directory: str,
        from_seq: int = 1,
        *,
        start: Place | None = None,
        files: Files = SYSTEM_FILES,
    ) -> None:
        self._directory = directory
        self._files = files
        self._from_seq = from_seq
        self._place = start

    @property
    def place(self) -> Place | None:
        """Behind the last frame that was given; None before the journal has any segment."""
        return self._place

    def more(self, *, up_to: int | None = None, most: int = 1000) -> list[Envelope]:
        """The next events: about ``most``, none of them after ``up_to``; [] at the end as it is now."""
        found: list[Envelope] = []
        for number, frame in self.frames(up_to=up_to):
            if frame.seq + frame.count > self._from_seq:
                events = envelopes(self._directory, number, frame)
                found += [event for event in events if event.seq >= self._from_seq]
            if len(found) >= most:
                break
        return found

    def frames(self, *, up_to: int | None = None) -> Iterator[tuple[int, Frame]]:
        """The next frames, each with its segment's number, up to the end as it is now.

        May be left at any frame, and called again to go on behind it.
        """
        while (place := self._place or self._begin()) is not None:
            progress = False
            for frame in self._window(place):
                if up_to is not None and frame.count and frame.seq + frame.count - 1 > up_to:
                    return
                progress = True
                self._place = _behind(frame, self._here())
                yield self._here().number, frame
            if not progress and not self._next_segment():
                return

    def _here(self) -> Place:
        assert self._place is not None
        return self._place

    def _begin(self) -> Place | None:
        found = survey(self._files, self._directory)
        if found.headers:
            self._place = segment_of(found, self._from_seq)
        return self._place

    def _window(self, place: Place) -> Iterator[Frame]:
        """The whole frames of a window. What looks damaged is looked at again: it may be fresh."""
        for look in (1, 2):
            limit = WINDOW_BYTES
            start = place.cursor.offset
            data = self._read(place.number, start, limit)
            header = frames.decode_header(data, 0)
            if header is not None and frames.HEADER.size + frames.padded(header.body_bytes) > limit:
                data = self._read(place.number, start, frames.HEADER.size + frames.padded(header.body_bytes))
            walk = Walk(data, place.cursor, base=start)
            found = False
            for frame in walk:
                found = True
                yield frame
            if found or walk.damage is None or walk.damage.torn:
                return
            if look == 2:
                damage = walk.damage
                raise corrupt(
                    self._directory, segment_name(place.number), damage.offset, damage.seq, damage.reason
                )

    def _next_segment(self) -> bool:
        """Go on in the next segment if there is one, unless this one has more by now."""
        place = self._here()
        header = self._header(place.number + 1)
        if header is None:
            return False
        if any(True for _ in self._window(place)):
            return True
        cursor = place.cursor
        if (header.first_seq, header.last_group, header.previous) != (
            cursor.seq + 1,
            cursor.group,
            cursor.hash,
        ):
            raise corrupt(
                self._directory,
                segment_name(place.number),
                cursor.offset,
                cursor.seq + 1,
                f"its frames end at seq {cursor.seq}, but the next segment goes on with seq "
                f"{header.first_seq} or with another hash",
            )
        self._place = beginning(header)
        return True

    def _header(self, number: int) -> SegmentHeader | None:
        path = os.path.join(self._directory, segment_name(number))
        if not self._files.exists(path):
            return None
        return decode_header(self._read(number, 0, HEADER_BYTES))

    def _read(self, number: int, offset: int, limit: int) -> bytes:
        name = segment_name(number)
        try:
            return read_file(self._files, os.path.join(self._directory, name), offset, limit)
        except OSError as error:
            raise unreadable(self._directory, name, error) from error


def segment_of(found: Survey, seq: int) -> Place:
    """The beginning of the last segment that begins at ``seq`` or before."""
    earlier = [header for header in found.headers if header.first_seq <= seq]
    return beginning(earlier[-1] if earlier else found.headers[0])


def anchor_at(place: Place, journal: bytes) -> checkpoints.Anchor:
    """What to write down of a place, so that :func:`place_at` finds it again."""
    return checkpoints.Anchor(
        journal=journal,
        segment=place.number,
        offset=place.last_frame,
        seq=place.cursor.seq,
        hash=place.cursor.hash,
    )


def place_at(found: Survey, anchor: checkpoints.Anchor, files: Files) -> Place | None:
    """The place that was written down; None if the log is another one there."""
    place = anchored(files, found, anchor)
    return place if isinstance(place, Place) else None


def _behind(frame: Frame, place: Place) -> Place:
    """The place behind a frame that follows ``place``."""
    before = place.cursor
    continues = frame.group == before.group
    return Place(
        number=place.number,
        cursor=Cursor(
            offset=frame.offset + frames.HEADER.size + frames.padded(len(frame.body)),
            seq=before.seq + frame.count,
            group=frame.group,
            group_offset=before.group_offset if continues else frame.offset,
            hash=frame.hash,
        ),
        last_frame=frame.offset,
    )
