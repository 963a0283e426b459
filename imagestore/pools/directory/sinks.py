"""What takes a format's bytes on their way into a directory pool: raw disk images and send streams.

A sink writes a volume's data file and says at the end which snapshots came.
It knows neither the catalog nor what becomes of them.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from imagestore.errors import ContentRefused, ImageStoreError, StreamError
from imagestore.pools.directory import rules
from imagestore.pools.directory.creating import BLOCK_SIZE_BYTES
from imagestore.pools.directory.links import check_name
from imagestore.streams import files as sparse
from imagestore.streams.snapshot import SnapshotInfo

_BLOCK_BYTES = 4096


class Brought(Struct, frozen=True, kw_only=True):
    """A snapshot that came, and its data file.  Sizes in bytes; ``guid`` 0: a new one is to be given."""

    snapshot: str
    file: str
    volsize: int
    block_size: int
    guid: int = 0
    creation_seconds: int = 0


class Sink(Protocol):
    """Takes a format's bytes, in a worker thread.  Raises ContentRefused, NoSpace, OSError."""

    def feed(self, data: memoryview) -> None: ...

    def finish(self) -> Sequence[Brought]:
        """Verify the end; the volume's file then has the content of the last of what is returned."""


KeepCopy = Callable[[bool], str]
"""Makes a snapshot's data file of the volume's as it is now, durably; told whether it is the last."""

OpenSink = Callable[[int, KeepCopy], Sink]
"""Makes a sink from the volume's open data file."""


class RawSink:
    """A raw disk image; runs of zeros become holes."""

    def __init__(self, snapshot: str, file: int, keep: KeepCopy) -> None:
        self._snapshot = snapshot
        self._file = file
        self._keep = keep
        self._size = 0
        self._rest = bytearray()

    def feed(self, data: memoryview) -> None:
        """Blocks are those of the image: what is left over waits for the rest of its block."""
        if self._rest:
            missing = _BLOCK_BYTES - len(self._rest)
            self._rest += data[:missing]
            data = data[missing:]
            if len(self._rest) < _BLOCK_BYTES:
                return
            self._write(memoryview(bytes(self._rest)))
            self._rest.clear()
        whole = len(data) - len(data) % _BLOCK_BYTES
        self._write(data[:whole])
        self._rest += data[whole:]

    def _write(self, data: memoryview) -> None:
        """Write whole blocks, but those of zeros."""
        import numpy as np

        from imagestore.streams.zeros import stretches, zero_rows

        if not len(data):
            return
        blocks = np.frombuffer(data, dtype=np.uint8).reshape(-1, _BLOCK_BYTES)
        offsets = np.arange(0, len(data), _BLOCK_BYTES, dtype=np.uint64)
        for first, last in stretches(offsets, _BLOCK_BYTES, zero_rows(blocks)):
            start, end = first * _BLOCK_BYTES, last * _BLOCK_BYTES
            sparse.write_all(self._file, self._size + start, [data[start:end]])
        self._size += len(data)

    def finish(self) -> Sequence[Brought]:
        if self._rest:
            sparse.write_all(self._file, self._size, [memoryview(self._rest)])
            self._size += len(self._rest)
        if self._size == 0 or self._size % rules.SECTOR_BYTES:
            raise ContentRefused(
                f"a raw disk image of {self._size} bytes: the length must be a nonzero multiple of "
                f"{rules.SECTOR_BYTES}"
            )
        sparse.set_size(self._file, self._size)
        return [
            Brought(
                snapshot=self._snapshot,
                file=self._keep(True),
                volsize=self._size,
                block_size=BLOCK_SIZE_BYTES,
            )
        ]


class StreamSink:
    """A send stream of one volume, or a package of its snapshots; full, or from ``base``."""

    def __init__(self, base: SnapshotInfo | None, file: int, keep: KeepCopy) -> None:
        from imagestore.streams.applier import StreamApplier

        self._keep = keep
        self._brought: list[Brought] = []
        self._applier = StreamApplier(file, base=base, on_snapshot=self._take)

    def feed(self, data: memoryview) -> None:
        self._applier.feed(data)

    def finish(self) -> Sequence[Brought]:
        self._applier.finish()
        return self._brought

    def _take(self, info: SnapshotInfo) -> None:
        """Called when the volume's file is whole as one more snapshot."""
        try:
            check_name(f"@{info.snapshot}")
            rules.check_size(info.volsize)
        except ImageStoreError as error:
            raise StreamError(f"the stream's snapshot cannot be stored: {error.detail}") from error
        if any(earlier.snapshot == info.snapshot for earlier in self._brought):
            raise StreamError(f"the stream has two snapshots named {info.snapshot}")
        self._brought.append(
            Brought(
                snapshot=info.snapshot,
                file=self._keep(not self._applier.is_package),
                volsize=info.volsize,
                block_size=info.volblocksize,
                guid=info.guid,
                creation_seconds=info.creation_seconds,
            )
        )
