"""Data files: the bytes of volumes and snapshots, sparse and raw.

Owns one directory of files with random names that never change.  A volume's
file is written to by whoever opens the volume; a snapshot's is read-only
(0444) and never changes.  Copies are made with FICLONE where the file system
can (xfs, btrfs, …), else hole by hole.  Knows nothing of names, the catalog,
or who may do what.  Every function blocks and belongs into a worker thread.

A file is durable only after :meth:`DataFiles.sync`; one that nobody names is
rubbish and is removed by :meth:`DataFiles.remove_all_but`.
"""

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

FICLONE = 0x40049409
FS_IOC_FIEMAP = 0xC020660B

FILE_NAME = re.compile(r"[0-9a-f]{32}\Z")
VOLUME_MODE = 0o600
SNAPSHOT_MODE = 0o444

_COPY_PIECE_BYTES = 64 << 20
_COMPARED_BYTES = 1 << 20
_CANNOT_CLONE = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM}
_CANNOT_COPY_RANGE = {errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOSYS}

_FIEMAP_HEADER = struct.Struct("=QQLLLL")
_FIEMAP_EXTENT = struct.Struct("=QQQQQLLLL")
_FIEMAP_EXTENTS_PER_CALL = 1024
_FIEMAP_SYNC = 1
_EXTENT_LAST = 0x1
_EXTENT_UNKNOWN = 0x2
_EXTENT_DELALLOC = 0x4


class Extent(Struct, frozen=True, gc=False):
    """Where a run of a file's bytes lies on the disk; -1 if the kernel cannot tell."""

    logical: int
    physical: int
    length: int


def nothing() -> None:
    """The progress callback of those who need none."""


class DataFiles:
    """The files in ``directory``; ``reflink`` says whether FICLONE works there."""

    def __init__(self, directory: str, *, reflink: bool, entropy: Callable[[int], bytes]) -> None:
        self.directory = directory
        self.reflink = reflink
        self._entropy = entropy

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def blank(self, size: int) -> str:
        """Make a file of ``size`` bytes that is one hole. Returns its name."""
        with self._new() as (name, file):
            os.ftruncate(file, size)
        return name

    def begin(self) -> tuple[str, int]:
        """Make an empty file and open it for reading and writing. Returns its name and the open file."""
        with self._new() as (name, file):
            return name, os.dup(file)

    def copy(self, source: str, *, mode: int = VOLUME_MODE, progress: Callable[[], None] = nothing) -> str:
        """Make a file with the content of ``source``; the two share blocks where that is possible.

        With ``reflink`` this is atomic with respect to writers of ``source``;
        without, the caller keeps writers away.  ``progress`` is called now and
        then and may raise to give up.  Returns the new file's name.
        """
        with self._new() as (name, file):
            source_file = os.open(self.path(source), os.O_RDONLY | os.O_CLOEXEC)
            try:
                if self.reflink:
                    fcntl.ioctl(file, FICLONE, source_file)
                else:
                    copy_sparse(source_file, file, progress)
                    os.fdatasync(file)
            finally:
                os.close(source_file)
            os.fchmod(file, mode)
        return name

    def copy_apart(self, source: str, *, mode: int, progress: Callable[[], None]) -> str:
        """Make a file with the content of ``source`` that shares no block with it."""
        with self._new() as (name, file):
            source_file = os.open(self.path(source), os.O_RDONLY | os.O_CLOEXEC)
            try:
                copy_sparse(source_file, file, progress, apart=True)
                os.fdatasync(file)
            finally:
                os.close(source_file)
            os.fchmod(file, mode)
        return name

    def fill(self, name: str) -> None:
        """Give a file all the blocks that its size can need.

        Raises OSError: ENOSPC before a block is taken from anybody else, if there are too few.
        """
        file = os.open(self.path(name), os.O_RDWR | os.O_CLOEXEC)
        try:
            status, room = os.fstat(file), os.fstatvfs(file)
            if status.st_size - status.st_blocks * 512 > room.f_bavail * room.f_frsize:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            os.posix_fallocate(file, 0, status.st_size)
        finally:
            os.close(file)

    def link(self, source: str, *, mode: int) -> str:
        """Give ``source`` a second name, and both a mode under which nobody writes any more."""
        name = self._entropy(16).hex()
        os.chmod(self.path(source), mode)
        os.link(self.path(source), self.path(name))
        return name

    def adopt(self, path: str) -> str:
        """Give a file of this file system a name here as well. Returns the name."""
        name = self._entropy(16).hex()
        os.link(path, self.path(name))
        return name

    def take_rights(self, name: str, model: str) -> None:
        """Give a file the mode and, as far as rights allow, the owner of another one, if that exists."""
        try:
            wanted = os.stat(self.path(model))
        except FileNotFoundError:
            return
        # Owner before mode: chown takes set-id bits off.
        with suppress(PermissionError):
            os.chown(self.path(name), wanted.st_uid, wanted.st_gid)
        os.chmod(self.path(name), stat.S_IMODE(wanted.st_mode))

    def sync(self, name: str) -> None:
        """Make a file's content durable (its directory entry: :meth:`sync_directory`)."""
        sync_path(self.path(name))

    def sync_directory(self) -> None:
        sync_path(self.directory)

    def allocated(self, name: str) -> int:
        """Bytes that the file occupies on the disk, shared ones included."""
        return os.stat(self.path(name)).st_blocks * 512

    def is_shared(self, name: str) -> bool:
        """Whether the file has another name, from :meth:`link`."""
        return os.stat(self.path(name)).st_nlink > 1

    def remove(self, names: Iterable[str]) -> None:
        """Unlink files; one that is gone already is no error."""
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(self.path(name))

    def remove_all_but(self, names: set[str]) -> tuple[int, list[str]]:
        """Unlink every data file not in ``names``.

        Returns how many there were, and those of ``names`` that are missing.
        Files whose names are not of our kind are left alone.
        """
        with os.scandir(self.directory) as entries:
            present = {entry.name for entry in entries if FILE_NAME.match(entry.name)}
        orphans = present - names
        self.remove(sorted(orphans))
        return len(orphans), sorted(names - present)

    @contextmanager
    def _new(self) -> Iterator[tuple[str, int]]:
        """A new file, open for writing; unlinked if the body raises."""
        name = self._entropy(16).hex()
        file = os.open(self.path(name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, VOLUME_MODE)
        try:
            yield name, file
        except BaseException:
            os.unlink(self.path(name))
            raise
        finally:
            os.close(file)


def sync_path(path: str) -> None:
    """fsync a file or directory."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def can_reflink(directory: str, name: str) -> bool:
    """Whether FICLONE works in ``directory``; tries it on two files named ``name`` + .a and .b."""
    paths = [os.path.join(directory, f"{name}.{suffix}") for suffix in "ab"]
    files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600) for path in paths]
    try:
        os.write(files[0], b"imagestore probes for FICLONE".ljust(4096))
        fcntl.ioctl(files[1], FICLONE, files[0])
    except OSError as error:
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    else:
        return True
    finally:
        for file, path in zip(files, paths, strict=True):
            os.close(file)
            os.unlink(path)


def data_runs(file: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each run of data in the first ``size`` bytes of an open file, holes left out."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if start >= size:
            return
        end = min(os.lseek(file, start, os.SEEK_HOLE), size)
        yield start, end


def copy_sparse(source: int, destination: int, progress: Callable[[], None], *, apart: bool = False) -> None:
    """Fill an empty file with another's content, holes stay holes; ``apart``: sharing no blocks."""
    size = os.fstat(source).st_size
    os.ftruncate(destination, size)
    for start, end in data_runs(source, size):
        position = start
        while position < end:
            progress()
            length = min(end - position, _COPY_PIECE_BYTES)
            copy = _rewrite_piece if apart else _copy_piece
            copied = copy(source, destination, position, length)
            if copied == 0:
                break
            position += copied


def _copy_piece(source: int, destination: int, offset: int, length: int) -> int:
    try:
        return os.copy_file_range(source, destination, length, offset, offset)
    except OSError as error:
        if error.errno not in _CANNOT_COPY_RANGE:
            raise
    return _rewrite_piece(source, destination, offset, length)


def _rewrite_piece(source: int, destination: int, offset: int, length: int) -> int:
    return os.pwrite(destination, os.pread(source, min(length, 1 << 20), offset), offset)


def same_content(one: str, other: str, progress: Callable[[], None]) -> bool:
    """Whether two files hold the same bytes.  ``progress`` as in :meth:`DataFiles.copy`."""
    files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (one, other)]
    try:
        size = os.fstat(files[0]).st_size
        if os.fstat(files[1]).st_size != size:
            return False
        # What both have as holes is zeros in both.
        for start, end in sorted(run for file in files for run in data_runs(file, size)):
            for position in range(start, end, _COMPARED_BYTES):
                progress()
                length = min(_COMPARED_BYTES, end - position)
                if os.pread(files[0], length, position) != os.pread(files[1], length, position):
                    return False
        return True
    finally:
        for file in files:
            os.close(file)


