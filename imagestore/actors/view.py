"""The view: what is in the pool, ours and foreign, without asking it.

Owns the rows that answer reads.  The zpool actor alone changes it: own
mutations put their rows before the reply, a refresh brings what others did.
A refresh that overlaps a mutation never undoes that mutation's rows.

Promises the order of ``zfs list``: a dataset, its snapshots (oldest first),
its children.  Knows nothing of the journal.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence

from imagestore import names
from imagestore.pools.base import Dataset

MANY_ROWS = 1_000
"""Taking over more changes than this, the view is made anew: one by one a whole pool of 100,000 takes
more than a second, at once a tenth of that."""


def promised_bytes(row: Dataset) -> int:
    """What a volume may still write without having reserved it.

    An image's volume is never written again; a thick volume has reserved all.
    """
    if row.kind != "volume" or not row.sparse or row.tags.kind == "image":
        return 0
    return max(0, row.volsize - row.written)


class View:
    """All rows of the pool by name, in listing order."""

    def __init__(self) -> None:
        self._rows: dict[str, Dataset] = {}
        self._order: list[str] = []
        self._clones: dict[str, set[str]] = {}
        self._elsewhere: dict[str, set[str]] = {}
        """By guest: volumes that are tagged as its disks and stand outside of its file system."""
        self._touched: set[str] | None = None
        self.promised_bytes = 0
        """Sum of :func:`promised_bytes` over all rows."""

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    # -- reading ------------------------------------------------------------

    def get(self, name: str) -> Dataset | None:
        return self._rows.get(name)

    def under(self, name: str) -> Iterator[Dataset]:
        """The dataset itself (if it is there), its snapshots, and all below, in listing order."""
        if "@" in name:
            row = self._rows.get(name)
            if row is not None:
                yield row
            return
        start = 0 if name == "" else bisect_left(self._order, _path_key(name), key=self._key)
        for index in range(start, len(self._order)):
            row = self._rows[self._order[index]]
            if not names.is_within(row.name, name):
                return
            yield row

    def snapshots(self, dataset: str) -> Sequence[Dataset]:
        """The snapshots of one dataset, oldest first."""
        found = []
        for row in self.under(dataset):
            if row.name == dataset:
                continue
            if row.kind != "snapshot" or names.parent(row.name) != dataset:
                break
            found.append(row)
        return found

    def clones(self, snapshot: str) -> Sequence[str]:
        """Names of the clones of a snapshot, sorted."""
        return sorted(self._clones.get(snapshot, ()))

    def bereft_of(self, doomed: Collection[str]) -> Sequence[str]:
        """What is left of those that would lose snapshots: their datasets, and the snapshots that follow.

        What these wrote will count from an older one.
        """
        datasets = dict.fromkeys(names.parent(name) for name in doomed if "@" in name)
        left: list[str] = []
        for dataset in datasets:
            if dataset in doomed:
                continue
            left.append(dataset)
            lost = False
            for snapshot in self.snapshots(dataset):
                if snapshot.name in doomed:
                    lost = True
                elif lost:
                    left.append(snapshot.name)
                    lost = False
        return left

    def affected_by(self, changed: Sequence[str]) -> Sequence[str]:
        """What is to be looked at when ``changed`` may have come, gone or changed."""
        gone = [name for name in changed if "@" in name and name in self._rows]
        clones = [clone for name in gone for clone in self.clones(name)]
        datasets = [names.parent(name) for name in changed if "@" in name]
        return list(dict.fromkeys([*changed, *datasets, *self.bereft_of(set(gone)), *clones]))

    def disks_elsewhere(self, guest: str) -> Sequence[str]:
        """Names of volumes that are tagged as the guest's disks and stand outside ``guests/<id>``, sorted."""
        return sorted(self._elsewhere.get(guest, ()))

    # -- changing (the zpool actor alone) -----------------------------------

    def put(self, rows: Iterable[Dataset]) -> None:
        """Add or replace rows after an own mutation."""
        for row in rows:
            self._touch(row.name)
            self._put(row)

    def remove(self, removed: Iterable[str]) -> None:
        """Take out rows after an own mutation; absent ones are no matter."""
        doomed = set(removed)
        for name in doomed:
            self._touch(name)
        if len(doomed) > MANY_ROWS:
            self._replace_all([row for name, row in self._rows.items() if name not in doomed])
            return
        for name in doomed:
            self._remove(name)

    def begin_refresh(self) -> None:
        """From now on remember which names own mutations touch."""
        self._touched = set()

    def end_refresh(self, rows: Sequence[Dataset], *, of: Collection[str] | None = None) -> None:
        """Take over what the pool said between :meth:`begin_refresh` and now, but for touched names.

        ``rows`` are all that exist, or with ``of`` all that exist of these names.
        """
        touched = self._touched if self._touched is not None else set()
        self._touched = None
        fresh = {row.name: row for row in rows if row.name not in touched}
        asked = self._rows if of is None else [name for name in of if name in self._rows]
        gone = [name for name in asked if name not in fresh and name not in touched]
        came = [row for name, row in fresh.items() if self._rows.get(name) != row]
        if of is None and len(gone) + len(came) > MANY_ROWS:
            own = [row for name in touched if (row := self._rows.get(name)) is not None]
            self._replace_all([*fresh.values(), *own])
            return
        for name in gone:
            self._remove(name)
        for row in came:
            self._put(row)

    def abandon_refresh(self) -> None:
        """The pool could not be read; nothing is taken over."""
        self._touched = None

    def _replace_all(self, rows: Sequence[Dataset]) -> None:
        self._rows = {row.name: row for row in rows}
        self._order = sorted(self._rows, key=self._key)
        self._clones = {}
        self._elsewhere = {}
        for row in rows:
            self._index(row)
        self.promised_bytes = sum(map(promised_bytes, rows))

    def _touch(self, name: str) -> None:
        if self._touched is not None:
            self._touched.add(name)

    def _put(self, row: Dataset) -> None:
        there = self._rows.get(row.name)
        if there is not None and _indexed_as(there) == _indexed_as(row):
            self._rows[row.name] = row  # it keeps its place in every order
            self.promised_bytes += promised_bytes(row) - promised_bytes(there)
            return
        self._remove(row.name)
        self._rows[row.name] = row
        self._order.insert(bisect_left(self._order, self._key(row.name), key=self._key), row.name)
        self.promised_bytes += promised_bytes(row)
        self._index(row)

    def _index(self, row: Dataset) -> None:
        if row.origin:
            self._clones.setdefault(row.origin, set()).add(row.name)
        if _stands_elsewhere(row):
            self._elsewhere.setdefault(row.tags.guest, set()).add(row.name)

    def _remove(self, name: str) -> None:
        row = self._rows.get(name)
        if row is None:
            return
        del self._order[bisect_left(self._order, self._key(name), key=self._key)]
        del self._rows[name]
        self.promised_bytes -= promised_bytes(row)
        _take_out(self._clones, row.origin, name)
        _take_out(self._elsewhere, row.tags.guest, name)

    def _key(self, name: str) -> str:
        """Sorts a dataset before its snapshots (by createtxg) before its children.

        ``\\x00`` and ``\\x01`` stand below every character of a name, so a whole
        subtree comes before the next sibling.
        """
        dataset, at, snapshot = name.partition("@")
        if not at:
            return _path_key(dataset)
        return f"{_path_key(dataset)}\x00{self._rows[name].createtxg:020d}{snapshot}"


def _stands_elsewhere(row: Dataset) -> bool:
    tags = row.tags
    is_disk = tags.kind == "disk" and row.kind == "volume"
    return is_disk and not names.is_within(row.name, names.guest(tags.guest))


def _indexed_as(row: Dataset) -> tuple[int, str, str, str]:
    """What places a row in the orders of the view."""
    return row.createtxg, row.origin, row.tags.kind, row.tags.guest


def _take_out(index: dict[str, set[str]], key: str, name: str) -> None:
    found = index.get(key)
    if found is not None:
        found.discard(name)
        if not found:
            del index[key]


def _path_key(dataset: str) -> str:
    return dataset.replace("/", "\x01") if dataset else ""
