"""What the commands that talk to a running store share: the address, the wait, the question.

A command decorated with :func:`connected` gets a ``Client`` as its first argument.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from imagestore.client import DEFAULT_SERVER, Client
from imagestore.errors import ImageStoreError, InUse, NewerSnapshots, NotValid

_Result = TypeVar("_Result")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def connected(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Give a command ``--server`` and ``--timeout`` and hand it the client they make."""

    @click.option(
        "--server",
        envvar="IMAGESTORE_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        metavar="URL",
        help="The store's address (environment: IMAGESTORE_SERVER).",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Give up waiting for an answer after so long; the store goes on. Default: wait.",
    )
    @functools.wraps(function)
    def command(*arguments: object, server: str, timeout: float | None, **options: object) -> _Result:
        try:
            return function(Client(server, timeout=timeout), *arguments, **options)
        except ImageStoreError as problem:
            problem.detail = problem.detail or _advice(problem)
            raise

    return command


def _advice(problem: ImageStoreError) -> str:
    """What to type next, in the command line's own words; the old wire carries no detail."""
    match problem:
        case NewerSnapshots():
            return "--destroy-more-recent destroys them"
        case InUse():
            return "stop the process, or add --force"
        case NotValid():
            return (
                "names are letters, digits and _ : . - in parts joined by /, no part beginning with . or -, "
                "at most 255 bytes with the pool's; images and guests are changed by their own commands"
            )
        case _:
            return ""


def yes_option(function: _Function) -> _Function:
    """Give a destructive command ``--yes``."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask on a terminal.")(function)


def force_option(function: _Function) -> _Function:
    """Give a destructive command ``--force``."""
    return click.option("--force", is_flag=True, help="Also when a process has a disk open for writing.")(
        function
    )


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed, if a person sits there. Raises click.Abort."""
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(question, abort=True, err=True)


def examples(*lines: str) -> str:
    """The end of a command's help: commands to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
