"""A guest as a libvirt domain: its XML, made of its disks and of what a person says of the machine.  Pure.

What is chosen, and why: disks are raw, on virtio, by the path that stays the
same for a disk's life; ``cache=none`` with ``io=native``, so that what a guest
flushed is what a snapshot holds and the host keeps no second copy;
``discard=unmap``, so that what a guest deletes is free again; a serial console,
which a person without a screen needs.
"""

import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from msgspec import Struct

NAMESPACE = uuid.UUID("5d0c7b2e-1b0f-5d4c-9d3a-0a4b8f1c7e21")
"""Of domains' UUIDs: the same guest has the same one every time."""

MACHINES = {"x86_64": "q35", "aarch64": "virt"}
"""The processors that domains are made for, and the machine that each goes with."""

NO_NETWORK = "none"

_TRAILING_NUMBER = re.compile(r"(.*?)([0-9]*)\Z", re.DOTALL)


class DomainDisk(Struct, frozen=True, kw_only=True):
    """``id`` is its dataset's name, ``source`` the path that a machine opens."""

    id: str
    source: str


class Machine(Struct, frozen=True, kw_only=True):
    """``network`` is a libvirt network, ``bridge=NAME`` or ``none``; ``kvm`` False emulates the processor."""

    memory_mib: int
    cpus: int
    architecture: str
    network: str
    kvm: bool = True


def domain_xml(guest: str, disks: Sequence[DomainDisk], machine: Machine) -> str:
    """The domain, ready for ``virsh define``; the disk with the least number boots."""
    domain = ET.Element("domain", type="kvm" if machine.kvm else "qemu")
    _add(domain, "name", guest)
    _add(domain, "uuid", str(uuid.uuid5(NAMESPACE, guest)))
    _add(domain, "memory", str(machine.memory_mib), unit="MiB")
    _add(domain, "vcpu", str(machine.cpus))
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch=machine.architecture, machine=MACHINES[machine.architecture])
    _add(system, "boot", dev="hd")
    features = _add(domain, "features")
    _add(features, "acpi")
    if machine.kvm:
        _add(domain, "cpu", mode="host-passthrough")
    devices = _add(domain, "devices")
    for number, disk in enumerate(sorted(disks, key=_by_number)):
        _disk(devices, number, disk)
    _network(devices, machine.network)
    _add(_add(devices, "serial", type="pty"), "target", port="0")
    _add(_add(devices, "console", type="pty"), "target", type="serial", port="0")
    _add(_add(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def _add(above: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(above, tag, attributes)
    element.text = text
    return element


def _by_number(disk: DomainDisk) -> tuple[str, int]:
    """``disk-10`` after ``disk-9``."""
    match = _TRAILING_NUMBER.match(disk.id)
    assert match is not None, "it matches every text"
    return match[1], int(match[2] or 0)


def _disk(devices: ET.Element, number: int, disk: DomainDisk) -> None:
    is_device = disk.source.startswith("/dev/")
    element = _add(devices, "disk", type="block" if is_device else "file", device="disk")
    _add(element, "driver", name="qemu", type="raw", cache="none", io="native", discard="unmap")
    _add(element, "source", **{"dev" if is_device else "file": disk.source})
    _add(element, "target", dev=f"vd{letters(number)}", bus="virtio")
    _add(element, "serial", f"disk-{number}")


def _network(devices: ET.Element, network: str) -> None:
    kind, equals, name = network.partition("=")
    if network == NO_NETWORK:
        return
    if equals and kind == "bridge":
        interface = _add(devices, "interface", type="bridge")
        _add(interface, "source", bridge=name)
    else:
        interface = _add(devices, "interface", type="network")
        _add(interface, "source", network=network)
    _add(interface, "model", type="virtio")


def letters(number: int) -> str:
    """``a`` of 0, ``z`` of 25, ``aa`` of 26."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
