"""Opening a directory pool: its layout on disk, its lock, and mending what a crash left.

Owns the layout::

    <pool>/.imagestore/lock             flock; holds the pid of the store that has the pool
    <pool>/.imagestore/catalog.sqlite   what exists (pools/catalog.py)
    <pool>/.imagestore/data/<32 hex>    data files (pools/datafile.py)
    <pool>/.imagestore/links/<32 hex>   links on their way into the tree
    <pool>/.imagestore/spool/…          files that are to be taken over; not the pool's yet (pools/intake.py)
    <pool>/.imagestore/reserve          room that on a full disk opening and deletions may use
    <pool>/<dataset>                    the tree of links (pools/links.py)

and the order in which a pool is opened: lock, catalog, unfinished resizes,
orphans, links.  Every step may be cut short by a crash and is done again at
the next open.  Every function blocks.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from imagestore.errors import ConfigError, PoolBusy, PoolError
from imagestore.pools.base import Dataset
from imagestore.pools.directory.catalog import Catalog, Entry, create_catalog
from imagestore.pools.directory.datafile import DataFiles, can_reflink, sync_path
from imagestore.pools.directory.links import DATA, PRIVATE, LinkTree

RESERVE_BYTES = 4 << 20

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}

_POOL_NAME = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_:.-]*\Z")

_NOT_MADE = "is its disk mounted? imagestore serve makes a pool only together with a new journal"

_log = logging.getLogger(__name__)


class Layout(Struct, frozen=True):
    """The paths of the pool at ``root``, an absolute path."""

    root: str

    @property
    def name(self) -> str:
        return os.path.basename(self.root)

    @property
    def private(self) -> str:
        return os.path.join(self.root, PRIVATE)

    @property
    def data(self) -> str:
        return os.path.join(self.private, DATA)

    @property
    def links(self) -> str:
        return os.path.join(self.private, "links")

    @property
    def spool(self) -> str:
        return os.path.join(self.private, "spool")

    @property
    def catalog(self) -> str:
        return os.path.join(self.private, "catalog.sqlite")

    @property
    def lock(self) -> str:
        return os.path.join(self.private, "lock")

    @property
    def reserve(self) -> str:
        return os.path.join(self.private, "reserve")


class Opened(Struct, frozen=True, kw_only=True):
    """The parts of an open pool."""

    layout: Layout
    files: DataFiles
    tree: LinkTree
    catalog: Catalog


def prepare_directories(path: str, *, create: bool) -> Layout:
    """Check ``path`` and, with ``create``, make the directories that are missing.

    Raises ConfigError (the path cannot be a pool), PoolError (there is none), OSError.
    """
    layout = Layout(os.path.abspath(path))
    if not _POOL_NAME.match(layout.name):
        raise ConfigError(
            f"{layout.name!r} cannot be a pool's name: {layout.root}",
            detail="the path's last component is the name: letters, digits and _ : . -, the first not . or -",
        )
    parent = os.path.dirname(layout.root)
    if not os.path.isdir(parent):
        raise ConfigError(f"no such directory: {parent}", detail=f"make it first: mkdir -p {parent}")
    if os.path.lexists(layout.root) and not os.path.isdir(layout.root):
        raise ConfigError(f"not a directory: {layout.root}", detail="a directory pool is a directory")
    if not create and not os.path.isdir(layout.private):
        raise PoolError(f"no directory pool at {layout.root}", detail=_NOT_MADE)
    for directory, mode in (
        (layout.root, 0o755),
        # Hypervisors under other users pass through to the files they were given.
        (layout.private, 0o711),
        (layout.data, 0o711),
        (layout.links, 0o700),
        (layout.spool, 0o700),
    ):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, mode)
            sync_path(os.path.dirname(directory))
    return layout


def try_lock(layout: Layout) -> int | None:
    """Take the pool's lock. Returns the file that holds it, or None if another process has it."""
    file = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _note_holder(file)
    except OSError as error:
        os.close(file)
        if error.errno == errno.EWOULDBLOCK:
            return None
        raise
    return file


def _note_holder(file: int) -> None:
    """Write who has the lock. On a full disk it is held all the same, by somebody "unknown"."""
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise


def busy(layout: Layout) -> PoolBusy:
    """The refusal that names the holder of the lock."""
    with open(layout.lock, encoding="ascii", errors="replace") as file:
        pid = file.read().strip() or "unknown"
    return PoolBusy(
        f"pool {layout.name} is in use by another store (pid {pid})",
        detail=f"stop that process, or use another directory than {layout.root}",
    )


