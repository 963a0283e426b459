"""``imagestore log``: events from a running store, and with ``-f`` as they come, also from a journal's files.

From a store they come over HTTP, and go on after it was restarted; beside one,
or without one, the files are looked at twice a second.
"""

import sys
import time
from collections.abc import Iterator

import click
import msgspec
from msgspec.structs import replace

from imagestore.cli.output import Column, Format, print_line, printable
from imagestore.events.catalogue import Envelope
from imagestore.events.follow import Follower
from imagestore.events.reader import head
from imagestore.events.selection import Filter, Selector
from imagestore.operationclient import OperationClient
from imagestore.times import show_time

PAUSE_SECONDS = 0.5

WIDTHS = (7, 23, 15, 9, 20, 0)
"""Of the columns: what comes later is not known when the first line is printed."""

_decode = msgspec.json.Decoder(Envelope).decode


def from_store(client: OperationClient, wanted: Filter, *, from_past: bool) -> Iterator[Envelope]:
    """The events that are wanted, for ever; from ``wanted.from_seq`` on, or those to come."""
    return _told(client, wanted, after=wanted.from_seq - 1 if from_past else None)


def up_to_now(client: OperationClient, wanted: Filter, *, last: int | None) -> Iterator[Envelope]:
    """The events that are wanted and there, or the ``last`` of them, as the store tells them."""
    now = client.get_status().journal.seq
    return _told(client, wanted, after=wanted.from_seq - 1, until=now, last=last)


def _told(
    client: OperationClient,
    wanted: Filter,
    *,
    after: int | None,
    until: int | None = None,
    last: int | None = None,
) -> Iterator[Envelope]:
    filters = {
        "who": wanted.who,
        "dataset": wanted.dataset,
        "guest": wanted.guest,
        "image": wanted.image,
        "operation": wanted.operation,
        "since": show_time(wanted.since_ns or 0),
        "latest": show_time(wanted.until_ns or 0),
    }
    given = {name: text for name, text in filters.items() if text}
    for event in client.events(given, after=after, until=until, last=last):
        yield _decode(event.data)


def from_files(journal: str, wanted: Filter, *, from_past: bool) -> Iterator[Envelope]:
    """The same out of the files of ``journal``."""
    begin = wanted.from_seq if from_past else head(journal)[0] + 1
    selector = Selector(replace(wanted, from_seq=begin))
    follower = Follower(journal, 1 if wanted.has_subject else begin)
    while True:
        found = follower.more()
        yield from filter(selector.takes, found)
        if not found:
            time.sleep(PAUSE_SECONDS)


def show(envelopes: Iterator[Envelope], columns: tuple[Column[Envelope], ...], output: Format) -> None:
    """Print each as it comes, until interrupted."""
    if output == "table":
        click.echo(_line([column.title.upper() for column in columns], columns))
    sys.stdout.flush()
    for envelope in envelopes:
        if output == "table":
            click.echo(_line([printable(column.text(envelope)) for column in columns], columns))
        else:
            print_line(envelope)
        sys.stdout.flush()


def _line(texts: list[str], columns: tuple[Column[Envelope], ...]) -> str:
    placed = [
        text.rjust(width) if column.right else text.ljust(width)
        for text, column, width in zip(texts, columns, WIDTHS, strict=True)
    ]
    return "  ".join(placed).rstrip()
