"""Makes a send stream of a raw disk image: ``imagestore stream make``.

A snapshot's guid is its identity for ever.  Here it is derived from the
content, unless the caller names one, so that a stream made from ``--from
BASE`` fits the stream that was made of BASE, and the same image is the same
snapshot whoever makes the stream.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

from msgspec import structs

from imagestore.errors import InvalidArgument
from imagestore.streams import files
from imagestore.streams.landing import landing, opened
from imagestore.streams.member import Compression
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.syncahead import SyncAhead
from imagestore.streams.writer import write_stream

DEFAULT_BLOCK_BYTES: Final = 16 << 10
"""OpenZFS's own default volblocksize since 2.2."""

_HASH_BYTES: Final = 1 << 20


def make(
    raw: str,
    output: str,
    *,
    from_raw: str | None = None,
    name: str = "pool/volume@snapshot",
    compress: Compression | None = None,
    block_bytes: int = DEFAULT_BLOCK_BYTES,
    guid: int | None = None,
    from_guid: int | None = None,
    creation_seconds: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> SnapshotInfo:
    """Write the stream of the image ``raw`` to ``output``; incremental when ``from_raw`` is given.

    ``guid`` and ``from_guid`` name the snapshot and its base (default: derived
    from their content); ``creation_seconds`` defaults to when ``raw`` was last
    written.  ``progress`` is told how many bytes of stream were made.

    Raises:
        InvalidArgument: no receiver would take such a stream.
        AlreadyExists, NotFound: as ``extract``.
    """
    with ExitStack() as stack:
        source = stack.enter_context(opened(raw))
        created = creation_seconds if creation_seconds is not None else int(os.fstat(source).st_mtime)
        snapshot = _describe(source, raw, name, block_bytes, guid, created)
        base_fd: int | None = None
        base: SnapshotInfo | None = None
        if from_raw is not None:
            base_fd = stack.enter_context(opened(from_raw))
            base = _describe(base_fd, from_raw, f"{snapshot.dataset}@base", block_bytes, from_guid, 0)
            if base.guid == snapshot.guid:
                raise InvalidArgument(f"{raw} has the content of {from_raw}: there is nothing to send")
            snapshot = structs.replace(snapshot, from_guid=base.guid)
        pieces = write_stream(source, snapshot, base_fd=base_fd, base=base, compress=compress)
        path = stack.enter_context(landing(output, overwrite=overwrite))
        with opened(path, os.O_WRONLY) as target:
            _write(target, pieces, progress or (lambda count: None))
    return snapshot


def _describe(
    fd: int, path: str, name: str, block_bytes: int, guid: int | None, creation_seconds: int
) -> SnapshotInfo:
    size = os.lseek(fd, 0, os.SEEK_END)
    if size == 0 or size % 512:
        raise InvalidArgument(f"{path} has {size} bytes; a raw disk image has a nonzero multiple of 512")
    return SnapshotInfo(
        name=name,
        guid=guid if guid is not None else content_guid(fd, size),
        volsize=size,
        volblocksize=block_bytes,
        creation_seconds=creation_seconds,
    )


def content_guid(fd: int, size: int) -> int:
    """A nonzero 64-bit number that depends on the first ``size`` bytes of content alone."""
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    buffer = memoryview(bytearray(_HASH_BYTES))
    for at in range(0, size, _HASH_BYTES):
        piece = buffer[: min(_HASH_BYTES, size - at)]
        files.read_full(fd, at, [piece])
        digest.update(piece)
    return int.from_bytes(digest.digest()[:8], "little") or 1


def _write(target: int, pieces: Iterator[memoryview], progress: Callable[[int], None]) -> None:
    written = 0
    ahead = SyncAhead(target)
    for piece in pieces:
        files.write_all(target, written, [piece])
        written += len(piece)
        ahead.wrote(len(piece))
        progress(written)
    ahead.finish()
