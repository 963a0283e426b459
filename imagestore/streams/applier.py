"""Applies a send stream to an open file: the volume's content, holes kept as holes.

The owner opens an empty file, or a clone of the base's for an incremental, and
throws it away on any error.  Nothing is written before the checksum that
covers it was compared.  The file has the snapshot's size and content when its
END was verified, and not before; the owner then fsyncs it and gives it a name.

Synchronous, and used by one thread at a time; numpy is loaded with the first
applier, not with this module.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from imagestore.streams import files, records
from imagestore.streams.decompress import unpack
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.syncahead import SyncAhead

if TYPE_CHECKING:
    from imagestore.streams.checker import Verified
    from imagestore.streams.parser import Item, WriteRun
    from imagestore.streams.records import Write, WriteEmbedded


class AppliedStream(Struct, frozen=True, kw_only=True, gc=False):
    """What a stream brought: its snapshots, oldest first; the file holds the last one's content."""

    snapshots: tuple[SnapshotInfo, ...]


class StreamApplier:
    """Takes a stream's bytes, writes a volume's.

    ``fd`` is an empty file opened for reading and writing or, when ``base`` is
    given, a file with the base's content.  ``on_snapshot`` is called at each
    verified END, when the file is whole as that snapshot (not yet fsynced); a
    package may call it several times, and an error it raises passes through.
    """

    def __init__(
        self,
        fd: int,
        *,
        base: SnapshotInfo | None = None,
        on_snapshot: Callable[[SnapshotInfo], None] | None = None,
    ) -> None:
        from imagestore.streams.checker import Checker

        size = os.fstat(fd).st_size
        if base is None and size:
            raise ValueError(f"a full stream needs an empty file, not one of {size} bytes")
        self._fd = fd
        self._checker = Checker(base=base)
        self._on_snapshot = on_snapshot
        self._size = size
        self._has_base = base is not None
        self._pending: list[memoryview] = []
        self._pending_at = 0
        self._pending_end = 0
        self._ahead = SyncAhead(fd)

    @property
    def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """The snapshots that are whole so far."""
        return tuple(self._checker.snapshots)

    @property
    def is_package(self) -> bool:
        """Whether more than one snapshot may come; known when the first is whole."""
        return self._checker.package is not None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes, in any cut; ``data`` may be reused afterwards.

        Raises:
            StreamError: the stream is damaged, refused, or does not fit the base.
            NoSpace: the file system is full.
        """
        for verified in self._checker.feed(data):
            self._apply(verified)

    def read_from(self, fd: int) -> None:
        """Take everything that can be read from ``fd``, without a copy in between; errors as :meth:`feed`."""
        parser = self._checker.parser
        while count := os.readv(fd, [parser.room()]):
            for verified in self._checker.advance(count):
                self._apply(verified)

    def finish(self) -> AppliedStream:
        """Tell that the stream has ended; give what it brought.

        Raises:
            StreamError: it is cut, or as in :meth:`feed`.
        """
        for verified in self._checker.finish():
            self._apply(verified)
        self._ahead.finish()
        return AppliedStream(snapshots=self.snapshots)

    def _apply(self, verified: "Verified") -> None:
        for item in verified.items:
            record = item.record
            if isinstance(record, records.Free) and record.object == records.OBJECT_DATA:
                self._hole(record.offset, record.length)
            elif (
                isinstance(record, records.Write | records.WriteEmbedded)
                and record.object == records.OBJECT_DATA
            ):
                self._data(record, item)
        self._flush()
        if verified.snapshot is not None:
            self._end_snapshot(verified.snapshot)

    def _data(self, record: "Write | WriteEmbedded", item: "Item | WriteRun") -> None:
        from imagestore.streams.parser import WriteRun
        from imagestore.streams.zeros import is_zero

        if isinstance(item, WriteRun):
            self._run(item)
            return
        block = memoryview(unpack(record, item.payload))
        if is_zero(block):
            self._zeros(record.offset, len(block))
        else:
            self._queue(record.offset, [block], len(block))

    def _run(self, run: "WriteRun") -> None:
        """Blocks of one size: stretches of adjacent ones that are not zero go out as one vector."""
        from imagestore.streams.zeros import stretches, zero_rows

        size = run.record.logical_bytes
        is_hole = zero_rows(run.blocks)
        for first, last in stretches(run.offsets, size, is_hole):
            self._queue(int(run.offsets[first]), run.payloads(first, last), (last - first) * size)
        for offset in run.offsets[is_hole].tolist():
            self._zeros(offset, size)

    def _zeros(self, offset: int, length: int) -> None:
        """A block of zeros. Blocks ascend, so it can only cover what the base had there."""
        if self._has_base:
            self._hole(offset, length)

    def _hole(self, offset: int, length: int) -> None:
        """Zeros: nothing to do beyond what was ever written, a hole to punch below."""
        self._flush()
        end = min(offset + length, self._size)
        if offset < end:
            files.punch_hole(self._fd, offset, end - offset)

    def _queue(self, offset: int, buffers: list[memoryview], length: int) -> None:
        if offset != self._pending_end or not self._pending:
            self._flush()
            self._pending_at = offset
        self._pending += buffers
        self._pending_end = offset + length

    def _flush(self) -> None:
        if self._pending:
            files.write_all(self._fd, self._pending_at, self._pending)
            self._pending.clear()
            self._ahead.wrote(self._pending_end - self._pending_at)
            self._size = max(self._size, self._pending_end)

    def _end_snapshot(self, snapshot: SnapshotInfo) -> None:
        files.set_size(self._fd, snapshot.volsize)
        self._size = snapshot.volsize
        self._has_base = True
        if self._on_snapshot is not None:
            self._on_snapshot(snapshot)
