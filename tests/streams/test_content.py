"""A body is what its bytes say: a stream, a raw disk, or something that is refused by name."""

import bz2
import gzip
import lzma
import random
import struct
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard

from imagestore.errors import ContentRefused
from imagestore.streams.content import OUTPUT_BYTES, Decoder
from tests.streams.samples import load

RAW = random.Random(9).randbytes(64 << 10)
STREAM = load("empty-a")
CUTS = [1, 2, 15, 600, 1 << 20]


def decode(body: bytes, cut: int = 1 << 20, *, takes_disk_formats: bool = False) -> tuple[str | None, bytes]:
    decoder = Decoder(takes_disk_formats=takes_disk_formats)
    out = bytearray()
    for at in range(0, len(body), cut):
        for piece in decoder.feed(body[at : at + cut]):
            assert decoder.kind is not None, "known with the first piece"
            assert len(piece) <= OUTPUT_BYTES
            out += piece
    for piece in decoder.finish():
        out += piece
    return decoder.kind, bytes(out)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def fixed_vhd(size: int, *, kind: int = 2, creator: bytes = b"win ", cylinders: int = 0) -> bytes:
    """The footer of a disk of ``size`` bytes."""
    footer = struct.pack(
        ">8sIIQI4s8xQQHBBII",
        b"conectix",
        2,
        1 << 16,
        2**64 - 1,
        0,
        creator,
        size,
        size,
        cylinders,
        4,
        17,
        kind,
        0,
    ).ljust(512, b"\0")
    return footer[:64] + struct.pack(">I", ~sum(footer) & 0xFFFFFFFF) + footer[68:]


VDI = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe" + RAW
FORMATS = {
    "qcow2": b"QFI\xfb\0\0\0\3" + RAW,
    "vmdk": b"KDMV" + RAW,
    "vdi": VDI,
    "vhd": b"conectix" + RAW,
    "vhdx": b"vhdxfile" + RAW,
}


def filesystem(magic: bytes, at: int) -> bytes:
    return (bytes(at) + magic).ljust(8192, b"\0")


ACCEPTED = {
    "raw": (RAW, "raw", RAW),
    "one sector": (RAW[:512], "raw", RAW[:512]),
    "zeros": (bytes(4096), "raw", bytes(4096)),
    "a stream": (STREAM, "stream", STREAM),
    "gzipped raw": (gzip.compress(RAW), "raw", RAW),
    "gzipped stream": (gzip.compress(STREAM), "stream", STREAM),
    "gzip of two members": (gzip.compress(RAW[:700]) + gzip.compress(RAW[700:]), "raw", RAW),
    "gzip with an empty member": (gzip.compress(b"") + gzip.compress(STREAM), "stream", STREAM),
    "xz": (lzma.compress(RAW), "raw", RAW),
    "xz of two streams and padding": (
        lzma.compress(RAW[:700]) + bytes(8) + lzma.compress(RAW[700:]) + bytes(4),
        "raw",
        RAW,
    ),
    "xz of a stream": (lzma.compress(STREAM), "stream", STREAM),
    "bzip2": (bz2.compress(RAW), "raw", RAW),
    "bzip2 of two streams": (bz2.compress(RAW[:700]) + bz2.compress(RAW[700:]), "raw", RAW),
    "zstd": (zstd(RAW), "raw", RAW),
    "zstd of two frames, one to be skipped": (
        zstd(RAW[:700]) + b"\x50\x2a\x4d\x18\4\0\0\0skip" + zstd(RAW[700:]),
        "raw",
        RAW,
    ),
    "fixed VHD": (RAW + fixed_vhd(len(RAW)), "raw", RAW),
    "fixed VHD by its geometry": (
        RAW[: 4 * 17 * 512] + fixed_vhd(7, creator=b"qemu", cylinders=1),
        "raw",
        RAW[: 4 * 17 * 512],
    ),
    "MBR": (filesystem(b"\x55\xaa", 510), "raw", filesystem(b"\x55\xaa", 510)),
    "GPT": (filesystem(b"EFI PART", 512), "raw", filesystem(b"EFI PART", 512)),
    "ext4": (filesystem(b"\x53\xef", 1080), "raw", filesystem(b"\x53\xef", 1080)),
    "LVM": (filesystem(b"LABELONE", 512), "raw", filesystem(b"LABELONE", 512)),
    "squashfs": (filesystem(b"hsqs", 0), "raw", filesystem(b"hsqs", 0)),
    "LUKS": (filesystem(b"LUKS\xba\xbe", 0), "raw", filesystem(b"LUKS\xba\xbe", 0)),
    "ISO 9660": (bytes(32769) + b"CD001" + bytes(2042), "raw", bytes(32769) + b"CD001" + bytes(2042)),
}


@pytest.mark.parametrize("what", ACCEPTED)
@pytest.mark.parametrize("cut", CUTS)
def test_what_is_an_image_is_decoded_in_any_cut(what: str, cut: int) -> None:
    body, kind, content = ACCEPTED[what]
    assert decode(body, cut) == (kind, content)


