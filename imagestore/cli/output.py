"""What commands print: tables for people, JSON for programs.

Promises: ``json`` is one document, ``jsonl`` one object a line, both the
store's own objects.  A table has colour and lines on a terminal only (and no
colour under ``NO_COLOR``); in a pipe it is text in columns.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

import click
import msgspec
from msgspec import Struct

Format = Literal["table", "json", "jsonl"]
_Row = TypeVar("_Row")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Column(Struct, Generic[_Row], frozen=True):
    """A column: its title, and a row's text in it.  Numbers stand ``right``."""

    title: str
    text: Callable[[_Row], str]
    right: bool = False


def output_option(function: _Function) -> _Function:
    """Give a command ``-o table|json|jsonl``."""
    return click.option(
        "-o",
        "--output",
        "output",
        type=click.Choice(["table", "json", "jsonl"]),
        default="table",
        show_default=True,
        help="How to print the answer.",
    )(function)


def show_rows(rows: Sequence[_Row], columns: Sequence[Column[_Row]], output: Format) -> None:
    """Print many objects."""
    match output:
        case "json":
            print_json(rows)
        case "jsonl":
            for row in rows:
                print_line(row)
        case "table":
            table([column.title for column in columns], columns, rows)


def show_one(row: _Row, columns: Sequence[Column[_Row]], output: Format) -> None:
    """Print one object: as JSON it is not in a list."""
    if output == "table":
        show_rows([row], columns, output)
    elif output == "json":
        print_json(row)
    else:
        print_line(row)


def print_json(value: object) -> None:
    """One indented document."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_line(value: object) -> None:
    """One object on one line."""
    click.echo(msgspec.json.encode(value).decode())


def table(titles: Sequence[str], columns: Sequence[Column[_Row]], rows: Sequence[_Row]) -> None:
    """Print a table, beautiful on a terminal, plain elsewhere."""
    cells = [[printable(column.text(row)) for column in columns] for row in rows]
    rights = [column.right for column in columns]
    if sys.stdout.isatty():
        _rich_table(titles, rights, cells)
    else:
        _plain_table(titles, rights, cells)


def styled(text: str, *, fg: str, bold: bool = False) -> str:
    """``text`` in a colour, for click.echo, which leaves it out in a pipe; plain under ``NO_COLOR``."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=fg, bold=bold)


def printable(text: str) -> str:
    """``text`` without characters that would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _plain_table(titles: Sequence[str], rights: Sequence[bool], cells: Sequence[Sequence[str]]) -> None:
    lines = [[title.upper() for title in titles], *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    for line in lines:
        placed = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, rights, strict=True)
        ]
        click.echo("  ".join(placed).rstrip())


def _rich_table(titles: Sequence[str], rights: Sequence[bool], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for title, right in zip(titles, rights, strict=True):
        drawn.add_column(title, justify="right" if right else "left", overflow="fold")
    for line in cells:
        drawn.add_row(*(Text(text) for text in line))
    Console().print(drawn)
