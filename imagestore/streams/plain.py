"""Makes the records of one plain stream out of a volume's content.

``writer`` says which streams there are and checks what they are asked for;
this is how one is made: read, classify, put into records, seal, give.
Incompressible full streams are read straight into their records.
"""

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np

from imagestore.streams import changes, records
from imagestore.streams.changes import Blocks, Side
from imagestore.streams.member import Compression, PackageMember
from imagestore.streams.records import HEADER_BYTES, OBJECT_DATA, OBJECT_PROPERTIES, TO_THE_END
from imagestore.streams.sealing import RecordBuffer, Sealer

_BATCH_BYTES: Final = 1 << 20
_ENOUGH_BYTES: Final = 3 << 18
"""A batch this full is given; less is added to."""

_FIXED_RECORDS: Final = 16
_OFFSET_FIELD: Final = slice(24, 32)
_SECTOR: Final = 512
_ZAP = struct.Struct("<QQQ40xQIH50s")
_MICROZAP: Final = 0x8000000000000003
_LENGTH = struct.Struct(">I")


class PlainWriter:
    """One plain stream, once: :meth:`pieces`."""

    def __init__(self, member: PackageMember, compress: Compression | None) -> None:
        self._snapshot = member.snapshot
        self._base = member.base
        self._compress = compress
        self._source = Side(member.source_fd, member.snapshot.volsize)
        self._before: Side | None = None
        if member.base is not None:
            assert member.base_fd is not None
            self._before = Side(member.base_fd, member.base.volsize)
        block = self._snapshot.volblocksize
        self._block = block
        self._end = -(-self._snapshot.volsize // block) * block
        self._chunk_rows = max(_BATCH_BYTES // (block + HEADER_BYTES), 1)
        most = self._chunk_rows * (block + 2 * HEADER_BYTES) + _FIXED_RECORDS * HEADER_BYTES
        self._sealer = Sealer()
        self._buffer = RecordBuffer(_ENOUGH_BYTES + most, self._sealer)
        self._scratch: Blocks = np.empty((self._chunk_rows, block), dtype=np.uint8)
        self._base_scratch: Blocks | None = None if self._before is None else np.empty_like(self._scratch)
        self._template = np.frombuffer(self._write_header(0, 0, 0), dtype=np.uint8)
        self._is_open = False
        self._hole_start = self._hole_end = 0

    def pieces(self) -> Iterator[memoryview]:
        """The stream; each piece is valid until the next is asked for."""
        begin = self._begin()
        self._sealer.cover(np.frombuffer(begin, dtype=np.uint8))
        yield memoryview(begin)
        if self._base is None:
            self._open()
        yield from self._content()
        self._close()
        yield self._buffer.take()
        end = records.encode_end(checksum=self._sealer.state, toguid=self._snapshot.guid)
        self._buffer.append(end)
        yield self._buffer.take()

    def _begin(self) -> bytes:
        snapshot, base = self._snapshot, self._base
        features = 0
        if self._block > records.MAX_BLOCK_WITHOUT_FEATURE:
            features |= records.FEATURE_LARGE_BLOCKS
        if self._compress:
            features |= records.FEATURE_COMPRESSED | records.FEATURE_LZ4
        flags = records.FLAGS_ALWAYS
        if base is not None and snapshot.is_clone and snapshot.from_guid == base.guid:
            flags |= records.FLAG_CLONE
        return records.encode_begin(
            toname=snapshot.name.encode("ascii"),
            toguid=snapshot.guid,
            fromguid=base.guid if base else 0,
            creation_seconds=snapshot.creation_seconds,
            flags=flags,
            features=features,
        )

    def _open(self) -> None:
        """What comes before the first block; in an incremental only if there is one."""
        if self._is_open:
            return
        self._is_open = True
        guid = self._snapshot.guid
        self._buffer.append(
            records.encode_object(
                number=OBJECT_DATA, kind=records.TYPE_ZVOL, block_bytes=self._block, toguid=guid
            )
        )
        self._free(OBJECT_DATA, self._end, TO_THE_END)

    def _close(self) -> None:
        """Object 2, which holds the volume's size; nothing at all if nothing has changed."""
        self._put_hole()
        is_resized = self._base is None or self._base.volsize != self._snapshot.volsize
        if not (self._is_open or is_resized):
            return
        self._open()
        guid = self._snapshot.guid
        self._buffer.append(
            records.encode_object(
                number=OBJECT_PROPERTIES,
                kind=records.TYPE_ZVOL_PROP,
                block_bytes=records.PROPERTIES_BLOCK_BYTES,
                toguid=guid,
            )
        )
        self._free(OBJECT_PROPERTIES, records.PROPERTIES_BLOCK_BYTES, TO_THE_END)
        if is_resized:
            self._buffer.append(
                records.encode_write(
                    number=OBJECT_PROPERTIES,
                    kind=records.TYPE_ZVOL_PROP,
                    offset=0,
                    logical_bytes=records.PROPERTIES_BLOCK_BYTES,
                    toguid=guid,
                ),
                self._properties(),
            )
        self._free(OBJECT_PROPERTIES, records.PROPERTIES_BLOCK_BYTES, 2 * records.PROPERTIES_BLOCK_BYTES)
        self._buffer.append(records.encode_freeobjects(first=3, count=29, toguid=guid))

    def _properties(self) -> bytes:
        """The micro-ZAP with the volume's size; its salt may be anything but zero."""
        salt = self._snapshot.guid | 1
        packed = _ZAP.pack(_MICROZAP, salt, 0, self._snapshot.volsize, 0, 0, b"size")
        return packed.ljust(records.PROPERTIES_BLOCK_BYTES, b"\0")

    def _content(self) -> Iterator[memoryview]:
        sides = [self._source] if self._before is None else [self._source, self._before]
        at = 0
        for start, end in changes.regions(sides, self._end, self._block):
            if self._before is None:
                self._add_hole(at, start)
            for chunk in range(start, end, self._chunk_rows * self._block):
                self._chunk(chunk, min(self._chunk_rows, (end - chunk) // self._block))
                if self._buffer.used_bytes >= _ENOUGH_BYTES:
                    yield self._buffer.take()
            at = end
        if self._before is None:
            self._add_hole(at, self._end)

    def _chunk(self, offset: int, rows: int) -> None:
        """Records of ``rows`` blocks from ``offset``."""
        if self._before is None and not self._compress and self._hole_start == self._hole_end:
            table = self._buffer.table(rows, self._block)
            blocks = table[:, HEADER_BYTES:]
            self._source.read(offset, blocks)
            kinds = changes.classify(blocks, None)
            if (kinds == changes.DATA).all():
                self._head(table, offset)
                self._buffer.keep(rows, self._block)
                return
            self._scratch[:rows] = blocks
        else:
            self._source.read(offset, self._scratch[:rows])
            kinds = changes.classify(self._scratch[:rows], self._read_base(offset, rows))
        for kind, first, last in changes.runs(kinds):
            start, end = offset + first * self._block, offset + last * self._block
            if kind == changes.HOLE:
                self._add_hole(start, end)
            elif kind == changes.DATA:
                self._put_hole()
                self._open()
                self._put_blocks(start, self._scratch[first:last])

    def _read_base(self, offset: int, rows: int) -> Blocks | None:
        if self._before is None or self._base_scratch is None:
            return None
        self._before.read(offset, self._base_scratch[:rows])
        return self._base_scratch[:rows]

    def _head(self, table: Blocks, offset: int) -> None:
        """The headers of adjacent blocks from ``offset``."""
        offsets = np.arange(len(table), dtype=np.uint64) * np.uint64(self._block) + np.uint64(offset)
        table[:, :HEADER_BYTES] = self._template
        table[:, _OFFSET_FIELD] = offsets.view(np.uint8).reshape(-1, 8)

    def _put_blocks(self, offset: int, blocks: Blocks) -> None:
        if self._compress is None:
            table = self._buffer.table(len(blocks), self._block)
            self._head(table, offset)
            table[:, HEADER_BYTES:] = blocks
            self._buffer.keep(len(blocks), self._block)
            return
        for block in blocks:
            packed = _compressed(block.data, self._block)
            if packed is None:
                self._buffer.append(self._write_header(offset, 0, 0), block.data)
            else:
                self._buffer.append(self._write_header(offset, records.COMPRESSION_LZ4, len(packed)), packed)
            offset += self._block

    def _write_header(self, offset: int, compression: int, compressed_bytes: int) -> bytes:
        return records.encode_write(
            number=OBJECT_DATA,
            kind=records.TYPE_ZVOL,
            offset=offset,
            logical_bytes=self._block,
            toguid=self._snapshot.guid,
            compression=compression,
            compressed_bytes=compressed_bytes,
        )

    def _free(self, number: int, offset: int, length: int) -> None:
        self._buffer.append(
            records.encode_free(number=number, offset=offset, length=length, toguid=self._snapshot.guid)
        )

    def _add_hole(self, start: int, end: int) -> None:
        """Holes that adjoin each other become one FREE."""
        if start == end:
            return
        if start != self._hole_end or self._hole_start == self._hole_end:
            self._put_hole()
            self._hole_start = start
        self._hole_end = end

    def _put_hole(self) -> None:
        if self._hole_start < self._hole_end:
            self._open()
            self._free(OBJECT_DATA, self._hole_start, self._hole_end - self._hole_start)
        self._hole_start = self._hole_end = 0


def _compressed(block: memoryview, size: int) -> bytes | None:
    """The block as lz4, padded to whole sectors; None unless it saves an eighth, as ZFS has it."""
    import lz4.block  # type: ignore[import-untyped]  # lz4 ships no types

    packed: bytes = lz4.block.compress(block, store_size=False)
    stored = -(-(len(packed) + _LENGTH.size) // _SECTOR) * _SECTOR
    if stored > size - size // 8:
        return None
    return (_LENGTH.pack(len(packed)) + packed).ljust(stored, b"\0")
