"""How the demo speaks: a title, the command that a person would type, what was seen.

Colours on a terminal (not under ``NO_COLOR``), the same words without in a pipe.
"""

import os
import sys

import click

from imagestore.cli.output import printable
from imagestore.errors import ImageStoreError


class NotAsItMustBe(ImageStoreError):
    """The demo saw something that may not be."""


class Narrator:
    """Numbers the steps and prints them as they happen."""

    def __init__(self) -> None:
        self._number = 0
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def step(self, title: str) -> None:
        """A new step begins."""
        self._number += 1
        self._say(f"\n{self._number:2}  {title}", bold=True)

    def command(self, line: str) -> None:
        """What a person would type."""
        self._say(f"    $ {line}", fg="cyan")

    def saw(self, text: str) -> None:
        """What was seen; lines of a longer answer stand below each other."""
        for line in text.splitlines():
            self._say(f"      {printable(line)}")

    def must(self, truth: bool, what: str) -> None:
        """Say that ``what`` is so, which was checked.

        Raises:
            NotAsItMustBe: it is not.
        """
        if not truth:
            raise NotAsItMustBe(f"the demo saw what must not be; expected: {what}")
        self._say(f"    ✓ {what}", fg="green")

    def end(self, text: str) -> None:
        """The last word."""
        self._say(f"\n{text}", bold=True)

    def _say(self, text: str, *, fg: str | None = None, bold: bool | None = None) -> None:
        click.echo(click.style(text, fg=fg, bold=bold) if self._colour else text)
        sys.stdout.flush()
