"""Verifies a send stream as it passes: checksums, records, order, packages, the end.

:class:`Checker` takes pushed bytes and gives back records in verified groups.
What it gives has been vouched for: every header's running checksum up to and
behind it was recomputed and compared, END's own sum too, and the rules of
``rules`` hold.  A group that ends a snapshot says so; nothing is a snapshot
before that.  (Ancient senders wrote no running checksums, all zero; their
records are given unvouched, and END's sum decides before the snapshot is
given.  With ``for_receiver`` such streams are refused.)

A plain stream holds one snapshot; a package (``zfs send -R``, ``-I``, ``-p``)
several of one volume, each from the one before it.  Bytes after the last END
are refused.

Owns no file and does no I/O.  One object serves one stream in one thread.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from imagestore.errors import StreamError
from imagestore.streams import fletcher4, packages, records
from imagestore.streams.decompress import unpack
from imagestore.streams.packages import PackageHeader
from imagestore.streams.parser import Batch, Item, Parser, WriteRun
from imagestore.streams.records import CHECKSUM_AT, Begin, End, Record, Write, WriteEmbedded
from imagestore.streams.rules import PlainRules, check_features
from imagestore.streams.snapshot import SnapshotInfo

_WORD = fletcher4.WORD_BYTES
_CHECKSUM_WORDS = np.arange(8, dtype=np.int64)


class Verified(Struct, frozen=True, gc=False):
    """Records that were verified; ``raw`` are their bytes, as they came.

    ``snapshot`` is set when the last record is the END of a snapshot's stream,
    ``is_last`` when it is the END after which nothing may come, ``is_wrapping``
    when the records are a package's own, not of a snapshot's stream.  Views
    are valid until the next group is asked for.
    """

    raw: memoryview
    items: list[Item | WriteRun]
    snapshot: SnapshotInfo | None
    is_last: bool
    is_wrapping: bool


class Checker:
    """Verifies one stream.

    ``base``, ``any_base`` and ``for_receiver`` are those of
    :class:`~imagestore.streams.rules.PlainRules`.  With ``unpack`` compressed
    blocks are unpacked, to see that they can be.
    """

    def __init__(
        self,
        *,
        base: SnapshotInfo | None = None,
        any_base: bool = False,
        for_receiver: bool = False,
        unpack: bool = False,
    ) -> None:
        self.parser = Parser()
        self._any_base = any_base
        self._for_receiver = for_receiver
        self._unpack = unpack
        self._hash = fletcher4.Fletcher4()
        self._state = fletcher4.ZERO
        self._base = base
        self._rules: PlainRules | None = None
        self._package: PackageHeader | None = None
        self._package_begin: tuple[Begin, bytes] | None = None
        self._is_done = False
        self.snapshots: list[SnapshotInfo] = []

    @property
    def package(self) -> PackageHeader | None:
        """The package's header, None while unknown and for a plain stream."""
        return self._package

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Verified]:
        """Take bytes in any cut; give what they complete. Exhaust it before feeding again.

        Raises:
            StreamError: one line saying what is wrong and in which record.
        """
        for batch in self.parser.feed(data):
            yield self._verify(batch)

    def advance(self, count: int) -> Iterator[Verified]:
        """Tell that ``count`` bytes were put into ``parser.room()``; as :meth:`feed`."""
        for batch in self.parser.advance(count):
            yield self._verify(batch)

    def finish(self) -> Iterator[Verified]:
        """Give what is left. Raises StreamError if the stream is not whole."""
        for batch in self.parser.finish():
            yield self._verify(batch)
        if not self._is_done:
            raise StreamError(
                f"the stream is cut in {self.parser.where}, {self.parser.pending_bytes} bytes into it; "
                "its last END is missing"
            )

    def _verify(self, batch: Batch) -> Verified:
        first = batch.items[0]
        with _Place(first.number, first.offset):
            self._begin_or_blank(first)
        self._compare_checksums(batch)
        snapshot: SnapshotInfo | None = None
        is_inside = self._rules is not None
        for item in batch.items:
            with _Place(item.number, item.offset):
                snapshot = self._judge(item)
        if self._is_done:
            self.parser.close()
        is_wrapping = not is_inside and self._rules is None
        return Verified(batch.raw, batch.items, snapshot, self._is_done, is_wrapping)

    def _begin_or_blank(self, first: Item | WriteRun) -> None:
        """Between streams only BEGIN may come, or in a package the blank END."""
        if not self._is_between():
            return
        self._state = fletcher4.ZERO
        record = first.record
        if isinstance(record, Begin):
            return
        if self._package is not None and isinstance(record, End):
            return
        raise StreamError(f"{records.type_name(record)} stands where BEGIN must; this is no send stream")

    # -- checksums ------------------------------------------------------------

    def _compare_checksums(self, batch: Batch) -> None:
        """Recompute the sum at every header and END's own; keep the state for the next batch."""
        last = batch.items[-1]
        if isinstance(last.record, End) and self._is_between():
            return
        positions = np.append((batch.headers + CHECKSUM_AT) // _WORD, batch.headers[-1] // _WORD)
        states = self._hash.states_at(self._state, batch.words, positions)
        stored = _stored_checksums(batch)
        carried = np.count_nonzero(stored, axis=1) > 0
        compared = carried.copy()
        if isinstance(batch.items[0].record, Begin):
            compared[0] = False
        elif self._for_receiver and self._rules is not None and not carried.all():
            raise StreamError(
                "the stream's records carry no checksums; a stream of OpenZFS 0.7 or later is accepted"
            )
        wrong = np.logical_and((stored != states[:-1]).any(axis=1), compared)
        if wrong.any():
            raise StreamError(
                f"checksum mismatch: the bytes before record {batch.number + int(wrong.argmax())} "
                f"(from byte {batch.offset}) are damaged"
            )
        a, b, c, d = states[-1].tolist()
        self._state = (a, b, c, d)
        if isinstance(last.record, End) and last.record.checksum != self._state:
            raise StreamError(
                f"checksum mismatch: END (record {last.number} at byte {last.offset}) "
                "has another sum than the stream"
            )

    def _is_between(self) -> bool:
        return self._rules is None and self._package_begin is None

    # -- records -----------------------------------------------------------------

    def _judge(self, item: Item | WriteRun) -> SnapshotInfo | None:
        if isinstance(item, WriteRun):
            rules = self._plain()
            rules.check_first_of_run(item.record)
            rules.check_rest_of_run(item.record, _last_offset(item, rules.alignment))
            return None
        record = item.record
        if self._package_begin is not None:
            self._end_of_header(record, *self._package_begin)
            return None
        if isinstance(record, Begin) and self._rules is None:
            self._open(record, item.payload)
            return None
        if isinstance(record, End):
            return self._end(record)
        self._plain().check(record, item.payload)
        if self._unpack and isinstance(record, Write | WriteEmbedded):
            unpack(record, item.payload)
        return None

    def _plain(self) -> PlainRules:
        if self._rules is None:
            raise StreamError("a record stands outside any stream, before its BEGIN")
        return self._rules

    def _open(self, begin: Begin, payload: memoryview) -> None:
        if begin.header_type == records.PACKAGE:
            if self._package is not None:
                raise StreamError("a package inside a package is refused")
            check_features(begin.features)
            # The list is read when its END has vouched for it
            self._package_begin = begin, bytes(payload)
        elif begin.header_type == records.PLAIN:
            self._rules = self._new_rules(begin)
        else:
            raise StreamError(
                f"BEGIN has header type {begin.header_type}; 1 (plain) and 2 (package) are accepted"
            )

    def _new_rules(self, begin: Begin) -> PlainRules:
        if self.snapshots and begin.fromguid != self.snapshots[-1].guid:
            raise StreamError(
                f"the package's stream from guid {begin.fromguid} does not follow the snapshot before it "
                f"({self.snapshots[-1].name}); packages of several datasets are refused"
            )
        if self._package is not None:
            self._package.check_member(begin.toguid)
        return PlainRules(
            begin,
            base=self.snapshots[-1] if self.snapshots else self._base,
            any_base=self._any_base and not self.snapshots,
            for_receiver=self._for_receiver,
        )

    def _end_of_header(self, record: Record, begin: Begin, payload: bytes) -> None:
        if not isinstance(record, End):
            raise StreamError(f"{records.type_name(record)} stands in the package's header, where END must")
        self._package = packages.parse_header(begin, memoryview(payload))
        self._package_begin = None

    def _end(self, end: End) -> SnapshotInfo | None:
        if self._rules is None:
            if not end.is_blank:
                raise StreamError("the package's last END is not blank (all zero)")
            if not self.snapshots:
                raise StreamError("the package holds no snapshot")
            self._is_done = True
            return None
        snapshot = self._rules.finish(end)
        self._rules = None
        self.snapshots.append(snapshot)
        self._is_done = self._package is None
        return snapshot


class _Place:
    """Adds the record's place to a StreamError that passes."""

    __slots__ = ("_number", "_offset")

    def __init__(self, number: int, offset: int) -> None:
        self._number = number
        self._offset = offset

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, StreamError):
            raise StreamError(f"{error} (record {self._number} at byte {self._offset})") from None


def _stored_checksums(batch: Batch) -> npt.NDArray[np.uint64]:
    index = ((batch.headers + CHECKSUM_AT) // _WORD)[:, None] + _CHECKSUM_WORDS
    stored: npt.NDArray[np.uint64] = batch.words[index].view(np.uint64)
    return stored


def _last_offset(run: WriteRun, alignment: int) -> int:
    """Raises StreamError unless the run's offsets are aligned and ascend without overlap, below 2^63."""
    size = run.record.logical_bytes
    offsets = run.offsets
    if int(offsets.max()) > records.MAX_OFFSET - size:
        raise StreamError(f"a run of {len(offsets)} WRITEs reaches beyond 2^63")
    if (offsets[1:] < offsets[:-1] + np.uint64(size)).any() or (offsets % np.uint64(alignment)).any():
        raise StreamError(
            f"the offsets of {len(offsets)} WRITEs of {size} bytes do not ascend block by block"
        )
    return int(offsets[-1])
