"""``imagestore status``: the one screen on a terminal, the same as the store's page.

What is wrong, and what is next, was judged by the store; here it is only
printed.
"""

import datetime as dt
import sys
import time
from collections.abc import Sequence
from typing import TypeVar

import click
from msgspec import UNSET, Struct

from imagestore.cli.connection import connected, examples
from imagestore.cli.operations import OPERATION_COLUMNS, progress_text
from imagestore.cli.output import (
    Column,
    Format,
    output_option,
    print_json,
    print_line,
    printable,
    show_rows,
    styled,
)
from imagestore.condition import Condition
from imagestore.errors import ImageStoreError
from imagestore.model import Image, Operation
from imagestore.operationclient import OperationClient
from imagestore.screen import EventLine, GuestStatus, JournalStatus, PoolStatus, Status
from imagestore.sizes import show_bytes

_Row = TypeVar("_Row")

WATCH_SECONDS = 2.0

LAST_EVENTS = 10

_WORDS = {"ok": ("OK", "green"), "attention": ("ATTENTION", "yellow"), "read-only": ("READ-ONLY", "red")}


class Screen(Struct, frozen=True, kw_only=True):
    """Everything that is shown; guests are the first ones by id, of ``guests_total``."""

    status: Status
    guests: tuple[GuestStatus, ...]
    guests_total: int
    images: tuple[Image, ...]
    events: tuple[EventLine, ...]


def _ago(text: str | None, now: str) -> str:
    """How long before ``now``."""
    if text is None:
        return "never"
    seconds = (dt.datetime.fromisoformat(now) - dt.datetime.fromisoformat(text)).total_seconds()
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / unit:.0f} {name} ago"
    return f"{seconds / 86_400:.0f} days ago"


def _origins(guest: GuestStatus) -> str:
    found = dict.fromkeys(disk.image or disk.origin or "blank" for disk in guest.disks)
    return ", ".join(found) or "-"


def _guest_columns(now: str) -> tuple[Column[GuestStatus], ...]:
    return (
        Column("guest", lambda guest: guest.id),
        Column("in use", lambda guest: "in use" if guest.in_use else "no"),
        Column("size", lambda guest: show_bytes(guest.size_bytes), right=True),
        Column("written", lambda guest: show_bytes(guest.written_bytes), right=True),
        Column("from", _origins),
        Column("last snapshot", lambda guest: _ago(guest.last_snapshot, now)),
    )


IMAGE_COLUMNS = (
    Column[Image]("image", lambda image: image.id),
    Column[Image](
        "state", lambda image: f"{image.status}: {image.reason}" if image.reason else str(image.status)
    ),
    Column[Image](
        "size", lambda image: "-" if image.size_bytes is UNSET else show_bytes(image.size_bytes), right=True
    ),
    Column[Image]("digest", lambda image: "verified" if image.sha256 else "-"),
    Column[Image]("clones", lambda image: str(len(image.clones or ())), right=True),
)

RUNNING_COLUMNS = (
    Column[Operation]("operation", lambda operation: operation.method),
    Column[Operation]("subject", lambda operation: operation.subject or "-"),
    Column[Operation]("who", lambda operation: operation.who or "-"),
    Column[Operation]("phase", progress_text),
)

EVENT_COLUMNS = (
    Column[EventLine]("seq", lambda event: str(event.seq), right=True),
    Column[EventLine]("time", lambda event: _local(event.time)),
    Column[EventLine]("who", lambda event: event.who or "-"),
    Column[EventLine]("event", lambda event: event.event),
    Column[EventLine]("what", lambda event: event.what),
)


def _local(text: str) -> str:
    return dt.datetime.fromisoformat(text).astimezone().isoformat(" ", "seconds")[:19]


