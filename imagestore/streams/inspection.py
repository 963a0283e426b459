"""Reads a whole send stream and says what is in it: ``imagestore stream inspect``.

Everything is verified on the way (checksums, order, every compressed block),
so a report is also the statement that the stream is whole and right; a damaged
one is an error that names the record.
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from imagestore.streams import records
from imagestore.streams.landing import opened, stream_pieces
from imagestore.streams.records import Begin, Free, Write, WriteEmbedded
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.volume_map import MapBuilder, VolumeMap

if TYPE_CHECKING:
    from imagestore.streams.checker import Verified
    from imagestore.streams.packages import PackageHeader
    from imagestore.streams.parser import Item, WriteRun

SnapshotKind = Literal["full", "incremental", "clone"]


class SnapshotReport(Struct, frozen=True, kw_only=True):
    """One plain stream.  Guids are decimal text, for JSON readers without 64-bit integers.

    ``volsize_bytes`` and ``block_bytes`` are 0 when only the base knows them.
    ``data_bytes`` come as blocks, ``stored_bytes`` is what they take in the
    stream, ``hole_bytes`` come as holes.  ``records`` and ``compression`` count
    records by type and blocks by algorithm.
    """

    name: str
    kind: SnapshotKind
    guid: str
    from_guid: str
    creation_seconds: int
    volsize_bytes: int
    block_bytes: int
    features: tuple[str, ...]
    records: dict[str, int]
    compression: dict[str, int]
    data_bytes: int
    stored_bytes: int
    hole_bytes: int
    map: VolumeMap


class PackageReport(Struct, frozen=True, kw_only=True):
    """What a package's header says; ``snapshots`` are (name, guid)."""

    name: str
    fromsnap: str
    tosnap: str
    features: tuple[str, ...]
    snapshots: tuple[tuple[str, str], ...]
    properties: dict[str, str]


class StreamReport(Struct, frozen=True, kw_only=True):
    """A whole stream, verified.  ``stream_bytes`` is its length unpacked; ``checks`` what was verified."""

    stream_bytes: int
    records: int
    package: PackageReport | None
    snapshots: tuple[SnapshotReport, ...]
    checks: tuple[str, ...] = (
        "running checksums",
        "end checksums",
        "fields and order",
        "compressed blocks",
        "volume size",
    )


def inspect(path: str, *, progress: Callable[[int], None] | None = None) -> StreamReport:
    """Report on the stream at ``path`` (``-``: standard input), plain or gzipped.

    ``progress`` is told how many bytes were read.

    Raises:
        StreamError, ContentRefused: it is damaged, refused, or no send stream.
        NotFound: there is no such file.
    """
    inspector = Inspector()
    with opened(path) as fd:
        for piece in stream_pieces(fd):
            inspector.feed(piece)
            if progress is not None:
                progress(inspector.stream_bytes)
    return inspector.finish()


class Inspector:
    """Takes a stream's bytes in any cut, gives the report at the end."""

    def __init__(self) -> None:
        from imagestore.streams.checker import Checker

        self._checker = Checker(any_base=True, unpack=True)
        self._tally: _Tally | None = None
        self._reports: list[SnapshotReport] = []
        self._records = 0
        self.stream_bytes = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Raises StreamError."""
        self.stream_bytes += len(data)
        for verified in self._checker.feed(data):
            self._count(verified)

    def finish(self) -> StreamReport:
        """Raises StreamError if the stream is not whole."""
        for verified in self._checker.finish():
            self._count(verified)
        return StreamReport(
            stream_bytes=self.stream_bytes,
            records=self._records,
            package=_package_report(self._checker.package),
            snapshots=tuple(self._reports),
        )

    def _count(self, verified: "Verified") -> None:
        for item in verified.items:
            record = item.record
            self._records += item.count
            if verified.is_wrapping:
                continue
            if isinstance(record, Begin):
                self._tally = _Tally(record)
            if self._tally is not None:
                self._tally.add(item)
        if verified.snapshot is not None and self._tally is not None:
            self._reports.append(self._tally.report(verified.snapshot))
            self._tally = None


class _Tally:
    """Counts the records of one plain stream."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._records: Counter[str] = Counter()
        self._compression: Counter[str] = Counter()
        self._map = MapBuilder()
        self._data_bytes = self._stored_bytes = self._hole_bytes = 0

    def add(self, item: "Item | WriteRun") -> None:
        record = item.record
        self._records[records.type_name(record)] += item.count
        if isinstance(record, Free) and record.object == records.OBJECT_DATA:
            if record.length != records.TO_THE_END:
                self._hole_bytes += record.length
                self._map.add_hole(record.offset, record.offset + record.length)
        elif isinstance(record, Write | WriteEmbedded) and record.object == records.OBJECT_DATA:
            self._compression[records.COMPRESSION_NAMES[record.compression]] += item.count
            self._data_bytes += record.logical_bytes * item.count
            self._stored_bytes += record.payload_bytes * item.count
            for start, end in item.extents():
                self._map.add_data(start, end)

    def report(self, snapshot: SnapshotInfo) -> SnapshotReport:
        kind: SnapshotKind = "full"
        if snapshot.from_guid:
            kind = "clone" if snapshot.is_clone else "incremental"
        return SnapshotReport(
            name=snapshot.name,
            kind=kind,
            guid=str(snapshot.guid),
            from_guid=str(snapshot.from_guid) if snapshot.from_guid else "",
            creation_seconds=snapshot.creation_seconds,
            volsize_bytes=snapshot.volsize,
            block_bytes=snapshot.volblocksize,
            features=records.feature_names(self._begin.features),
            records=dict(self._records),
            compression=dict(self._compression),
            data_bytes=self._data_bytes,
            stored_bytes=self._stored_bytes,
            hole_bytes=self._hole_bytes,
            map=self._map.build(snapshot.volsize),
        )


def _package_report(header: "PackageHeader | None") -> PackageReport | None:
    if header is None:
        return None
    return PackageReport(
        name=header.name,
        fromsnap=header.fromsnap,
        tosnap=header.tosnap,
        features=records.feature_names(header.features),
        snapshots=tuple((name, str(guid)) for guid, name in header.snapshots.items()),
        properties=header.properties,
    )
