"""``imagestore image``: list, show, clone and remove images, over RPC."""

import click
from msgspec import UNSET

from imagestore.cli.connection import changing, confirm, connected, examples, yes_option
from imagestore.cli.group import Group
from imagestore.cli.output import Column, Format, output_option, show_one, show_rows
from imagestore.cli.sizes import show_mib
from imagestore.cli.volumes import VOLUME_COLUMNS
from imagestore.client import Client
from imagestore.model import Image
from imagestore.sizes import show_bytes


def _status(image: Image) -> str:
    status = image.status if image.status is not UNSET else ""
    if image.progress is not UNSET:
        done, total = image.progress.done_bytes, image.progress.total_bytes
        return f"{status} {show_bytes(done)}" + (f" of {show_bytes(total)}" if total else "")
    return f"{status}: {image.reason}" if image.reason is not UNSET and image.reason else status


IMAGE_COLUMNS = (
    Column[Image]("id", lambda image: image.id),
    Column[Image]("type", lambda image: image.type or "-"),
    Column[Image]("size", lambda image: show_mib(image.size) if image.size else "-", right=True),
    Column[Image]("status", _status),
    Column[Image]("snapshot", lambda image: image.snapshot if image.snapshot is not UNSET else "-"),
)


@click.group(cls=Group)
def image() -> None:
    """Fetch, list, show, clone and remove images."""


@image.command("ls", epilog=examples("imagestore image ls", "imagestore image ls -o jsonl | jq .id"))
@output_option
@connected
def list_images(client: Client, output: Format) -> None:
    """List all images, those on their way and those that failed included."""
    show_rows(client.list_images(), IMAGE_COLUMNS, output)


@image.command(epilog=examples("imagestore image show deb12", "imagestore image show deb12 -o json"))
@click.argument("image_id", metavar="ID")
@output_option
@connected
def show(client: Client, image_id: str, output: Format) -> None:
    """Show all that is known of one image: digest, source, size, clones, aliases, last use."""
    (described,) = client.describe_images(image_id)
    if output == "table":
        show_rows(_fields(described), FIELD_COLUMNS, output)
    else:
        show_one(described, (), output)


FIELD_COLUMNS = (
    Column[tuple[str, str]]("field", lambda field: field[0]),
    Column[tuple[str, str]]("value", lambda field: field[1]),
)


def _fields(described: Image) -> list[tuple[str, str]]:
    """What is known of an image, a line each; each clone has its own."""
    size = show_mib(described.size) if described.size else ""
    takes = f", takes {show_bytes(described.size_bytes)}" if described.size_bytes is not UNSET else ""
    hidden = ", removed when its last clone goes" if described.retired is True else ""
    known = {
        "id": described.id,
        "type": described.type,
        "status": _status(described) + hidden,
        "size": size + takes,
        "sha256": described.sha256,
        "source": described.source,
        "snapshot": described.snapshot,
        "requested": described.requested,
        "completed": described.completed,
        "last used": described.last_used,
    }
    fields = [(name, value) for name, value in known.items() if value is not UNSET and value]
    fields += [("alias", name) for name in described.aliases or ()]
    return fields + [("clone", name) for name in described.clones or ()]


@image.command(epilog=examples("imagestore image clone deb12 scratch/deb12"))
@click.argument("image_id", metavar="ID")
@click.argument("dest")
@output_option
@changing
def clone(client: Client, image_id: str, dest: str, output: Format) -> None:
    """Make the volume DEST, a clone of an image."""
    show_one(client.clone_image(image_id, dest), VOLUME_COLUMNS, output)


@image.command(epilog=examples("imagestore image rm deb12", "imagestore image rm deb12 --when-unused --yes"))
@click.argument("image_id", metavar="ID")
@click.option(
    "--when-unused", is_flag=True, help="Hide one that has clones, and remove it when the last of them goes."
)
@yes_option
@output_option
@changing
def rm(client: Client, image_id: str, when_unused: bool, yes: bool, output: Format) -> None:
    """Remove an image. One that has clones, or aliases, is not removed.

    One that is hidden (--when-unused) stays if it is pulled again before its last clone has gone.
    """
    confirm(f"Remove image {image_id}?", yes=yes)
    show_one(client.delete_image(image_id, when_unused=when_unused), IMAGE_COLUMNS, output)
