"""``imagestore adopt`` and ``release``: what others made becomes the store's, and the way back, over RPC."""

import click
from msgspec import UNSET

from imagestore.cli.connection import examples, patient
from imagestore.cli.foreseen import tell
from imagestore.cli.output import Column, Format, output_option, print_json, print_line, table
from imagestore.client import Client
from imagestore.model import Adopted, AdoptRequest, AdoptResponse, LeftOut

_ADOPTED = (
    Column[Adopted]("dataset", lambda adopted: adopted.id),
    Column[Adopted]("is now", lambda adopted: _role(adopted)),
)
_LEFT = (
    Column[LeftOut]("not taken", lambda left: left.id),
    Column[LeftOut]("because", lambda left: left.reason),
)

dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would happen.")


@click.command(
    epilog=examples(
        "imagestore adopt old/web-root --guest web1 --disk 0 --dry-run",
        "imagestore adopt old/web-root --guest web1 --disk 0",
        "imagestore adopt images/alpine --image alpine --type kvm",
        "imagestore adopt --original --dry-run       # all that the original program left in the pool",
    )
)
@click.argument("dataset", required=False)
@click.option("--guest", default="", metavar="ID", help="The guest whose disk it becomes.")
@click.option("--disk", type=click.IntRange(min=0), metavar="N", help="The number of that disk.")
@click.option("--image", default="", metavar="ID", help="The image that it becomes; it stands at images/ID.")
@click.option("--type", "type_", default="", metavar="TYPE", help="The image's type, kvm for example.")
@click.option("--original", is_flag=True, help="Images and guests that the original program left.")
@click.option("--force", is_flag=True, help="Also when a process has a disk open for writing.")
@dry_run_option
@output_option
@patient
def adopt(
    client: Client,
    dataset: str | None,
    guest: str,
    disk: int | None,
    image: str,
    type_: str,
    original: bool,
    force: bool,
    dry_run: bool,
    output: Format,
) -> None:
    """Take over a volume that others made, where it stands, with its snapshots.

    Nothing is copied and no name or guid changes: it only gets the store's tags. Without --guest and
    --image it becomes a free-standing volume.
    """
    if original:
        if dataset or guest or disk is not None or image or type_:
            raise click.UsageError("--original takes all that is there: give no dataset, guest or image")
        answer = client.adopt_original(dry_run=dry_run, force=force)
    elif not dataset:
        raise click.UsageError("give the DATASET to adopt, or --original")
    elif (disk is not None) != bool(guest) or (guest and image):
        raise click.UsageError("give --guest ID and --disk N together, or --image ID, or neither")
    else:
        request = AdoptRequest(
            id=dataset, guest=guest, disk=disk, image=image, type=type_, dryRun=dry_run, force=force
        )
        answer = client.adopt(request)
    _show(answer, output, dry_run=dry_run, nothing="nothing of the original program's is left to adopt")


def _show(answer: AdoptResponse, output: Format, *, dry_run: bool, nothing: str) -> None:
    if output == "json":
        print_json(answer)
    elif output == "jsonl":
        for row in (*answer.adopted, *answer.left):
            print_line(row)
    elif not answer.adopted and not answer.left:
        click.echo(f"imagestore: {nothing}", err=True)
    elif dry_run:
        taken = [f"would adopt {adopted.id}: {_role(adopted)}" for adopted in answer.adopted]
        tell([*taken, *(f"would leave {left.id}: {left.reason}" for left in answer.left)], answer.commands)
    else:
        if answer.adopted:
            table([column.title for column in _ADOPTED], _ADOPTED, answer.adopted)
        if answer.left:
            table([column.title for column in _LEFT], _LEFT, answer.left)


def _role(adopted: Adopted) -> str:
    if adopted.role == "disk":
        return f"disk {adopted.disk} of guest {adopted.guest}"
    if adopted.role == "image" and adopted.image is not UNSET:
        return f"image {adopted.image}"
    return adopted.role


@click.command(
    epilog=examples("imagestore release guests/web1/disk-0 --dry-run", "imagestore release images/a")
)
@click.argument("dataset")
@dry_run_option
@output_option
@patient
def release(client: Client, dataset: str, dry_run: bool, output: Format) -> None:
    """Forget a volume, or an image, with its snapshots. The data stay where they are.

    What stands in a guest's file system goes with the guest all the same: rename it first if it is to stay.
    """
    answer = client.release(dataset, dry_run=dry_run)
    if output == "json":
        print_json(answer)
        return
    if output == "jsonl":
        print_line(answer)
        return
    if dry_run:
        tell([f"would release {name}" for name in answer.released], answer.commands)
        return
    for name in answer.released:
        click.echo(f"{name} is released")
