"""``imagestore log`` and ``imagestore state``: what is in the journal.

``log`` asks the store, or reads the files that ``--journal`` names; ``state``
reads files.  That works beside a running store and without one, takes no lock
and changes nothing.  A filter
on what an event is about also shows the rest of its operation: who, resumed
when, ended how.
"""

import datetime as dt
import re
import time
from collections.abc import Iterable

import click
from msgspec import Struct

from imagestore.cli.connection import connected, examples
from imagestore.cli.journal import files_option, journal_option
from imagestore.cli.output import Column, Format, output_option, print_json, print_line, show_rows
from imagestore.errors import InvalidArgument
from imagestore.events.catalogue import Envelope
from imagestore.events.eventtext import describe, describe_intent
from imagestore.events.selection import Filter, short
from imagestore.events.state import DatasetRecord, ImageRecord, OperationRecord, State
from imagestore.operationclient import OperationClient
from imagestore.sizes import show_bytes

_AGO = re.compile(r"([0-9]{1,9})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def show_time(time_ns: int) -> str:
    """Local time, to the millisecond, of nanoseconds since 1970."""
    return dt.datetime.fromtimestamp(time_ns / 1e9).astimezone().isoformat(" ", "milliseconds")[:23]


LOG_COLUMNS = (
    Column[Envelope]("seq", lambda envelope: str(envelope.seq), right=True),
    Column[Envelope]("time", lambda envelope: show_time(envelope.time_ns)),
    Column[Envelope]("who", lambda envelope: envelope.principal or "-"),
    Column[Envelope]("operation", lambda envelope: short(envelope.operation) or "-"),
    Column[Envelope]("event", lambda envelope: str(type(envelope.event).__struct_config__.tag)),
    Column[Envelope]("what", lambda envelope: describe(envelope.event)),
)


class TimeType(click.ParamType[int]):
    """``2h`` (ago) or ISO 8601 in local time, as nanoseconds since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        ago = _AGO.match(text)
        if ago is not None:
            return time.time_ns() - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000_000
        try:
            return int(dt.datetime.fromisoformat(text).astimezone().timestamp() * 1e9)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no time; write 90s, 2h, 7d (ago) or 2030-01-31T12:00", param, ctx)


TIME = TimeType()


class Moment(Struct, frozen=True, kw_only=True):
    """A place in history: after event ``seq``, or at ``time_ns`` (nanoseconds since 1970) if that is None."""

    seq: int | None
    time_ns: int = 0

    def resolve(self, journal: str) -> int:
        """The seq meant. Raises InvalidArgument: the journal does not reach so far."""
        from imagestore.events import reader

        if self.seq is None:
            return reader.seq_at(journal, self.time_ns)
        end, _ = reader.head(journal)
        if self.seq > end:
            raise InvalidArgument(f"the journal ends at seq {end}, before {self.seq}")
        return self.seq


class MomentType(click.ParamType[Moment]):
    """A seq, or a time as :class:`TimeType` takes it."""

    name = "seq|time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Moment:
        text = str(value)
        if text.isascii() and text.isdigit() and len(text) <= 18:
            return Moment(seq=int(text))
        return Moment(seq=None, time_ns=TIME.convert(text, param, ctx))


MOMENT = MomentType()


@click.command(
    epilog=examples(
        "imagestore log --last 20",
        "imagestore log --guest vm1 --since 2h",
        "imagestore log --dataset scratch/data -o jsonl",
        "imagestore log -f                            # over restarts of the store",
        "imagestore log --journal journal             # out of the files, also without a store",
    )
)
@files_option
@click.option("-f", "--follow", is_flag=True, help="Print what happens as it happens, until interrupted.")
@click.option("--who", metavar="NAME", help="Only what NAME asked for.")
@click.option("--dataset", metavar="NAME", help="Only what concerns this dataset and all below it.")
@click.option("--guest", metavar="ID", help="Only what concerns this guest's disks.")
@click.option("--image", metavar="ID", help="Only what concerns this image.")
@click.option("--operation", metavar="ID", help="Only this operation (the short form will do).")
@click.option("--since", type=TIME, metavar="TIME", help="90s, 2h, 7d (ago), or 2030-01-31T12:00.")
@click.option("--until", type=TIME, metavar="TIME", help="As --since.")
@click.option("--from-seq", type=click.IntRange(min=1), default=1, metavar="SEQ", help="From this event on.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N of them.")
@output_option
@connected
def log(
    client: OperationClient,
    journal: str | None,
    follow: bool,
    who: str | None,
    dataset: str | None,
    guest: str | None,
    image: str | None,
    operation: str | None,
    since: int | None,
    until: int | None,
    from_seq: int,
    last: int | None,
    output: Format,
) -> None:
    """Who did what and when, from the journal: as the store tells it, or from the files of --journal.

    A filter on dataset, guest or image shows the whole of every operation that touched it. The
    order is that of the events; times are only informative.
    """
    from imagestore.cli import following
    from imagestore.events.search import search

    wanted = Filter(
        who=who,
        dataset=dataset,
        guest=guest,
        image=image,
        operation=operation,
        since_ns=since,
        until_ns=until,
        from_seq=from_seq,
    )
    if follow:
        if last is not None:
            raise InvalidArgument("--last goes without --follow", detail="--from-seq or --since goes with it")
        from_past = from_seq > 1 or since is not None
        if journal is None:
            events = following.from_store(client, wanted, from_past=from_past)
        else:
            events = following.from_files(journal, wanted, from_past=from_past)
        following.show(events, LOG_COLUMNS, output)
        return
    found: Iterable[Envelope]
    if journal is None:
        found = following.up_to_now(client, wanted, last=last)
    else:
        found = search(journal, wanted, last=last)
    if output == "jsonl":
        for envelope in found:
            print_line(envelope)
    else:
        show_rows(list(found), LOG_COLUMNS, output)


DATASET_COLUMNS = (
    Column[DatasetRecord]("dataset", lambda record: record.name),
    Column[DatasetRecord]("role", lambda record: record.role),
    Column[DatasetRecord](
        "size", lambda record: show_bytes(record.size_bytes) if record.size_bytes else "-", right=True
    ),
    Column[DatasetRecord]("origin", lambda record: record.origin.name if record.origin is not None else "-"),
    Column[DatasetRecord]("guid", lambda record: f"{record.guid:x}"),
)

IMAGE_COLUMNS = (
    Column[ImageRecord]("image", lambda record: record.id),
    Column[ImageRecord](
        "status", lambda record: f"{record.status}: {record.reason}" if record.reason else record.status
    ),
    Column[ImageRecord](
        "size", lambda record: show_bytes(record.size_bytes) if record.size_bytes else "-", right=True
    ),
    Column[ImageRecord]("snapshot", lambda record: record.snapshot.name if record.snapshot else "-"),
)

OPERATION_COLUMNS = (
    Column[OperationRecord]("operation", lambda record: short(record.id)),
    Column[OperationRecord]("since", lambda record: show_time(record.started_ns)),
    Column[OperationRecord]("who", lambda record: record.principal or "-"),
    Column[OperationRecord]("method", lambda record: record.method),
    Column[OperationRecord]("what", lambda record: describe_intent(record.intent)),
)


@click.command(
    epilog=examples(
        "imagestore state --journal journal",
        "imagestore state --journal journal --at 1000 -o json",
        "imagestore state --journal journal --at 2h",
    )
)
@journal_option
@click.option("--at", type=MOMENT, metavar="SEQ|TIME", help="As it was after this event, or at this time.")
@output_option
def state(journal: str, at: Moment | None, output: Format) -> None:
    """What is ours, now or at an earlier time, from the journal."""
    from imagestore.events import reader

    folded = reader.replay(journal, up_to=None if at is None else at.resolve(journal))
    if output == "json":
        print_json(folded)
    elif output == "jsonl":
        print_line(folded)
    else:
        _show_state(folded)


def _show_state(folded: State) -> None:
    pool = f"{folded.driver}:{folded.pool}" if folded.pool else "none yet"
    click.echo(f"seq {folded.seq}, life {folded.epoch}, pool {pool}")
    if folded.datasets:
        click.echo()
        show_rows(sorted(folded.datasets.values(), key=lambda record: record.name), DATASET_COLUMNS, "table")
    if folded.images:
        click.echo()
        show_rows(list(folded.images.values()), IMAGE_COLUMNS, "table")
    if folded.operations:
        click.echo()
        show_rows(list(folded.operations.values()), OPERATION_COLUMNS, "table")
