"""The spool: bodies of fetches under way, as they were received, so that another life goes on from there.

Owns one directory::

    <operation>            the body so far; runs of zeros are holes
    <operation>.marks      what the body is of, then marks: how long it was, and its sha256 then
    <operation>.unpacked   a disk image whose format needs the whole file
    <operation>.disk       the raw disk made of it

Nothing in it is trusted.  A mark names a length and the sha256 of so many
bytes; whoever reads a spool hashes it and compares, so neither body nor marks
need be synced: what a power cut took shows.  Bytes behind the last mark are
not looked at.

There is a quota for what is only a second copy.  A body over it is kept no
longer: its fetch goes on, and after a crash begins anew.  In a directory pool
the spool of a raw image becomes its data file; that one is no copy, it counts
for nothing here and its errors are the fetch's.

What belongs to no fetch under way is removed when the store starts.  Every
method blocks, but for properties; one task has a spool at a time.
"""

import errno
import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress

import msgspec
from msgspec import Struct

from imagestore.errors import NoSpace
from imagestore.streams import files
from imagestore.streams.content import Piece
from imagestore.streams.syncahead import SyncAhead

MARK_BYTES = 1 << 20
"""There is a mark after so many bytes, or after a MARK_SHARE of what is there if that is more."""

MARK_SHARE = 256

READ_BYTES = 512 << 10
_BLOCK_BYTES = 4096
_OURS = re.compile(r"([0-9a-f-]{36})(\.marks|\.unpacked|\.disk)?\Z")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}

_log = logging.getLogger(__name__)


class Heading(Struct, frozen=True, kw_only=True):
    """What a body is of.  ``source`` tells addresses apart without naming them.

    ``validator`` is the strong entity tag that a server gave, "" if none did;
    ``total_bytes`` is None when nobody said how long the body is.
    """

    source: str
    validator: str = ""
    total_bytes: int | None = None


