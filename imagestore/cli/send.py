"""``imagestore send``: a snapshot's stream into a file or a pipe."""

import fcntl
import os
import sys

import click

from imagestore.cli.connection import connected, examples
from imagestore.cli.download import Pipe, Wanted, fetch, fetch_file
from imagestore.cli.progress import progress
from imagestore.cli.snapshots import SNAPSHOT
from imagestore.client import Client
from imagestore.errors import InvalidArgument


@click.command(
    epilog=examples(
        "imagestore send guests/vm1/disk-0@monday -o disk-0.zfs",
        "imagestore send guests/vm1/disk-0@tuesday --from @monday -o tuesday.zfs",
        "imagestore send guests/vm1@monday -o vm1.tar                # a whole guest",
        "imagestore send guests/vm1/disk-0@monday | ssh backup zfs receive tank/vm1",
    )
)
@click.argument("snapshot", type=SNAPSHOT, metavar="DATASET@NAME")
@click.option(
    "--from",
    "base",
    default="",
    metavar="BASE",
    help="Only what has changed since BASE: an earlier snapshot (@NAME), the clone's origin, or a guid.",
)
@click.option("-o", "--output", "path", type=click.Path(), help="File to write; '-' or nothing is stdout.")
@connected
def send(client: Client, snapshot: str, base: str, path: str | None) -> None:
    """Write a snapshot's stream: a ZFS send stream of a disk, a tar of a whole guest.

    FILE appears when the stream is whole and on disk, never before. A
    connection that breaks is made again; what FILE.part has is not fetched
    again, also when the command is run anew.
    """
    to_stdout = path is None or path == "-"
    if to_stdout and sys.stdout.isatty():
        raise InvalidArgument(
            "a stream is not for a terminal", detail="write it with -o FILE, or into a pipe"
        )
    if to_stdout and _is_closed(sys.stdout.fileno()):
        raise InvalidArgument("standard output is closed", detail="write the stream with -o FILE")
    wanted = Wanted(server=client.server, snapshot=snapshot, base=base)
    with progress(snapshot) as report:
        if path is None or path == "-":
            fetch(client, wanted, Pipe(sys.stdout.fileno()), report)
        elif os.path.exists(path) and not os.path.isfile(path):
            # A device or a named pipe is written directly.
            file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                fetch(client, wanted, Pipe(file), report)
            finally:
                os.close(file)
        else:
            fetch_file(client, wanted, path, report)


def _is_closed(output: int) -> bool:
    """Whether the caller has closed it: the null device stands there then, open for both (see ``main``)."""
    null = os.stat(os.devnull)
    is_null = os.path.samestat(os.fstat(output), null)
    return is_null and fcntl.fcntl(output, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
