"""Recognises by its first bytes what a body is, and by what it is refused.

A raw disk has no signature of its own: whatever is no known other format is
raw.  Partition tables, file systems, LVM, ISO 9660 and squashfs are the
content of raw disks and are not looked for.  Pure.
"""

import re
from typing import Final, Literal

from imagestore.errors import ContentRefused
from imagestore.streams.records import MAGIC_BIG, MAGIC_LITTLE

Kind = Literal["stream", "raw"]

HEAD_BYTES: Final = 1024
"""As much of a content's beginning decides what it is."""

STREAM_HEAD_BYTES: Final = 16
GZIP_MAGIC: Final = b"\x1f\x8b"
VHD_COOKIE: Final = b"conectix"
VHD_FOOTER_BYTES: Final = 512

_CONVERT = "convert it with qemu-img convert -O raw"
_UNPACK = "only gzip is unpacked; unpack it first"

_AT_START: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"QFI\xfb", "a qcow2 image", _CONVERT),
    (b"QED\0", "a QED image", _CONVERT),
    (b"KDMV", "a VMDK image", _CONVERT),
    (b"COWD", "a VMDK image", _CONVERT),
    (b"# Disk DescriptorFile", "a VMDK descriptor", _CONVERT),
    (b"vhdxfile", "a VHDX image", _CONVERT),
    (VHD_COOKIE, "a VHD image", _CONVERT),
    (b"WithoutFreeSpace", "a Parallels image", _CONVERT),
    (b"WithouFreSpacExt", "a Parallels image", _CONVERT),
    (b"Bochs Virtual HD Image", "a Bochs image", _CONVERT),
    (GZIP_MAGIC, "gzip inside gzip", "pack it once"),
    (b"\xfd7zXZ\0", "xz-compressed", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", _UNPACK),
    (b"\x04\x22\x4d\x18", "lz4-compressed", _UNPACK),
    (b"LZIP", "lzip-compressed", _UNPACK),
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
)
_PATTERNS: Final[tuple[tuple[re.Pattern[bytes], str, str], ...]] = (
    (re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"), "bzip2-compressed", _UNPACK),
    (re.compile(rb"\x5d\0\0..\xff{8}", re.DOTALL), "lzma-compressed", _UNPACK),
    (re.compile(rb"(?s).{257}ustar[\0 ]"), "a tar archive", _UNPACK),
    (re.compile(rb"(?s).{64}\x7f\x10\xda\xbe"), "a VDI image", _CONVERT),
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


def classify(head: bytes) -> Kind:
    """What content with this beginning (HEAD_BYTES of it, or all) is.

    Raises:
        ContentRefused: it has the signature of something else.
    """
    if is_stream(head):
        return "stream"
    for signature, what, remedy in _AT_START:
        if head.startswith(signature):
            raise _refusal(what, remedy)
    for pattern, what, remedy in _PATTERNS:
        if pattern.match(head):
            raise _refusal(what, remedy)
    return "raw"


def check_footer(tail: bytes) -> None:
    """Raises ContentRefused if the last 512 bytes make raw content a fixed-size VHD."""
    if tail.startswith(VHD_COOKIE):
        raise _refusal("a VHD image of fixed size", _CONVERT)


def _refusal(what: str, remedy: str) -> ContentRefused:
    return ContentRefused(
        f"content is {what}; accepted are ZFS send streams and raw disk images, plain or gzipped",
        detail=remedy,
    )
