"""``imagestore send``: a snapshot's stream into a file or a pipe.

Promises: a file of the final name is the whole stream, on disk; a stream that
broke leaves nothing there.
"""

import os
import sys
from collections.abc import Iterable, Iterator

import click

from imagestore.cli.connection import connected, examples
from imagestore.cli.progress import Report, progress
from imagestore.cli.snapshots import SNAPSHOT
from imagestore.client import Client
from imagestore.errors import InvalidArgument


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
            for piece in watched:
                _write_all(sys.stdout.fileno(), piece)
        else:
            write_whole(path, watched)


def _watched(pieces: Iterable[memoryview], report: Report) -> Iterator[memoryview]:
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        report("sending", done, None)


def write_whole(path: str, pieces: Iterable[memoryview]) -> None:
    """Write ``pieces`` to ``path``, which appears, or is replaced, when all are there and synced.

    What is no regular file (a device, a named pipe) is written directly.

    Raises:
        NotFound: the directory does not exist.
        OSError: the file cannot be written.
    """
    from imagestore.streams.landing import landing

    if os.path.exists(path) and not os.path.isfile(path):
        _write(path, pieces)
        return
    with landing(path, overwrite=True) as partial:
        _write(partial, pieces)


def _write(path: str, pieces: Iterable[memoryview]) -> None:
    with open(path, "r+b" if os.path.isfile(path) else "wb", buffering=0) as target:
        for piece in pieces:
            _write_all(target.fileno(), piece)


def _write_all(target: int, piece: memoryview) -> None:
    rest = piece
    while rest:
        rest = rest[os.write(target, rest) :]
