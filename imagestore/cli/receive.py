"""``imagestore receive``: a send stream, from a file or a pipe, into the store."""

import os
import sys
from collections.abc import Iterator

import click

from imagestore.cli.connection import connected, examples
from imagestore.cli.foreseen import foreseeable, is_dry_run
from imagestore.cli.output import Format, output_option, show_rows
from imagestore.cli.progress import Report, progress
from imagestore.cli.snapshots import SNAPSHOT_COLUMNS
from imagestore.client import PIECE_BYTES, Client, Foreseen
from imagestore.errors import InvalidArgument
from imagestore.model import ReceivePlan


@click.command(
    epilog=examples(
        "imagestore receive guests/vm1/disk-0 disk-0.zfs",
        "imagestore receive guests/vm1/disk-0 monday-to-tuesday.zfs      # incremental, onto its base",
        "zfs send tank/vol@a | imagestore receive scratch/vol",
        "imagestore send --from @a v@b | imagestore receive --server http://other:19999 v",
    )
)
@click.argument("name")
@click.argument("path", metavar="[FILE]", default="-")
@click.option("--force", is_flag=True, help="Discard what was written to the volume since the stream's base.")
@output_option
@connected
@foreseeable
def receive(client: Client, name: str, path: str, force: bool, output: Format) -> None:
    """Bring a send stream in as the volume NAME; '-' or nothing is stdin.

    A full stream, or a clone's whose origin is here, makes a new volume; an
    incremental one goes onto the volume whose newest snapshot is its base.
    Names, guids and dates of the sender's snapshots are kept. Nothing is seen
    before all of it was verified. A dry run reads the stream's beginning only;
    `imagestore stream inspect` tells all that it holds, without a store.
    """
    from imagestore.streams.heading import heading_in
    from imagestore.streams.landing import STANDARD_INPUT, opened

    if path == STANDARD_INPUT and sys.stdin.isatty():
        raise InvalidArgument("a terminal sends no stream", detail="name a FILE, or use a pipe")
    with opened(path) as file, progress(name) as report:
        total = os.fstat(file).st_size if os.path.isfile(path) else None
        if is_dry_run():
            heading = heading_in(_pieces(file, total, report))
            raise Foreseen(
                client.foresee_receive(
                    ReceivePlan(
                        id=name,
                        force=force,
                        snapshot=heading.snapshot,
                        baseGuid=heading.from_guid,
                        isClone=heading.is_clone,
                    )
                )
            )
        response = client.receive(name, _pieces(file, total, report), force=force)
    show_rows(response.snapshots, SNAPSHOT_COLUMNS, output)


def _pieces(file: int, total: int | None, report: Report) -> Iterator[bytes]:
    done = 0
    while piece := os.read(file, PIECE_BYTES):
        yield piece
        done += len(piece)
        report("receiving", done, total)
    report("verifying", done, total)
