"""``imagestore image alias|publish|gc``: second names, images of snapshots, room where nobody uses one."""

import re

import click
from msgspec import UNSET, UnsetType

from imagestore.cli.connection import confirm, connected, examples, yes_option
from imagestore.cli.foreseen import foreseeable
from imagestore.cli.images import IMAGE_COLUMNS, image
from imagestore.cli.output import Column, Format, output_option, show_one, show_rows
from imagestore.cli.snapshots import SNAPSHOT
from imagestore.client import Client
from imagestore.model import Image
from imagestore.sizes import show_bytes

_AGE = re.compile(r"([0-9]{1,9})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class AgeType(click.ParamType[int]):
    """``30d``, in seconds."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _AGE.match(str(value))
        if match is None:
            self.fail(f"{str(value)!r} is no age; write 12h, 30d or 8w", param, ctx)
        return int(match[1]) * _SECONDS[match[2]]


AGE = AgeType()


def _listed(names: tuple[str, ...] | UnsetType) -> str:
    return ", ".join(names) if names is not UNSET and names else "-"


def _bytes(image: Image) -> int:
    return 0 if image.size_bytes is UNSET else image.size_bytes


ALIAS_COLUMNS = (
    Column[tuple[str, str]]("alias", lambda pair: pair[0]),
    Column[tuple[str, str]]("image", lambda pair: pair[1]),
)

NAMED_COLUMNS = (
    Column[Image]("image", lambda image: image.id),
    Column[Image]("aliases", lambda image: _listed(image.aliases)),
)

UNUSED_COLUMNS = (
    Column[Image]("image", lambda image: image.id),
    Column[Image]("takes", lambda image: show_bytes(_bytes(image)), right=True),
    Column[Image]("completed", lambda image: "-" if image.completed is UNSET else image.completed),
    Column[Image]("last used", lambda image: "-" if image.last_used is UNSET else image.last_used),
)


@image.group()
def alias() -> None:
    """Give images second names, which can be moved from one to another."""


@alias.command("set", epilog=examples("imagestore image alias set deb12 debian-12-20300131"))
@click.argument("alias_name", metavar="ALIAS")
@click.argument("image_id", metavar="ID")
@output_option
@connected
@foreseeable
def set_alias(client: Client, alias_name: str, image_id: str, output: Format) -> None:
    """Have ALIAS name the image ID from now on, whatever it named before.

    It is understood wherever an image's id is. What was made of the image that it named stays as it is.
    """
    show_one(client.set_image_alias(alias_name, image_id), NAMED_COLUMNS, output)


@alias.command("rm", epilog=examples("imagestore image alias rm deb12"))
@click.argument("alias_name", metavar="ALIAS")
@output_option
@connected
@foreseeable
def remove_alias(client: Client, alias_name: str, output: Format) -> None:
    """Take ALIAS away from its image; the image stays."""
    show_rows(client.remove_image_alias(alias_name), NAMED_COLUMNS, output)


@alias.command("ls", epilog=examples("imagestore image alias ls", "imagestore image alias ls -o json"))
@output_option
@connected
def list_aliases(client: Client, output: Format) -> None:
    """List all aliases."""
    pairs = [
        (alias_name, described.id)
        for described in client.describe_images()
        if described.aliases is not UNSET
        for alias_name in described.aliases
    ]
    if output == "table":
        show_rows(sorted(pairs), ALIAS_COLUMNS, output)
    else:
        show_rows([{"alias": name, "image": id_} for name, id_ in sorted(pairs)], (), output)


@image.command(
    epilog=examples("imagestore image publish guests/vm1/disk-0@gold --as golden-1", "imagestore image ls")
)
@click.argument("snapshot", type=SNAPSHOT, metavar="DISK@NAME")
@click.option("--as", "image_id", required=True, metavar="ID", help="The new image's id.")
@click.option("--type", "image_type", default="", metavar="TYPE", help="What the image is for, e.g. kvm.")
@output_option
@connected
@foreseeable
def publish(client: Client, snapshot: str, image_id: str, image_type: str, output: Format) -> None:
    """Make an image of a disk's snapshot: a full copy, which stays when the guest goes.

    The image appears when it is whole. The same again changes nothing.
    """
    show_one(client.publish_image(snapshot, image_id, type=image_type), IMAGE_COLUMNS, output)


@image.command(
    epilog=examples(
        "imagestore image gc --unused 30d --dry-run",
        "imagestore image gc --unused 30d --yes",
    )
)
@click.option(
    "--unused",
    type=AGE,
    required=True,
    metavar="AGE",
    help="How long nothing was made of them: 12h, 30d, 8w.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@yes_option
@output_option
@connected
def gc(client: Client, unused: int, dry_run: bool, yes: bool, output: Format) -> None:
    """Remove the images that have neither clone nor alias and were not used for a time.

    An image was last used when a clone of it was made or went; one that never was counts from when it
    came. Those that had no clone for so long are removed like by 'image rm', one by one.
    """
    doomed = client.collect_images(unused_seconds=unused, dry_run=True)
    if not dry_run and doomed:
        shown = ", ".join(each.id for each in doomed)
        confirm(f"Remove {shown}?", yes=yes)
        doomed = client.collect_images(unused_seconds=unused, dry_run=False)
    show_rows(doomed, UNUSED_COLUMNS, output)
    if output == "table":
        total = show_bytes(sum(map(_bytes, doomed)))
        count = f"{len(doomed)} image{'' if len(doomed) == 1 else 's'}"
        click.echo(f"{count}, {total} {'would be' if dry_run else 'were'} freed")
