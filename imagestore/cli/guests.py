"""``imagestore guest``: make, list, show and remove the disks of guests, over RPC."""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click
from msgspec import UNSET, Struct

from imagestore.cli.connection import changing, confirm, connected, examples, force_option, yes_option
from imagestore.cli.group import Group
from imagestore.cli.output import Column, Format, output_option, print_json, print_line, show_rows
from imagestore.cli.sizes import parse_mib, show_mib
from imagestore.cli.volumes import VOLUME_COLUMNS
from imagestore.client import Client
from imagestore.errors import ImageStoreError, NotFound
from imagestore.model import Guest, Image, Volume
from imagestore.names import check_guest_id

_DISK = re.compile(r"[^@]*?/guests/(?P<guest>[^/@]+)/disk-[0-9]+\Z")
_DISK_KEYS = ("image", "size", "bus", "device")

Disk = dict[str, Any]
"""A disk as the wire has it: of a guest, every field comes back as it was sent."""


class GuestDisks(Struct, frozen=True, kw_only=True):
    """A guest as the pool shows it."""

    id: str
    disks: tuple[Volume, ...]


GUEST_COLUMNS = (
    Column[GuestDisks]("id", lambda guest: guest.id),
    Column[GuestDisks]("disks", lambda guest: str(len(guest.disks)), right=True),
    Column[GuestDisks]("size", lambda guest: show_mib(sum(disk.size for disk in guest.disks)), right=True),
)

DISK_COLUMNS = (
    Column[Disk]("volume", lambda disk: str(disk.get("volume", ""))),
    Column[Disk]("size", lambda disk: show_mib(int(disk.get("size", 0))), right=True),
    Column[Disk]("image", lambda disk: str(disk.get("image", "")) or "-"),
    Column[Disk]("source", lambda disk: str(disk.get("source", ""))),
)


class DiskType(click.ParamType[Disk]):
    """``image=deb12``, ``size=10G``, both, or one of the two bare."""

    name = "disk"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Disk:
        try:
            return parse_disk(str(value))
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


def parse_disk(text: str) -> Disk:
    """The wire's disk of ``KEY=VALUE[,KEY=VALUE]``, of a bare size or a bare image id.

    Raises:
        ValueError: what would be right, in words.
    """
    if "=" not in text:
        try:
            return {"size": parse_mib(text)}
        except ValueError:
            if text[:1].isdigit() or not text:
                raise
            return {"image": text}
    disk: Disk = {}
    for part in text.split(","):
        key, _, given = part.partition("=")
        if key not in _DISK_KEYS or not given:
            raise ValueError(f"{part!r} is not KEY=VALUE with one of the keys {', '.join(_DISK_KEYS)}")
        if key in disk:
            raise ValueError(f"{key} is given twice")
        disk[key] = parse_mib(given) if key == "size" else given
    if "image" not in disk and "size" not in disk:
        raise ValueError(f"{text!r} names neither an image nor a size")
    return disk


def by_guest(volumes: tuple[Volume, ...]) -> tuple[GuestDisks, ...]:
    """The guests that have disks among ``volumes``, in the pool's order."""
    guests: dict[str, list[Volume]] = {}
    for volume in volumes:
        match = _DISK.match(volume.id)
        if match is not None:
            guests.setdefault(match["guest"], []).append(volume)
    return tuple(GuestDisks(id=guest, disks=tuple(disks)) for guest, disks in guests.items())


@click.group(cls=Group)
def guest() -> None:
    """Make, list, show and remove the disks of guests."""


@guest.command(
    epilog=examples(
        "imagestore guest create vm1 --disk image=deb12 --disk size=10G",
        "imagestore guest create vm2 --disk deb12 --disk 512M -o json",
        "imagestore guest create vm3 --disk image=deb12,bus=virtio,device=vda",
    )
)
@click.argument("guest_id", metavar="ID")
@click.option(
    "--disk",
    "disks",
    type=DiskType(),
    multiple=True,
    required=True,
    metavar="SIZE|IMAGE|KEY=VALUE,…",
    help="A disk: a blank one of a size, or a clone of an image. Give it once for each disk.",
)
@output_option
@changing
def create(client: Client, guest_id: str, disks: tuple[Disk, ...], output: Format) -> None:
    """Make the disks of a guest, all or none. The same command again changes nothing."""
    check_guest_id(guest_id)
    try:
        made = client.create_guest_disks({"id": guest_id, "disks": list(disks)})
    except NotFound as problem:
        with suppress(ImageStoreError):  # what is asked for to help must not hide what is wrong
            problem.detail = missing_images(disks, client.describe_images())
        raise
    _show_guest(made, output)


def missing_images(disks: Sequence[Disk], images: Sequence[Image]) -> str:
    """Which images the disks are of that ``images`` lack, and how those come; "" for none."""
    usable = {name for image in images if image.status == "complete" for name in names_of(image)}
    wanted = dict.fromkeys(str(disk["image"]) for disk in disks if "image" in disk)
    missing = [image for image in wanted if image not in usable]
    if not missing:
        return ""
    named = ", ".join(missing)
    return f"there is no image {named}; imagestore image pull ID fetches one, image ls lists them"


def names_of(image: Image) -> tuple[str, ...]:
    """The image's id and its aliases."""
    return (image.id, *(image.aliases if image.aliases is not UNSET else ()))


def _show_guest(made: Guest, output: Format) -> None:
    if output == "table":
        show_rows(made.get("disks") or [], DISK_COLUMNS, output)
    elif output == "json":
        print_json(made)
    else:
        print_line(made)


@guest.command("ls", epilog=examples("imagestore guest ls", "imagestore guest ls -o jsonl"))
@output_option
@connected
def list_guests(client: Client, output: Format) -> None:
    """List the guests that have disks in the pool."""
    show_rows(by_guest(client.list_volumes()), GUEST_COLUMNS, output)


@guest.command(epilog=examples("imagestore guest show vm1"))
@click.argument("guest_id", metavar="ID")
@output_option
@connected
def show(client: Client, guest_id: str, output: Format) -> None:
    """Show the disks of a guest."""
    for found in by_guest(client.list_volumes()):
        if found.id == guest_id:
            show_rows(found.disks, VOLUME_COLUMNS, output)
            return
    raise NotFound(detail=f"no guest {guest_id!r} has disks; imagestore guest ls lists those that have")


@guest.command(epilog=examples("imagestore guest rm vm1", "imagestore guest rm vm1 --yes --force"))
@click.argument("guest_id", metavar="ID")
@yes_option
@force_option
@output_option
@changing
def rm(client: Client, guest_id: str, yes: bool, force: bool, output: Format) -> None:
    """Remove all disks of a guest, their snapshots included. A guest without disks is no error."""
    check_guest_id(guest_id)
    confirm(f"Remove all disks of guest {guest_id}, and their snapshots?", yes=yes)
    left = client.delete_guests_disks({"id": guest_id}, force=force)
    if output == "table":
        click.echo(f"guest {guest_id} has no disks any more")
    else:
        _show_guest(left, output)