def open_parts(
    layout: Layout,
    *,
    create: bool,
    clock: Callable[[], float],
    entropy: Callable[[int], bytes],
    checkpoint: Callable[[str], None],
) -> Opened:
    """Open the catalog of a locked pool and mend what an earlier life left. Raises PoolError, OSError."""
    _provide_catalog(layout, create=create)
    _provide_log(layout)
    catalog = Catalog(layout.catalog)
    try:
        opened = Opened(
            layout=layout,
            files=DataFiles(layout.data, reflink=can_reflink(layout.private, "probe"), entropy=entropy),
            tree=LinkTree(layout.root),
            catalog=catalog,
        )
        _provide_root(catalog, clock, entropy)
        _mend(opened, checkpoint)
        make_reserve(layout)
    except BaseException:
        catalog.close()
        raise
    return opened


def _provide_catalog(layout: Layout, *, create: bool) -> None:
    if os.path.exists(layout.catalog):
        return
    if os.listdir(layout.data):
        raise PoolError(
            f"the catalog of pool {layout.name} is missing, its data files are not: {layout.catalog}",
            detail="restore it from a backup; without it nobody knows which file is which disk",
        )
    if not create:
        raise PoolError(f"no directory pool at {layout.root}", detail=_NOT_MADE)
    new = f"{layout.catalog}.new"
    for leftover in (new, f"{new}-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leftover)
    create_catalog(new)
    os.chmod(new, 0o600)
    sync_path(new)
    os.rename(new, layout.catalog)
    sync_path(layout.private)


def _provide_log(layout: Layout) -> None:
    """Make the file of the WAL. SQLite would do it, but not say that the disk is too full for it."""
    os.close(os.open(f"{layout.catalog}-wal", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _provide_root(catalog: Catalog, clock: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
    if catalog.find("") is not None:
        return
    root = Dataset(name="", kind="filesystem", guid=random_guid(entropy), createtxg=0, creation=int(clock()))
    catalog.begin()
    catalog.insert(Entry(dataset=root))
    catalog.commit()


def random_guid(entropy: Callable[[int], bytes]) -> int:
    """A random nonzero unsigned 64-bit integer."""
    while not (guid := int.from_bytes(entropy(8), "little")):
        pass
    return guid


def _mend(opened: Opened, checkpoint: Callable[[str], None]) -> None:
    for entry, size in opened.catalog.resizing():
        try:
            finish_resize(opened, entry, size)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _log.error("%s was to become %d bytes and is not: %s", entry.dataset.name, size, error.strerror)
    checkpoint("resizes finished")
    removed, missing = opened.files.remove_all_but(opened.catalog.files())
    if removed:
        _log.info("removed %d data files that an unfinished change had left", removed)
    for name in missing:
        _log.error("data file %s is missing from %s", name, opened.layout.data)
    with os.scandir(opened.layout.links) as entries:
        for leftover in entries:
            os.unlink(leftover.path)
    checkpoint("orphans removed")
    opened.tree.mend(opened.catalog.places())
    checkpoint("links mended")


def finish_resize(opened: Opened, entry: Entry, size: int) -> None:
    """Bring a volume's file and row to ``size`` bytes; the second half of a resize.

    Raises:
        OSError: there is no room for a thick volume of that size; it is as it was.
    """
    path = opened.files.path(entry.file)
    refused: OSError | None = None
    os.truncate(path, size)
    if not entry.dataset.sparse:
        try:
            opened.files.fill(entry.file)
        except OSError as error:
            refused, size = error, entry.dataset.volsize
            os.truncate(path, size)
    sync_path(path)
    dataset = replace(entry.dataset, volsize=size)
    baseline = entry.baseline if entry.dataset.sparse else opened.files.allocated(entry.file)
    opened.catalog.begin()
    opened.catalog.set_content(replace(entry, dataset=dataset, baseline=baseline))
    opened.catalog.commit()
    if refused is not None:
        raise refused


def make_reserve(layout: Layout) -> None:
    """Set room aside, if there is any, so that a full disk can be opened and emptied."""
    file = os.open(layout.reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, RESERVE_BYTES)
    except OSError as error:
        if error.errno not in {*_NO_ROOM, errno.EFBIG}:
            raise
    finally:
        os.close(file)


def spend_reserve(layout: Layout) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(layout.reserve)