TAR = (b"file.img".ljust(257, b"\0") + b"ustar\x0000").ljust(10240, b"\0")
REFUSED = {
    "empty": (b"", "empty"),
    "lzma": (lzma.compress(RAW, lzma.FORMAT_ALONE), "lzma"),
    "xz of nothing": (lzma.compress(b""), "empty"),
    "empty bzip2": (bz2.compress(b""), "empty"),
    "cut xz": (lzma.compress(RAW)[:-1], "xz content is cut"),
    "cut bzip2": (bz2.compress(RAW)[:-1], "bzip2 content is cut"),
    "cut zstd": (zstd(RAW)[:-1], "zstd content is cut"),
    "damaged xz": (lzma.compress(RAW)[:-40] + bytes(4) + lzma.compress(RAW)[-36:], "xz content is damaged"),
    "wrong bzip2 sum": (bz2.compress(RAW)[:-5] + bytes(5), "bzip2 content is damaged"),
    "wrong zstd sum": (zstd(RAW)[:-4] + bytes(4), "zstd content is damaged"),
    "zstd with too large a window": (b"\x28\xb5\x2f\xfd\0\x90" + bytes(16), "zstd content is damaged"),
    "odd padding after xz": (lzma.compress(RAW) + bytes(3), "follow xz's trailer"),
    "text after bzip2": (bz2.compress(RAW) + b"BZh, an error", "follow bzip2's trailer"),
    "text after zstd": (zstd(RAW) + b"error", "follow zstd's trailer"),
    "bzip2 in gzip": (gzip.compress(bz2.compress(RAW)), "compressed twice"),
    "lz4": (b"\x04\x22\x4d\x18" + RAW, "lz4"),
    "qcow2": (FORMATS["qcow2"], "qcow2"),
    "sparse VMDK": (FORMATS["vmdk"], "vmdk"),
    "old VMDK": (b"COWD" + RAW, "VMDK"),
    "VMDK descriptor": (b"# Disk DescriptorFile\nversion=1\n".ljust(1024), "VMDK"),
    "VDI": (VDI, "vdi"),
    "dynamic VHD": (FORMATS["vhd"], "vhd"),
    "differencing VHD": (RAW + fixed_vhd(len(RAW), kind=4), "VHD"),
    "VHD of another size": (RAW + fixed_vhd(len(RAW) - 512), "VHD"),
    "VHD with a wrong sum": (RAW + fixed_vhd(len(RAW))[:-1] + b"\1", "VHD"),
    "VHDX": (FORMATS["vhdx"], "vhdx"),
    "zip": (b"PK\3\4" + RAW, "zip"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + RAW, "7z"),
    "tar": (TAR, "tar"),
    "HTML": (b"\n<!DOCTYPE html><html>".ljust(1024), "HTML"),
    "short HTML": (b"<html>404</html>", "HTML"),
    "XML": (b"\xef\xbb\xbf<?xml version='1.0'?>".ljust(512), "XML"),
    "JSON": (b'{ "error": "not found" }', "JSON"),
    "JSON array": (b'[{"id": 1}]'.ljust(512), "JSON"),
    "gzip in gzip": (gzip.compress(gzip.compress(RAW)), "compressed twice"),
    "gzipped qcow2": (gzip.compress(b"QFI\xfb" + RAW), "qcow2"),
    "gzipped nothing": (gzip.compress(b""), "empty"),
    "gzipped sector and a half": (gzip.compress(RAW[:768]), "multiple of 512"),
    "an odd length": (RAW[:-1], "multiple of 512"),
    "one byte": (b"\x1f", "multiple of 512"),
    "cut gzip": (gzip.compress(RAW)[:-1], "cut"),
    "gzip without a trailer": (gzip.compress(RAW)[:-8], "cut"),
    "gzip's magic alone": (b"\x1f\x8b", "cut"),
    "wrong gzip sum": (gzip.compress(RAW)[:-8] + b"\0\0\0\0" + gzip.compress(RAW)[-4:], "damaged"),
    "wrong gzip length": (gzip.compress(RAW)[:-4] + b"\0\0\0\0", "damaged"),
    "zeros after gzip": (gzip.compress(RAW) + bytes(512), "follow gzip's trailer"),
    "a byte after gzip": (gzip.compress(RAW) + b"x", "follow gzip's trailer"),
    "big-endian": (STREAM[:8] + STREAM[8:16][::-1] + STREAM[16:], "big-endian"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("cut", [1, 600, 1 << 20])
def test_what_is_no_image_is_refused_by_name(what: str, cut: int) -> None:
    body, reason = REFUSED[what]
    with pytest.raises(ContentRefused, match=reason) as caught:
        decode(body, cut)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lzma.compress, zstd], ids=["plain", "gzip", "xz", "zstd"]
)
def test_disk_formats_come_out_as_they_are_in_their_file(kind: str, pack: Callable[[bytes], bytes]) -> None:
    assert decode(pack(FORMATS[kind]), takes_disk_formats=True) == (kind, FORMATS[kind])


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress, zstd])
def test_a_bomb_is_given_piece_by_piece(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(100 << 20))
    decoder = Decoder()
    tracemalloc.start()
    total = sum(len(piece) for piece in decoder.feed(bomb))
    total += sum(len(piece) for piece in decoder.finish())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 100 << 20
    assert peak < 24 << 20
