"""``--dry-run`` of every command that changes something: the store says what would happen."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import click
from msgspec import structs

from imagestore.cli.output import Format, print_json, print_line, printable
from imagestore.client import Client, Foreseen
from imagestore.model import PlannedEffect, PlanResponse
from imagestore.sizes import show_bytes

_Function = TypeVar("_Function", bound=Callable[..., Any])

DRY_RUN = "imagestore dry run"
"""Where a command's context says that nothing is to be done, and so nobody need be asked."""


def is_dry_run() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(DRY_RUN))


def foreseeable(function: _Function) -> _Function:
    """Give a command, whose first argument is a client, ``--dry-run``."""

    @click.option("--dry-run", is_flag=True, help="Only show what would happen.")
    @functools.wraps(function)
    def command(client: Client, *arguments: object, dry_run: bool, **options: object) -> object:
        if not dry_run:
            return function(client, *arguments, **options)
        click.get_current_context().meta[DRY_RUN] = True
        client.changing = structs.replace(client.changing, dry_run=True)
        try:
            return function(client, *arguments, **options)
        except Foreseen as foreseen:
            show(foreseen.plan, cast("Format", options.get("output", "table")))
            return None

    return cast("_Function", command)


def show(plan: PlanResponse, output: Format) -> None:
    """Print what would happen."""
    if output == "json":
        print_json(plan)
        return
    if output == "jsonl":
        print_line(plan)
        return
    if plan.settled:
        click.echo("nothing would change: it is so already")
        return
    sentences = [_line(effect) for effect in plan.effects]
    if plan.reserve_bytes:
        free = show_bytes(plan.available_bytes)
        sentences.append(f"would promise {show_bytes(plan.reserve_bytes)} of {free} free")
    tell(sentences, plan.commands)


def tell(sentences: Iterable[str], commands: Sequence[str]) -> None:
    """Print what would happen, below it the pool's commands, and on stderr that nothing was done."""
    for sentence in sentences:
        click.echo(printable(sentence))
    for command in commands:
        click.echo(f"  {printable(command)}")
    named = "; OPERATION will be its id" if any("OPERATION" in command for command in commands) else ""
    click.echo(f"# nothing was done; the store does all of it in one step, or none{named}", err=True)


def _line(effect: PlannedEffect) -> str:
    if effect.action == "note":
        return f"would note in the journal: {effect.what}"
    return f"would {effect.action} {effect.id}: {effect.what}"
