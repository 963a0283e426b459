"""``imagestore op``: list, show, wait for and cancel operations, over RPC."""

import datetime as dt

import click
from msgspec import UNSET

from imagestore.cli.audit import TIME
from imagestore.cli.connection import connected, examples
from imagestore.cli.group import Group
from imagestore.cli.output import Column, Format, output_option, show_one, show_rows
from imagestore.cli.progress import progress, shows_progress
from imagestore.errors import AnswerTimeout
from imagestore.events.selection import short
from imagestore.model import Operation, OperationRequest
from imagestore.operationclient import OperationClient
from imagestore.sizes import show_bytes
from imagestore.times import show_time
from imagestore.wiretexts import error_of

STATUSES = ("queued", "running", "succeeded", "failed", "cancelled", "refused")

POLL_SECONDS = 1
"""How often a progress bar asks."""


def local_time(text: str | None) -> str:
    """A time as the store tells it, in the time of this machine, to the millisecond; ``-`` for none."""
    if text is None:
        return "-"
    return dt.datetime.fromisoformat(text).astimezone().isoformat(" ", "milliseconds")[:23]


def progress_text(operation: Operation) -> str:
    """How it is: the phase and how far of what runs, why of what did not succeed."""
    if operation.error is not UNSET:
        return f"{operation.status}: {operation.error}"
    parts = [operation.status, operation.phase]
    if operation.progress is not UNSET:
        done, total = operation.progress.done_bytes, operation.progress.total_bytes
        parts.append(f"{100 * done // total}%" if total else show_bytes(done))
        if operation.rate is not UNSET:
            parts.append(f"{show_bytes(operation.rate)}/s")
    return " ".join(part for part in parts if part)


def _seconds(operation: Operation) -> str:
    if operation.started is None or operation.finished is None:
        return "-"
    began, ended = map(dt.datetime.fromisoformat, (operation.started, operation.finished))
    return f"{(ended - began).total_seconds():.3f} s"


OPERATION_COLUMNS = (
    Column[Operation]("id", lambda operation: operation.id),
    Column[Operation]("time", lambda operation: local_time(operation.started or operation.queued)),
    Column[Operation]("took", _seconds, right=True),
    Column[Operation]("who", lambda operation: operation.who or "-"),
    Column[Operation]("method", lambda operation: operation.method),
    Column[Operation]("subject", lambda operation: operation.subject or "-"),
    Column[Operation]("status", progress_text),
)

FIELD_COLUMNS = (
    Column[tuple[str, str]]("field", lambda field: field[0]),
    Column[tuple[str, str]]("value", lambda field: field[1]),
)


@click.group(cls=Group)
def op() -> None:
    """List, show, wait for and cancel operations: what was asked for, how far it is, what came of it."""


@op.command(
    "ls",
    epilog=examples(
        "imagestore op ls",
        "imagestore op ls --status running",
        "imagestore op ls --dataset guests/vm1 --since 7d -o jsonl",
    ),
)
@click.option("--who", default="", metavar="NAME", help="Only what NAME asked for.")
@click.option(
    "--dataset", default="", metavar="NAME", help="Only what touched this dataset, or one below it."
)
@click.option("--method", default="", metavar="METHOD", help="Only this RPC method, e.g. CreateSnapshot.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those of this status.")
@click.option("--since", type=TIME, metavar="TIME", help="90s, 2h, 7d (ago), or 2030-01-31T12:00.")
@click.option(
    "--last", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="The last so many."
)
@output_option
@connected
def list_operations(
    client: OperationClient,
    who: str,
    dataset: str,
    method: str,
    status: str | None,
    since: int | None,
    last: int,
    output: Format,
) -> None:
    """List operations, the newest first, of all lives of the store."""
    begin = show_time(since or 0) or ""
    found: list[Operation] = []
    before = 0
    while len(found) < last:
        request = OperationRequest(
            who=who,
            dataset=dataset,
            of=method,
            status=status or "",
            since=begin,
            before=before,
            limit=min(1000, last - len(found)),
        )
        page = client.list_operations(request)
        found += page.operations
        before = page.next
        if not before:
            break
    show_rows(found, OPERATION_COLUMNS, output)


@op.command(epilog=examples("imagestore op show 01a2…", "imagestore op show 01a2… -o json"))
@click.argument("operation", metavar="ID")
@output_option
@connected
def show(client: OperationClient, operation: str, output: Format) -> None:
    """Show one operation and what it caused."""
    _show(client.get_operation(operation), output)


@op.command(
    epilog=examples(
        "imagestore op wait $(imagestore image pull golden --no-wait)",
        "imagestore op wait 01a2… --for 60",
    )
)
@click.argument("operation", metavar="ID")
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait so long at most."
)
@output_option
@connected
def wait(client: OperationClient, operation: str, seconds: float | None, output: Format) -> None:
    """Wait until an operation has ended, over restarts of the store, and exit as it did.

    Exits 0 if it succeeded, with its error's code if it did not, and 42 if it still runs.
    """
    ended = _watched(client, operation) if seconds is None and shows_progress() else None
    ended = ended or client.wait_operation(operation, seconds=seconds)
    if ended.finished is None:
        raise AnswerTimeout(
            f"operation {short(operation)} is still {ended.status}",
            detail=f"imagestore op cancel {operation} stops it, if it can be stopped",
        )
    _show(ended, output)
    if ended.status != "succeeded":
        raise error_of(ended.error if ended.error is not UNSET else f"operation was {ended.status}")


def _watched(client: OperationClient, operation: str) -> Operation | None:
    """Wait and show how far it is."""
    with progress(short(operation)) as report:
        while True:
            found = client.wait_operation(operation, seconds=POLL_SECONDS)
            if found.finished is not None:
                return found
            if found.progress is not UNSET:
                report(found.phase, found.progress.done_bytes, found.progress.total_bytes)


@op.command(epilog=examples("imagestore op cancel 01a2…"))
@click.argument("operation", metavar="ID")
@output_option
@connected
def cancel(client: OperationClient, operation: str, output: Format) -> None:
    """Cancel an operation that is queued, or a fetch that is on its way."""
    _show(client.cancel_operation(operation), output)


def _show(operation: Operation, output: Format) -> None:
    if output != "table":
        show_one(operation, OPERATION_COLUMNS, output)
        return
    fields = [(column.title, column.text(operation)) for column in OPERATION_COLUMNS]
    fields += [
        ("queued", local_time(operation.queued)),
        ("finished", local_time(operation.finished)),
        (
            "seq",
            f"{operation.seq} to {operation.lastSeq}" if operation.lastSeq else str(operation.seq or "-"),
        ),
    ]
    if operation.attempts:
        fields.append(("taken up", f"{operation.attempts} times after a restart"))
    if operation.cause is not UNSET:
        fields.append(("because of", operation.cause))
    fields += [("left behind", name) for name in operation.leftBehind or ()]
    effects = operation.effects or ()
    fields += [("caused", f"{effect.seq}: {effect.event} {effect.subject}") for effect in effects]
    total = operation.effectsTotal or 0
    if total > len(effects):
        fields.append(
            ("caused", f"and {total - len(effects)} more: imagestore log --operation {operation.id}")
        )
    show_rows(fields, FIELD_COLUMNS, output)
