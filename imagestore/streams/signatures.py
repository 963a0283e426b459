"""Recognises by its first bytes what a body is, and by what it is refused.

A raw disk has no signature of its own: whatever is no known other format is
raw.  Partition tables, file systems, LVM, ISO 9660 and squashfs are the
content of raw disks and are not looked for.  Pure.
"""

import re
import struct
from typing import Final, Literal, NoReturn

from imagestore.errors import ContentRefused
from imagestore.streams.compressions import compression_of
from imagestore.streams.records import MAGIC_BIG, MAGIC_LITTLE

Kind = Literal["stream", "raw"]
"""What can go into the pool as it comes."""

DiskFormat = Literal["qcow2", "vmdk", "vdi", "vhd", "vhdx"]
"""A disk in another program's form: its file has to be there whole before it can be read."""

Content = Kind | DiskFormat

HEAD_BYTES: Final = 1024
"""As much of a content's beginning decides what it is."""

STREAM_HEAD_BYTES: Final = 16
VHD_COOKIE: Final = b"conectix"
VHD_FOOTER_BYTES: Final = 512
_VHD_FOOTER: Final = struct.Struct(">28x4s16xQHBBII")
_VHD_FIXED: Final = 2
_VHD_BY_SIZE: Final = {b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"}
"""Programs whose footers give the disk's size; for all others qemu counts by the geometry."""

_VHD_LARGEST_GEOMETRY: Final = 65535 * 16 * 255

_CONVERT = "convert it with qemu-img convert -O raw"
_UNPACK = "only gzip, xz, zstd and bzip2 are unpacked; unpack it first"

_FOREIGN: Final[tuple[tuple[re.Pattern[bytes], DiskFormat], ...]] = (
    (re.compile(rb"QFI\xfb"), "qcow2"),
    (re.compile(rb"KDMV"), "vmdk"),
    (re.compile(rb"(?s).{64}\x7f\x10\xda\xbe"), "vdi"),
    (re.compile(VHD_COOKIE), "vhd"),
    (re.compile(rb"vhdxfile"), "vhdx"),
)

_AT_START: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"QED\0", "a QED image", _CONVERT),
    (b"COWD", "a VMDK image of the oldest kind", _CONVERT),
    (b"# Disk DescriptorFile", "a VMDK descriptor without its disk", "convert both with qemu-img convert"),
    (b"WithoutFreeSpace", "a Parallels image", _CONVERT),
    (b"WithouFreSpacExt", "a Parallels image", _CONVERT),
    (b"Bochs Virtual HD Image", "a Bochs image", _CONVERT),
    (b"\x04\x22\x4d\x18", "lz4-compressed", _UNPACK),
    (b"LZIP", "lzip-compressed", _UNPACK),
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
)
_PATTERNS: Final[tuple[tuple[re.Pattern[bytes], str, str], ...]] = (
    (re.compile(rb"\x5d\0\0..\xff{8}", re.DOTALL), "lzma-compressed", _UNPACK),
    (re.compile(rb"(?s).{257}ustar[\0 ]"), "a tar archive", _UNPACK),
    (re.compile(rb"070(701|702|707)[0-9A-Fa-f]{8}"), "a cpio archive", _UNPACK),
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head|body|error|!--)", re.IGNORECASE),
        "an HTML or XML page",
        "the address gives a page, not an image",
    ),
    (
        re.compile(rb'(\xef\xbb\xbf)?\s*(\{\s*("|\})|\[\s*(["{\]\d]))'),
        "JSON text",
        "the address gives a document, not an image",
    ),
)


def is_stream(head: bytes) -> bool:
    """Whether ``head`` begins a ZFS send stream.

    Raises:
        ContentRefused: it does, of a big-endian machine.
    """
    magic = head[8:STREAM_HEAD_BYTES]
    if magic == MAGIC_BIG and head[:4] == bytes(4):
        raise ContentRefused("big-endian send streams are refused; send from a little-endian machine")
    return magic == MAGIC_LITTLE and head[:4] == bytes(4)


def classify(head: bytes) -> Content:
    """What content with this beginning (HEAD_BYTES of it, or all) is.

    Raises:
        ContentRefused: it has the signature of something else.
    """
    if is_stream(head):
        return "stream"
    for pattern, kind in _FOREIGN:
        if pattern.match(head):
            return kind
    packed = compression_of(head)
    if packed is not None:
        raise _refusal(f"compressed twice, the second time with {packed}", "pack it once")
    for signature, what, remedy in _AT_START:
        if head.startswith(signature):
            raise _refusal(what, remedy)
    for pattern, what, remedy in _PATTERNS:
        if pattern.match(head):
            raise _refusal(what, remedy)
    return "raw"


def without_footer(tail: bytes, length: int) -> bytes:
    """``tail``, the last 512 bytes of raw content of ``length`` bytes, if they are a disk's; b"" if they
    are the footer that makes it a fixed-size VHD, whose disk is all that comes before.

    Raises:
        ContentRefused: they are the footer of another kind of VHD, or of another disk.
    """
    if not tail.startswith(VHD_COOKIE):
        return tail
    creator, current_bytes, cylinders, heads, sectors, kind, checksum = _VHD_FOOTER.unpack_from(tail)
    right_sum = ~(sum(tail) - sum(tail[64:68])) & 0xFFFFFFFF
    by_geometry = cylinders * heads * sectors
    is_by_size = creator in _VHD_BY_SIZE or by_geometry == _VHD_LARGEST_GEOMETRY
    size = current_bytes if is_by_size else by_geometry * 512
    if kind != _VHD_FIXED or checksum != right_sum or size != length - VHD_FOOTER_BYTES:
        raise _refusal("a VHD image whose footer does not belong to its disk", _CONVERT)
    return b""


def refuse_format(kind: DiskFormat) -> NoReturn:
    """Raises ContentRefused, where a disk of another program's form cannot be taken."""
    raise _refusal(f"a {kind} disk image, which is not taken here", _CONVERT)


def _refusal(what: str, remedy: str) -> ContentRefused:
    return ContentRefused(
        f"content is {what}; accepted are ZFS send streams, raw disks, qcow2, vmdk, vdi, vhd and vhdx, "
        "plain or packed with gzip, xz, zstd or bzip2",
        detail=remedy,
    )
