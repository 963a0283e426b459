"""What the records of one plain stream must say: field rules, order, and the snapshot they make.

One :class:`PlainRules` judges one plain stream of a volume, record by record,
from BEGIN to END.  It refuses what a reader cannot apply, and also what
``zfs receive`` accepts to its host's harm: a volume without a size, a block
size that is no power of two or that changes in an incremental, a compressed
block that does not fit its object's blocks.

Pure: knows neither bytes nor checksums; payloads are looked at only where they
hold the volume's size (object 2).
"""

import re
import struct
from typing import Final

from imagestore.errors import StreamError
from imagestore.streams import records
from imagestore.streams.decompress import decompress, is_known
from imagestore.streams.records import (
    OBJECT_DATA,
    OBJECT_PROPERTIES,
    Begin,
    End,
    Free,
    FreeObjects,
    Object,
    Record,
    Write,
    WriteEmbedded,
)
from imagestore.streams.snapshot import SnapshotInfo

_KNOWN_FLAGS: Final = 0xF
_NAME = re.compile(r"[A-Za-z0-9_.: /-]*@[A-Za-z0-9_.: -]+\Z")
_MAX_NAME_BYTES: Final = 255

_REFUSED_FEATURES: Final = {
    0: "deduplicated streams (zfs send -D) are refused; convert it with zstream redup",
    2: "streams with system attributes are of file systems, which are refused; send a volume",
    20: "a stream that resumes another is refused; send the whole snapshot again",
    21: "redacted streams are refused; send the whole snapshot",
    24: "raw streams of encrypted volumes are refused; send without -w",
}
_ACCEPTED_FEATURES: Final = frozenset({1, 16, 17, 19, 22, 23, 25, 26, 27, 28, 29})

_MICROZAP: Final = 0x8000000000000003
_ZAP_ENTRY_BYTES: Final = 64
_ZAP_ENTRY = struct.Struct("<QIH50s")


def check_features(features: int) -> None:
    """Raises StreamError, naming it, if a feature bit is set that is refused or unknown."""
    for bit in range(56):
        if features >> bit & 1 and bit not in _ACCEPTED_FEATURES:
            raise StreamError(
                _REFUSED_FEATURES.get(bit, f"the stream uses feature bit {bit}, which is unknown here")
            )


def is_name(text: str) -> bool:
    """Whether a stream may call a snapshot so: ``volume@snapshot``, in the letters of ZFS."""
    return len(text) <= _MAX_NAME_BYTES and _NAME.match(text) is not None


def parse_name(toname: bytes) -> str:
    """The snapshot's full name out of BEGIN's field. Raises StreamError."""
    field, end, _ = toname.partition(b"\0")
    name = field.decode("ascii", "backslashreplace")
    if not end or not is_name(name):
        raise StreamError(f"{name[:80]!r} is not the name of a snapshot (volume@snapshot)")
    return name


