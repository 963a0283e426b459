"""Cuts pushed bytes into records: an incremental parser that knows no files.

Bytes come in any cut (:meth:`Parser.feed`); what goes out are batches: whole
records in one contiguous view, ended by a header that can vouch for them.
Headers carry the checksum of everything *before* them, so a batch holds only
records whose following header is already there; the last, unvouched record
waits in the buffer for the next batch.  A batch never reaches over an END.

Uniform blocks are the bulk of real streams; a run of WRITE headers that differ
in nothing but offset, key and checksum is found by one comparison of arrays
and goes out as one :class:`WriteRun`.

Promises: memory is bounded by the largest record (16 MiB) and grows only with
bytes that really came, never with a length that a header claims.  Does not
verify checksums, fields or order: that is ``checker``'s.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from imagestore.errors import StreamError
from imagestore.streams import records
from imagestore.streams.decoding import decode
from imagestore.streams.records import CHECKSUM_AT, HEADER_BYTES, Record, Write, WriteEmbedded

BATCH_BYTES: Final = 2 << 20
FIRST_BATCH_BYTES: Final = 64 << 10
"""The first batch is small, so that a stream that will be refused is refused early."""

_HEADER_WORDS: Final = HEADER_BYTES // 8
_OFFSET_WORD: Final = 3
_COMPARED = [word for word in range(CHECKSUM_AT // 8) if word != _OFFSET_WORD and not 7 <= word <= 11]
"""The 64-bit words of a WRITE header in which the blocks of a run agree: all but offset, key and checksum."""


class Item(Struct, frozen=True, gc=False):
    """One record of a batch: its number and offset in the stream, where its payload lies in the batch."""

    record: Record
    number: int
    offset: int
    payload: memoryview

    @property
    def count(self) -> int:
        """How many records this is."""
        return 1

    def extents(self) -> Iterator[tuple[int, int]]:
        """The (start, end) of the object that a record with data covers."""
        if isinstance(self.record, Write | WriteEmbedded):
            yield self.record.offset, self.record.offset + self.record.logical_bytes


class WriteRun(Struct, frozen=True, gc=False):
    """At least two WRITE records of one shape, back to back, uncompressed.

    ``record`` is the first of them; ``offsets`` are all their offsets;
    ``blocks`` is a (count, logical_bytes) view of their payloads.
    ``payload_at`` is where the first payload begins in ``view``, the others
    follow every ``stride`` bytes.
    """

    record: Write
    number: int
    offset: int
    offsets: npt.NDArray[np.uint64]
    blocks: npt.NDArray[np.uint8]
    view: memoryview
    payload_at: int
    stride: int

    @property
    def count(self) -> int:
        """How many records this is."""
        return len(self.offsets)

    def extents(self) -> Iterator[tuple[int, int]]:
        """The (start, end) of the object that the blocks cover, adjacent ones joined; they must ascend."""
        size = np.uint64(self.record.logical_bytes)
        gaps = np.flatnonzero(self.offsets[1:] != self.offsets[:-1] + size)
        starts = self.offsets[np.concatenate(([0], gaps + 1))]
        ends = self.offsets[np.append(gaps, len(self.offsets) - 1)] + size
        yield from zip(starts.tolist(), ends.tolist(), strict=True)

    def payloads(self, first: int, last: int) -> list[memoryview]:
        """The payloads of blocks ``first`` to ``last - 1``."""
        size, start = self.record.logical_bytes, self.payload_at
        return [
            self.view[at : at + size]
            for at in range(start + first * self.stride, start + last * self.stride, self.stride)
        ]


class Batch(Struct, frozen=True, gc=False):
    """Whole records and what vouches for them.

    ``raw`` are the records' bytes.  ``words`` are those bytes and what was
    buffered behind them, as 32-bit words.  ``headers`` are the positions in
    bytes of all headers that can be checked: one for each record, and one more
    behind ``raw`` unless ``is_end`` (the last record is an END).  ``offset`` is
    where ``raw`` begins in the stream, ``number`` its first record's.
    """

    raw: memoryview
    items: list[Item | WriteRun]
    words: npt.NDArray[np.uint32]
    headers: npt.NDArray[np.int64]
    is_end: bool
    offset: int
    number: int


class Parser:
    """Feed it bytes, take batches. Exhaust what ``feed`` gives before feeding again."""

    def __init__(self) -> None:
        self._buffer = np.empty(BATCH_BYTES, dtype=np.uint8)
        self._start = 0
        self._filled = 0
        self._wanted = FIRST_BATCH_BYTES
        self._needed = 0
        self._offset = 0
        self._number = 0
        self.is_closed = False

    @property
    def pending_bytes(self) -> int:
        """Bytes that came and belong to no batch yet."""
        return self._filled - self._start

    @property
    def where(self) -> str:
        """The first record that is not in a batch yet, for messages."""
        return f"record {self._number} at byte {self._offset}"

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Batch]:
        """Take ``data``; give the batches it completes, each valid until the next is asked for.

        Raises:
            StreamError: a header is malformed or of a kind that is refused.
        """
        rest = memoryview(data).cast("B")
        while len(rest):
            room = self.room()
            taken = min(len(room), len(rest))
            room[:taken] = rest[:taken]
            rest = rest[taken:]
            yield from self.advance(taken)

    def room(self) -> memoryview:
        """Space to read the next bytes into, to be followed by :meth:`advance`; never empty."""
        return self._buffer.data[self._filled : self._wanted]

    def advance(self, count: int) -> Iterator[Batch]:
        """Tell that ``count`` bytes were put into :meth:`room`; as :meth:`feed`."""
        self._filled += count
        if self._filled >= self._wanted:
            yield from self._batches()
            self._make_room()

    def finish(self) -> Iterator[Batch]:
        """Give what is left, as far as it can be vouched for."""
        yield from self._batches()

    def close(self) -> None:
        """Nothing may follow what was given so far."""
        self.is_closed = True

    def _batches(self) -> Iterator[Batch]:
        while (batch := self._next_batch()) is not None:
            yield batch

    def _next_batch(self) -> Batch | None:
        start = self._start
        if self.is_closed and self.pending_bytes:
            raise StreamError(f"bytes follow the stream's last END, from byte {self._offset}; nothing may")
        items, headers, end, is_end = self._walk(start)
        if end == start:
            return None
        batch = Batch(
            raw=self._buffer.data[start:end],
            items=items,
            words=self._buffer[start : start + (self._filled - start) // 4 * 4].view(np.uint32),
            headers=np.array(headers, dtype=np.int64) - start,
            is_end=is_end,
            offset=self._offset,
            number=self._number,
        )
        self._start = end
        self._offset += end - start
        self._number += len(headers) - (0 if is_end else 1)
        return batch

    def _walk(self, at: int) -> tuple[list[Item | WriteRun], list[int], int, bool]:
        """Records from ``at``: items, headers' positions, where the whole ones end, and whether by an END."""
        items: list[Item | WriteRun] = []
        headers: list[int] = []
        view = self._buffer.data
        start, filled = at, self._filled
        while filled - at >= HEADER_BYTES:
            number, offset = self._number + len(headers), self._offset + at - start
            record = self._decode(at, number, offset)
            headers.append(at)
            payload_at = at + HEADER_BYTES
            stride = HEADER_BYTES + record.payload_bytes
            if isinstance(record, records.End):
                items.append(Item(record, number, offset, view[payload_at:payload_at]))
                return items, headers, payload_at, True
            if filled < at + stride + HEADER_BYTES:
                self._needed = at - start + stride + HEADER_BYTES
                break
            count = self._run_length(record, at, stride)
            if count > 1:
                assert isinstance(record, Write)
                items.append(self._run(record, number, offset, at, count))
                headers.extend(range(at + stride, at + count * stride, stride))
            else:
                items.append(Item(record, number, offset, view[payload_at : at + stride]))
            at += count * stride
            if isinstance(record, records.Begin):
                headers.append(at)  # BEGIN goes out alone, so that what it says is judged first
                break
        return items, headers, at, False

    def _decode(self, at: int, number: int, offset: int) -> Record:
        try:
            return decode(self._buffer.data, at)
        except StreamError as error:
            raise StreamError(f"{error} (record {number} at byte {offset})") from None

    def _run_length(self, record: Record, at: int, stride: int) -> int:
        """How many records from ``at`` are one run, each followed by a header that is here."""
        if not isinstance(record, Write) or record.compression:
            return 1
        most = (self._filled - at - HEADER_BYTES) // stride
        after = at + stride
        if most < 2 or bytes(self._buffer[after : after + 24]) != bytes(self._buffer[at : at + 24]):
            return 1
        table = self._header_table(at, most, stride)[:, _COMPARED]
        same = (table == table[0]).all(axis=1)
        return most if same.all() else int(same.argmin())

    def _header_table(self, at: int, count: int, stride: int) -> npt.NDArray[np.uint64]:
        """The headers of ``count`` records as rows of 64-bit words."""
        return np.ndarray((count, _HEADER_WORDS), np.uint64, self._buffer, at, (stride, 8))

    def _run(self, record: Write, number: int, offset: int, at: int, count: int) -> WriteRun:
        stride = HEADER_BYTES + record.payload_bytes
        payload_at = at + HEADER_BYTES
        return WriteRun(
            record=record,
            number=number,
            offset=offset,
            offsets=self._header_table(at, count, stride)[:, _OFFSET_WORD],
            blocks=np.ndarray((count, record.payload_bytes), np.uint8, self._buffer, payload_at, (stride, 1)),
            view=self._buffer.data,
            payload_at=payload_at,
            stride=stride,
        )

    def _make_room(self) -> None:
        """Move the unvouched rest to the front; grow only when it fills the buffer."""
        rest = self._buffer[self._start : self._filled]
        size = len(rest)
        target = BATCH_BYTES if size < BATCH_BYTES else min(2 * size, self._needed)
        if len(self._buffer) != target:
            grown = np.empty(target, dtype=np.uint8)
            grown[:size] = rest
            self._buffer = grown
        elif self._start:
            self._buffer[:size] = rest
        self._start, self._filled, self._wanted = 0, size, target
