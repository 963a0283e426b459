"""The index: where in the journal something stands. A cache, and nothing else.

Owns one SQLite file.  It says which events belong to an operation, which are
about a dataset, guest or image, who asked, and which operation an idempotency
key was bound to; what an event says is always read from the journal.  It is
made anew whenever it is missing, of another schema, of another journal, or
when the place that it was written up to is not in the journal: so it can be
deleted at any time.

One process writes it; another that opens it meanwhile gets it to read, as far
as it goes.  Every method blocks, and may be called from any thread.
"""

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from imagestore.events import checkpoint as checkpoints
from imagestore.events.catalogue import Envelope, OperationFinished, OperationStarted
from imagestore.events.files import SYSTEM_FILES, Files
from imagestore.events.follow import Follower, anchor_at, place_at
from imagestore.events.indexqueries import (
    Query,
    Wanted,
    count_queries,
    first_of_last_query,
    named_query,
    operations_query,
    search_query,
)
from imagestore.events.log import Place, survey
from imagestore.events.replay import envelopes
from imagestore.events.scan import Frame
from imagestore.events.selection import Filter, alias_of
from imagestore.events.subjects import datasets_of, guests_of, images_of

_log = logging.getLogger(__name__)

SCHEMA = 2
"""Counts up with every change of the tables below or of what goes into them."""

BATCH_EVENTS = 1_000
"""Events of one transaction, which are in memory together."""

MOST_WORDS = 4_096
"""Whose numbers are remembered: events that follow each other are about the same things."""

EVENTS_BETWEEN_PLACES = 256
"""How many events are read, at most, to get at one."""

COMMON = 10_000
"""What so many events are about is looked for among all events in their order, and not sorted."""

MEMORY = ":memory:"

_TYPE, _WHO, _DATASET, _IMAGE, _GUEST = range(5)

_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE places (seq INTEGER PRIMARY KEY, segment INTEGER, offset INTEGER, hash BLOB);
CREATE TABLE words (number INTEGER PRIMARY KEY, kind INTEGER, word TEXT, UNIQUE (kind, word));
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, time_ns INTEGER, type INTEGER, who INTEGER, operation INTEGER);
CREATE INDEX events_of_operation ON events (operation, seq);
CREATE INDEX events_by_who ON events (who, seq);
CREATE TABLE subjects (word INTEGER, seq INTEGER, PRIMARY KEY (word, seq)) WITHOUT ROWID;
CREATE TABLE operations (
    first_seq INTEGER PRIMARY KEY, id TEXT UNIQUE, method TEXT, who INTEGER, started_ns INTEGER,
    last_seq INTEGER, outcome TEXT, key TEXT);