class Mark(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first ``length`` bytes had this sha256 (hex); ``is_image``: the file was to become the image's."""

    length: int
    sha256: str
    is_image: bool = False


class Kept(Struct, frozen=True, kw_only=True):
    """What an earlier life left."""

    heading: Heading
    mark: Mark


class Spools:
    """The directory.  It is made when it is needed."""

    def __init__(self, directory: str, *, quota_bytes: int) -> None:
        self.directory = directory
        self.quota_bytes = quota_bytes
        self._copies: dict[str, int] = {}
        """The bodies that count, and their lengths."""

    @property
    def used_bytes(self) -> int:
        """What the quota counts."""
        return sum(self._copies.values())

    def prepare(self, under_way: Collection[str]) -> None:
        """Make the directory; remove what is of no operation in ``under_way``. Raises OSError."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        removed = 0
        for name in os.listdir(self.directory):
            found = _OURS.match(name)
            if found and (found[1] not in under_way or found[2] in {".unpacked", ".disk"}):
                os.unlink(os.path.join(self.directory, name))
                removed += 1
            elif found and not found[2]:
                self.count(name, os.stat(os.path.join(self.directory, name)).st_blocks * 512)
        if removed:
            _log.info("removed %d files of fetches that have ended from the spool", removed)

    def open(self, operation: str) -> "Spool":
        """The spool of an operation. Touches nothing yet."""
        return Spool(self, operation)

    def has_room(self, more: int) -> bool:
        return self.used_bytes + more <= self.quota_bytes

    def full(self) -> NoSpace:
        """The quota is used up."""
        return NoSpace(
            f"no space left in the spool: its quota is {self.quota_bytes} bytes",
            detail="raise spool_bytes, or wait until other fetches have ended",
        )

    def count(self, file: str, length: int) -> None:
        self._copies[file] = length

    def forget(self, file: str) -> None:
        self._copies.pop(file, None)


class Spool:
    """One fetch's spool; see the module."""

    def __init__(self, spools: Spools, operation: str) -> None:
        self.path = os.path.join(spools.directory, operation)
        self.length = 0
        self._spools = spools
        self._operation = operation
        self._file = -1
        self._marks = -1
        self._unpacked = -1
        self._marked = 0
        self._ahead: SyncAhead | None = None
        self._is_image = False
        self._is_needed = False
        """The fetch cannot go on without the file."""

    @property
    def is_kept(self) -> bool:
        """Whether the body is being kept."""
        return self._file >= 0

    @property
    def _marks_path(self) -> str:
        return f"{self.path}.marks"

    @property
    def unpacked_path(self) -> str:
        return f"{self.path}.unpacked"

    @property
    def disk_path(self) -> str:
        return f"{self.path}.disk"

    # -- what an earlier life left ------------------------------------------------

    def kept(self) -> Kept | None:
        """What is there to go on from; None if nothing, or nothing that can be read."""
        try:
            with open(self._marks_path, "rb") as marks:
                heading_line, *lines = marks.read().split(b"\n")
            heading = msgspec.json.decode(heading_line, type=Heading)
        except (OSError, msgspec.MsgspecError, ValueError):
            return None
        for line in reversed(lines):
            # The last line may be cut.
            with suppress(msgspec.MsgspecError, ValueError):
                return Kept(heading=heading, mark=msgspec.json.decode(line, type=Mark))
        return None

    def resume(self, kept: Kept) -> bool:
        """Open the body to go on behind ``kept``'s mark; False if it cannot be."""
        length = kept.mark.length
        try:
            # Of a raw image that a life before had already made a data file of, nobody was to write.
            os.chmod(self.path, 0o600)
            self._open(os.O_RDWR)
            os.ftruncate(self._file, length)
        except OSError:
            self.give_up()
            return False
        self._spools.count(self._operation, 0 if kept.mark.is_image else length)
        if not self._spools.has_room(0):
            self.give_up()
            return False
        self.length = self._marked = length
        return True

    def read(self) -> Iterator[bytes]:
        """All that is there, in pieces of READ_BYTES. Raises OSError."""
        for at in range(0, self.length, READ_BYTES):
            piece = bytearray(min(READ_BYTES, self.length - at))
            files.read_full(self._file, at, [memoryview(piece)])
            yield bytes(piece)

    # -- what comes now -----------------------------------------------------------

    def begin(self, heading: Heading) -> None:
        """Keep a body from its first byte. On a full disk nothing is kept."""
        self.remove()
        try:
            self._open(os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.write(self._marks, msgspec.json.encode(heading) + b"\n")
        except OSError as error:
            self._trouble(error)

    def _open(self, flags: int) -> None:
        self._file = os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._marks = os.open(self._marks_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def become_image(self) -> None:
        """The body is a raw disk and this file is to be the disk's: it is no second copy any more."""
        assert self.is_kept
        self._is_needed = self._is_image = True
        self._spools.forget(self._operation)
        self._ahead = SyncAhead(self._file)

    def become_source(self) -> None:
        """The body is a disk format, to be converted from this file."""
        assert self.is_kept
        self._is_needed = True

    def write(self, data: Piece) -> None:
        """Add the next bytes. Raises NoSpace and OSError only if the fetch cannot go on without the file."""
        if not self.is_kept:
            return
        try:
            if not self._is_image and not self._spools.has_room(len(data)):
                raise self._spools.full()
            self._write(memoryview(data))
        except (OSError, NoSpace) as error:
            if self._is_needed:
                raise
            self._trouble(error)

    def _write(self, data: memoryview) -> None:
        at = self.length
        # Blocks are those of the file; what lies before the first and behind the last is written as it is.
        lead = min(-at % _BLOCK_BYTES, len(data))
        whole = (len(data) - lead) // _BLOCK_BYTES * _BLOCK_BYTES
        for first, last in ((0, lead), *_data_runs(data, lead, lead + whole), (lead + whole, len(data))):
            if first < last:
                files.write_all(self._file, at + first, [data[first:last]])
        self.length += len(data)
        if self._ahead is not None:
            self._ahead.wrote(len(data))
        if not self._is_image:
            self._spools.count(self._operation, self.length)

    @property
    def wants_mark(self) -> bool:
        """Whether it is time for the next mark."""
        return self.is_kept and self.length - self._marked >= max(MARK_BYTES, self.length // MARK_SHARE)

    def mark(self, sha256: str) -> None:
        """Note the sha256 (hex) of what is there."""
        if not self.is_kept or self.length == self._marked:
            return
        mark = Mark(length=self.length, sha256=sha256, is_image=self._is_image)
        try:
            os.write(self._marks, msgspec.json.encode(mark) + b"\n")
            self._marked = self.length
        except OSError as error:
            # Without this mark a later life has the one before.
            _log.info("a mark of the spool could not be written: %s", error)

    def write_unpacked(self, at: int, data: memoryview) -> None:
        """Write bytes of the disk format's unpacked file. Raises NoSpace, OSError."""
        if not self._spools.has_room(len(data)):
            raise self._spools.full()
        if self._unpacked < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._unpacked = os.open(self.unpacked_path, flags, 0o600)
        files.write_all(self._unpacked, at, [data])
        self._spools.count(f"{self._operation}.unpacked", at + len(data))

    def complete(self, size: int) -> None:
        """Bring the file of an image to its disk's length. Raises NoSpace, OSError."""
        if self._ahead is not None:
            self._ahead.finish()
        files.set_size(self._file, size)

    # -- the end ------------------------------------------------------------------

    def _trouble(self, error: BaseException) -> None:
        """A second copy is not worth a fetch's failure."""
        _log.warning("a body is kept no longer, after a crash its fetch begins anew: %s", error)
        self.give_up()

    def give_up(self) -> None:
        """Keep nothing of this body. The fetch goes on without."""
        self._close_body()
        _unlink(self._marks_path, self.path)

    def close(self) -> None:
        """Leave what is there to a later life."""
        self._close_body()
        if self._unpacked >= 0:
            os.close(self._unpacked)
            self._unpacked = -1
        self._spools.forget(f"{self._operation}.unpacked")

    def remove(self) -> None:
        """Close, and remove whatever there is of this operation; what resists goes with the next start."""
        self.close()
        _unlink(self._marks_path, self.path, self.unpacked_path, self.disk_path)

    def _close_body(self) -> None:
        with suppress(OSError):
            if self._ahead is not None:
                self._ahead.finish()
        self._ahead = None
        for file in (self._file, self._marks):
            if file >= 0:
                os.close(file)
        self._file = self._marks = -1
        self._is_image = self._is_needed = False
        self.length = self._marked = 0
        self._spools.forget(self._operation)


def _unlink(*paths: str) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            _log.warning("%s stays until the next start: %s", path, error)


def _data_runs(data: memoryview, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The runs of whole blocks between ``first`` and ``last`` that are not all zeros."""
    if first >= last:
        return
    import numpy as np

    from imagestore.streams.zeros import stretches, zero_rows

    blocks = np.frombuffer(data[first:last], dtype=np.uint8).reshape(-1, _BLOCK_BYTES)
    offsets = np.arange(0, last - first, _BLOCK_BYTES, dtype=np.uint64)
    for begin, end in stretches(offsets, _BLOCK_BYTES, zero_rows(blocks)):
        yield first + begin * _BLOCK_BYTES, first + end * _BLOCK_BYTES
