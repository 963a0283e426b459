"""Files that appear when they are whole: temporary name, fsync, rename.

A process that dies, or an error, leaves nothing under the final name.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from imagestore.errors import ImageStoreError


@contextmanager
def new_file(path: str) -> Iterator[int]:
    """A descriptor, for reading and writing, of what becomes the file ``path`` on leaving without an error.

    A file that is there already is replaced in one step.  What is no regular
    file (a device, a named pipe) is written directly.

    Raises:
        ImageStoreError: the file cannot be written.
    """
    directory = os.path.dirname(os.path.abspath(path))
    partial = ""
    try:
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            target = os.open(path, os.O_WRONLY)
        else:
            target, partial = tempfile.mkstemp(
                prefix=f".{os.path.basename(path)}.", suffix=".part", dir=directory
            )
    except OSError as problem:
        raise _cannot_write(path, problem) from problem
    try:
        yield target
        if partial:
            os.fchmod(target, 0o666 & ~_umask())
            os.fsync(target)
            os.rename(partial, path)
            partial = ""
            _sync_directory(directory)
    except OSError as problem:
        if isinstance(problem, BrokenPipeError):
            raise
        raise _cannot_write(path, problem) from problem
    finally:
        if partial:
            os.unlink(partial)
        os.close(target)


def write_all(target: int, piece: bytes | memoryview) -> None:
    """Write all of ``piece``."""
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(target, rest) :]


def _cannot_write(path: str, problem: OSError) -> ImageStoreError:
    return ImageStoreError(f"cannot write {path}: {problem.strerror}")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_directory(directory: str) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
