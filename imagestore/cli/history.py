"""``imagestore explain`` and ``imagestore diff``: what became of things, from the journal.

``explain`` asks the store, or reads the files that ``--journal`` names, as
``diff`` does: beside a running store or without one, without a lock.
"""

import itertools
from collections.abc import Iterable, Sequence
from functools import partial

import click

from imagestore.cli.audit import MOMENT, Moment, show_time
from imagestore.cli.connection import connected, examples
from imagestore.cli.journal import files_option, journal_option
from imagestore.cli.operations import local_time
from imagestore.cli.output import (
    Column,
    Format,
    output_option,
    print_json,
    print_line,
    printable,
    show_rows,
)
from imagestore.errors import NotFound
from imagestore.events.catalogue import Envelope, PoolAttached
from imagestore.events.difference import Difference, contents, difference
from imagestore.events.selection import short
from imagestore.operationclient import OperationClient
from imagestore.screen import EventLine, ExplainResponse, LifeStory
from imagestore.sizes import show_bytes


@click.command(
    epilog=examples(
        "imagestore explain guests/vm1/disk-0",
        "imagestore explain images/deb12 -o json",
        "imagestore explain guests/vm1/disk-0 --journal journal      # also without a store",
    )
)
@click.argument("dataset")
@files_option
@output_option
@connected
def explain(client: OperationClient, dataset: str, journal: str | None, output: Format) -> None:
    """Where DATASET came from, and who made, changed, renamed and deleted it.

    Every dataset that ever had the name is told, by its identity; then what the last one was
    cloned from, back to the image that was fetched.
    """
    told = client.explain_dataset(dataset) if journal is None else _read(dataset, journal)
    if output == "json":
        print_json(told)
    elif output == "jsonl":
        print_line(told)
    else:
        _show(told)


def _read(dataset: str, journal: str) -> ExplainResponse:
    """What the files tell. Raises NotFound."""
    from imagestore.events import lineage, reader
    from imagestore.events.retelling import explanation

    read = partial(reader.read, journal)
    told = lineage.explain(_relative(dataset, read()), read)
    if not told.lives and not told.attempts:
        raise NotFound(
            f"the journal knows nothing of {dataset}", detail="`imagestore drift` lists foreign datasets"
        )
    return explanation(told)


def _show(told: ExplainResponse) -> None:
    for life in told.lives:
        _show_life(life)
    for life in told.origins:
        click.echo(f"{told.dataset} came from:")
        _show_life(life)
    if told.attempts:
        click.echo(f"attempts that left nothing at {told.dataset}:")
        show_rows(told.attempts, LINE_COLUMNS, "table")
    if told.truncated:
        click.echo("its past is longer than the store tells; --journal DIR reads all of it", err=True)


def _show_life(life: LifeStory) -> None:
    made_of = f", a clone of {life.origin}" if life.origin else ""
    end = f"gone since seq {life.ended}" if life.ended else "there"
    names = ", then ".join(life.names)
    click.echo(printable(f"{names}: {life.role}, guid {life.guid}, txg {life.txg}{made_of}; {end}"))
    show_rows(life.events, LINE_COLUMNS, "table")
    click.echo()


def _relative(dataset: str, events: Iterable[Envelope]) -> str:
    """``dataset`` without the pool's name in front."""
    attached = [each.event.pool for each in events if isinstance(each.event, PoolAttached)]
    pools = {pool.rstrip("/").rpartition("/")[2] for pool in attached}
    return next((dataset[len(pool) + 1 :] for pool in pools if dataset.startswith(f"{pool}/")), dataset)


LINE_COLUMNS = (
    Column[EventLine]("seq", lambda line: str(line.seq), right=True),
    Column[EventLine]("time", lambda line: local_time(line.time)),
    Column[EventLine]("who", lambda line: line.who or "-"),
    Column[EventLine]("operation", lambda line: short(line.operation) or "-"),
    Column[EventLine]("event", lambda line: line.event),
    Column[EventLine]("what", lambda line: line.what),
)

COLUMNS = (
    Column[Difference]("change", lambda row: row.change),
    Column[Difference]("what", lambda row: row.what),
    Column[Difference]("name", lambda row: short(row.name) if row.what == "operation" else row.name),
    Column[Difference]("was", lambda row: _fields(row.was)),
    Column[Difference]("now", lambda row: _fields(row.now)),
)


def _fields(values: dict[str, str]) -> str:
    return ", ".join(_field(name, value) for name, value in values.items()) or "-"


def _field(name: str, value: str) -> str:
    """As people read it; the other formats have it as it is."""
    if name.endswith("_ns"):
        return f"{name[:-3]}={show_time(int(value)) if value not in ('', '0') else '-'}"
    if name.endswith("_bytes"):
        return f"{name[:-6]}={show_bytes(int(value))}"
    return f"{name}={value or '-'}"


@click.command(
    epilog=examples(
        "imagestore diff 1000 2000 --journal journal",
        "imagestore diff 2h --journal journal",
        "imagestore diff 2030-01-31T12:00 2030-01-31T13:00 --journal journal -o json",
    )
)
@click.argument("before", type=MOMENT, metavar="A")
@click.argument("after", type=MOMENT, metavar="[B]", required=False)
@journal_option
@output_option
def diff(before: Moment, after: Moment | None, journal: str, output: Format) -> None:
    """What differs between the states at A and at B (now): seqs, or times.

    Datasets, images, aliases, sources, tokens, and operations that were under way at one of the
    two. What a guest wrote into its disks is not in the journal.
    """
    from imagestore.events import reader

    first = reader.replay(journal, up_to=before.resolve(journal))
    last = reader.replay(journal, up_to=None if after is None else after.resolve(journal))
    between = itertools.takewhile(
        lambda envelope: envelope.seq <= last.seq, reader.read(journal, first.seq + 1)
    )
    found: Sequence[Difference] = list(difference(first, last, contents(between)))
    if output == "table":
        click.echo(f"seq {first.seq} to {last.seq}: {len(found)} differences")
    if found or output != "table":
        show_rows(found, COLUMNS, output)
