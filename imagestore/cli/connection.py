"""What the commands that talk to a running store share: the address, the wait, the question.

A command decorated with :func:`connected` gets a ``Client`` as its first argument.
"""

import functools
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from imagestore.cli.foreseen import foreseeable, is_dry_run
from imagestore.client import DEFAULT_SERVER, Accepted, Changing, Credentials
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    FetchFailed,
    Forbidden,
    HasClones,
    ImageStoreError,
    InUse,
    InvalidArgument,
    NewerSnapshots,
    NoSpace,
    NotFound,
    NotValid,
    ReadOnly,
    Stopping,
    TemporarilyUnavailable,
)
from imagestore.operationclient import OperationClient

_Result = TypeVar("_Result")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def connected(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Give a command ``--server``, ``--timeout`` and what shows who asks; hand it the client they make."""

    @click.option(
        "--server",
        envvar="IMAGESTORE_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        metavar="URL",
        help="The store's address, also https://… or unix:PATH (environment: IMAGESTORE_SERVER).",
    )
    @_file_option("--token-file", "Holds the token that another machine's store asks for")
    @_file_option("--ca-file", "The authority that an https store's certificate is of")
    @_file_option("--cert-file", "Your own certificate, for an https store")
    @_file_option("--key-file", "Its key, if that is not in the same file")
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Give up waiting for an answer after so long; the store goes on. Default: wait.",
    )
    @functools.wraps(function)
    def command(
        *arguments: object,
        server: str,
        timeout: float | None,
        token_file: str,
        ca_file: str,
        cert_file: str,
        key_file: str,
        **options: object,
    ) -> _Result:
        credentials = Credentials(
            token_file=token_file, ca_file=ca_file, certificate_file=cert_file, key_file=key_file
        )
        try:
            client = OperationClient(server, timeout=timeout, credentials=credentials)
            return function(client, *arguments, **options)
        except ImageStoreError as problem:
            problem.detail = problem.detail or next_step(problem, _command(), _options())
            raise

    return command


def _file_option(flag: str, text: str) -> Callable[[_Function], _Function]:
    variable = f"IMAGESTORE_{flag.removeprefix('--').replace('-', '_').upper()}"
    return click.option(
        flag, envvar=variable, default="", metavar="FILE", help=f"{text} (environment: {variable})."
    )


def changing(function: Callable[..., object]) -> Callable[..., None]:
    """What :func:`patient` gives, and ``--dry-run``."""
    return patient(foreseeable(function))


def patient(function: Callable[..., object]) -> Callable[..., None]:
    """What :func:`connected` gives, and ``--no-wait``, ``--retry`` and ``--idempotency-key``.

    A change that is not waited for prints its operation's id.
    """

    @click.option(
        "--no-wait", is_flag=True, help="Print the operation's id once it is accepted; see imagestore op."
    )
    @click.option(
        "--retry",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Try again for so long when the store is away or busy; it is done once.",
    )
    @click.option(
        "--idempotency-key",
        "key",
        default="",
        metavar="KEY",
        help="The same command with the same KEY again, within 7 days, changes nothing: same answer.",
    )
    @connected
    @functools.wraps(function)
    def command(
        client: OperationClient, *arguments: object, no_wait: bool, retry: float, key: str, **options: object
    ) -> None:
        client.changing = Changing(key=key, retry_seconds=retry, no_wait=no_wait)
        try:
            function(client, *arguments, **options)
        except Accepted as accepted:
            click.echo(accepted.operation)

    return command


def _command() -> str:
    """The command that runs, without the program's name: ``guest create``."""
    context = click.get_current_context(silent=True)
    return "" if context is None else context.command_path.partition(" ")[2]


def _options() -> frozenset[str]:
    """The options that the command has."""
    context = click.get_current_context(silent=True)
    parameters = [] if context is None else context.command.params
    return frozenset(option for parameter in parameters for option in parameter.opts)


_LISTS = {
    "image": "imagestore image ls lists the images; imagestore image pull ID fetches one",
    "image publish": "imagestore snap ls lists the snapshots",
    "image source": "imagestore image source ls lists the sources",
    "image alias": "imagestore image alias ls and imagestore image ls list what there is",
    "guest": "imagestore guest ls lists the guests that have disks",
    "guest create": "imagestore image ls lists the images; imagestore image pull ID fetches one",
    "volume": "imagestore volume ls lists the volumes",
    "snap": "imagestore snap ls lists the snapshots, imagestore volume ls the volumes",
    "send": "imagestore snap ls lists the snapshots, those for --from included; imagestore snap create "
    "DATASET@NAME takes one",
    "receive": "its base or origin has to be here: imagestore snap ls",
    "op": "imagestore op ls lists the operations; their ids are whole there",
    "token": "imagestore token ls lists the tokens",
    "adopt": "imagestore drift lists what others made in the pool",
    "release": "imagestore volume ls lists the volumes",
    "explain": "the journal knows no dataset of that name (an image is images/ID, a disk guests/ID/disk-0); "
    "imagestore drift lists what others made in the pool",
}
"""Where what a command did not find would have been, by the command or the beginning of it."""


_BELONGS = re.compile(r"dataset belongs to image ([^:]+): ")


def next_step(problem: ImageStoreError, command: str, options: frozenset[str] = frozenset()) -> str:
    """What to type next after ``command`` failed; the old wire carries no detail.

    ``options`` are those that the command has.
    """
    match problem:
        case NotFound() if str(problem) == NotFound.text:
            words = command.split()
            told = (_LISTS.get(" ".join(words[:count])) for count in range(len(words), 0, -1))
            return next((text for text in told if text), "")
        case AlreadyExists() if str(problem).startswith("token "):
            return "take another name, or revoke that one: imagestore token revoke NAME"
        case AlreadyExists() if command == "image alias set":
            return "an alias is a name that no image has"
        case AlreadyExists() if not str(problem).startswith(AlreadyExists.text):
            return ""
        case AlreadyExists() if command.startswith("guest"):
            return "imagestore guest show ID shows its disks"
        case AlreadyExists():
            return "imagestore explain NAME tells what it is; take another name, or remove it"
        case NoSpace():
            return (
                "imagestore status shows what is free and promised; imagestore image gc frees unused images"
            )
        case FetchFailed() if "private network" in str(problem):
            return "the store's setting allow_private_sources allows it; image pull FILE --as ID goes without"
        case FetchFailed() if "cannot be reached" in str(problem):
            return "imagestore doctor looks at the image service; image pull URL|FILE --as ID goes without it"
        case ImageStoreError() if "no ZFS send stream" in str(problem) and command == "receive":
            return "imagestore image pull FILE --as ID takes disks of other formats"
        case Blocked() if belongs := _BELONGS.match(str(problem)):
            return f"it goes with the image: imagestore image rm {belongs[1]}"
        case Blocked() if str(problem).startswith("dataset cannot be destroyed: "):
            return "what is in it can: imagestore image rm ID, guest rm ID, volume rm NAME"
        case InvalidArgument() if str(problem).startswith("volume is larger: "):
            return "a volume only grows; imagestore volume ls shows the sizes, a bare number is MiB"
        case InvalidArgument() if str(problem) == "invalid snapshot dest":
            return "a snapshot's name, behind the @, is letters, digits and _ : . -"
        case HasClones() if "--when-unused" in options:
            return "--when-unused removes it when the last of them goes"
        case ReadOnly():
            return "imagestore status tells why"
        case TemporarilyUnavailable() | Stopping() if "--retry" in options:
            return "--retry SECONDS tries again"
        case Forbidden():
            return "ask an admin of the store for a token of that role"
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
    """Ask before something is destroyed, if a person sits there and it is meant. Raises click.Abort."""
    if not yes and not is_dry_run() and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(question, abort=True, err=True)


def examples(*lines: str) -> str:
    """The end of a command's help: commands to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
