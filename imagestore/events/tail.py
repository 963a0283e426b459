"""The journal's open end on the disk: one group of frames a write, one flush a group.

Owns the descriptor of the last segment, the making of new segments and the
reserve.  Every method blocks; the journal calls them from its flusher thread,
one at a time.  Knows nothing of events.

The reserve is a file, allocated beforehand, that becomes a segment when the
disk is full and the group may spend it.  While it is missing (spent, or never
allocated) a group that may not spend it is turned away, so that what is freed
goes to the reserve first.
"""

import contextlib
import errno
import os

from msgspec import Struct

from imagestore.events.files import Files, publish, write_all
from imagestore.events.segment import (
    RESERVE,
    TEMPORARY,
    SegmentHeader,
    checkpoint_name,
    encode_header,
    segment_name,
)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CREATE = os.O_RDWR | os.O_CREAT | os.O_TRUNC


class NoRoom(Exception):
    """No disk space for a new segment or the reserve; nothing was written."""


class Group(Struct, frozen=True, kw_only=True):
    """One commit group: ``data`` goes to ``offset``, of a new segment if ``header`` is there.

    ``segment_bytes`` is how large that segment is made.  ``essential`` groups may spend the reserve.
    """

    data: bytes
    offset: int
    header: SegmentHeader | None = None
    segment_bytes: int = 0
    essential: bool = True


class Tail:
    """The open end.  ``capacity`` is the current segment's allocated size in bytes."""

    def __init__(self, files: Files, directory: str, *, reserve_bytes: int) -> None:
        self.capacity = 0
        self._files = files
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._descriptor = -1
        self._has_reserve = False

    def open(self, number: int) -> None:
        """Go on in an existing segment."""
        self._descriptor = self._files.open(self._path(segment_name(number)), os.O_RDWR)
        self.capacity = self._files.size(self._descriptor)

    def grow(self, segment_bytes: int) -> None:
        """Allocate a segment that lost part of its allocation again, if there is room."""
        if self.capacity < segment_bytes:
            with contextlib.suppress(OSError):
                self._files.allocate(self._descriptor, 0, segment_bytes)
                self._files.sync(self._descriptor)
                self.capacity = segment_bytes

    def close(self) -> None:
        if self._descriptor != -1:
            self._files.close(self._descriptor)
            self._descriptor = -1

    def commit(self, group: Group) -> None:
        """Write and flush; when this returns the group is durable.

        Raises:
            NoRoom: there is no room, and nothing was written.
            OSError: the outcome is unknown; also when the segment was deleted meanwhile:
                what only an open file holds is gone with this process.
        """
        if not group.essential and not self._has_reserve:
            self._make_reserve()
        if group.header is not None:
            self._rotate(group.header, group.segment_bytes, essential=group.essential)
        write_all(self._files, self._descriptor, group.data, group.offset)
        self._files.sync_data(self._descriptor)
        if not self._files.is_named(self._descriptor):
            raise FileNotFoundError(errno.ENOENT, "somebody deleted the segment that is being written")

    def prepare_reserve(self) -> None:
        """Take stock of the reserve, and make it if it is missing and there is room."""
        path = self._path(RESERVE)
        if self._files.exists(path):
            descriptor = self._files.open(path, os.O_RDONLY)
            try:
                self._has_reserve = self._files.size(descriptor) >= self._reserve_bytes
            finally:
                self._files.close(descriptor)
        if not self._has_reserve:
            with contextlib.suppress(NoRoom):
                self._make_reserve()

    def _make_reserve(self) -> None:
        temporary = RESERVE + TEMPORARY
        descriptor = self._allocate(temporary, self._reserve_bytes)
        try:
            self._files.sync(descriptor)
        finally:
            self._files.close(descriptor)
        self._files.rename(self._path(temporary), self._path(RESERVE))
        self._files.sync_directory(self._directory)
        self._has_reserve = True

    def _rotate(self, header: SegmentHeader, segment_bytes: int, *, essential: bool) -> None:
        name = segment_name(header.number)
        source = name + TEMPORARY
        try:
            descriptor = self._allocate(source, segment_bytes)
        except NoRoom:
            if not essential or not self._has_reserve:
                raise
            source = RESERVE
            descriptor = self._files.open(self._path(RESERVE), os.O_RDWR)
        try:
            write_all(self._files, descriptor, encode_header(header), 0)
            self._files.sync(descriptor)
            size = self._files.size(descriptor)
            self._files.rename(self._path(source), self._path(name))
            self._files.sync_directory(self._directory)
        except BaseException:
            self._files.close(descriptor)
            raise
        if source == RESERVE:
            self._has_reserve = False
        self.close()
        self._descriptor = descriptor
        self.capacity = size

    def _allocate(self, name: str, length: int) -> int:
        """A new file with all its space allocated.  Raises NoRoom, and then it is gone again."""
        path = self._path(name)
        descriptor = -1
        try:
            descriptor = self._files.open(path, _CREATE)
            self._files.allocate(descriptor, 0, length)
        except OSError as error:
            if descriptor != -1:
                self._files.close(descriptor)
                with contextlib.suppress(OSError):
                    self._files.remove(path)
            if error.errno in _FULL:
                raise NoRoom from error
            raise
        return descriptor

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def reserve_size(segment_bytes: int) -> int:
    """How large the reserve is, in bytes: some ten thousand deletions, and never over a segment."""
    return min(segment_bytes, 4 << 20)


def publish_checkpoint(files: Files, directory: str, seq: int, data: bytes, obsolete: list[int]) -> None:
    """Make a checkpoint durable, then remove ``obsolete`` ones."""
    name = checkpoint_name(seq)
    publish(files, directory, name, data, temporary=name + TEMPORARY)
    for old in obsolete:
        with contextlib.suppress(FileNotFoundError):
            files.remove(os.path.join(directory, checkpoint_name(old)))
