"""``imagestore journal``: check it, print its head, save what is whole of a damaged one.

Offline: no store is asked, none is disturbed.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct

from imagestore.cli.connection import examples
from imagestore.cli.output import Column, Format, output_option, print_json, print_line, show_one
from imagestore.config import checkout, load
from imagestore.errors import Corrupt

if TYPE_CHECKING:
    from imagestore.events.reader import Report

_Function = TypeVar("_Function", bound=Callable[..., Any])

DAMAGED = 1
"""Exit status of ``verify`` when something is damaged."""


def journal_option(function: _Function) -> _Function:
    """Give a command ``--journal DIR``, by default where ``serve`` would keep it."""
    return click.option(
        "--journal",
        metavar="DIR",
        callback=lambda _context, _parameter, value: _place(value),
        help="Directory of the journal. Default: where `imagestore serve` keeps it.",
    )(function)


def _place(given: str | None) -> str:
    return load({"journal": given}, environment=os.environ, base=checkout()).journal


@click.group()
def journal() -> None:
    """Check the journal, print its head, save what is whole of a damaged one."""


@journal.command(
    epilog=examples(
        "imagestore journal verify --journal journal",
        "imagestore journal verify --journal journal -o json",
    )
)
@journal_option
@output_option
@click.pass_context
def verify(context: click.Context, journal: str, output: Format) -> None:
    """Check every segment, frame, link, event and checkpoint; also beside a running store.

    Exits 0 if all is whole, 1 if anything is damaged. An unfinished group at the end is no damage.
    """
    from imagestore.events import reader

    report = reader.verify(journal)
    if output == "json":
        print_json(report)
    elif output == "jsonl":
        print_line(report)
    else:
        _show_report(report)
    context.exit(0 if report.whole else DAMAGED)


def _show_report(report: "Report") -> None:
    verdict = "whole" if report.whole else "DAMAGED"
    click.echo(
        f"journal {report.directory}: {verdict}; {report.segments} segments, {report.frames} frames, "
        f"{report.checkpoints} checkpoints, up to seq {report.seq}"
    )
    for finding in report.findings:
        click.echo(f"{finding.kind}: {finding.text}")
        if finding.advice:
            click.echo(f"  {finding.advice}")


class Head(Struct, frozen=True, kw_only=True):
    """The last event's seq and the last frame's hash: whoever keeps them can tell a rewritten journal."""

    seq: int
    hash: str


@journal.command(
    epilog=examples(
        "imagestore journal head --journal journal", "imagestore journal head --journal journal -o json"
    )
)
@journal_option
@output_option
def head(journal: str, output: Format) -> None:
    """Print the last seq and the chain's hash. Kept elsewhere, they show whether history was rewritten."""
    from imagestore.events import reader

    seq, digest = reader.head(journal)
    columns = (
        Column[Head]("seq", lambda row: str(row.seq), right=True),
        Column[Head]("hash", lambda row: row.hash or "-"),
    )
    show_one(Head(seq=seq, hash=digest), columns, output)


@journal.command(epilog=examples("imagestore journal salvage --journal journal --to journal.saved"))
@journal_option
@click.option("--to", required=True, metavar="NEW", help="A new directory for the copy.")
def salvage(journal: str, to: str) -> None:
    """Copy what is whole before the first damage into a new journal; the damaged one stays as it is."""
    from imagestore.events import salvage as salvaging

    saved = salvaging.salvage(journal, to)
    click.echo(f"{to}: {saved.segments} segments, up to seq {saved.seq}")
    if saved.damage:
        raise Corrupt(
            saved.damage,
            detail=f"what came after seq {saved.seq} is not in {to}: a store on it does not know as its own "
            "what was made since; to have all of the pool listed, its history lost: "
            "imagestore recover --pool POOL --journal NEW-DIRECTORY",
        )
    click.echo("nothing was damaged; the copy is complete")