CREATE INDEX operations_by_key ON operations (key) WHERE key <> '';
CREATE INDEX operations_under_way ON operations (first_seq) WHERE last_seq IS NULL;
"""


class Bound(Struct, frozen=True, kw_only=True):
    """An operation that an idempotency key was bound to."""

    operation: str
    first_seq: int
    started_ns: int


class IndexLost(Exception):
    """The index is damaged, or of another history: make it anew and ask again."""


class Index:
    """See the module; made by :func:`open_index`."""

    def __init__(self, directory: str, path: str, *, files: Files, writable: bool, lock: int) -> None:
        self.directory = directory
        self.path = path
        self.writable = writable
        self._files = files
        self._flock = lock
        self._lock = threading.Lock()
        self._follower: Follower | None = None
        self._journal = b""
        self._seq = 0
        self._last_place = 0
        self._words: dict[tuple[int, str], int] = {}
        self._open_operations: dict[str, int] = {}
        self._database = self._connect()

    @property
    def seq(self) -> int:
        """The last event that is in it."""
        return self._seq

    def close(self) -> None:
        with self._lock:
            self._database.close()
            if self._flock != -1:
                os.close(self._flock)
                self._flock = -1

    # -- growing ---------------------------------------------------------------

    def catch_up(self, *, up_to: int | None = None) -> int:
        """Take in the journal's events up to ``up_to``, or its end; returns :attr:`seq`.

        A damaged or foreign index is begun anew on the way.  One that another
        process writes is only looked at again.

        Raises:
            JournalError: the journal cannot be read.
            sqlite3.Error, OSError: the index cannot be written.
        """
        with self._lock:
            if not self.writable:
                self._load()
                return self._seq
            try:
                self._catch_up(up_to)
            except sqlite3.DatabaseError as error:
                _log.warning("index %s is damaged and made anew: %s", self.path, error)
                self._start_anew()
                self._catch_up(up_to)
            return self._seq

    def rebuild(self) -> None:
        """Begin anew; :meth:`catch_up` fills it."""
        with self._lock:
            if self.writable:
                self._start_anew()

    def _catch_up(self, up_to: int | None) -> None:
        if self._follower is None:
            self._follower = self._resume()
        follower = self._follower
        while up_to is None or self._seq < up_to:
            batch: list[Envelope] = []
            places: list[Place] = []
            for number, frame in follower.frames(up_to=up_to):
                batch += envelopes(self.directory, number, frame)
                place = follower.place
                if place is not None and place.cursor.seq - self._last_place >= EVENTS_BETWEEN_PLACES:
                    places.append(place)
                    self._last_place = place.cursor.seq
                if len(batch) >= BATCH_EVENTS:
                    break
            if not batch:
                return
            self._take_in(batch, places)

    def _resume(self) -> Follower:
        """Go on where the index ends, if that place is in the journal; from the beginning otherwise."""
        anchor = self._load()
        found = survey(self._files, self.directory)
        if anchor is not None and found.headers:
            place = place_at(found, anchor, self._files)
            if place is not None:
                return Follower(self.directory, anchor.seq + 1, start=place, files=self._files)
            _log.info("index %s is of another history and made anew", self.path)
        if self._seq:
            self._start_anew()
        self._journal = found.journal
        return Follower(self.directory, files=self._files)

    def _take_in(self, batch: Sequence[Envelope], places: Iterable[Place]) -> None:
        assert self._follower is not None
        place = self._follower.place
        assert place is not None
        if not self._journal:
            self._journal = survey(self._files, self.directory).journal
        anchor = anchor_at(place, self._journal)
        try:
            with self._database as database:
                subjects: set[tuple[int, int]] = set()
                rows = [self._row(envelope, subjects) for envelope in batch]
                database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
                database.executemany("INSERT INTO subjects VALUES (?, ?)", sorted(subjects))
                database.executemany(
                    "INSERT INTO places VALUES (?, ?, ?, ?)",
                    [(p.cursor.seq, p.number, p.last_frame, p.cursor.hash) for p in places],
                )
                database.executemany(
                    "INSERT OR REPLACE INTO about VALUES (?, ?)",
                    [
                        ("schema", SCHEMA),
                        ("journal", anchor.journal),
                        ("segment", anchor.segment),
                        ("offset", anchor.offset),
                        ("seq", anchor.seq),
                        ("hash", anchor.hash),
                    ],
                )
        except BaseException:
            self._forget()
            raise
        self._seq = anchor.seq

    def _row(
        self, envelope: Envelope, subjects: set[tuple[int, int]]
    ) -> tuple[int, int, int, int, int | None]:
        seq, event = envelope.seq, envelope.event
        who = self._word(_WHO, envelope.principal)
        operation: int | None = None
        if isinstance(event, OperationStarted):
            operation = self._open_operations[envelope.operation] = seq
            self._database.execute(
                "INSERT OR REPLACE INTO operations VALUES (?, ?, ?, ?, ?, NULL, '', ?)",
                (seq, envelope.operation, event.method, who, envelope.time_ns, event.key),
            )
        elif envelope.operation:
            operation = self._open_operations.get(envelope.operation)
            if operation is None:
                operation = self._first_seq(envelope.operation)
        if isinstance(event, OperationFinished) and operation is not None:
            self._open_operations.pop(envelope.operation, None)
            self._database.execute(
                "UPDATE operations SET last_seq = ?, outcome = ? WHERE first_seq = ?",
                (seq, event.outcome, operation),
            )
        subjects.update((self._word(_DATASET, name), seq) for name in datasets_of(event) if name)
        subjects.update((self._word(_GUEST, guest), seq) for guest in guests_of(event) if guest)
        subjects.update((self._word(_IMAGE, image), seq) for image in images_of(event) if image)
        return seq, envelope.time_ns, self._word(_TYPE, alias_of(event)), who, operation

    def _word(self, kind: int, word: str) -> int:
        number = self._words.get((kind, word))
        if number is None:
            self._database.execute("INSERT OR IGNORE INTO words (kind, word) VALUES (?, ?)", (kind, word))
            found = self._database.execute(
                "SELECT number FROM words WHERE kind = ? AND word = ?", (kind, word)
            ).fetchone()
            number = int(found[0])
            if len(self._words) >= MOST_WORDS:
                self._words.clear()
            self._words[kind, word] = number
        return number

    # -- opening ----------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        path, uri = self.path, False
        if not self.writable:
            path, uri = f"file:{self.path}?mode=ro", True
        database = sqlite3.connect(path, check_same_thread=False, timeout=5.0, uri=uri)
        if self.writable:
            # What is committed survives a crash whole or not at all; its end may be lost, and is made up for.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
        return database

    def _load(self) -> checkpoints.Anchor | None:
        """Where the index ends; None of one that cannot be gone on with."""
        try:
            about = dict(self._database.execute("SELECT name, value FROM about").fetchall())
            if about.get("schema") != SCHEMA:
                raise sqlite3.DatabaseError("it has another schema")
            anchor = checkpoints.Anchor(
                journal=about["journal"],
                segment=about["segment"],
                offset=about["offset"],
                seq=about["seq"],
                hash=about["hash"],
            )
            last_place = self._database.execute("SELECT max(seq) FROM places").fetchone()[0]
        except (sqlite3.Error, KeyError):
            if self.writable:
                self._start_anew()
            self._seq = 0
            return None
        self._journal, self._seq, self._last_place = anchor.journal, anchor.seq, last_place or 0
        return anchor

    def _start_anew(self) -> None:
        self._forget()
        self._database.close()
        if self.path != MEMORY:
            for ending in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path + ending)
        self._database = self._connect()
        self._database.executescript(_TABLES)
        self._seq = self._last_place = 0

    def _forget(self) -> None:
        """What is remembered beside the database: a transaction that failed may have changed it."""
        self._follower = None
        self._words.clear()
        self._open_operations.clear()

    # -- asking -----------------------------------------------------------------

    def _first_seq(self, operation: str) -> int | None:
        row = self._database.execute("SELECT first_seq FROM operations WHERE id = ?", (operation,)).fetchone()
        return None if row is None else int(row[0])

    def _ask(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Raises IndexLost."""
        with self._lock:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise IndexLost(str(error)) from error

    def operation(self, operation: str, *, most: int = 100_000) -> list[int]:
        """The seqs of an operation's events, in order; of more than ``most`` the first, and its end."""
        found = self._ask("SELECT first_seq, last_seq FROM operations WHERE id = ?", (operation,))
        if not found:
            return []
        first, last = found[0]
        rows = self._ask("SELECT seq FROM events WHERE operation = ? ORDER BY seq LIMIT ?", (first, most))
        seqs = [int(row[0]) for row in rows]
        return seqs if last is None or seqs[-1:] == [last] else [*seqs[:-1], int(last)]

    def bound(self, key: str) -> Bound | None:
        """The newest operation that was bound to the idempotency key of that hash."""
        rows = self._ask(
            "SELECT id, first_seq, started_ns FROM operations WHERE key = ? AND key <> '' "
            "ORDER BY first_seq DESC LIMIT 1",
            (key,),
        )
        return next((Bound(operation=row[0], first_seq=row[1], started_ns=row[2]) for row in rows), None)

    def under_way(self, seq: int) -> list[int]:
        """The first seqs of the operations that were under way after event ``seq``."""
        rows = self._ask(
            "SELECT first_seq FROM operations WHERE first_seq <= ? "
            "AND (last_seq > ? OR last_seq IS NULL) ORDER BY first_seq",
            (seq, seq),
        )
        return [int(row[0]) for row in rows]

    def operations(self, wanted: Wanted) -> list[tuple[str, int, int | None]]:
        """Id, first and last seq (None: under way) of the operations wanted, the newest first."""
        return [(str(row[0]), int(row[1]), row[2]) for row in self._ask(*operations_query(wanted))]

    def search(self, wanted: Filter, *, first: int | None = None, last: int | None = None) -> list[int]:
        """The seqs of the events that ``wanted`` asks for, in order; the ``first``, or ``last``, so many.

        The dataset is to be named as the journal does, without the pool.
        Rather more is found than :class:`~imagestore.events.selection.Selector`
        takes: all of an operation, if any of it is about the thing asked for.
        """
        rows = self._ask(*self._search_query(wanted, first=first, last=last))
        return [int(row[0]) for row in (rows if last is None else reversed(rows))]

    def first_of_last(self, wanted: Filter, last: int) -> int | None:
        """The first of what :meth:`search` finds of the ``last`` so many."""
        rows = self._ask(*first_of_last_query(self._search_query(wanted, last=last)))
        return None if rows[0][0] is None else int(rows[0][0])

    def _search_query(self, wanted: Filter, *, first: int | None = None, last: int | None = None) -> Query:
        common = [self._ask(*query)[0][0] >= COMMON for query in count_queries(wanted, COMMON)]
        return search_query(wanted, common, first=first, last=last)

    def named(self, dataset: str, *, most: int, oldest: int = 0) -> list[int]:
        """The seqs of what is about exactly this dataset, and of the beginnings and ends of those operations.

        In order; of more than ``most`` the newest, and the ``oldest`` so many.
        """
        found = {int(row[0]) for row in self._ask(*named_query(dataset, most, newest=True))}
        if len(found) == most:
            found.update(int(row[0]) for row in self._ask(*named_query(dataset, oldest, newest=False)))
        return sorted(found)

    # -- reading the journal where the index says -----------------------------------

    def read(self, seqs: Iterable[int]) -> Iterator[Envelope]:
        """The events of these ascending seqs, out of the journal.

        Raises, while iterated:
            JournalError: the journal cannot be read.
            IndexLost: it has no such event.
        """
        follower: Follower | None = None
        frames: Iterator[tuple[int, Frame]] = iter(())
        events: dict[int, Envelope] = {}
        for seq in seqs:
            if seq not in events:
                begin = self._place_before(seq)
                here = follower.place if follower is not None else None
                if follower is None or here is None or not begin.seq <= here.cursor.seq < seq:
                    follower = self._follower_at(begin)
                    frames = follower.frames()  # left where it is until the next seq: nothing is read twice
                events = _until(seq, frames, self.directory)
            yield events[seq]

    def _place_before(self, seq: int) -> checkpoints.Anchor:
        rows = self._ask(
            "SELECT seq, segment, offset, hash FROM places WHERE seq < ? ORDER BY seq DESC LIMIT 1", (seq,)
        )
        before, segment, offset, hash_ = rows[0] if rows else (0, 0, 0, b"")
        return checkpoints.Anchor(
            journal=self._journal, seq=before, segment=segment, offset=offset, hash=hash_
        )

    def _follower_at(self, anchor: checkpoints.Anchor) -> Follower:
        if not anchor.segment:
            return Follower(self.directory, files=self._files)
        place = place_at(survey(self._files, self.directory), anchor, self._files)
        if place is None:
            raise IndexLost(f"seq {anchor.seq} is not where it was")
        return Follower(self.directory, anchor.seq + 1, start=place, files=self._files)


