"""Sparse files: punching holes, writing vectors whole, finding data.

Thin effects on file descriptors for readers and writers of streams.  Knows
nothing of streams.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import Final

from imagestore.errors import NoSpace, StreamError

MAX_VECTORS: Final = 1024
"""Most buffers that one pwritev takes (IOV_MAX)."""

_ZEROS: Final = bytes(64 << 10)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_UNSUPPORTED: Final = {errno.EOPNOTSUPP, errno.ENOSYS}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def write_all(fd: int, offset: int, buffers: list[memoryview]) -> None:
    """Write ``buffers`` one behind the other from ``offset``, all of them.

    Raises:
        NoSpace: the file system is full.
        StreamError: no file can reach so far.
    """
    for first in range(0, len(buffers), MAX_VECTORS):
        vector = buffers[first : first + MAX_VECTORS]
        wanted = sum(map(len, vector))
        done = _write(fd, vector, offset)
        while done < wanted:
            rest = memoryview(b"".join(vector))[done:]
            done += _write(fd, [rest], offset + done)
        offset += wanted


def _write(fd: int, vector: list[memoryview], offset: int) -> int:
    try:
        return os.pwritev(fd, vector, offset)
    except OSError as error:
        raise _translated(error, offset) from error


def set_size(fd: int, size: int) -> None:
    """Cut or extend the file to ``size`` bytes; errors as :func:`write_all`."""
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise _translated(error, size) from error


def _translated(error: OSError, offset: int) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace()
    if error.errno in {errno.EFBIG, errno.EINVAL, errno.EOVERFLOW}:
        return StreamError(f"the volume reaches to byte {offset}, beyond what a file can hold here")
    return error


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make ``length`` bytes from ``offset`` read as zeros and take no space, where the file system can."""
    if length <= 0:
        return
    if _libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length) == 0:
        return
    code = ctypes.get_errno()
    if code not in _UNSUPPORTED:
        raise _translated(OSError(code, os.strerror(code)), offset)
    for start, end in data_extents(fd, offset, min(offset + length, os.fstat(fd).st_size)):
        for at in range(start, end, len(_ZEROS)):
            write_all(fd, at, [memoryview(_ZEROS)[: min(len(_ZEROS), end - at)]])


def data_extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The (start, end) extents between ``start`` and ``end`` that are not known to be holes."""
    while start < end:
        try:
            begins = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno != errno.EINVAL:
                raise
            yield start, end  # a device that knows no holes
            return
        if begins >= end:
            return
        ends = min(os.lseek(fd, begins, os.SEEK_HOLE), end)
        yield begins, ends
        start = ends


def read_full(fd: int, offset: int, buffers: list[memoryview]) -> None:
    """Fill ``buffers`` from ``offset``; what lies beyond the file's end reads as zeros."""
    for first in range(0, len(buffers), MAX_VECTORS):
        vector = buffers[first : first + MAX_VECTORS]
        wanted = sum(map(len, vector))
        done = os.preadv(fd, vector, offset)
        if done < wanted:
            _read_rest(fd, offset, vector, done)
        offset += wanted


def _read_rest(fd: int, offset: int, vector: list[memoryview], done: int) -> None:
    for buffer in vector:
        if done >= len(buffer):
            done -= len(buffer)
            offset += len(buffer)
            continue
        rest = buffer[done:]
        at = offset + done
        while len(rest):
            count = os.preadv(fd, [rest], at)
            if count == 0:
                rest[:] = bytes(len(rest))
                break
            rest, at = rest[count:], at + count
        offset += len(buffer)
        done = 0
