"""Disk images that name other files, or need a key, are refused by their header bytes alone."""

import struct
from pathlib import Path

import pytest

from imagestore.errors import ContentRefused
from imagestore.streams.diskformats import check_stands_alone
from imagestore.streams.signatures import DiskFormat

DESCRIPTOR = b"""\
# Disk DescriptorFile
version=1
CID=478c2f41
parentCID=ffffffff
createType="monolithicSparse"
RW 40960 SPARSE "disk.vmdk"
"""


def qcow2(*, version: int = 3, backing: int = 0, encryption: int = 0, features: int = 0) -> bytes:
    head = struct.pack(
        ">4sIQIIQI", b"QFI\xfb", version, backing, 8 if backing else 0, 16, 1 << 20, encryption
    )
    return head.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(200)


def vmdk(descriptor: bytes = DESCRIPTOR, *, capacity: int = 40960, at: int = 1, sectors: int = 20) -> bytes:
    head = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, capacity, 128, at, sectors).ljust(512 * at, b"\0")
    return head + descriptor.ljust(max(512 * sectors, 10240), b"\0")


def vdi(*, kind: int = 1, parent: bytes = bytes(16)) -> bytes:
    head = bytes(64) + struct.pack("<III", 0xBEDA107F, 0x10001, 0x190) + struct.pack("<I", kind)
    return head.ljust(440, b"\0") + parent + bytes(56)


def vhd(kind: int) -> bytes:
    return b"conectix".ljust(60, b"\0") + struct.pack(">I", kind) + bytes(448)


def vhdx(*items: tuple[str, bytes]) -> bytes:
    """A VHDX whose metadata are ``items``: the item's GUID as it lies on disk, and its content."""
    regions = struct.pack("<4sIII", b"regi", 0, 1, 0)
    regions += bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e") + struct.pack("<QII", 512 << 10, 1 << 20, 1)
    table = struct.pack("<8sHH20x", b"metadata", 0, len(items))
    content = b""
    for name, data in items:
        table += bytes.fromhex(name) + struct.pack("<IIII", (64 << 10) + len(content), len(data), 0, 0)
        content += data
    image = b"vhdxfile".ljust(192 << 10, b"\0") + regions
    return image.ljust(512 << 10, b"\0") + table.ljust(64 << 10, b"\0") + content


PARAMETERS = "3767a1ca36fa434db3b633f0aa44e76b"
PARENT_LOCATOR = "2d5fd3a80bb34d45abf7d3d84834ab0c"

ALONE: dict[str, tuple[DiskFormat, bytes]] = {
    "qcow2": ("qcow2", qcow2()),
    "qcow2 of version 2": ("qcow2", qcow2(version=2, features=4)),
    "dirty qcow2": ("qcow2", qcow2(features=1)),
    "vmdk": ("vmdk", vmdk()),
    "vmdk with a descriptor elsewhere": ("vmdk", vmdk(at=40)),
    "vmdk without a descriptor": ("vmdk", vmdk(b"", at=0, sectors=0)),
    "vdi": ("vdi", vdi()),
    "static vdi": ("vdi", vdi(kind=2)),
    "vhd": ("vhd", vhd(3)),
    "vhdx": ("vhdx", vhdx((PARAMETERS, struct.pack("<II", 1 << 20, 0)))),
}

NOT_ALONE: dict[str, tuple[DiskFormat, bytes, str]] = {
    "a backing file": ("qcow2", qcow2(backing=200), "backing file"),
    "a data file": ("qcow2", qcow2(features=4), "external data file"),
    "features to come": ("qcow2", qcow2(features=64), "unknown features"),
    "a key": ("qcow2", qcow2(encryption=1), "encrypted"),
    "another version": ("qcow2", qcow2(version=1), "version 1"),
    "a cut qcow2": ("qcow2", b"QFI\xfb", "cut"),
    "a vmdk that is all descriptor": ("vmdk", vmdk(capacity=0), "descriptor of other files"),
    "a vmdk with a parent": ("vmdk", vmdk(DESCRIPTOR.replace(b"ffffffff", b"12345678")), "parent"),
    "a vmdk with a parent's name": (
        "vmdk",
        vmdk(DESCRIPTOR + b'parentFileNameHint="/etc/shadow"\n'),
        "parent",
    ),
    "a parent's name behind zeros": ("vmdk", vmdk(b'\0\0parentFileNameHint="/etc/shadow"\n'), "parent"),
    "a flat extent": ("vmdk", vmdk(DESCRIPTOR.replace(b"SPARSE", b"FLAT")), "extents"),
    "two extents": ("vmdk", vmdk(DESCRIPTOR + b'RW 1 SPARSE "/dev/sda"\n'), "extents"),
    "a split vmdk": ("vmdk", vmdk(DESCRIPTOR.replace(b"monolithic", b"twoGbMaxExtent")), "of type"),
    "a parent in a descriptor elsewhere": (
        "vmdk",
        vmdk(DESCRIPTOR.replace(b"ffffffff", b"12345678"), at=40),
        "parent",
    ),
    "a descriptor without end": (
        "vmdk",
        struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, 8, 128, 1, 1 << 40).ljust(20480, b"\0"),
        "descriptor of",
    ),
    "a differencing vdi": ("vdi", vdi(kind=4), "parent"),
    "a vdi with a parent's id": ("vdi", vdi(parent=b"\1" * 16), "parent"),
    "a differencing vhd": ("vhd", vhd(4), "parent"),
    "a vhd of another kind": ("vhd", vhd(2), "of type 2"),
    "a vhdx that says it has a parent": (
        "vhdx",
        vhdx((PARAMETERS, struct.pack("<II", 1 << 20, 2))),
        "parent",
    ),
    "a vhdx that names a parent": ("vhdx", vhdx((PARENT_LOCATOR, b"parent")), "parent"),
}


@pytest.mark.parametrize("what", ALONE)
def test_an_image_that_stands_alone_is_taken(what: str, tmp_path: Path) -> None:
    kind, content = ALONE[what]
    (tmp_path / "disk").write_bytes(content)
    check_stands_alone(str(tmp_path / "disk"), kind)


@pytest.mark.parametrize("what", NOT_ALONE)
def test_an_image_that_needs_something_else_is_refused(what: str, tmp_path: Path) -> None:
    kind, content, reason = NOT_ALONE[what]
    (tmp_path / "disk").write_bytes(content)
    with pytest.raises(ContentRefused, match=reason):
        check_stands_alone(str(tmp_path / "disk"), kind)