@click.command(
    epilog=examples(
        "imagestore status",
        "imagestore status --watch",
        "imagestore status -o json",
        "imagestore status --guests 1000 --server http://store1:19999",
    )
)
@click.option("-w", "--watch", is_flag=True, help="Show it again and again, until interrupted.")
@click.option(
    "--guests",
    "most_guests",
    type=click.IntRange(min=0, max=1000),
    default=20,
    show_default=True,
    metavar="N",
    help="Show so many guests.",
)
@output_option
@connected
def status(client: OperationClient, watch: bool, most_guests: int, output: Format) -> None:
    """How the store is: OK, ATTENTION or READ-ONLY, why, and the command that is next.

    Then the pool, operations under way and those that failed within a day, guests, images, drift
    and the journal: what the page at the store's address shows.
    """
    while True:
        try:
            _show(_look(client, most_guests), output, clear=watch)
        except ImageStoreError as error:
            if not watch:
                raise
            _clear()
            click.echo(styled("NOT CONNECTED", bold=True, fg="red"))
            click.echo(f"  {printable(str(error))}; trying again")
        if not watch:
            return
        time.sleep(WATCH_SECONDS)


def _look(client: OperationClient, most_guests: int) -> Screen:
    told = client.get_status()
    page = client.describe_guests(limit=max(1, most_guests))
    return Screen(
        status=told,
        guests=page.guests[:most_guests],
        guests_total=page.total,
        images=client.describe_images(),
        events=client.search_events(limit=LAST_EVENTS),
    )


def _clear() -> None:
    if sys.stdout.isatty():
        click.clear()


def _show(screen: Screen, output: Format, *, clear: bool) -> None:
    if output == "json":
        print_json(screen)
        return
    if output == "jsonl":
        print_line(screen)
        return
    if clear:
        _clear()
    told = screen.status
    _condition(told.condition)
    click.echo(f"\nPool {told.pool.name}: {pool_line(told.pool)}")
    click.echo(f"Journal: {journal_line(told.journal)}")
    drift = told.drift
    click.echo(f"Datasets: {drift.lost} lost, {drift.renamed} renamed by others, {drift.foreign} foreign")
    _part("Under way", told.running, told.running_total, RUNNING_COLUMNS)
    _part("Failed within a day", told.failures, told.failures_total, OPERATION_COLUMNS)
    _part("Guests", screen.guests, screen.guests_total, _guest_columns(told.now))
    _part("Images", screen.images, len(screen.images), IMAGE_COLUMNS)
    _part("Last events", screen.events, len(screen.events), EVENT_COLUMNS)


def _condition(condition: Condition) -> None:
    word, colour = _WORDS[condition.level]
    click.echo(styled(word, bold=True, fg=colour))
    if not condition.findings:
        click.echo("  everything is as it should be")
    for finding in condition.findings:
        click.echo(f"  {printable(finding.reason)}")
        if finding.next:
            click.echo(f"    next: {printable(finding.next)}")


def _part(title: str, rows: Sequence[_Row], total: int, columns: Sequence[Column[_Row]]) -> None:
    more = f" (the first {len(rows)})" if len(rows) < total else ""
    click.echo(f"\n{title}: {total or 'none'}{more}")
    if rows:
        show_rows(rows, columns, "table")


def pool_line(pool: PoolStatus) -> str:
    """The pool in one line."""
    if not pool.size_bytes:
        return f"{printable(pool.health)}, {pool.driver}; it has not told its space"
    used = pool.used_bytes / pool.size_bytes
    return (
        f"{printable(pool.health)}, {pool.driver}; "
        f"{show_bytes(pool.used_bytes)} of {show_bytes(pool.size_bytes)} used ({used:.0%}), "
        f"{show_bytes(pool.available_bytes)} left, {show_bytes(pool.promised_bytes)} promised, "
        f"{show_bytes(pool.free_bytes)} free for new disks"
    )


def journal_line(journal: JournalStatus) -> str:
    """The journal in one line."""
    p99 = journal.flush_p99_seconds
    flush = "none yet" if p99 is None else f"p99 at most {p99 * 1000:g} ms"
    return f"seq {journal.seq}, life {journal.epoch}, flush {flush}, head {journal.head[:16]}…"
