"""``imagestore init``: write a small TOML file of settings, and make room for the store's user.

Owns the questions and the file's text; what settings mean is ``imagestore.config``.
"""

import os
import pwd
import shlex
import sys

import click
from msgspec import Struct

from imagestore.cli.connection import examples
from imagestore.config import PoolAddress, checkout, load, parse_pool
from imagestore.errors import AlreadyExists, ConfigError
from imagestore.serviceaddress import DEFAULT_SERVICE

DEFAULT_POOL = "dir:/var/lib/imagestore/pool"
DEFAULT_JOURNAL = "/var/lib/imagestore/journal"
DEFAULT_FILE = "/etc/imagestore/imagestore.toml"
FILE_MODE = 0o640
DIRECTORY_MODE = 0o755


class Answers(Struct, frozen=True, kw_only=True):
    """What the file will say, and whose the directories will be ("" leaves them)."""

    pool: str
    journal: str
    image_service: str
    user: str


@click.command(
    epilog=examples(
        "imagestore init",
        "imagestore init --pool dir:/srv/imagestore/pool --journal /srv/imagestore/journal --user imagestore",
        "imagestore init --pool zfs:tank -i images.example.net:20000 --dry-run",
    )
)
@click.option("--pool", metavar="dir:PATH|zfs:NAME", help=f"Where the disks are kept.  [{DEFAULT_POOL}]")
@click.option("--journal", metavar="DIR", help=f"Directory of the journal.  [{DEFAULT_JOURNAL}]")
@click.option("-i", "--image-service", metavar="[https://]HOST[:PORT]", help="Where images are fetched from.")
@click.option("--user", metavar="USER", help="The user that the store will run as; gets the directories.")
@click.option("--to", "file", metavar="FILE", help=f"The file to write.  [{DEFAULT_FILE}]")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--dry-run", is_flag=True, help="Only print the file.")
def init(
    pool: str | None,
    journal: str | None,
    image_service: str | None,
    user: str | None,
    file: str | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Write the settings of a new store. Asks on a terminal for what no flag says.

    No store needs the file: imagestore serve takes the same as flags.
    """
    base = checkout()
    answers = Answers(
        pool=_asked("Pool (dir:PATH or zfs:NAME)", pool, _default_pool(base)),
        journal=_asked("Directory of the journal", journal, _default_journal(base)),
        image_service=_asked("Image service (HOST[:PORT], or https://…)", image_service, DEFAULT_SERVICE),
        user=_asked("User that the store runs as", user, ""),
    )
    text = settings_text(answers)
    _check(answers)
    if dry_run:
        click.echo(text, nl=False)
        return
    path = file or (DEFAULT_FILE if base is None else f"{base}/imagestore.toml")
    if os.path.lexists(path) and not force:
        raise AlreadyExists(f"{path} exists", detail="--force replaces it; --dry-run only prints")
    _make_directories(answers)
    _write(path, text, answers.user)
    click.echo(f"{path} is written; next:")
    click.echo(f"  imagestore doctor --config {shlex.quote(path)}")
    click.echo(f"  imagestore serve --config {shlex.quote(path)}")


def _default_pool(base: str | None) -> str:
    return DEFAULT_POOL if base is None else f"dir:{base}/pool"


def _default_journal(base: str | None) -> str:
    return DEFAULT_JOURNAL if base is None else f"{base}/journal"


def _asked(question: str, given: str | None, default: str) -> str:
    """The flag, or a person's answer, or the default."""
    if given is not None:
        return given
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return default
    answer: str = click.prompt(question, default=default, err=True, show_default=bool(default))
    return answer.strip()


def settings_text(answers: Answers) -> str:
    """The file: TOML, one line a setting.  A path becomes absolute."""
    driver, place = parse_pool(answers.pool)
    lines = [
        "# Settings of imagestore. imagestore config show --config FILE prints all of them.",
        f"pool = {_quoted(f'{driver}:{place}')}",
        f"journal = {_quoted(os.path.abspath(answers.journal))}",
        f"image_service = {_quoted(answers.image_service)}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    if not text.isprintable():
        raise ConfigError(f"{text!r} has characters that cannot be shown")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _check(answers: Answers) -> None:
    """Raises ConfigError where a store with these answers would not start."""
    flags = {"pool": answers.pool, "journal": answers.journal, "image_service": answers.image_service}
    load(flags, environment={})
    if answers.user:
        _account(answers.user)


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        made = f"adduser --system --group --no-create-home {shlex.quote(user)}"
        raise ConfigError(f"there is no user {user}", detail=made) from None


def _make_directories(answers: Answers) -> None:
    """Make what is missing of pool and journal, and give what was made to the user."""
    address: PoolAddress = parse_pool(answers.pool)
    places = [os.path.abspath(answers.journal)]
    if address.driver == "dir":
        places.append(address.place)
    for place in places:
        if os.path.isdir(place):
            continue
        os.makedirs(place, DIRECTORY_MODE)
        if answers.user and os.geteuid() == 0:
            account = _account(answers.user)
            os.chown(place, account.pw_uid, account.pw_gid)


def _write(path: str, text: str, user: str) -> None:
    """Write the file aside and move it into place: no reader sees half of it."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), DIRECTORY_MODE, exist_ok=True)
    aside = f"{path}.new"
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(file, "w", encoding="utf-8") as out:
        if user and os.geteuid() == 0:
            os.fchown(out.fileno(), 0, _account(user).pw_gid)
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(aside, path)
