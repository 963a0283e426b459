"""Makes a send stream of a raw disk image as it comes, for ``zfs receive``.

A reception is one step for the pool: the volume appears with its snapshot
when the last record was taken, or not at all; there is no device node to wait
for and no size to know before the end.  Runs of zeros are not written.

Owns no file.  One object makes one stream, in one thread.
"""

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np

from imagestore.errors import ContentRefused
from imagestore.streams import records
from imagestore.streams.records import OBJECT_DATA, OBJECT_PROPERTIES
from imagestore.streams.sealing import RecordBuffer, Sealer
from imagestore.streams.zeros import stretches, zero_rows

SECTOR_BYTES: Final = 512

_RUN_BYTES: Final = 128 << 10
"""Longest write: the largest that needs no feature of the pool."""

_BATCH_BYTES: Final = 1 << 20

_ZAP = struct.Struct("<QQQ40xQIH50s")
_MICROZAP: Final = 0x8000000000000003


class RawStream:
    """The stream of a volume with one snapshot.  ``block_bytes`` is its volblocksize."""

    def __init__(self, *, snapshot: str, guid: int, creation_seconds: int, block_bytes: int) -> None:
        self._name = f"raw@{snapshot}"
        self._guid = guid
        self._creation_seconds = creation_seconds
        self._block = block_bytes
        self._sealer = Sealer()
        batch_records = _BATCH_BYTES // block_bytes + 8
        self._buffer = RecordBuffer(_BATCH_BYTES + batch_records * records.HEADER_BYTES, self._sealer)
        self._waiting = bytearray()
        self._size = 0
        self._begun = False

    def feed(self, data: memoryview) -> Iterator[memoryview]:
        """Take the next bytes; give what they make. A piece is valid until the next is asked for."""
        yield from self._begin()
        self._size += len(data)
        self._waiting += data
        whole = len(self._waiting) - len(self._waiting) % _RUN_BYTES
        if whole:
            content = bytes(memoryview(self._waiting)[:whole])
            del self._waiting[:whole]
            yield from self._write(content, self._size - len(self._waiting) - whole)

    def finish(self) -> Iterator[memoryview]:
        """The rest of the stream, its end.

        Raises:
            ContentRefused: what came is not whole sectors, or nothing.
        """
        if self._size == 0 or self._size % SECTOR_BYTES:
            raise ContentRefused(
                f"a raw disk image of {self._size} bytes: the length must be a nonzero multiple of "
                f"{SECTOR_BYTES}"
            )
        rest = bytes(self._waiting)
        self._waiting.clear()
        padded = rest.ljust(-(-len(rest) // self._block) * self._block, b"\0")
        yield from self._write(padded, self._size - len(rest))
        self._put_size()
        yield self._buffer.take()
        self._buffer.append(records.encode_end(checksum=self._sealer.state, toguid=self._guid))
        yield self._buffer.take()

    def _begin(self) -> Iterator[memoryview]:
        if self._begun:
            return
        self._begun = True
        begin = records.encode_begin(
            toname=self._name.encode("ascii"),
            toguid=self._guid,
            creation_seconds=self._creation_seconds,
        )
        self._sealer.cover(np.frombuffer(begin, dtype=np.uint8))
        yield memoryview(begin)
        self._buffer.append(
            records.encode_object(
                number=OBJECT_DATA, kind=records.TYPE_ZVOL, block_bytes=self._block, toguid=self._guid
            )
        )

    def _write(self, content: bytes, offset: int) -> Iterator[memoryview]:
        """``content`` are whole blocks."""
        view = memoryview(content)
        for at in range(0, len(content), _BATCH_BYTES):
            batch = view[at : at + _BATCH_BYTES]
            blocks = np.frombuffer(batch, dtype=np.uint8).reshape(-1, self._block)
            offsets = np.arange(0, len(batch), self._block, dtype=np.uint64)
            for first, last in stretches(offsets, self._block, zero_rows(blocks)):
                self._put_run(
                    batch[first * self._block : last * self._block], offset + at + first * self._block
                )
            if self._buffer.used_bytes:
                yield self._buffer.take()

    def _put_run(self, run: memoryview, offset: int) -> None:
        for at in range(0, len(run), _RUN_BYTES):
            payload = run[at : at + _RUN_BYTES]
            header = records.encode_write(
                number=OBJECT_DATA,
                kind=records.TYPE_ZVOL,
                offset=offset + at,
                logical_bytes=len(payload),
                toguid=self._guid,
            )
            self._buffer.append(header, payload)

    def _put_size(self) -> None:
        """Object 2, without which receivers come to harm."""
        self._buffer.append(
            records.encode_object(
                number=OBJECT_PROPERTIES,
                kind=records.TYPE_ZVOL_PROP,
                block_bytes=records.PROPERTIES_BLOCK_BYTES,
                toguid=self._guid,
            )
        )
        header = records.encode_write(
            number=OBJECT_PROPERTIES,
            kind=records.TYPE_ZVOL_PROP,
            offset=0,
            logical_bytes=records.PROPERTIES_BLOCK_BYTES,
            toguid=self._guid,
        )
        packed = _ZAP.pack(_MICROZAP, self._guid | 1, 0, self._size, 0, 0, b"size")
        self._buffer.append(header, packed.ljust(records.PROPERTIES_BLOCK_BYTES, b"\0"))