class PlainRules:
    """Judges one plain stream.

    ``base`` is the snapshot that an incremental stream must be from (None: only
    a full stream will do).  With ``any_base`` any full or incremental stream
    is taken; sizes that only the base knows are then 0.  ``for_receiver`` also
    refuses what a file could take and a real pool could not.
    """

    def __init__(
        self, begin: Begin, *, base: SnapshotInfo | None, any_base: bool = False, for_receiver: bool = False
    ) -> None:
        self._begin = begin
        self._base = base
        self._for_receiver = for_receiver
        self._check_begin(begin)
        self._name = parse_name(begin.toname)
        self._check_base(begin, base, any_base)
        self._is_full = begin.fromguid == 0
        self._announced: set[int] = set()
        self._current = 0
        self._next_offset = 0
        self._block_bytes = base.volblocksize if base else 0
        self._volsize = 0
        self._written_end = 0
        self._largest = 0

    @staticmethod
    def _check_begin(begin: Begin) -> None:
        if begin.objset_type == records.OBJSET_FILESYSTEM:
            raise StreamError("the stream is of a file system; only streams of volumes are accepted")
        check_features(begin.features)
        if begin.objset_type != records.OBJSET_ZVOL:
            raise StreamError(
                f"the stream is of objset type {begin.objset_type}; only volumes (3) are accepted"
            )
        if begin.flags & ~_KNOWN_FLAGS:
            raise StreamError(f"BEGIN has unknown flags {begin.flags:#x}")
        if begin.payload_bytes:
            raise StreamError("BEGIN of a plain stream has a payload; only raw, redacted and resumed ones do")
        if begin.toguid in {0, begin.fromguid}:
            raise StreamError(f"guid {begin.toguid} cannot be a snapshot's, from guid {begin.fromguid}")
        if begin.flags & records.FLAG_CLONE and not begin.fromguid:
            raise StreamError("BEGIN says clone and names no origin")
        if begin.creation_seconds > records.MAX_OFFSET:
            raise StreamError(f"BEGIN's creation time {begin.creation_seconds} is out of range")

    @staticmethod
    def _check_base(begin: Begin, base: SnapshotInfo | None, any_base: bool) -> None:
        if base is None:
            if begin.fromguid and not any_base:
                raise StreamError(
                    f"the stream is incremental from the snapshot with guid {begin.fromguid}; "
                    "without that base only a full stream is accepted"
                )
        elif not begin.fromguid:
            raise StreamError(
                f"the stream is full; an incremental one from guid {base.guid} ({base.name}) is accepted"
            )
        elif begin.fromguid != base.guid:
            raise StreamError(
                f"the stream is incremental from guid {begin.fromguid}; "
                f"the base is {base.name} with guid {base.guid}"
            )

    @property
    def alignment(self) -> int:
        """What the offsets of object 1's blocks are multiples of, in bytes."""
        return self._block_bytes or 512

    def check_first_of_run(self, first: Write) -> None:
        """Judge the first of a run of blocks alike but for their offsets."""
        if first.object == OBJECT_PROPERTIES:
            raise StreamError("object 2 of a volume has one block of 512 bytes, not several")
        self._write(first)

    def check(self, record: Record, payload: memoryview) -> None:
        """Judge the next record, neither BEGIN nor END. Raises StreamError."""
        match record:
            case Write():
                self._write(record)
                if record.object == OBJECT_PROPERTIES:
                    self._properties(decompress(record.compression, payload, record.logical_bytes))
            case Free():
                self._free(record)
            case WriteEmbedded():
                self._embedded(record)
                if record.object == OBJECT_PROPERTIES:
                    stored = payload[: record.stored_bytes]
                    self._properties(decompress(record.compression, stored, record.logical_bytes))
            case Object():
                self._object(record)
            case FreeObjects():
                self._freeobjects(record)
            case Begin():
                raise StreamError("BEGIN stands inside a stream, before its END")
            case End():
                raise AssertionError("END is judged by finish")

    def check_rest_of_run(self, first: Write, last_offset: int) -> None:
        """Judge the others, whose offsets are aligned and ascend without overlap."""
        self._advance(last_offset, first.logical_bytes)

    def finish(self, end: End) -> SnapshotInfo:
        """Judge END; the snapshot that the stream makes. Raises StreamError."""
        self._same_guid(end.toguid)
        if self._is_full and not {OBJECT_DATA, OBJECT_PROPERTIES} <= self._announced:
            raise StreamError("the stream ends without objects 1 and 2; a volume has both")
        volsize = self._volsize or (self._base.volsize if self._base else 0)
        if self._is_full and not volsize:
            raise StreamError("the stream ends without the volume's size")
        self._check_extent(volsize)
        return SnapshotInfo(
            name=self._name,
            guid=self._begin.toguid,
            volsize=volsize,
            volblocksize=self._base.volblocksize if self._base else self._block_bytes,
            creation_seconds=self._begin.creation_seconds,
            from_guid=self._begin.fromguid,
            is_clone=bool(self._begin.flags & records.FLAG_CLONE),
        )

    def _check_extent(self, volsize: int) -> None:
        block = max(self._largest, self._block_bytes, 1)
        if volsize and self._written_end > -(-volsize // block) * block:
            raise StreamError(f"data reach to byte {self._written_end} of a volume of {volsize} bytes")

    def _same_guid(self, toguid: int) -> None:
        if toguid != self._begin.toguid:
            raise StreamError(f"the record's guid {toguid} is not the stream's, {self._begin.toguid}")

    def _enter(self, number: int) -> None:
        """Records of object 1 come before those of object 2; nothing else is a volume's."""
        if number not in {OBJECT_DATA, OBJECT_PROPERTIES}:
            raise StreamError(f"object {number} is not a volume's, which has objects 1 and 2 only")
        if number < self._current:
            raise StreamError(f"a record of object {number} follows one of object {self._current}")
        if number > self._current:
            self._current = number
            self._next_offset = 0

    def _object(self, record: Object) -> None:
        self._same_guid(record.toguid)
        self._enter(record.object)
        if record.object in self._announced:
            raise StreamError(f"object {record.object} is announced twice")
        self._announced.add(record.object)
        expected = records.TYPE_ZVOL if record.object == OBJECT_DATA else records.TYPE_ZVOL_PROP
        if record.type != expected:
            raise StreamError(f"object {record.object} has type {record.type}; a volume's has {expected}")
        if record.bonus_type or record.flags or record.dnode_slots > 1 or any(record.reserved):
            raise StreamError(
                f"object {record.object} has a bonus, flags or more than one slot; a volume's has not"
            )
        if record.object == OBJECT_DATA:
            self._data_block(record.block_bytes)
        elif record.block_bytes != records.PROPERTIES_BLOCK_BYTES:
            raise StreamError(f"object 2 has blocks of {record.block_bytes} bytes; a volume's has 512")

    def _data_block(self, block: int) -> None:
        if block < 512 or block > records.MAX_BLOCK or block & (block - 1):
            raise StreamError(f"a block size of {block} bytes; allowed are powers of two from 512 to 16 MiB")
        self._check_large(block)
        if self._base and self._base.volblocksize != block:
            # zfs send with and without -L names the blocks of one volume 1 MiB or 128 KiB long
            split = min(block, self._base.volblocksize) >= records.MAX_BLOCK_WITHOUT_FEATURE
            if self._for_receiver or not split:
                raise StreamError(
                    f"the block size changes from {self._base.volblocksize} to {block} bytes; "
                    "an incremental stream keeps its base's"
                )
        self._block_bytes = block

    def _check_large(self, block: int) -> None:
        if (
            block > records.MAX_BLOCK_WITHOUT_FEATURE
            and not self._begin.features & records.FEATURE_LARGE_BLOCKS
        ):
            raise StreamError(f"a block of {block} bytes in a stream without LARGE_BLOCKS; at most 131072")

    def _write(self, record: Write) -> None:
        self._same_guid(record.toguid)
        self._enter(record.object)
        expected = records.TYPE_ZVOL if record.object == OBJECT_DATA else records.TYPE_ZVOL_PROP
        if record.type != expected:
            raise StreamError(f"WRITE to object {record.object} has type {record.type}, not {expected}")
        if record.flags & ~1 or any(record.crypt):
            raise StreamError("WRITE has fields that only raw streams use, which are refused")
        if record.compression:
            self._check_compression(record.compression)
        self._place(
            record.object, record.offset, record.logical_bytes, is_compressed=record.compression not in {0, 2}
        )

    def _check_compression(self, compression: int) -> None:
        if not is_known(compression):
            raise StreamError(f"compression {compression} is unknown")
        needed = records.FEATURE_COMPRESSED
        if compression == records.COMPRESSION_LZ4:
            needed |= records.FEATURE_LZ4
        if compression == records.COMPRESSION_ZSTD:
            needed |= records.FEATURE_ZSTD
        if missing := needed & ~self._begin.features:
            raise StreamError(
                f"a {records.COMPRESSION_NAMES[compression]} block in a stream without the feature "
                f"{' and '.join(records.feature_names(missing))}"
            )

    def _embedded(self, record: WriteEmbedded) -> None:
        self._same_guid(record.toguid)
        self._enter(record.object)
        if not self._begin.features & records.FEATURE_EMBED_DATA:
            raise StreamError("WRITE_EMBEDDED in a stream without the feature EMBED_DATA")
        if record.embedded_type:
            raise StreamError(f"WRITE_EMBEDDED of type {record.embedded_type}; only data (0) are accepted")
        if not is_known(record.compression):
            raise StreamError(f"compression {record.compression} is unknown")
        size = record.logical_bytes
        if record.length != size or not 0 < size <= records.MAX_BLOCK or size % 512:
            raise StreamError(f"WRITE_EMBEDDED of {size} bytes in a block of {record.length}")
        self._place(record.object, record.offset, size, is_compressed=True)

    def _place(self, number: int, offset: int, size: int, *, is_compressed: bool) -> None:
        """A block of ``size`` bytes at ``offset``: fits the object's blocks, follows the one before."""
        if self._is_full and number not in self._announced:
            raise StreamError(f"data of object {number} come before its OBJECT record")
        if number == OBJECT_PROPERTIES:
            if offset or size != records.PROPERTIES_BLOCK_BYTES:
                raise StreamError(f"object 2 of a volume has one block of 512 bytes, not {size} at {offset}")
        else:
            self._check_large(size)
            block = self.alignment
            if offset % block or size % block or (is_compressed and self._block_bytes not in {0, size}):
                raise StreamError(f"{size} bytes at {offset} do not fit blocks of {block}")
        if offset < self._next_offset:
            raise StreamError(
                f"data at {offset} follow data that reach to {self._next_offset}; offsets must ascend"
            )
        self._advance(offset, size)

    def _advance(self, offset: int, size: int) -> None:
        end = offset + size
        if end > records.MAX_OFFSET:
            raise StreamError(f"data at {offset} reach beyond 2^63")
        self._next_offset = end
        if self._current == OBJECT_DATA:
            self._written_end = max(self._written_end, end)
            self._largest = max(self._largest, size)

    def _free(self, record: Free) -> None:
        self._same_guid(record.toguid)
        self._enter(record.object)
        if record.offset > records.MAX_OFFSET or (
            record.length != records.TO_THE_END and record.offset + record.length > records.MAX_OFFSET
        ):
            raise StreamError(f"FREE of {record.length} bytes at {record.offset} reaches beyond 2^63")
        if record.object == OBJECT_PROPERTIES and record.offset < records.PROPERTIES_BLOCK_BYTES:
            raise StreamError("FREE takes away the block that holds the volume's size")

    def _freeobjects(self, record: FreeObjects) -> None:
        self._same_guid(record.toguid)
        if record.first + record.count > records.U64_MAX:
            raise StreamError(f"FREEOBJECTS of {record.count} from {record.first} has no such end")
        if record.count and record.first <= OBJECT_PROPERTIES and record.first + record.count > OBJECT_DATA:
            raise StreamError("FREEOBJECTS takes away the volume's own objects")

    def _properties(self, block: bytes | memoryview) -> None:
        """Read the volume's size out of object 2, a micro-ZAP of seven entries."""
        if int.from_bytes(block[:8], "little") != _MICROZAP:
            raise StreamError("object 2 is no micro-ZAP; a volume's is")
        for at in range(_ZAP_ENTRY_BYTES, len(block), _ZAP_ENTRY_BYTES):
            value, _, _, name = _ZAP_ENTRY.unpack_from(block, at)
            if name.partition(b"\0")[0] == b"size":
                if not 0 < value <= records.MAX_OFFSET or value % 512:
                    raise StreamError(f"a volume of {value} bytes; a multiple of 512 is accepted")
                self._volsize = value
                return
        raise StreamError('object 2 has no entry "size"')
