"""``imagestore snap``: take, list, show, remove and go back to snapshots, over RPC."""

import click

from imagestore.cli.connection import changing, confirm, connected, examples, force_option, yes_option
from imagestore.cli.group import Group
from imagestore.cli.output import Column, Format, output_option, show_one, show_rows
from imagestore.cli.sizes import show_mib
from imagestore.client import Client
from imagestore.model import Snapshot

SNAPSHOT_COLUMNS = (
    Column[Snapshot]("id", lambda snapshot: snapshot.id),
    Column[Snapshot]("written", lambda snapshot: show_mib(snapshot.size), right=True),
)


class SnapshotName(click.ParamType[str]):
    """``DATASET@NAME``."""

    name = "snapshot"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        dataset, _, snapshot = text.partition("@")
        if not dataset or not snapshot or "@" in snapshot:
            self.fail(f"{text!r} is not DATASET@NAME, for example guests/vm1/disk-0@monday", param, ctx)
        return text


SNAPSHOT = SnapshotName()


@click.group(cls=Group)
def snap() -> None:
    """Take, list, show, remove and go back to snapshots."""


@snap.command(
    epilog=examples(
        "imagestore snap create guests/vm1@monday       # all disks of a guest, at one instant",
        "imagestore snap create scratch/data@before",
        "imagestore snap create scratch@all --recursive",
    )
)
@click.argument("snapshot", type=SNAPSHOT, metavar="DATASET@NAME")
@click.option("-r", "--recursive", is_flag=True, help="Everything below the dataset, too.")
@output_option
@changing
def create(client: Client, snapshot: str, recursive: bool, output: Format) -> None:
    """Take a snapshot."""
    dataset, _, name = snapshot.partition("@")
    show_rows(client.create_snapshot(dataset, name, recursive=recursive), SNAPSHOT_COLUMNS, output)


@snap.command("ls", epilog=examples("imagestore snap ls", "imagestore snap ls guests/vm1 -o jsonl"))
@click.argument("dataset", default="")
@output_option
@connected
def list_snapshots(client: Client, dataset: str, output: Format) -> None:
    """List the snapshots of DATASET and below, or of the whole pool."""
    show_rows(client.list_snapshots(dataset), SNAPSHOT_COLUMNS, output)


@snap.command(epilog=examples("imagestore snap show guests/vm1/disk-0@monday"))
@click.argument("snapshot", type=SNAPSHOT, metavar="DATASET@NAME")
@output_option
@connected
def show(client: Client, snapshot: str, output: Format) -> None:
    """Show one snapshot."""
    show_one(client.get_snapshot(snapshot), SNAPSHOT_COLUMNS, output)


@snap.command(
    epilog=examples(
        "imagestore snap rm scratch/data@before", "imagestore snap rm scratch@all --recursive --yes"
    )
)
@click.argument("snapshot", type=SNAPSHOT, metavar="DATASET@NAME")
@click.option("-r", "--recursive", is_flag=True, help="Snapshots of that name below the dataset, too.")
@yes_option
@force_option
@output_option
@changing
def rm(client: Client, snapshot: str, recursive: bool, yes: bool, force: bool, output: Format) -> None:
    """Remove a snapshot. One that has clones is not removed."""
    confirm(f"Remove snapshot {snapshot}?", yes=yes)
    show_rows(client.delete_snapshot(snapshot, recursive=recursive, force=force), SNAPSHOT_COLUMNS, output)


@snap.command(
    epilog=examples(
        "imagestore snap rollback guests/vm1@monday                          # all disks of the guest",
        "imagestore snap rollback scratch/data@before --destroy-more-recent --yes",
    )
)
@click.argument("snapshot", type=SNAPSHOT, metavar="DATASET@NAME")
@click.option("--destroy-more-recent", is_flag=True, help="Destroy the snapshots taken since.")
@yes_option
@force_option
@output_option
@changing
def rollback(
    client: Client, snapshot: str, destroy_more_recent: bool, yes: bool, force: bool, output: Format
) -> None:
    """Set a dataset back to what it was. What was written since is lost."""
    confirm(f"Set {snapshot.partition('@')[0]} back to {snapshot}? What was written since is lost.", yes=yes)
    answer = client.rollback_snapshot(snapshot, destroy_more_recent=destroy_more_recent, force=force)
    show_one(answer, SNAPSHOT_COLUMNS, output)
