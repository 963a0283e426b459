"""Disks of other programs' forms into raw ones, by ``qemu-img``.

An image is judged twice before it is read: by its own header bytes
(:mod:`imagestore.streams.diskformats`) and by what ``qemu-img info`` says of
it; the format is always given, never probed.  What comes out is what
``qemu-img convert -O raw`` makes.  See :mod:`imagestore.actors.boundedprocess`
for how other programs are kept in bounds.
"""

import os
from typing import Any

import msgspec
import trio
from msgspec import Struct

from imagestore.actors.boundedprocess import Finished, Limits, find_program, run_bounded
from imagestore.errors import ConfigError, ContentRefused, FetchFailed, NoSpace
from imagestore.streams.diskformats import check_stands_alone
from imagestore.streams.signatures import DiskFormat

_DRIVERS: dict[DiskFormat, str] = {
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vhd": "vpc",
    "vhdx": "vhdx",
}

LOOK_SECONDS = 60
"""How long qemu-img may look at an image's header."""

CONVERT_SECONDS = 600
"""How long a conversion may take, and a second more for every SLOWEST_BYTES of the disk."""

SLOWEST_BYTES = 4 << 20

LARGEST_DISK_BYTES = 16 << 40
"""No file system of ours holds a larger file, and nobody waits for it."""

_OTHER_FILES = frozenset({"backing-filename", "full-backing-filename", "data-file", "data-file-raw"})


class DiskLook(Struct, frozen=True, kw_only=True):
    """What ``qemu-img info`` says of a disk; its size in bytes."""

    size_bytes: int


async def convert(source: str, kind: DiskFormat, raw: str, most_bytes: int | None) -> None:
    """Make the new file ``raw`` of the disk image in the file ``source``. See ``actors.origin.Convert``."""
    try:
        qemu_img = find_program("qemu-img", "qemu-utils", f"a {kind} image")
        await trio.to_thread.run_sync(check_stands_alone, source, kind)
        info = await run_bounded(
            qemu_img,
            *("info", "--output=json", "-f", _DRIVERS[kind], os.path.abspath(source)),
            limits=Limits(seconds=LOOK_SECONDS),
        )
        if info.status != 0:
            raise _failure(info, source, kind)
        size = judge(info.output, os.path.abspath(source), kind, most_bytes).size_bytes
        done = await run_bounded(
            qemu_img,
            *("convert", "-f", _DRIVERS[kind], "-O", "raw", os.path.abspath(source), os.path.abspath(raw)),
            limits=Limits(seconds=CONVERT_SECONDS + size // SLOWEST_BYTES, file_bytes=size),
        )
        if done.status != 0:
            raise _failure(done, source, kind)
    except ConfigError as error:
        raise FetchFailed(str(error), detail=error.detail) from error


def judge(output: bytes, source: str, kind: DiskFormat, most_bytes: int | None) -> DiskLook:
    """What ``qemu-img info --output=json`` says of the file ``source``.

    Raises:
        ContentRefused: the image needs other files or a key, or is too large or too small.
    """
    try:
        said = msgspec.json.decode(output, type=dict[str, Any])
        size = said["virtual-size"]
    except (msgspec.DecodeError, KeyError) as error:
        raise ContentRefused(f"{kind} image cannot be read: qemu-img says nothing of its size") from error
    if said.get("format") != _DRIVERS[kind] or not isinstance(size, int):
        raise ContentRefused(f"{kind} image cannot be read: qemu-img takes it for something else")
    others = _other_files(said, source)
    if others:
        raise ContentRefused(
            f"{kind} image needs other files ({', '.join(others)[:80]!r}); only whole ones are taken"
        )
    if said.get("encrypted"):
        raise ContentRefused(f"{kind} image is encrypted")
    if size <= 0:
        raise ContentRefused(f"{kind} image has a disk of no size")
    limit = LARGEST_DISK_BYTES if most_bytes is None else min(most_bytes, LARGEST_DISK_BYTES)
    if size > limit:
        raise ContentRefused(f"image's disk has {size} bytes, over the limit of {limit}")
    return DiskLook(size_bytes=size)


def _other_files(said: object, source: str) -> list[str]:
    """Files that are named anywhere in what was said, but for the image's own."""
    found: list[str] = []
    if isinstance(said, dict):
        for key, value in said.items():
            names_another = value not in (None, False) if key in _OTHER_FILES else value != source
            if key in _OTHER_FILES or key == "filename":
                found += [str(value)] if names_another else []
            else:
                found += _other_files(value, source)
    elif isinstance(said, list):
        for value in said:
            found += _other_files(value, source)
    return found


def _failure(finished: Finished, source: str, kind: DiskFormat) -> FetchFailed | NoSpace:
    if "No space left" in finished.complaint or "Disk quota" in finished.complaint:
        return NoSpace()
    if finished.status is None or finished.status < 0:
        return ContentRefused(f"{kind} image cannot be converted: qemu-img took too much time or memory")
    reason = finished.complaint.replace(os.path.abspath(source), "the image").removeprefix("qemu-img: ")
    return ContentRefused(f"{kind} image cannot be converted: {reason[:200] or 'qemu-img failed'}")
