"""Files that appear whole or not at all, and inputs that may be files, pipes or gzip.

An output grows under a temporary name beside its final one, is fsynced, and
gets its name as the last step; an existing file is refused in that same step
unless the caller said otherwise.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from imagestore.errors import AlreadyExists, InvalidArgument, NotFound, StreamError
from imagestore.streams.content import Decoder

STANDARD_INPUT: Final = "-"
READ_BYTES: Final = 1 << 20


@contextmanager
def landing(output: str, *, overwrite: bool = False) -> Iterator[str]:
    """The path of an empty temporary file that becomes ``output`` when the block ends without error.

    Raises:
        AlreadyExists: ``output`` exists and ``overwrite`` is false; nothing was changed.
    """
    if not overwrite and os.path.lexists(output):
        raise AlreadyExists(f"{output} exists already", detail="name another file, or add --force")
    directory = os.path.dirname(output) or "."
    if not os.path.isdir(directory):
        raise NotFound(f"{directory} is no directory")
    fd, path = tempfile.mkstemp(prefix=f".{os.path.basename(output)}.", dir=directory)
    try:
        os.fchmod(fd, 0o666 & ~_umask())
        os.close(fd)
        yield path
        settle(path, output, overwrite=overwrite)
    finally:
        if os.path.lexists(path):
            os.unlink(path)


def settle(path: str, output: str, *, overwrite: bool) -> None:
    """Make the file at ``path`` durable and give it its final name, in the same directory.

    Raises:
        AlreadyExists: ``output`` exists and ``overwrite`` is false.
    """
    _sync(path)
    _publish(path, output, overwrite=overwrite)
    _sync(os.path.dirname(output) or ".")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _publish(path: str, output: str, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(path, output)
        return
    try:
        os.link(path, output)
    except FileExistsError:
        raise AlreadyExists(f"{output} exists already", detail="it appeared meanwhile") from None


@contextmanager
def opened(path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A file descriptor of ``path``, ``-`` being standard input. Raises NotFound, InvalidArgument."""
    if path == STANDARD_INPUT:
        yield 0
        return
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidArgument(f"{path} is a directory", detail="name a file in it")
        yield fd
    finally:
        os.close(fd)


def stream_pieces(fd: int) -> Iterator[bytes | memoryview]:
    """The bytes of the send stream that ``fd`` gives, unpacked if they are gzipped.

    Raises:
        ContentRefused: they are no send stream.
    """
    decoder = Decoder()
    buffer = memoryview(bytearray(READ_BYTES))
    while count := os.readv(fd, [buffer]):
        for piece in decoder.feed(buffer[:count]):
            _require_stream(decoder)
            yield piece
    for piece in decoder.finish():
        _require_stream(decoder)
        yield piece


def _require_stream(decoder: Decoder) -> None:
    if decoder.kind != "stream":
        raise StreamError("this is no ZFS send stream (nor one gzipped); it looks like a raw disk image")
