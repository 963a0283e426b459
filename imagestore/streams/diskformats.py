"""Whether a disk image of another program's form stands alone: read from its own header bytes.

An image may name other files (a backing file, a data file, extents, a parent)
that whoever reads it opens, on this machine, with the store's rights.  Such
images are refused before any other program sees them, and so are encrypted
ones.  Reads a bounded part of one file and trusts nothing in it.
"""

import os
import re
import struct
from collections.abc import Callable
from typing import Final, NoReturn

from imagestore.errors import ContentRefused
from imagestore.streams.signatures import DiskFormat

_QCOW2: Final = struct.Struct(">4sIQIIQI")
_QCOW2_FEATURES: Final = 72
_DATA_FILE_FEATURE: Final = 1 << 2
_KNOWN_FEATURES: Final = 0b11111

_VMDK: Final = struct.Struct("<4sIIQQQQ")
_VMDK_SECTOR: Final = 512
_VMDK_MOST_DESCRIPTOR: Final = 64 << 10
_VMDK_USUAL_DESCRIPTOR: Final = (_VMDK_SECTOR, 20 * _VMDK_SECTOR)
"""Where qemu looks for a descriptor, whatever the header says."""

_VMDK_TYPES: Final = (b"monolithicSparse", b"streamOptimized")
_VMDK_EXTENT: Final = re.compile(rb"^\s*(RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)", re.MULTILINE)

_VDI_KIND: Final = 76
_VDI_LINKS: Final = slice(424, 456)

_VHD_KIND: Final = 60
_VHD_DYNAMIC: Final = 3

_VHDX_REGIONS: Final = (192 << 10, 256 << 10)
_VHDX_TABLE_BYTES: Final = 64 << 10
_VHDX_METADATA: Final = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
_VHDX_PARENT: Final = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
_VHDX_PARAMETERS: Final = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
_VHDX_HAS_PARENT: Final = 2


def check_stands_alone(path: str, kind: DiskFormat) -> None:
    """Raises ContentRefused if the image in the file at ``path`` needs another file, or a key."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _CHECKS[kind](fd)
    except struct.error:
        raise ContentRefused(f"{kind} image is cut: its header is missing") from None
    finally:
        os.close(fd)


def _refuse(kind: DiskFormat, what: str) -> NoReturn:
    raise ContentRefused(
        f"{kind} image {what}; only images that stand alone are taken",
        detail="make one of it with qemu-img convert",
    )


def _check_qcow2(fd: int) -> None:
    head = os.pread(fd, 104, 0)
    _, version, backing_offset, backing_bytes, _, _, encryption = _QCOW2.unpack_from(head)
    if version not in (2, 3):
        _refuse("qcow2", f"is of version {version}")
    if backing_offset or backing_bytes:
        _refuse("qcow2", "has a backing file")
    if encryption:
        _refuse("qcow2", "is encrypted")
    if version == 3:
        (features,) = struct.unpack_from(">Q", head, _QCOW2_FEATURES)
        if features & _DATA_FILE_FEATURE:
            _refuse("qcow2", "has an external data file")
        if features & ~_KNOWN_FEATURES:
            _refuse("qcow2", f"needs unknown features ({features:#x})")


def _check_vmdk(fd: int) -> None:
    head = os.pread(fd, _VMDK_SECTOR, 0)
    _, _, _, capacity, _, descriptor_at, descriptor_sectors = _VMDK.unpack_from(head)
    if not capacity:
        _refuse("vmdk", "is a descriptor of other files")
    places = {_VMDK_USUAL_DESCRIPTOR}
    if descriptor_at:
        places.add((descriptor_at * _VMDK_SECTOR, descriptor_sectors * _VMDK_SECTOR))
    for offset, length in sorted(places):
        if length > _VMDK_MOST_DESCRIPTOR or offset + length > os.fstat(fd).st_size + _VMDK_MOST_DESCRIPTOR:
            _refuse("vmdk", f"has a descriptor of {length} bytes")
        _check_vmdk_descriptor(os.pread(fd, length, offset))


def _check_vmdk_descriptor(area: bytes) -> None:
    text = area.partition(b"\0")[0]
    if not text.lstrip().startswith(b"# Disk DescriptorFile"):
        if b"parentFileNameHint" in area:
            _refuse("vmdk", "has a parent")
        return
    settings = dict(re.findall(rb'^\s*(\w+)\s*=\s*"?([^"\r\n]*)', text, re.MULTILINE))
    if (
        settings.get(b"parentCID", b"ffffffff").strip().lower() != b"ffffffff"
        or b"parentFileNameHint" in area
    ):
        _refuse("vmdk", "has a parent")
    made_as = settings.get(b"createType", b"monolithicSparse").strip()
    if made_as not in _VMDK_TYPES:
        _refuse("vmdk", f"is of type {made_as.decode('latin-1')[:40]!r}")
    extents = _VMDK_EXTENT.findall(text)
    if len(extents) > 1 or any(kind != b"SPARSE" for _, kind in extents):
        _refuse("vmdk", f"has {len(extents)} extents in other files")


def _check_vdi(fd: int) -> None:
    head = os.pread(fd, 512, 0)
    (kind,) = struct.unpack_from("<I", head, _VDI_KIND)
    if kind not in (1, 2) or any(head[_VDI_LINKS]):
        _refuse("vdi", "has a parent")


def _check_vhd(fd: int) -> None:
    (kind,) = struct.unpack_from(">I", os.pread(fd, 512, 0), _VHD_KIND)
    if kind != _VHD_DYNAMIC:
        _refuse("vhd", "has a parent" if kind == 4 else f"is of type {kind}")


def _check_vhdx(fd: int) -> None:
    for table in _VHDX_REGIONS:
        for metadata in _vhdx_entries(fd, table, b"regi", 16, _VHDX_METADATA, "<16sQ"):
            _check_vhdx_metadata(fd, metadata)


def _check_vhdx_metadata(fd: int, at: int) -> None:
    if _vhdx_entries(fd, at, b"metadata", 32, _VHDX_PARENT, "<16sI"):
        _refuse("vhdx", "has a parent")
    for offset in _vhdx_entries(fd, at, b"metadata", 32, _VHDX_PARAMETERS, "<16sI"):
        (_, flags) = struct.unpack_from("<II", os.pread(fd, 8, at + offset))
        if flags & _VHDX_HAS_PARENT:
            _refuse("vhdx", "has a parent")


def _vhdx_entries(fd: int, at: int, signature: bytes, first: int, wanted: bytes, layout: str) -> list[int]:
    """Where the entries called ``wanted`` of the table at ``at`` point to."""
    table = os.pread(fd, _VHDX_TABLE_BYTES, at) if at < os.fstat(fd).st_size else b""
    if not table.startswith(signature):
        return []
    found = []
    for entry in range(first, len(table) - 31, 32):
        name, offset = struct.unpack_from(layout, table, entry)
        if name == wanted:
            found.append(offset)
    return found


_CHECKS: Final[dict[DiskFormat, Callable[[int], None]]] = {
    "qcow2": _check_qcow2,
    "vmdk": _check_vmdk,
    "vdi": _check_vdi,
    "vhd": _check_vhd,
    "vhdx": _check_vhdx,
}
