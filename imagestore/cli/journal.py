"""``imagestore journal``: check it, print its head, copy it, save what is whole of a damaged one.

Offline: no store is asked, none is disturbed.
"""

import os
import pwd
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from imagestore.cli.connection import examples
from imagestore.cli.group import Group
from imagestore.cli.output import Column, Format, output_option, print_json, print_line, show_one
from imagestore.config import checkout, load
from imagestore.errors import Corrupt, JournalTooNew

if TYPE_CHECKING:
    from imagestore.events.backup import Copied
    from imagestore.events.reader import Head, Report

_Function = TypeVar("_Function", bound=Callable[..., Any])

EXITS = {"whole": 0, "damaged": 1, "newer": JournalTooNew.exit_code}
"""Exit status of ``verify``."""

_VERDICTS = {"whole": "whole", "damaged": "DAMAGED", "newer": "of a newer imagestore, no damage found"}


def journal_option(function: _Function) -> _Function:
    """Give a command ``--journal DIR``, by default where ``serve`` would keep it."""
    return click.option(
        "--journal",
        metavar="DIR",
        callback=lambda _context, _parameter, value: _place(value),
        help="Directory of the journal. Default: where `imagestore serve` keeps it.",
    )(function)


def files_option(function: _Function) -> _Function:
    """Give a command that asks the store ``--journal DIR``: read that, and ask nobody."""
    return click.option(
        "--journal",
        metavar="DIR",
        callback=lambda _context, _parameter, value: None if value is None else _place(value),
        help="Read the files of this journal instead of asking the store.",
    )(function)


def _place(given: str | None) -> str:
    return load({"journal": given}, environment=os.environ, base=checkout()).journal


@click.group(cls=Group)
def journal() -> None:
    """Check the journal, print its head, back it up, restore, salvage and export it."""


@journal.command(
    epilog=examples(
        "imagestore journal verify --journal journal",
        "imagestore journal verify --journal journal -o json",
        "imagestore journal verify --journal journal --head 4711:6f1d0c…",
    )
)
@journal_option
@click.option("--head", "expected", metavar="SEQ:HASH", help="A head written down elsewhere must be in it.")
@output_option
@click.pass_context
def verify(context: click.Context, journal: str, expected: str | None, output: Format) -> None:
    """Check every segment, frame, link, event and checkpoint; also beside a running store.

    Exits 0 if all is whole, 1 if anything is damaged, 23 if nothing is, but a newer imagestore wrote it,
    whose events this one does not know. An unfinished group at the end is no damage.
    A head that `journal head` printed earlier shows whether history was rewritten since.
    """
    from imagestore.events import reader

    report = reader.verify(journal, expected=None if expected is None else _parse_head(expected))
    if output == "json":
        print_json(report)
    elif output == "jsonl":
        print_line(report)
    else:
        _show_report(report)
    context.exit(EXITS[report.verdict])


def _parse_head(text: str) -> "Head":
    from imagestore.events.reader import Head

    found = re.fullmatch(r"([0-9]{1,18}):([0-9a-fA-F]+)", text)
    if found is None:
        raise click.BadParameter(
            f"{text!r} is no head; write SEQ:HASH as `imagestore journal head` prints them",
            param_hint="--head",
        )
    return Head(seq=int(found[1]), hash=found[2].lower())


def _show_report(report: "Report") -> None:
    if report.verdict == "newer" and not report.segments:
        checked = "of a newer format, nothing of it was checked"
    else:
        checked = (
            f"{_VERDICTS[report.verdict]}; {report.segments} segments, {report.frames} frames, "
            f"{report.checkpoints} checkpoints, up to seq {report.seq}"
        )
    click.echo(f"journal {report.directory}: {checked}")
    for finding in report.findings:
        click.echo(f"{finding.kind}: {finding.text}")
        if finding.advice:
            click.echo(f"  {finding.advice}")


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
        Column[reader.Head]("seq", lambda row: str(row.seq), right=True),
        Column[reader.Head]("hash", lambda row: row.hash or "-"),
    )
    show_one(reader.Head(seq=seq, hash=digest), columns, output)


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


@journal.command(
    epilog=examples("imagestore journal backup --journal journal --to /mnt/backup/imagestore-journal")
)
@journal_option
@click.option(
    "--to", required=True, metavar="DIR", help="A new directory, or an earlier backup of this journal."
)
def backup(journal: str, to: str) -> None:
    """Copy the journal, verified, also of a running store; of an earlier backup only what it lacks."""
    from imagestore.events import backup as copying

    _show_copy(to, copying.backup(journal, to))


@journal.command(
    epilog=examples("imagestore journal restore /mnt/backup/imagestore-journal --journal journal")
)
@click.argument("backup")
@journal_option
def restore(backup: str, journal: str) -> None:
    """Make a journal out of a backup, in a directory that is missing or empty.

    A store whose pool has seen later openings than the backup refuses to start on it and says how
    to go on.
    """
    from imagestore.events import backup as copying

    _show_copy(journal, copying.restore(backup, journal))


def _show_copy(place: str, copied: "Copied") -> None:
    click.echo(
        f"{place}: journal {copied.journal}, {copied.segments} segments ({copied.written} written), "
        f"head {copied.seq}:{copied.hash}"
    )


@journal.command(
    epilog=examples(
        "imagestore journal export --journal journal > journal.jsonl",
        "imagestore journal export --journal journal --from-seq 1000 | gzip > journal.jsonl.gz",
    )
)
@journal_option
@click.option("--from-seq", type=click.IntRange(min=1), default=1, metavar="SEQ", help="From this event on.")
def export(journal: str, from_seq: int) -> None:
    """Write all events to standard output, one JSON object a line, in the order of seq."""
    from imagestore.events import reader

    for envelope in reader.read(journal, from_seq):
        print_line(envelope)


@journal.command(
    epilog=examples("imagestore journal archive --journal journal --to /mnt/cold/imagestore-journal")
)
@journal_option
@click.option("--to", required=True, metavar="DIR", help="A new directory, or that of an earlier archive.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Segments that stay.",
)
def archive(journal: str, to: str, keep: int) -> None:
    """Move old segments to cold storage, verified; the store must be stopped for that.

    A store goes on from its checkpoint. The old events are readable again, and the state can be
    replayed from nothing, when the segments are copied back into the journal's directory.
    """
    import trio

    from imagestore.events import archive as archiving

    who = pwd.getpwuid(os.getuid()).pw_name
    moved = trio.run(partial(archiving.archive, journal, to, principal=who, keep=keep))
    if moved.last:
        click.echo(f"{to}: segments {moved.first} to {moved.last}, events up to seq {moved.last_seq}")
    else:
        click.echo(f"there is nothing to move: the last {keep} segments stay")
