"""Writes send streams of volumes: full, incremental, and packages of them.

The sequence of records is that of ``zfs send``, with all that receivers need
and nothing that harms one.  A stream depends on nothing but its arguments and
the content: the same snapshot gives the same bytes every time, whatever holes
its file has, so a download can have a strong ETag and be resumed.  (With
``compress`` also on the version of the lz4 library.)

Synchronous generators, driven by one thread at a time; numpy is loaded when
the first stream is written, not with this module.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from imagestore.errors import InvalidArgument
from imagestore.streams import packages, records
from imagestore.streams.member import Compression, PackageMember
from imagestore.streams.rules import is_name
from imagestore.streams.snapshot import SnapshotInfo

PIECE_BYTES: Final = 1 << 20
"""Longest piece given at once."""

MAX_BLOCK_BYTES: Final = 1 << 20
"""Largest block size that is written; above 128 KiB with the feature LARGE_BLOCKS."""

_SECTOR: Final = 512


def write_stream(
    source_fd: int,
    snapshot: SnapshotInfo,
    *,
    base_fd: int | None = None,
    base: SnapshotInfo | None = None,
    compress: Compression | None = None,
    skip: int = 0,
) -> Iterator[memoryview]:
    """The plain stream of a snapshot, in pieces of up to 1 MiB, each valid until the next is asked for.

    ``source_fd`` holds its content (``snapshot.volsize`` bytes; a shorter file
    reads as zeros behind its end) and must not change meanwhile.  With ``base``
    and ``base_fd`` the stream is incremental from that snapshot, and a clone's
    if ``snapshot.is_clone`` and ``base`` is what it was cloned from.  The first
    ``skip`` bytes of the stream are made and not given.

    Raises:
        InvalidArgument: no receiver would take such a stream.
    """
    member = PackageMember(source_fd=source_fd, snapshot=snapshot, base_fd=base_fd, base=base)
    _check(member)
    return _skipping(_plain(member, compress), skip)


def stream_bytes(
    source_fd: int,
    snapshot: SnapshotInfo,
    *,
    base_fd: int | None = None,
    base: SnapshotInfo | None = None,
    compress: Compression | None = None,
) -> int:
    """How long :func:`write_stream` with the same arguments is; reads all of the content."""
    pieces = write_stream(source_fd, snapshot, base_fd=base_fd, base=base, compress=compress)
    return sum(map(len, pieces))


def write_package(
    members: Sequence[PackageMember],
    *,
    compress: Compression | None = None,
    dataset_guid: int | None = None,
    skip: int = 0,
) -> Iterator[memoryview]:
    """A package (``zfs send -R`` or ``-I``) of a volume's snapshots, oldest first; as :func:`write_stream`.

    Each member but the first has the one before it as its base.
    ``dataset_guid`` names the volume in the package's header; its first
    snapshot's guid does as well.
    """
    if not members:
        raise InvalidArgument("a package holds at least one snapshot")
    for member, before in zip(members[1:], members, strict=False):
        if member.base is None or member.base.guid != before.snapshot.guid:
            raise InvalidArgument(f"{member.snapshot.name} is not from {before.snapshot.name}, before it")
    for member in members:
        _check(member)
    return _skipping(_package(members, compress, dataset_guid or members[0].snapshot.guid), skip)


def _check(member: PackageMember) -> None:
    """Section by section what harms receivers or is refused by them."""
    snapshot, base = member.snapshot, member.base
    block = snapshot.volblocksize
    if block < _SECTOR or block > MAX_BLOCK_BYTES or block & (block - 1):
        raise InvalidArgument(f"a block size of {block} bytes; allowed are powers of two from 512 to 1048576")
    if snapshot.volsize <= 0 or snapshot.volsize % _SECTOR or snapshot.volsize > records.MAX_OFFSET:
        raise InvalidArgument(f"a volume of {snapshot.volsize} bytes; allowed are multiples of 512")
    if not 0 < snapshot.guid <= records.U64_MAX:
        raise InvalidArgument(f"guid {snapshot.guid} is not from 1 to 2^64 - 1")
    if not is_name(snapshot.name):
        raise InvalidArgument(f"{snapshot.name!r} is not the name of a snapshot (pool/volume@snapshot)")
    if (base is None) != (member.base_fd is None):
        raise InvalidArgument("a base needs both its description and its content")
    if base is not None and base.volblocksize != block:
        raise InvalidArgument(f"the block size changes from {base.volblocksize} to {block}; it must stay")
    if base is not None and base.guid == snapshot.guid:
        raise InvalidArgument(f"{snapshot.name} cannot be its own base")


def _skipping(pieces: Iterator[memoryview], skip: int) -> Iterator[memoryview]:
    for piece in pieces:
        if skip >= len(piece):
            skip -= len(piece)
            continue
        for at in range(skip, len(piece), PIECE_BYTES):
            yield piece[at : at + PIECE_BYTES]
        skip = 0


def _plain(member: PackageMember, compress: Compression | None) -> Iterator[memoryview]:
    from imagestore.streams.plain import PlainWriter

    return PlainWriter(member, compress).pieces()


def _package(
    members: Sequence[PackageMember], compress: Compression | None, dataset_guid: int
) -> Iterator[memoryview]:
    first, last = members[0], members[-1].snapshot
    payload = packages.encode_header(
        dataset=last.dataset,
        dataset_guid=dataset_guid,
        snapshots={member.snapshot.snapshot: member.snapshot.guid for member in members},
        fromsnap=first.base.snapshot if first.base else "",
        tosnap=last.snapshot,
        parent_guid=first.base.guid if first.base else 0,
    )
    yield memoryview(_package_header(last.name, payload))
    for member in members:
        yield from _plain(member, compress)
    yield memoryview(records.encode_end())


def _package_header(name: str, payload: bytes) -> bytes:
    """BEGIN, its payload, and the END that carries their sum."""
    import numpy as np

    from imagestore.streams import fletcher4

    begin = records.encode_begin(
        toname=name.encode("ascii"),
        header_type=records.PACKAGE,
        objset_type=0,
        payload_bytes=len(payload),
    )
    words = np.frombuffer(begin + payload, dtype=np.uint32)
    state = fletcher4.Fletcher4().advance(fletcher4.ZERO, words)
    return begin + payload + records.encode_end(checksum=state)
