"""``imagestore stream``: look into, unpack and make ZFS send streams, without ZFS and without a store.

Owns what is printed; the work is ``imagestore.streams``.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from imagestore.cli.connection import examples
from imagestore.cli.group import Group
from imagestore.cli.output import Format, output_option, print_json, print_line, printable
from imagestore.cli.progress import progress
from imagestore.errors import InvalidArgument
from imagestore.sizes import show_bytes

if TYPE_CHECKING:
    from imagestore.streams.inspection import SnapshotReport, StreamReport

_Function = TypeVar("_Function", bound=Callable[..., Any])

MAP_COLUMNS = 100
"""Widest picture of a volume."""


def force_option(function: _Function) -> _Function:
    """Give a command that writes a file ``--force``."""
    return click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")(function)


@contextmanager
def _counting(phase: str, paths: tuple[str, ...]) -> Iterator[Callable[[int], None]]:
    """What to tell the bytes done; the bar knows the end where files are not packed."""
    total = sum(os.path.getsize(path) for path in paths if os.path.isfile(path)) or None
    with progress(phase) as report:
        try:
            yield lambda done: report(phase, done, max(total, done) if total is not None else None)
        except OSError as problem:
            if problem.filename is None:  # of a descriptor; say at least what was worked on
                problem.filename = ", ".join(paths)
            raise


@click.group(cls=Group)
def stream() -> None:
    """Look into, unpack and make ZFS send streams, without ZFS."""


@stream.command(
    epilog=examples(
        "imagestore stream inspect disk-0.zfs",
        "imagestore stream inspect disk-0.zfs.gz -o json",
        "zfs send tank/vol@a | imagestore stream inspect -",
    )
)
@click.argument("path", metavar="STREAM")
@output_option
def inspect(path: str, output: Format) -> None:
    """Say what STREAM is and holds, having compared every checksum in it. '-' is stdin.

    Exits 0 if it is whole and right; what is damaged or refused is named, with exit status 11.
    On a terminal a picture shows where in the volume there is data (dark), holes (-) or nothing.
    """
    from imagestore.streams import inspection

    with _counting("reading", (path,)) as count:
        report = inspection.inspect(path, progress=count)
    if output == "json":
        print_json(report)
    elif output == "jsonl":
        print_line(report)
    else:
        _show(path, report)


def _show(path: str, report: "StreamReport") -> None:
    package = report.package
    form = f"package of {len(report.snapshots)} snapshots" if package is not None else "stream"
    click.echo(f"{path}: {form}, {show_bytes(report.stream_bytes)}, {report.records} records")
    if package is not None:
        click.echo(f"  package     {printable(package.name)}  {' '.join(package.features)}".rstrip())
    for snapshot in report.snapshots:
        _show_snapshot(snapshot)
    click.echo(f"whole and right: {', '.join(report.checks)}")


def _show_snapshot(snapshot: "SnapshotReport") -> None:
    base = f" from guid {int(snapshot.from_guid):x}" if snapshot.from_guid else ""
    size = (
        f"volume of {show_bytes(snapshot.volsize_bytes)} in blocks of {show_bytes(snapshot.block_bytes)}"
        if snapshot.volsize_bytes
        else "size as in the base"
    )
    click.echo(f"{printable(snapshot.name)}  {snapshot.kind}{base}")
    click.echo(f"  guid        {int(snapshot.guid):x}, {size}")
    click.echo(
        f"  data        {show_bytes(snapshot.data_bytes)} ({_counts(snapshot.compression)}), "
        f"{show_bytes(snapshot.stored_bytes)} in the stream"
    )
    click.echo(f"  holes       {show_bytes(snapshot.hole_bytes)}")
    click.echo(f"  features    {' '.join(snapshot.features) or 'none'}")
    click.echo(f"  records     {_counts(snapshot.records)}")
    if sys.stdout.isatty():
        from imagestore.streams.volume_map import draw

        width = min(shutil.get_terminal_size().columns - 4, MAP_COLUMNS)
        for line in draw(snapshot.map, max(width, 16)).splitlines():
            click.echo(f"  {line}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no blocks"


@stream.command(
    epilog=examples(
        "imagestore stream extract disk-0.zfs disk-0.raw",
        "imagestore stream extract full.zfs monday.zfs tuesday.zfs disk-0.raw",
        "imagestore stream extract disk-0.zfs disk-0.qcow2 --format qcow2",
    )
)
@click.argument("paths", metavar="STREAM [INCREMENTAL]...", nargs=-1)
@click.argument("target", metavar="OUTPUT")
@click.option(
    "--format",
    "form",
    type=click.Choice(["raw", "qcow2"]),
    default="raw",
    show_default=True,
    help="What OUTPUT will be.",
)
@force_option
def extract(paths: tuple[str, ...], target: str, form: Literal["raw", "qcow2"], force: bool) -> None:
    """Unpack a full stream, and incremental ones after it, into the disk OUTPUT. '-' is stdin.

    OUTPUT appears when everything was there and every checksum right. Holes stay holes.
    """
    from imagestore.streams import extract as extracting

    if not paths:
        raise click.UsageError(f"give the STREAM and the OUTPUT; {target!r} is only one of them")
    with _counting("unpacking", paths) as count:
        snapshots = extracting.extract(paths, target, output_format=form, overwrite=force, progress=count)
    last = snapshots[-1]
    click.echo(f"{target}: {show_bytes(last.volsize)}, the content of {printable(last.name)}")


class GuidType(click.ParamType[int]):
    """A guid, hexadecimal as ``inspect`` shows it."""

    name = "guid"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(str(value), 16)
        except ValueError:
            self.fail(f"{value!r} is no guid; it is hexadecimal, as inspect shows it", param, ctx)


GUID = GuidType()


@stream.command(
    epilog=examples(
        "imagestore stream make disk.raw disk.zfs --name tank/disk@monday",
        "imagestore stream make disk.raw disk.zfs --compress lz4",
        "imagestore stream make tuesday.raw tuesday.zfs --from monday.raw --name tank/disk@tuesday",
    )
)
@click.argument("raw", metavar="RAW")
@click.argument("target", metavar="OUTPUT")
@click.option("--from", "base", metavar="BASE_RAW", help="Only what differs from this one: an incremental.")
@click.option(
    "--name",
    default="pool/volume@snapshot",
    show_default=True,
    metavar="POOL/VOLUME@SNAP",
    help="What the stream says that it is of.",
)
@click.option("--compress", type=click.Choice(["lz4"]), help="Pack the blocks.")
@click.option("--guid", type=GUID, metavar="HEX", help="The snapshot's guid. Default: by its content.")
@click.option("--from-guid", type=GUID, metavar="HEX", help="The base's guid. Default: by its content.")
@force_option
def make(
    raw: str,
    target: str,
    base: str | None,
    name: str,
    compress: Literal["lz4"] | None,
    guid: int | None,
    from_guid: int | None,
    force: bool,
) -> None:
    """Make a send stream of the raw disk RAW, which `zfs receive` takes.

    A snapshot's guid is made of the disk's content: a stream made `--from BASE_RAW` fits the one
    that was made of BASE_RAW.
    """
    from imagestore.streams import make as making

    if from_guid is not None and base is None:
        raise InvalidArgument("--from-guid is the guid of a base", detail="name the base with --from")
    with _counting("writing", (raw,)) as count:
        made = making.make(
            raw,
            target,
            from_raw=base,
            name=name,
            compress=compress,
            guid=guid,
            from_guid=from_guid,
            overwrite=force,
            progress=count,
        )
    click.echo(f"{target}: {show_bytes(os.path.getsize(target))}, {made.name}, guid {made.guid:x}")