def extents(path: str) -> list[Extent]:
    """The file's extents in order of their place in the file.  Raises OSError where FIEMAP is unknown."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return list(_extents(file))
    finally:
        os.close(file)


def _extents(file: int) -> Iterator[Extent]:
    start = 0
    while True:
        request = bytearray(_FIEMAP_HEADER.size + _FIEMAP_EXTENTS_PER_CALL * _FIEMAP_EXTENT.size)
        _FIEMAP_HEADER.pack_into(
            request, 0, start, (1 << 63) - 1 - start, _FIEMAP_SYNC, 0, _FIEMAP_EXTENTS_PER_CALL, 0
        )
        fcntl.ioctl(file, FS_IOC_FIEMAP, request)
        count = _FIEMAP_HEADER.unpack_from(request)[3]
        if count == 0:
            return
        flags = 0
        for index in range(count):
            offset = _FIEMAP_HEADER.size + index * _FIEMAP_EXTENT.size
            logical, physical, length, _, _, flags, *_ = _FIEMAP_EXTENT.unpack_from(request, offset)
            known = not flags & (_EXTENT_UNKNOWN | _EXTENT_DELALLOC)
            yield Extent(logical, physical if known else -1, length)
            start = logical + length
        if flags & _EXTENT_LAST:
            return


def changed_bytes(before: list[Extent], after: list[Extent]) -> int:
    """Bytes of ``after`` that do not lie where ``before`` has the same part of the file.

    Exact for two files of which one began as a reflink of the other; where an
    extent's place is unknown it counts as changed.
    """
    shared = 0
    index = 0
    for extent in after:
        end = extent.logical + extent.length
        while index < len(before) and before[index].logical + before[index].length <= extent.logical:
            index += 1
        other_index = index
        while other_index < len(before) and before[other_index].logical < end:
            other = before[other_index]
            other_end = other.logical + other.length
            same_place = other.physical - other.logical == extent.physical - extent.logical
            if same_place and extent.physical >= 0 and other.physical >= 0:
                shared += min(end, other_end) - max(extent.logical, other.logical)
            if other_end > end:
                break
            other_index += 1
    return sum(extent.length for extent in after) - shared
