"""``imagestore token``: who may ask from another machine."""

import os
import re

import click
from msgspec import UNSET, UnsetType

from imagestore.access import ROLES
from imagestore.cli.connection import confirm, connected, examples, yes_option
from imagestore.cli.foreseen import foreseeable
from imagestore.cli.group import Group
from imagestore.cli.output import Column, Format, output_option, show_one, show_rows
from imagestore.client import Client
from imagestore.errors import BrokenOff
from imagestore.model import Token, TokenRequest

_LIFE = re.compile(r"([1-9][0-9]{0,8})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

_COLUMNS = (
    Column[Token]("name", lambda token: token.name),
    Column[Token]("role", lambda token: token.role),
    Column[Token]("expires", lambda token: _end(token)),
    Column[Token]("created", lambda token: token.created),
    Column[Token]("by", lambda token: token.createdBy),
)


def _end(token: Token) -> str:
    if isinstance(token.expires, UnsetType):
        return "never"
    return f"{token.expires} (over)" if token.expired else token.expires


class Life(click.ParamType[int]):
    """How long something lives: a number and a unit, as seconds."""

    name = "life"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        given = _LIFE.match(str(value))
        if given is None:
            self.fail(f"{value!r} is no time such as 90d, 12h or 2w", param, ctx)
        return int(given[1]) * _SECONDS[given[2]]


@click.group(cls=Group)
def token() -> None:
    """Tokens: what programs on other machines show to be let in.

    A reader looks and downloads; an operator also changes things; an admin also adopts, forces and makes
    tokens. The store keeps the hash of a token; the journal says who made it.
    """


@token.command(
    epilog=examples(
        "imagestore token create backup --role reader --to backup.token",
        "imagestore token create ci --role operator --expires 90d > ci.token",
    )
)
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What its holder may do.")
@click.option("--expires", type=Life(), default=0, metavar="TIME", help="90d, 12h, … Default: when revoked.")
@click.option(
    "--to", "file", metavar="FILE", help="Write it there, for your eyes only, instead of printing it."
)
@output_option
@connected
@foreseeable
def create(client: Client, name: str, role: str, expires: int, file: str | None, output: Format) -> None:
    """Make a token for NAME and print it, once: nobody can tell it again."""
    # What there is no room for must not be made first.
    place = None if file is None else os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        answer = client.create_token(TokenRequest(name=name, role=role, expiresSeconds=expires))
        if answer.secret is UNSET:
            raise BrokenOff(
                "the token was made, and its answer lost",
                detail=f"make it anew: imagestore token revoke {name} --yes, then the same again",
            )
    except BaseException:
        if place is not None and file is not None:
            os.close(place)
            os.unlink(file)
        raise
    if place is not None:
        with open(place, "w", encoding="ascii") as stream:
            stream.write(f"{answer.secret}\n")
        show_one(answer.tokens[0], _COLUMNS, output)
    elif output == "table":
        click.echo(answer.secret)
    else:
        show_one(answer, (), output)
    if output == "table":
        click.echo(f"Whoever has it is token:{name}. Use it with --token-file FILE.", err=True)


@token.command("ls", epilog=examples("imagestore token ls", "imagestore token ls -o json"))
@output_option
@connected
def list_tokens(client: Client, output: Format) -> None:
    """List the tokens that there are: names, roles, who made them, until when."""
    show_rows(client.list_tokens(), _COLUMNS, output)


@token.command(epilog=examples("imagestore token revoke ci"))
@click.argument("name")
@yes_option
@output_option
@connected
@foreseeable
def revoke(client: Client, name: str, yes: bool, output: Format) -> None:
    """Have the token of NAME open nothing any more, from the next request on."""
    confirm(f"Revoke the token of {name}?", yes=yes)
    show_one(client.revoke_token(name), _COLUMNS, output)
