"""The flags of the settings, and ``imagestore config``: show and check them.

Every setting has a flag: the common ones by name, all by ``--set KEY=VALUE``.
"""

import functools
import os
from collections.abc import Callable
from typing import TypeVar

import click
import msgspec

from imagestore.cli.connection import examples
from imagestore.cli.group import Group
from imagestore.cli.output import Column, Format, output_option, show_one, show_rows
from imagestore.config import Config, Settings, checkout, settle
from imagestore.errors import ConfigError

_Result = TypeVar("_Result")

_FLAGS = (
    click.option("--pool", metavar="dir:PATH|zfs:NAME", help="The pool to keep everything in."),
    click.option("-z", "--zpool", metavar="NAME", help="The same as --pool zfs:NAME."),
    click.option("--journal", metavar="DIR", help="Directory of the journal."),
    click.option("--host", metavar="ADDRESS", help="Address to listen on.  [127.0.0.1]"),
    click.option("-p", "--port", metavar="PORT", help="Port to listen on; 0 takes a free one.  [19999]"),
    click.option("--socket", metavar="PATH|auto|none", help="Unix socket to serve as well."),
    click.option(
        "-i",
        "--image-service",
        metavar="[https://]HOST[:PORT]",
        help="Where images are fetched from.  [image.services.lochness.local]",
    ),
    click.option("-l", "--log-level", metavar="LEVEL", help="debug, info, warning or error.  [warning]"),
    click.option("--num-fetchers", metavar="N", help="Images fetched at once.  [number of CPUs]"),
    click.option("--max-pending", metavar="N", help="Images that may wait to be fetched.  [256]"),
    click.option("--max-image-bytes", metavar="N", help="Longest image, as sent and unpacked.  [1 TiB]"),
    click.option("--fetch-stall-seconds", metavar="N", help="How long a fetch may get no byte.  [60]"),
    click.option("--set", "others", multiple=True, metavar="KEY=VALUE", help="Any setting by its key."),
    click.option(
        "--config", "file", metavar="FILE", help="TOML file of settings (environment: IMAGESTORE_CONFIG)."
    ),
)

_FLAG_KEYS = (
    "pool",
    "zpool",
    "journal",
    "host",
    "port",
    "socket",
    "image_service",
    "log_level",
    "num_fetchers",
    "max_pending",
    "max_image_bytes",
    "fetch_stall_seconds",
)
"""The settings that have a flag of their name."""


def settled(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Give a command the flags of the settings and hand it what they amount to, ``Settings``."""

    @functools.wraps(function)
    def command(*arguments: object, others: tuple[str, ...], file: str | None, **options: object) -> _Result:
        flags = {key: options.pop(key) for key in _FLAG_KEYS}
        for written in others:
            key, equals, value = written.partition("=")
            if not equals:
                raise ConfigError(
                    f"--set {written!r} is not KEY=VALUE", detail="for example --set port=19998"
                )
            if flags.get(key) is not None:
                raise ConfigError(f"{key} is given twice on the command line")
            flags[key] = value
        return function(
            settle(flags, environment=os.environ, file=file, base=checkout()), *arguments, **options
        )

    decorated: Callable[..., _Result] = command
    for flag in reversed(_FLAGS):
        decorated = flag(decorated)
    return decorated


def configured(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """What :func:`settled` gives, and the command gets the ``Config`` alone."""

    @settled
    @functools.wraps(function)
    def command(settings: Settings, *arguments: object, **options: object) -> _Result:
        return function(settings.config, *arguments, **options)

    return command


@click.group(cls=Group)
def config() -> None:
    """Show or check the settings: flags > IMAGESTORE_* > TOML file > defaults."""


@config.command(
    epilog=examples(
        "imagestore config show",
        "imagestore config show --config /etc/imagestore/imagestore.toml -o json",
        "IMAGESTORE_PORT=1999 imagestore config show",
    )
)
@output_option
@settled
def show(settings: Settings, output: Format) -> None:
    """Print every setting, its value, and where that comes from.

    They are what `imagestore serve` would have with the same flags. Origins are flag, environment:NAME,
    file:PATH and default; in JSON they stand under "origins".
    """
    values = msgspec.to_builtins(settings.config)
    if output != "table":
        show_one({**values, "origins": settings.origins}, (), output)
        return
    columns = (
        Column[tuple[str, object]]("setting", lambda pair: pair[0]),
        Column[tuple[str, object]]("value", lambda pair: str(pair[1]) or "-"),
        Column[tuple[str, object]]("origin", lambda pair: settings.origins[pair[0]]),
    )
    show_rows(list(values.items()), columns, output)


@config.command(epilog=examples("imagestore config check --config /etc/imagestore/imagestore.toml"))
@configured
def check(settings: Config) -> None:
    """Exit 0 if the settings are right, else say what is wrong."""
    click.echo(f"the settings are right: {settings.pool}, journal {settings.journal}, port {settings.port}")
