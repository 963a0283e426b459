"""``imagestore send``: a snapshot's stream into a file or a pipe.

Promises: a file of the final name is the whole stream, on disk; a stream that
broke leaves nothing there.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from imagestore.cli.connection import connected, examples
from imagestore.cli.progress import Report, progress
from imagestore.cli.snapshots import SNAPSHOT
from imagestore.client import Client
from imagestore.errors import ImageStoreError, InvalidArgument


@click.command(
    epilog=examples(
        "imagestore send guests/vm1/disk-0@monday -o disk-0.zfs",
        "imagestore send guests/vm1@monday -o vm1.tar                # a whole guest",
        "imagestore send guests/vm1/disk-0@monday | ssh backup zfs receive tank/vm1",
    )
)
@click.argument("snapshot", type=SNAPSHOT, metavar="DATASET@NAME")
@click.option("-o", "--output", "path", type=click.Path(), help="File to write; '-' or nothing is stdout.")
@connected
def send(client: Client, snapshot: str, path: str | None) -> None:
    """Write a snapshot's stream: a ZFS send stream of a disk, a tar of a whole guest.

    FILE appears when the stream is whole and on disk, never before.
    """
    to_stdout = path is None or path == "-"
    if to_stdout and sys.stdout.isatty():
        raise InvalidArgument(
            "a stream is not for a terminal", detail="write it with -o FILE, or into a pipe"
        )
    with client.download(snapshot) as pieces, progress(snapshot) as report:
        watched = _watched(pieces, report)
        if path is None or path == "-":
            _copy(watched, sys.stdout.fileno())
        else:
            write_whole(path, watched)


def _watched(pieces: Iterable[memoryview], report: Report) -> Iterator[memoryview]:
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        report("sending", done, None)


def write_whole(path: str, pieces: Iterable[memoryview]) -> None:
    """Write ``pieces`` to ``path``, which appears when all are there and synced.

    What is no regular file (a device, a named pipe) is written directly.

    Raises:
        ImageStoreError: the file cannot be written; what ``pieces`` raises comes through.
    """
    with _writing(path):
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            target = os.open(path, os.O_WRONLY)
            try:
                _copy(pieces, target)
            finally:
                os.close(target)
            return
        directory = os.path.dirname(os.path.abspath(path))
        target, partial = tempfile.mkstemp(
            prefix=f".{os.path.basename(path)}.", suffix=".part", dir=directory
        )
        try:
            _copy(pieces, target)
            os.fchmod(target, 0o666 & ~_umask())
            os.fsync(target)
            os.rename(partial, path)
        except BaseException:
            os.unlink(partial)
            raise
        finally:
            os.close(target)
        _sync_directory(directory)


def _copy(pieces: Iterable[memoryview], target: int) -> None:
    for piece in pieces:
        rest = piece
        while rest:
            rest = rest[os.write(target, rest) :]


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


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise ImageStoreError(f"cannot write {path}: {problem.strerror}") from problem
