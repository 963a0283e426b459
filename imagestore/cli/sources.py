"""``imagestore image source``: which images come from an address of their own."""

import click

from imagestore.cli.connection import confirm, connected, examples, yes_option
from imagestore.cli.foreseen import foreseeable
from imagestore.cli.images import image
from imagestore.cli.output import Column, Format, output_option, show_one, show_rows
from imagestore.client import Client
from imagestore.model import Source, SourceRequest

SOURCE_COLUMNS = (
    Column[Source]("image", lambda source: source.id),
    Column[Source]("source", lambda source: source.source),
    Column[Source]("verified by", lambda source: _proof(source)),
)


def _proof(source: Source) -> str:
    return f"sha256 {source.sha256}" if source.sha256 else source.sums or "-"


@image.group()
def source() -> None:
    """Where images come from that the image service does not have."""


@source.command(
    epilog=examples(
        "imagestore image source add deb12 https://cloud.example/deb12.qcow2 --sha256 9f2c…",
    )
)
@click.argument("image_id", metavar="ID")
@click.argument("address", metavar="URL")
@click.option("--sha256", default="", metavar="HEX", help="What the file's sha256 must be.")
@click.option("--sums", default="", metavar="URL", help="A SHA256SUMS file that lists it.")
@output_option
@connected
@foreseeable
def add(client: Client, image_id: str, address: str, sha256: str, sums: str, output: Format) -> None:
    """Have the image ID fetched from URL whenever it is asked for.

    Addresses are journaled and listed, so one with credentials or a signed query is refused.
    """
    request = SourceRequest(id=image_id, source=address, sha256=sha256, sums=sums)
    show_one(client.register_source(request), SOURCE_COLUMNS, output)


@source.command("ls", epilog=examples("imagestore image source ls", "imagestore image source ls -o jsonl"))
@output_option
@connected
def list_sources(client: Client, output: Format) -> None:
    """List the images that have a source of their own."""
    show_rows(client.list_sources(), SOURCE_COLUMNS, output)


@source.command(epilog=examples("imagestore image source rm deb12"))
@click.argument("image_id", metavar="ID")
@yes_option
@output_option
@connected
@foreseeable
def rm(client: Client, image_id: str, yes: bool, output: Format) -> None:
    """Have the image ID fetched from the image service again. The image itself stays."""
    confirm(f"Remove the source of image {image_id}?", yes=yes)
    show_one(client.remove_source(image_id), SOURCE_COLUMNS, output)
