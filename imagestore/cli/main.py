"""The command ``imagestore``: its tree of commands, and how every one of them ends.

Promises: an error of ours is one line on stderr (``imagestore: …``), perhaps
a second that says what would be right, and the exit code that the error
carries; no traceback.  Commands are imported when they are called, so that
``--help`` and the clients start without trio, numpy or an HTTP server.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from imagestore import __version__
from imagestore.cli.group import Group
from imagestore.errors import ImageStoreError

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("imagestore.cli.serve:serve", "Run the store."),
    "init": ("imagestore.cli.init:init", "Write the settings of a new store."),
    "doctor": ("imagestore.cli.doctor:doctor", "What works here, what does not, and what mends it."),
    "status": ("imagestore.cli.status:status", "How the store is, and what to do about it."),
    "check": ("imagestore.cli.check:check", "One line and an exit status for monitoring."),
    "demo": ("imagestore.cli.demo:demo", "Show a whole life of a throw-away store, kill -9 included."),
    "image": ("imagestore.cli.imagecommands:image", "Fetch, list, name, clone, publish and remove images."),
    "guest": ("imagestore.cli.guestcommands:guest", "Make, list and remove the disks of guests; their XML."),
    "volume": ("imagestore.cli.volumes:volume", "Make, list, resize and remove volumes."),
    "snap": ("imagestore.cli.snapshots:snap", "Take, list, remove and go back to snapshots."),
    "send": ("imagestore.cli.send:send", "Write a snapshot's stream to a file or a pipe."),
    "receive": ("imagestore.cli.receive:receive", "Bring a send stream into a new volume, or onto its base."),
    "op": ("imagestore.cli.operations:op", "List, show, wait for and cancel operations."),
    "log": ("imagestore.cli.audit:log", "Who did what and when, from the journal."),
    "state": ("imagestore.cli.audit:state", "What is ours, now or at an earlier time, from the journal."),
    "explain": ("imagestore.cli.history:explain", "Where a dataset came from, and what was done to it."),
    "diff": ("imagestore.cli.history:diff", "What changed between two moments, from the journal."),
    "drift": ("imagestore.cli.drift:drift", "Where the pool is not what the journal says."),
    "journal": ("imagestore.cli.journal:journal", "Check the journal, back it up, print its head."),
    "adopt": ("imagestore.cli.adopt:adopt", "Take over volumes that others made, where they stand."),
    "release": ("imagestore.cli.adopt:release", "Let go of a volume or an image; its data stay."),
    "token": ("imagestore.cli.tokens:token", "Make, list and revoke the tokens that others show."),
    "recover": ("imagestore.cli.recover:recover", "Give a pool a new journal when its own is lost."),
    "stream": ("imagestore.cli.streams:stream", "Look into, unpack and make ZFS send streams, without ZFS."),
    "image-service": ("imagestore.cli.imageservice:image_service", "Serve a directory of images to stores."),
    "config": ("imagestore.cli.settings:config", "Show or check the settings."),
    "completion": ("imagestore.cli.completion:completion", "Make a shell complete commands and options."),
}
"""Where each command lives, and its line in the list of commands, in the order shown."""

INTERRUPTED = 130
PIPE_CLOSED = 141


class Commands(Group):
    """The commands, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _let_go_of_stdout()
            ctx.exit(PIPE_CLOSED)
        return result

    def lines(self, ctx: click.Context) -> list[tuple[str, str]]:
        return [(name, line) for name, (_, line) in COMMANDS.items()]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: imagestore demo",
)
@click.version_option(__version__, prog_name="imagestore")
def cli() -> None:
    """The image and guest-disk store of a hypervisor.

    `serve` runs it. The others ask the one at http://127.0.0.1:19999, or where --server or IMAGESTORE_SERVER
    says, but for those that only read and write files.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    _open_what_is_closed()
    try:
        status = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="imagestore",
            standalone_mode=False,
        )
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("imagestore: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except ImageStoreError as problem:
        complain(problem)
        sys.exit(problem.exit_code)
    except OSError as problem:
        _let_go_of_stdout()
        where = "" if problem.filename is None else f"{problem.filename}: "
        click.echo(f"imagestore: {where}{problem.strerror or problem}", err=True)
        sys.exit(ImageStoreError.exit_code)
    except BaseExceptionGroup as group:
        leaves = _leaves(group)
        if not all(isinstance(leaf, ImageStoreError | KeyboardInterrupt) for leaf in leaves):
            raise
        ours = [leaf for leaf in leaves if isinstance(leaf, ImageStoreError)]
        for leaf in ours:
            complain(leaf)
        sys.exit(ours[0].exit_code if ours else INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _open_what_is_closed() -> None:
    """Put the null device where the caller closed stdin, stdout or stderr.

    Else the next file that is opened, the journal's perhaps, would take that
    number, and what goes wrong later would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (for the process's life)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (for the process's life)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (for the process's life)


def _let_go_of_stdout() -> None:
    """What stdout does not take is lost: Python would flush it once more as it ends, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(problem: ImageStoreError) -> None:
    """Say on stderr what went wrong, and on a second line what would be right."""
    click.echo(f"imagestore: {problem}", err=True)
    if problem.detail:
        click.echo(f"  {problem.detail}", err=True)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for problem in group.exceptions:
        leaves.extend(_leaves(problem) if isinstance(problem, BaseExceptionGroup) else [problem])
    return leaves
