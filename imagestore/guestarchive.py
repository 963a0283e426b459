"""A whole guest as a tar: one plain send stream a disk, and a manifest.

Owns the archive's form, the same from every driver::

    manifest.json   {"format": 1, "guest": ID, "snapshot": NAME, "disks": [
                       {"file": "disk-0.zfs", "dataset": "guests/ID/disk-0", "guid": "…",
                        "volsize": BYTES, "stream_bytes": BYTES, "sha256": HEX}, …]}
    disk-0.zfs      the send stream of guests/ID/disk-0@NAME
    …

The manifest stands first.  A tar says how long a member is before its bytes,
and a manifest what they hash to, so each stream is read twice: the same
snapshot gives the same bytes, and a difference breaks the archive off.
All snapshots are kept from being destroyed until the archive has ended.
"""

import hashlib
import tarfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack

import msgspec
import trio
from msgspec import Struct

from imagestore import names
from imagestore.errors import PoolError
from imagestore.pools.base import Dataset, PoolDriver


class DiskEntry(Struct, frozen=True, kw_only=True):
    file: str
    dataset: str
    guid: str
    volsize: int
    stream_bytes: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    format: int = 1
    guest: str
    snapshot: str
    disks: tuple[DiskEntry, ...]


async def guest_archive(
    driver: PoolDriver, guest: str, snapshot: str, disks: Sequence[Dataset]
) -> AsyncGenerator[bytes | memoryview, None]:
    """The archive's bytes. ``disks`` are the snapshots of the guest's volumes, in order.

    Raises, while iterated, what ``PoolDriver.send`` raises, and PoolError when
    a stream differs the second time it is read.
    """
    async with AsyncExitStack() as streams:
        held = [await streams.enter_async_context(driver.send(disk.target)) for disk in disks]
        entries = [await _measure(driver, disk) for disk in disks]
        manifest = Manifest(guest=guest, snapshot=snapshot, disks=tuple(entries))
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        yield _header("manifest.json", len(text), disks[0].creation) + text + _padding(len(text))
        for disk, entry, pieces in zip(disks, entries, held, strict=True):
            yield _header(entry.file, entry.stream_bytes, disk.creation)
            left = entry.stream_bytes
            async for piece in pieces:
                left -= len(piece)
                if left < 0:
                    break
                yield piece
            if left:
                raise PoolError(f"the stream of {disk.name} changed while it was read")
            yield _padding(entry.stream_bytes)
        yield bytes(2 * tarfile.BLOCKSIZE)


async def _measure(driver: PoolDriver, disk: Dataset) -> DiskEntry:
    digest = hashlib.sha256()
    size = 0
    async with driver.send(disk.target) as pieces:
        async for piece in pieces:
            size += len(piece)
            await trio.to_thread.run_sync(digest.update, piece)
    volume = names.parent(disk.name)
    return DiskEntry(
        file=f"{volume.rpartition('/')[2]}.zfs",
        dataset=volume,
        guid=str(disk.guid),
        volsize=disk.volsize,
        stream_bytes=size,
        sha256=digest.hexdigest(),
    )


def _header(name: str, size: int, modified: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mtime = modified
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
