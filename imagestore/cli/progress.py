"""Progress bars on a terminal, nothing in a pipe.

They go to stderr, so that what a command prints stays what it prints.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int | None], None]
"""Phase, bytes done, bytes in all (None: unknown)."""


@contextmanager
def progress(subject: str) -> Iterator[Report]:
    """A function to report progress to, for as long as the context lasts."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(subject, total=None)

        def report(phase: str, done: int, total: int | None) -> None:
            bar.update(task, description=f"{subject}: {phase}", completed=done, total=total)

        yield report


def shows_progress() -> bool:
    """Whether anybody would see it."""
    return sys.stderr.isatty()


def _silent(phase: str, done: int, total: int | None) -> None:
    """Nobody watches."""
