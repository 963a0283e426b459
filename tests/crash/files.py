"""What a directory pool and a journal hold, read off their files and not through the store.

Knows the catalog's table and the layout on disk; uses no code of the driver.
"""

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from imagestore.events import reader
from imagestore.events.catalogue import DatasetDestroyed, DatasetLost, DatasetRenamed, Envelope
from imagestore.events.state import State

Identity = tuple[int, int]


class Row(Struct, frozen=True, kw_only=True):
    """A dataset of the catalog; ``file`` is its data file, "" if it has none."""

    name: str
    kind: str
    guid: int
    createtxg: int
    volsize: int
    origin: str
    file: str
    operation: str
    tag: str

    @property
    def identity(self) -> Identity:
        return self.guid, self.createtxg


@contextmanager
def _catalog_of(pool: Path) -> Iterator[sqlite3.Connection]:
    """A copy of the catalog: the store that runs does not share it."""
    with tempfile.TemporaryDirectory() as directory:
        for name in ("catalog.sqlite", "catalog.sqlite-wal"):
            if (pool / ".imagestore" / name).exists():
                shutil.copyfile(pool / ".imagestore" / name, Path(directory, name))
        with closing(sqlite3.connect(Path(directory, "catalog.sqlite"))) as catalog:
            yield catalog


def rows_of(pool: Path) -> dict[str, Row]:
    """Every dataset but the root, by name; a dataset's snapshots come oldest first."""
    query = (
        "SELECT d.dataset, d.snapshot, d.kind, d.guid, d.createtxg, d.volsize, d.file, d.tag_op, d.tag_kind,"
        " o.dataset || '@' || o.snapshot FROM dataset d LEFT JOIN dataset o ON o.createtxg = d.origin"
        " WHERE d.dataset != '' OR d.snapshot != '' ORDER BY d.dataset, d.createtxg"
    )
    with _catalog_of(pool) as catalog:
        found = catalog.execute(query).fetchall()
        dangling = catalog.execute(
            "SELECT count(*) FROM dataset WHERE origin IS NOT NULL"
            " AND origin NOT IN (SELECT createtxg FROM dataset)"
        ).fetchone()[0]
    assert not dangling, f"{dangling} clones have lost their origin"
    rows: dict[str, Row] = {}
    for dataset, snapshot, kind, guid, createtxg, volsize, file, operation, tag, origin in found:
        name = f"{dataset}@{snapshot}" if snapshot else dataset
        rows[name] = Row(
            name=name,
            kind=kind,
            guid=guid % (1 << 64),
            createtxg=createtxg,
            volsize=volsize,
            origin=origin or "",
            file=file,
            operation=operation,
            tag=tag,
        )
    return rows


def sha256_of(pool: Path, row: Row) -> str:
    """Of a volume through its link in the tree, as a hypervisor reads it; of a snapshot of its data file."""
    path = pool / row.name if row.kind == "volume" else pool / ".imagestore" / "data" / row.file
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def strays_of(pool: Path, rows: dict[str, Row]) -> list[str]:
    """What lies in the pool and belongs to nothing, or is not where it belongs."""
    private = pool / ".imagestore"
    wanted = {row.file for row in rows.values() if row.file}
    data = {entry.name for entry in (private / "data").iterdir()}
    links = _links(pool)
    due = {row.name: row.file for row in rows.values() if row.kind == "volume"}
    found = [f"data file {name} belongs to no dataset" for name in data - wanted]
    found += [f"data file {name} is missing" for name in wanted - data]
    found += [f"a link on its way: {entry.name}" for entry in (private / "links").iterdir()]
    found += [f"link {name} leads to {links[name]}, no dataset has that" for name in links if name not in due]
    found += [
        f"link of {name} is {links.get(name)}, due is {due[name]}"
        for name in due
        if links.get(name) != due[name]
    ]
    found += [f"staging: {name}" for name in rows if "/.staging" in name]
    found += [
        f"directory of {row.name} is missing"
        for row in rows.values()
        if row.kind == "filesystem" and not (pool / row.name).is_dir()
    ]
    return found


def _links(pool: Path) -> dict[str, str]:
    """Every link in the tree, and the data file that it leads to."""
    links = {}
    for directory, names, files in os.walk(pool):
        if directory == str(pool):
            names.remove(".imagestore")
        for name in (*files, *names):
            path = Path(directory, name)
            if path.is_symlink():
                target = Path(os.path.normpath(path.parent / path.readlink()))
                inside = target.parent == pool / ".imagestore" / "data"
                links[str(path.relative_to(pool))] = target.name if inside else str(target)
            elif not path.is_dir():
                links[str(path.relative_to(pool))] = "(a file)"
    return links


# --- the journal ------------------------------------------------------------------------


def damage_of(journal: Path) -> list[str]:
    """What ``imagestore journal verify`` calls damage."""
    report = reader.verify(str(journal))
    return [finding.text for finding in report.findings if finding.kind == "damage"]


def state_from_nothing(journal: Path) -> State:
    """The fold of all events, with no checkpoint to begin from."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "journal")
        shutil.copytree(journal, copy, ignore=shutil.ignore_patterns("checkpoint*", "lock*", "reserve*"))
        return reader.replay(str(copy))


def events_of(journal: Path, from_seq: int = 1) -> Sequence[Envelope]:
    return list(reader.read(str(journal), from_seq))


def destroyed_by(events: Sequence[Envelope]) -> dict[Identity, str]:
    return {
        (envelope.event.guid, envelope.event.createtxg): envelope.event.name
        for envelope in events
        if isinstance(envelope.event, DatasetDestroyed)
    }


def drift_in(events: Sequence[Envelope]) -> list[str]:
    """What the store thought a stranger had done.  There is none: it has forgotten something of its own."""
    return [
        f"{type(envelope.event).__name__} {envelope.event.name}"
        for envelope in events
        if isinstance(envelope.event, DatasetLost | DatasetRenamed)
    ]