def open_index(directory: str, cache: str = "", *, files: Files = SYSTEM_FILES) -> Index:
    """The index of the journal in ``directory``, kept in the directory ``cache``; in memory without one.

    Where ``cache`` cannot be written the index is in memory too.
    """
    if not cache:
        return Index(directory, MEMORY, files=files, writable=True, lock=-1)
    path = os.path.join(cache, "index.sqlite")
    lock = -1
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        lock = files.open(os.path.join(cache, "lock"), os.O_RDWR | os.O_CREAT)
        if files.lock(lock):
            return Index(directory, path, files=files, writable=True, lock=lock)
        os.close(lock)
        lock = -1
        if os.path.exists(path):
            return Index(directory, path, files=files, writable=False, lock=-1)
    except (OSError, sqlite3.Error) as error:
        if lock != -1:
            os.close(lock)
        _log.warning("index %s cannot be used and is kept in memory: %s", path, error)
    return Index(directory, MEMORY, files=files, writable=True, lock=-1)


def _until(seq: int, frames: Iterator[tuple[int, Frame]], directory: str) -> dict[int, Envelope]:
    """The events of the frame that holds event ``seq``. Raises IndexLost."""
    for number, frame in frames:
        if frame.count and frame.seq + frame.count > seq:
            found = {envelope.seq: envelope for envelope in envelopes(directory, number, frame)}
            if seq in found:
                return found
            break
    raise IndexLost(f"seq {seq} is not where it was")
