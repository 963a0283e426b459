"""The journal's way to the disk.

Owns the short list of system calls that the journal uses, so that tests can put
a disk that forgets, fills or fails in their place, and the durable idioms made
of them.  Every call may raise OSError; none retries.
"""

import contextlib
import fcntl
import os
from typing import Protocol

_DELETED = " (deleted)"
"""How the kernel ends the path of an open file whose name is gone; proc(5)."""


class Files(Protocol):
    """The system calls.  Paths are text, descriptors are numbers, lengths are bytes."""

    def list(self, directory: str) -> list[str]: ...
    def make_directory(self, directory: str) -> None:
        """Make it, and what is missing above it, durably; no error if it is there."""

    def exists(self, path: str) -> bool: ...
    def open(self, path: str, flags: int) -> int: ...
    def close(self, descriptor: int) -> None: ...
    def size(self, descriptor: int) -> int: ...
    def read(self, descriptor: int, length: int, offset: int) -> bytes: ...
    def write(self, descriptor: int, data: bytes, offset: int) -> int: ...
    def allocate(self, descriptor: int, offset: int, length: int) -> None: ...
    def truncate(self, descriptor: int, length: int) -> None: ...
    def sync(self, descriptor: int) -> None:
        """Data and metadata are durable (fsync)."""

    def sync_data(self, descriptor: int) -> None:
        """Data is durable (fdatasync)."""

    def is_named(self, descriptor: int) -> bool:
        """Whether the open file still has a name: False once it was deleted."""

    def sync_directory(self, directory: str) -> None: ...
    def rename(self, source: str, target: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def lock(self, descriptor: int) -> bool:
        """Take the exclusive lock, or return False when another process has it."""


class SystemFiles:
    """The real thing."""

    def list(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def make_directory(self, directory: str) -> None:
        if os.path.lexists(directory):
            return
        parent = os.path.dirname(os.path.abspath(directory))
        self.make_directory(parent)
        os.mkdir(directory, 0o700)
        self.sync_directory(parent)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def size(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        return os.pread(descriptor, length, offset)

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        return os.pwrite(descriptor, data, offset)

    def allocate(self, descriptor: int, offset: int, length: int) -> None:
        os.posix_fallocate(descriptor, offset, length)

    def truncate(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def is_named(self, descriptor: int) -> bool:
        with contextlib.suppress(FileNotFoundError):  # there is no /proc
            if not os.readlink(f"/proc/self/fd/{descriptor}").endswith(_DELETED):
                return True
        # Not asked first: since Linux 6.13 whoever is told a file's times makes its next flush
        # write them anew, which takes a third longer.
        return os.fstat(descriptor).st_nlink > 0

    def sync_directory(self, directory: str) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def lock(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


SYSTEM_FILES: Files = SystemFiles()


def write_all(files: Files, descriptor: int, data: bytes, offset: int) -> None:
    """Write all of ``data``; a short write goes on where it ended.

    Raises:
        OSError: it could not be; how much was written is unknown.
    """
    written = files.write(descriptor, data, offset)
    while written < len(data):
        more = files.write(descriptor, data[written:], offset + written)
        if more <= 0:
            raise OSError(f"the disk took {written} of {len(data)} bytes")
        written += more


def read_file(files: Files, path: str, offset: int = 0, limit: int | None = None) -> bytes:
    """The bytes of a file from ``offset`` on, at most ``limit`` of them."""
    descriptor = files.open(path, os.O_RDONLY)
    try:
        wanted = max(0, files.size(descriptor) - offset)
        if limit is not None:
            wanted = min(wanted, limit)
        first = files.read(descriptor, wanted, offset)
        if len(first) == wanted:
            return first
        pieces = [first]
        got = len(first)
        while got < wanted and pieces[-1]:
            pieces.append(files.read(descriptor, wanted - got, offset + got))
            got += len(pieces[-1])
        return b"".join(pieces)
    finally:
        files.close(descriptor)


def publish(files: Files, directory: str, name: str, data: bytes, *, temporary: str) -> None:
    """Make ``directory/name`` hold ``data``, durably and all at once."""
    path = os.path.join(directory, temporary)
    descriptor = files.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(files, descriptor, data, 0)
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    files.rename(path, os.path.join(directory, name))
    files.sync_directory(directory)
