"""The catalog of a directory pool: one SQLite file that says what exists.

Owns the schema and every statement.  A dataset exists if and only if it has a
row here; a data file without a row is rubbish, a link without a row is stale.
The catalog knows names, identities and tags, and which data file holds a
dataset's bytes; it never touches a data file.

A :class:`Catalog` is the one connection there is: while it is open no other
process can read or write the file, and threads take turns (``lock``), so that
who holds the lock sees one instant.  The database is in WAL mode with
``synchronous=FULL``: a transaction that committed survives power loss.

No part of it is ever mapped into memory.  A store to a mapped page that a full
or failing disk cannot take is a SIGBUS, which ends the process; a write is an
error that can be told.  SQLite maps the index of a WAL (the ``-shm`` file)
unless one connection has the database to itself, and then keeps it on the heap.

On disk: ``user_version`` is the format.  Guids are unsigned 64-bit integers,
stored as SQLite's signed ones in two's complement.  ``createtxg`` comes from
a counter that only grows and is never given twice, not even after the row is
gone, so it alone identifies a dataset of this pool; that of a volume is lower
than that of its snapshots, so ``ORDER BY dataset, createtxg`` is the order of
``zfs list``.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from imagestore.errors import NotFound, PoolError
from imagestore.pools.base import NO_TAGS, Dataset, Kind, Mark, Tags, Target

FORMAT = 2
"""Format 1 did not know thick volumes; a pool of it is brought up to date when it is opened."""

_BUSY_TIMEOUT_MS = 10_000
"""How long opening waits for a program that has the file open."""

_PAGE_ROWS = 256
"""What a listing reads in one go: a few milliseconds in which nothing can be committed."""

_SCHEMA = """
CREATE TABLE dataset (
    createtxg INTEGER PRIMARY KEY,
    dataset TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    kind TEXT NOT NULL,
    guid INTEGER NOT NULL,
    creation INTEGER NOT NULL,
    volsize INTEGER NOT NULL,
    written INTEGER NOT NULL,
    referenced INTEGER NOT NULL,
    origin INTEGER,
    file TEXT NOT NULL,
    baseline INTEGER NOT NULL,
    block_size INTEGER NOT NULL,
    resize_to INTEGER,
    tag_op TEXT NOT NULL,
    tag_kind TEXT NOT NULL,
    tag_image TEXT NOT NULL,
    tag_sha256 TEXT NOT NULL,
    tag_guest TEXT NOT NULL,
    tag_disk TEXT NOT NULL,
    tag_last TEXT NOT NULL,
    thick INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX dataset_by_name ON dataset (dataset, snapshot);
CREATE INDEX dataset_in_order ON dataset (dataset, createtxg);
CREATE INDEX dataset_by_origin ON dataset (origin) WHERE origin IS NOT NULL;
CREATE INDEX dataset_resizing ON dataset (resize_to) WHERE resize_to IS NOT NULL;
CREATE TABLE pool (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    last_txg INTEGER NOT NULL,
    journal TEXT,
    epoch INTEGER
);
INSERT INTO pool VALUES (1, 0, NULL, NULL);
"""

_COLUMNS = (
    "createtxg, dataset, snapshot, kind, guid, creation, volsize, written, referenced, origin, file, "
    "baseline, block_size, tag_op, tag_kind, tag_image, tag_sha256, tag_guest, tag_disk, tag_last, thick"
)
_INSERT = f"INSERT INTO dataset ({_COLUMNS}) VALUES ({', '.join('?' * 21)})"  # noqa: S608 (constants)
_ORIGIN_NAME = (
    "(SELECT source.dataset || '@' || source.snapshot FROM dataset AS source "
    "WHERE source.createtxg = dataset.origin)"
)
_SELECT = f"SELECT {_COLUMNS}, {_ORIGIN_NAME} FROM dataset"  # noqa: S608 (constants)

_Row = tuple[
    int,
    str,
    str,
    Kind,
    int,
    int,
    int,
    int,
    int,
    int | None,
    str,
    int,
    int,
    str,
    str,
    str,
    str,
    str,
    str,
    str,
    int,
    str | None,
]


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """A dataset and where its bytes are.

    ``file`` names the data file, "" for a file system and its snapshots.
    ``origin_txg`` is the createtxg of the origin, None if there is none.
    ``baseline`` is what the data file had allocated, in bytes, when the volume
    was made, snapshotted or rolled back.  ``block_size`` is the volblocksize
    that its send streams carry.
    """

    dataset: Dataset
    file: str = ""
    origin_txg: int | None = None
    baseline: int = 0
    block_size: int = 0


class Catalog:
    """The connection to the catalog.  Raises sqlite3.Error where SQLite fails.

    Hold ``lock`` over what is to be read of one instant, and from ``begin`` to
    ``commit`` or ``roll_back``.
    """

    def __init__(self, path: str) -> None:
        """Open the catalog at ``path``. Raises PoolError if it is not of this version's format."""
        self.lock = threading.RLock()
        self._connection = _connect(path, "rw")
        try:
            self._check_format(path)
        except BaseException:
            self._connection.close()
            raise

    def _check_format(self, path: str) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 1:
            version = self._upgrade()
        if version != FORMAT:
            raise PoolError(
                f"the pool's catalog has format {version}, this imagestore reads format {FORMAT}",
                detail=f"{path} was left untouched; use the imagestore that wrote it, or a newer one",
            )

    def _upgrade(self) -> int:
        """From format 1, in one transaction. Returns the format."""
        self.begin()
        self._connection.execute("ALTER TABLE dataset ADD COLUMN thick INTEGER NOT NULL DEFAULT 0")
        self._connection.execute(f"PRAGMA user_version = {FORMAT}")
        self.commit()
        return FORMAT

    def close(self) -> None:
        with self.lock:
            self._connection.close()

    # -- transactions ---------------------------------------------------------

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo all since ``begin``, if SQLite has not done so by itself."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def savepoint(self) -> None:
        self._connection.execute("SAVEPOINT change")

    def release_savepoint(self) -> None:
        self._connection.execute("RELEASE change")

    def roll_back_to_savepoint(self) -> None:
        self._connection.execute("ROLLBACK TO change")
        self._connection.execute("RELEASE change")

    # -- looking --------------------------------------------------------------

    def find(self, name: str) -> Entry | None:
        """The dataset of that name, or None."""
        dataset, _, snapshot = name.partition("@")
        found = self._select("WHERE dataset = ? AND snapshot = ?", (dataset, snapshot))
        return found[0] if found else None

    def require(self, target: Target) -> Entry:
        """The dataset that ``target`` means.

        Raises:
            NotFound: nothing has that name, or it is another dataset.
        """
        entry = self.find(target.name)
        if entry is None or entry.dataset.identity != target.identity:
            raise NotFound(detail=f"{target.name} with guid {target.guid}")
        return entry

    def by_txg(self, createtxg: int) -> Entry | None:
        found = self._select("WHERE createtxg = ?", (createtxg,))
        return found[0] if found else None

    def snapshots(self, dataset: str) -> list[Entry]:
        """Snapshots of a dataset, oldest first."""
        return self._select("WHERE dataset = ? AND snapshot != '' ORDER BY createtxg", (dataset,))

    def subtree(self, dataset: str) -> list[Entry]:
        """A dataset, its snapshots, and everything below it, in the order of ``zfs list``."""
        # '0' follows '/': the range holds exactly the names that begin with "dataset/".
        return self._select(
            "WHERE dataset = ? OR (dataset >= ? AND dataset < ?) ORDER BY dataset, createtxg",
            (dataset, f"{dataset}/", f"{dataset}0"),
        )

    def clones(self, origin: Entry) -> list[Entry]:
        return self._select("WHERE origin = ? ORDER BY dataset", (origin.dataset.createtxg,))

    def resizing(self) -> list[tuple[Entry, int]]:
        """Volumes whose resize a crash cut short, with the size they were to have."""
        with self.lock:
            rows: list[tuple[int, int]] = self._connection.execute(
                "SELECT createtxg, resize_to FROM dataset WHERE resize_to IS NOT NULL"
            ).fetchall()
        return [(found, size) for txg, size in rows if (found := self.by_txg(txg)) is not None]

    def all(self) -> Iterator[Dataset]:
        """Every dataset, in the order of ``zfs list``.

        They are read a page at a time, and the lock is free in between: a
        change that is committed meanwhile may be seen in part, as with
        ``zfs list``.
        """
        return _datasets(self._pages())

    def _pages(self) -> Iterator[_Row]:
        last: tuple[str, int] = ("", 0)
        while True:
            page = self._rows(
                f"WHERE (dataset, createtxg) > (?, ?) ORDER BY dataset, createtxg LIMIT {_PAGE_ROWS}", last
            )
            yield from page
            if len(page) < _PAGE_ROWS:
                return
            last = (page[-1][1], page[-1][0])

    def files(self) -> set[str]:
        """The names of all data files in use."""
        with self.lock:
            rows: list[tuple[str]] = self._connection.execute(
                "SELECT file FROM dataset WHERE file != ''"
            ).fetchall()
        return {name for (name,) in rows}

    def places(self) -> list[tuple[str, str]]:
        """Name and data file ("" for a file system) of all but snapshots, parents first."""
        with self.lock:
            rows: list[tuple[str, str]] = self._connection.execute(
                "SELECT dataset, file FROM dataset WHERE snapshot = '' ORDER BY dataset"
            ).fetchall()
        return rows

    def volumes(self, after: int, limit: int) -> list[tuple[int, str, int, int]]:
        """createtxg, data file, baseline and size of up to ``limit`` volumes beyond ``after``."""
        with self.lock:
            rows: list[tuple[int, str, int, int]] = self._connection.execute(
                "SELECT createtxg, file, baseline, volsize FROM dataset "
                "WHERE createtxg > ? AND kind = 'volume' ORDER BY createtxg LIMIT ?",
                (after, limit),
            ).fetchall()
        return rows

    # -- changing, between begin and commit -----------------------------------

    def next_txg(self) -> int:
        row: tuple[int] = self._connection.execute(
            "UPDATE pool SET last_txg = last_txg + 1 RETURNING last_txg"
        ).fetchone()
        return row[0]

    def insert(self, entry: Entry) -> Entry:
        """Add a dataset; its createtxg is given here. Returns it as it now is."""
        entry = replace(entry, dataset=replace(entry.dataset, createtxg=self.next_txg()))
        self._connection.execute(_INSERT, _row(entry))
        return entry

    def delete(self, entry: Entry) -> None:
        self._connection.execute("DELETE FROM dataset WHERE createtxg = ?", (entry.dataset.createtxg,))

    def set_content(self, entry: Entry) -> None:
        """Write a volume's data file, baseline, sizes and ``last`` tag as ``entry`` has them."""
        dataset = entry.dataset
        self._connection.execute(
            "UPDATE dataset SET file = ?, baseline = ?, volsize = ?, written = ?, referenced = ?, "
            "resize_to = NULL, tag_last = ? WHERE createtxg = ?",
            (
                entry.file,
                entry.baseline,
                dataset.volsize,
                dataset.written,
                dataset.referenced,
                dataset.tags.last,
                dataset.createtxg,
            ),
        )

    def set_resize(self, entry: Entry, size: int) -> None:
        """Note that a volume is being resized, so that a crash cannot leave it between two sizes."""
        self._connection.execute(
            "UPDATE dataset SET resize_to = ? WHERE createtxg = ?", (size, entry.dataset.createtxg)
        )

    def set_tags(self, entry: Entry, tags: Tags) -> None:
        self._connection.execute(
            "UPDATE dataset SET tag_op = ?, tag_kind = ?, tag_image = ?, tag_sha256 = ?, tag_guest = ?, "
            "tag_disk = ?, tag_last = ? WHERE createtxg = ?",
            (*_tag_columns(tags), entry.dataset.createtxg),
        )

    def set_name(self, entry: Entry, name: str) -> None:
        dataset, _, snapshot = name.partition("@")
        self._connection.execute(
            "UPDATE dataset SET dataset = ?, snapshot = ? WHERE createtxg = ?",
            (dataset, snapshot, entry.dataset.createtxg),
        )

    # -- the mark ---------------------------------------------------------------

    def mark(self) -> Mark | None:
        with self.lock:
            row: tuple[str | None, int | None] = self._connection.execute(
                "SELECT journal, epoch FROM pool"
            ).fetchone()
        journal, epoch = row
        return None if journal is None or epoch is None else Mark(journal=journal, epoch=epoch)

    def set_mark(self, mark: Mark | None) -> None:
        columns = (None, None) if mark is None else (mark.journal, mark.epoch)
        self._connection.execute("UPDATE pool SET journal = ?, epoch = ?", columns)

    # -- rows -------------------------------------------------------------------

    def _rows(self, clause: str, parameters: Sequence[str | int]) -> list[_Row]:
        with self.lock:
            return self._connection.execute(f"{_SELECT} {clause}", parameters).fetchall()

    def _select(self, clause: str, parameters: Sequence[str | int]) -> list[Entry]:
        rows = self._rows(clause, parameters)
        return [
            Entry(dataset=dataset, file=row[10], origin_txg=row[9], baseline=row[11], block_size=row[12])
            for row, dataset in zip(rows, _datasets(rows), strict=True)
        ]


def create_catalog(path: str) -> None:
    """Make an empty catalog at ``path``, whole or not at all once its directory is synced.

    Raises sqlite3.Error.
    """
    connection = _connect(path, "rwc")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {FORMAT};COMMIT;")
    finally:
        connection.close()


def _connect(path: str, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{_uri_path(path)}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        # Before anything is read: the first look at a WAL decides where its index is kept.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        # One that is left open keeps its lock, and the next to come would wait for it in vain.
        connection.close()
        raise
    return connection


def _datasets(rows: Iterable[_Row]) -> Iterator[Dataset]:
    """Rows as datasets; equal strings and tags are one object, so that 100,000 stay small."""
    shared: dict[str, str] = {}
    share = shared.setdefault
    last_tags = NO_TAGS
    last_columns: tuple[str, ...] = _tag_columns(NO_TAGS)
    for row in rows:
        columns = row[13:20]
        if columns != last_columns:
            op, kind, image, sha256, guest, disk, last = (share(text, text) for text in columns)
            last_columns = columns
            last_tags = Tags(op=op, kind=kind, image=image, sha256=sha256, guest=guest, disk=disk, last=last)
        name = f"{row[1]}@{row[2]}" if row[2] else row[1]
        yield Dataset(
            name=name,
            kind=_KINDS[row[3]],
            guid=row[4] & 0xFFFF_FFFF_FFFF_FFFF,
            createtxg=row[0],
            volsize=row[6],
            written=row[7],
            referenced=row[8],
            origin=share(row[21] or "", row[21] or ""),
            sparse=not row[20],
            creation=row[5],
            tags=last_tags,
        )


_KINDS: dict[str, Kind] = {"filesystem": "filesystem", "volume": "volume", "snapshot": "snapshot"}


def _row(entry: Entry) -> tuple[int | str | None, ...]:
    dataset = entry.dataset
    name, _, snapshot = dataset.name.partition("@")
    signed = dataset.guid - (1 << 64) if dataset.guid >= 1 << 63 else dataset.guid
    return (
        dataset.createtxg,
        name,
        snapshot,
        dataset.kind,
        signed,
        dataset.creation,
        dataset.volsize,
        dataset.written,
        dataset.referenced,
        entry.origin_txg,
        entry.file,
        entry.baseline,
        entry.block_size,
        *_tag_columns(dataset.tags),
        int(not dataset.sparse),
    )


def _tag_columns(tags: Tags) -> tuple[str, ...]:
    return (tags.op, tags.kind, tags.image, tags.sha256, tags.guest, tags.disk, tags.last)


def _uri_path(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
