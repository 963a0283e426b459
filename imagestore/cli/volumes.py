"""``imagestore volume``: make, list, show, resize and remove volumes, over RPC."""

import click

from imagestore.cli.connection import changing, confirm, connected, examples, force_option, yes_option
from imagestore.cli.group import Group
from imagestore.cli.output import Column, Format, output_option, show_one, show_rows
from imagestore.cli.sizes import SIZE, show_mib
from imagestore.client import Client
from imagestore.model import Volume

VOLUME_COLUMNS = (
    Column[Volume]("id", lambda volume: volume.id),
    Column[Volume]("size", lambda volume: show_mib(volume.size), right=True),
    Column[Volume]("device", lambda volume: volume.device),
)


@click.group(cls=Group)
def volume() -> None:
    """Make, list, show, resize and remove volumes."""


@volume.command(
    epilog=examples("imagestore volume create scratch/data 10G", "imagestore volume create swap 512M -o json")
)
@click.argument("volume_id", metavar="ID")
@click.argument("size", type=SIZE)
@click.option("--thick", is_flag=True, help="Set room for all of it aside now.")
@output_option
@changing
def create(client: Client, volume_id: str, size: int, thick: bool, output: Format) -> None:
    """Make a blank volume of SIZE (512M, 10G, 1T; a bare number is MiB)."""
    show_one(client.create_volume(volume_id, size_mib=size, thick=thick), VOLUME_COLUMNS, output)


@volume.command("ls", epilog=examples("imagestore volume ls", "imagestore volume ls -o json"))
@output_option
@connected
def list_volumes(client: Client, output: Format) -> None:
    """List all volumes of the pool, images and guests' disks included."""
    show_rows(client.list_volumes(), VOLUME_COLUMNS, output)


@volume.command(epilog=examples("imagestore volume show scratch/data"))
@click.argument("volume_id", metavar="ID")
@output_option
@connected
def show(client: Client, volume_id: str, output: Format) -> None:
    """Show one volume."""
    show_one(client.get_volume(volume_id), VOLUME_COLUMNS, output)


@volume.command(epilog=examples("imagestore volume resize guests/vm1/disk-0 20G --dry-run"))
@click.argument("volume_id", metavar="ID")
@click.argument("size", type=SIZE)
@output_option
@changing
def resize(client: Client, volume_id: str, size: int, output: Format) -> None:
    """Give a volume, or a guest's disk, the larger SIZE.

    What runs on it sees the new size when it looks again. A smaller size is refused.
    """
    show_one(client.resize_volume(volume_id, size_mib=size), VOLUME_COLUMNS, output)


@volume.command(epilog=examples("imagestore volume rm scratch/data", "imagestore volume rm scratch --yes"))
@click.argument("volume_id", metavar="ID")
@yes_option
@force_option
@output_option
@changing
def rm(client: Client, volume_id: str, yes: bool, force: bool, output: Format) -> None:
    """Remove a dataset and all below it, snapshots included."""
    confirm(f"Remove {volume_id} and everything below it?", yes=yes)
    show_rows(client.delete_dataset(volume_id, force=force), VOLUME_COLUMNS, output)
