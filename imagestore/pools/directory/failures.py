"""Errors of the kernel and of SQLite, turned into imagestore's own.

Owns the one mapping for the directory pool: a full disk is ``NoSpace``, what
the administrator has to mend is a one-line ``PoolError`` that says what would
be right.  Knows nothing of datasets.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from imagestore.errors import ImageStoreError, InvalidArgument, NoSpace, PoolError

_FULL = {errno.ENOSPC, errno.EDQUOT}

_ADVICE = {
    errno.EACCES: "the store needs the right to write there",
    errno.EPERM: "the store needs the right to write there",
    errno.EROFS: "the file system is mounted read-only",
    errno.EIO: "the disk fails: see the kernel's log",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
}


@contextmanager
def pool_failures(doing: str) -> Iterator[None]:
    """Run a step of the pool; ``doing`` says what it is, for the error's text.

    Raises:
        NoSpace: the disk, or the quota, is full.
        InvalidArgument: a file would be larger than the file system allows.
        PoolError: anything else that the kernel or SQLite refused.
    """
    try:
        yield
    except OSError as error:
        raise _of_kernel(error, doing) from error
    except sqlite3.Error as error:
        raise _of_catalog(error, doing) from error


def _of_kernel(error: OSError, doing: str) -> ImageStoreError:
    number = error.errno or 0
    if number in _FULL:
        return NoSpace(detail=f"while {doing}")
    if number == errno.EFBIG:
        return InvalidArgument(detail=f"larger than a file can be here, while {doing}")
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    reason = os.strerror(number) if number else str(error)
    return PoolError(f"{doing} failed: {reason}{where}", detail=_ADVICE.get(number, ""))


def _of_catalog(error: sqlite3.Error, doing: str) -> ImageStoreError:
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL:
        return NoSpace(detail=f"in the pool's catalog, while {doing}")
    advice = ""
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        advice = "the store needs the right to write to .imagestore and everything in it"
    elif code & 0xFF == sqlite3.SQLITE_BUSY:
        advice = "another program has .imagestore/catalog.sqlite open: close it there"
    elif code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        advice = "restore .imagestore/catalog.sqlite from a backup; the data files are untouched"
    return PoolError(f"{doing} failed: the pool's catalog says: {error}", detail=advice)
