"""guest xml: a domain that libvirt's own schema takes, and a guest that boots from a pulled image."""

import os
import selectors
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from imagestore.cli.domain import DomainDisk, Machine, domain_xml, letters
from imagestore.cli.imageservice import ImageService
from imagestore.cli.storeprocess import StoreProcess
from imagestore.screen import DiskStatus, GuestsRequest, GuestsResponse, GuestStatus
from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore

MACHINE = Machine(memory_mib=1024, cpus=1, architecture="x86_64", network="default")
PROMPT = b"\r\nimagestore login: "
BOOT_SECONDS = 60.0


def disk(number: int, source: str = "") -> DomainDisk:
    name = f"tank/guests/vm1/disk-{number}"
    return DomainDisk(id=name, source=source or f"/dev/zvol/{name}")


def parsed(*disks: DomainDisk, machine: Machine = MACHINE) -> ET.Element:
    return ET.fromstring(domain_xml("vm1", disks, machine))


def texts(domain: ET.Element, path: str, attribute: str) -> list[str | None]:
    return [element.get(attribute) for element in domain.findall(path)]


def test_disks_are_raw_on_virtio_by_number() -> None:
    domain = parsed(disk(10), disk(9), disk(0, "/pool/guests/vm1/disk-0"))
    assert texts(domain, "devices/disk", "type") == ["file", "block", "block"]
    assert texts(domain, "devices/disk/source", "file")[0] == "/pool/guests/vm1/disk-0"
    assert texts(domain, "devices/disk/source", "dev")[1:] == [disk(9).source, disk(10).source]
    assert texts(domain, "devices/disk/target", "dev") == ["vda", "vdb", "vdc"]
    assert set(texts(domain, "devices/disk/driver", "type")) == {"raw"}
    assert set(texts(domain, "devices/disk/target", "bus")) == {"virtio"}


def test_the_same_guest_is_the_same_domain() -> None:
    assert parsed(disk(0)).findtext("uuid") == parsed(disk(1)).findtext("uuid")


def test_what_a_path_holds_is_escaped() -> None:
    assert texts(parsed(disk(0, "/p/<a>&'\"")), "devices/disk/source", "file") == ["/p/<a>&'\""]


@pytest.mark.parametrize(("number", "text"), [(0, "a"), (25, "z"), (26, "aa"), (701, "zz"), (702, "aaa")])
def test_the_letters_of_disks(number: int, text: str) -> None:
    assert letters(number) == text


def test_the_command_says_what_its_flags_say(
    run: Run, memory_store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = DiskStatus(
        id="tank/guests/vm1/disk-0", size_bytes=1, written_bytes=0, device="/dev/zvol/x", in_use=False
    )
    guest = GuestStatus(id="vm1", in_use=False, size_bytes=1, written_bytes=0, disks=(status,))
    asked: list[object] = []

    def describe(request: dict[str, object]) -> object:
        asked.append(request["id"])
        return msgspec.to_builtins(GuestsResponse(guests=(guest,), total=1))

    monkeypatch.setattr(memory_store, "describe_guests", describe, raising=False)
    arguments = ("--memory", "4G", "--cpus", "2", "--network", "bridge=br0", "--arch", "aarch64", "--emulate")
    ended = run("guest", "xml", "vm1", *arguments)
    domain = ET.fromstring(ended.out)
    assert asked == ["vm1"]
    assert (domain.get("type"), domain.findtext("memory"), domain.findtext("vcpu")) == ("qemu", "4096", "2")
    assert texts(domain, "devices/interface/source", "bridge") == ["br0"]
    assert texts(domain, "os/type", "machine") == ["virt"]


@pytest.mark.system
@pytest.mark.parametrize("kvm", [True, False])
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
@pytest.mark.parametrize("network", ["default", "bridge=br0", "none"])
def test_libvirts_own_schema_takes_it(tmp_path: Path, network: str, architecture: str, kvm: bool) -> None:
    machine = Machine(memory_mib=512, cpus=4, architecture=architecture, network=network, kvm=kvm)
    file = tmp_path / "vm1.xml"
    file.write_text(domain_xml("vm1", [disk(0), disk(1, "/srv/pool/guests/vm1/disk-1")], machine))
    ended = subprocess.run(
        ["virt-xml-validate", str(file), "domain"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


# --- a guest that boots -------------------------------------------------------------


def boot_sector() -> bytes:
    """What a BIOS loads and runs: it writes the prompt to the first serial line, and halts."""
    code = bytes.fromhex("31c08ed8") + b"\xbe\x00\x00" + bytes.fromhex("ac08c07406baf803eeebf5f4ebfd")
    code = code.replace(b"\xbe\x00\x00", b"\xbe" + (0x7C00 + len(code)).to_bytes(2, "little"))
    return (code + PROMPT + b"\0").ljust(510, b"\0") + b"\x55\xaa"


@pytest.mark.system
def test_from_an_image_to_a_login_prompt(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "tiny").write_bytes(boot_sector().ljust(1 << 20, b"\0"))
    with ImageService(str(images)) as service, StoreProcess(str(tmp_path), service.address) as process:
        client = process.start()
        client.request_image("tiny")
        client.create_guest_disks({"id": "vm1", "disks": [{"image": "tiny"}]})
        told = client.call("DescribeGuests", GuestsRequest(id="vm1"), GuestsResponse)
        domain = parsed(*(DomainDisk(id=each.id, source=each.device) for each in told.guests[0].disks))
        (source,) = texts(domain, "devices/disk/source", "file")
        assert PROMPT in booted(str(source))


def booted(disk_path: str) -> bytes:
    """What the machine with that disk writes to its serial line until the prompt is there."""
    words = ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "64", "-nodefaults", "-display", "none"]
    words += ["-drive", f"file={disk_path},if=virtio,format=raw", "-serial", "stdio"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        try:
            return read_until_prompt(machine.stdout.fileno())
        finally:
            machine.kill()


def read_until_prompt(file: int) -> bytes:
    said = b""
    deadline = time.monotonic() + BOOT_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        while PROMPT not in said and selector.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(file, 4096)
            if not piece:
                break
            said += piece
    return said
