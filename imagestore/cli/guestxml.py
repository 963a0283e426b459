"""``imagestore guest xml``: a guest as a libvirt domain, over RPC."""

import platform

import click

from imagestore.cli.connection import connected, examples
from imagestore.cli.domain import MACHINES, DomainDisk, Machine, domain_xml
from imagestore.cli.guests import guest
from imagestore.cli.sizes import SIZE
from imagestore.errors import NotFound
from imagestore.operationclient import OperationClient


def _own_architecture() -> str:
    return platform.machine() if platform.machine() in MACHINES else "x86_64"


@guest.command(
    epilog=examples(
        "imagestore guest xml vm1 > vm1.xml && virsh define vm1.xml",
        "imagestore guest xml vm1 --memory 4G --cpus 2 --network bridge=br0",
        "imagestore guest xml vm1 --emulate | virsh create /dev/stdin",
    )
)
@click.argument("guest_id", metavar="ID")
@click.option("--memory", type=SIZE, default="1G", show_default=True, help="Main memory.")
@click.option(
    "--cpus", type=click.IntRange(1, 4096), default=1, show_default=True, metavar="N", help="Processors."
)
@click.option(
    "--network",
    default="default",
    show_default=True,
    metavar="NAME|bridge=NAME|none",
    help="A network of libvirt's, or a bridge of the host's.",
)
@click.option("--arch", type=click.Choice(list(MACHINES)), default=_own_architecture, help="The processor.")
@click.option("--emulate", is_flag=True, help="Without KVM: slow, and works everywhere.")
@connected
def xml(
    client: OperationClient, guest_id: str, memory: int, cpus: int, network: str, arch: str, emulate: bool
) -> None:
    """Print a guest's disks as a libvirt domain, for virsh define.

    The paths stay the same for the disks' life: rollbacks and restarts change nothing in it.
    """
    disks = client.describe_guest(guest_id).disks
    if not disks:
        raise NotFound(
            f"guest {guest_id} has no disks", detail=f"imagestore guest create {guest_id} --disk …"
        )
    machine = Machine(memory_mib=memory, cpus=cpus, architecture=arch, network=network, kvm=not emulate)
    listed = [DomainDisk(id=disk.id, source=disk.device) for disk in disks]
    click.echo(domain_xml(guest_id, listed, machine), nl=False)
