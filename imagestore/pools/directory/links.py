"""The tree of links: where people and hypervisors find a directory pool's volumes.

A file system is a directory, a volume a relative symbolic link to its data
file, so ``<pool>/guests/vm1/disk-0`` is a stable path whatever happens to the
bytes behind it.  The tree is derived: the catalog is the truth, and
:meth:`LinkTree.mend` makes the tree agree with it.

What is ours is recognised by what it is: a symbolic link into
``.imagestore/data``.  Anything else in the tree is somebody's: never removed,
never replaced.  A directory is removed only when it is empty.  Every function
blocks; none syncs, since a lost link is mended at the next open.
"""

import logging
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress

from imagestore import names
from imagestore.errors import NotValid, PoolError

PRIVATE = ".imagestore"
DATA = "data"

_OURS = re.compile(r"(?:\.\./)*\.imagestore/data/[0-9a-f]{32}\Z")
_COMPONENT = re.compile(r"[A-Za-z0-9_:.][A-Za-z0-9_:.-]*\Z")
_SNAPSHOT = re.compile(r"[A-Za-z0-9_:.-]+\Z")

_log = logging.getLogger(__name__)


def check_name(name: str) -> None:
    """Raises NotValid if a dataset of that name could lie outside the pool, or in our own directory.

    The caller has checked names; this is the last line.
    """
    dataset, at, snapshot = name.partition("@")
    components = [] if at and not dataset else dataset.split("/")
    inside = all(
        _COMPONENT.match(part) and part not in {".", ".."} and len(part) <= 255 for part in components
    )
    if not inside or components[:1] == [PRIVATE] or (at and not _SNAPSHOT.match(snapshot)):
        raise NotValid(detail=f"{name!r} is no name for a dataset of a directory pool")


class LinkTree:
    """The tree below ``root``, the pool's absolute path."""

    def __init__(self, root: str) -> None:
        self._root = root

    def path(self, name: str) -> str:
        return os.path.join(self._root, name) if name else self._root

    def check_free(self, name: str, *, directory: bool) -> None:
        """Raises PoolError if something that is not ours stands where ``name`` is to be, or above it."""
        for ancestor in names.ancestors(name):
            if os.path.islink(self.path(ancestor)):
                raise _in_the_way(self.path(ancestor))
        path = self.path(name)
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if (directory and stat.S_ISDIR(mode)) or self._is_ours(path):
            return
        raise _in_the_way(path)

    def make(self, name: str, file: str) -> bool:
        """Make the directory (``file`` is "") or the link of a dataset.

        An empty or filled directory that is there already will do: returns
        False then, else True.  Raises PoolError if something foreign is in the way, OSError.
        """
        self.check_free(name, directory=not file)
        path = self.path(name)
        if file:
            with suppress(FileNotFoundError):
                os.unlink(path)
            os.symlink(self._text(name, file), path)
            return True
        if self._is_ours(path):
            os.unlink(path)
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            return False
        return True

    def prepare(self, name: str, file: str, temporary: str) -> None:
        """Make the new link of a volume under ``temporary``, a path on the same file system."""
        os.symlink(self._text(name, file), temporary)

    def replace(self, name: str, temporary: str) -> None:
        """Put a prepared link in place of the volume's old one, in one step."""
        self.check_free(name, directory=False)
        os.rename(temporary, self.path(name))

    def remove(self, datasets: Sequence[str]) -> None:
        """Take datasets out of the tree, children before parents; what is foreign stays."""
        for name in sorted(datasets, reverse=True):
            path = self.path(name)
            try:
                if self._is_ours(path):
                    os.unlink(path)
                elif stat.S_ISDIR(os.lstat(path).st_mode):
                    os.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                _log.warning("left in the pool's tree: %s: %s", path, error.strerror)

    def mend(self, places: Sequence[tuple[str, str]]) -> list[str]:
        """Make the tree agree with ``places`` (name and data file, parents first).

        Returns the paths at which something foreign is in the way of a dataset.
        """
        wanted = dict(places)
        self._remove_stale("", wanted)
        blocked: list[str] = []
        for name, file in places:
            if name == "":
                continue
            try:
                if not file or self._read(self.path(name)) != self._text(name, file):
                    self.make(name, file)
            except (PoolError, OSError) as error:
                _log.error("the path of dataset %s is not usable: %s", name, error)
                blocked.append(self.path(name))
        return blocked

    def _remove_stale(self, directory: str, wanted: dict[str, str]) -> bool:
        """Remove links of ours that no volume has.  True if there was one and the directory is now empty."""
        removed = kept = 0
        with os.scandir(self.path(directory)) as entries:
            for entry in entries:
                name = f"{directory}/{entry.name}" if directory else entry.name
                if name == PRIVATE:
                    kept += 1
                elif entry.is_symlink():
                    stale = not wanted.get(name) and self._is_ours(entry.path)
                    if stale:
                        os.unlink(entry.path)
                    removed += stale
                    kept += not stale
                elif entry.is_dir(follow_symlinks=False) and self._emptied(entry.path, name, wanted):
                    removed += 1
                else:
                    kept += 1
        return removed > 0 and kept == 0

    def _emptied(self, path: str, name: str, wanted: dict[str, str]) -> bool:
        """Whether ``path`` was a directory of ours that no dataset has, and is now gone."""
        try:
            emptied = self._remove_stale(name, wanted)
        except OSError as error:
            _log.warning("cannot look into %s: %s", path, error.strerror)
            return False
        if not emptied or name in wanted:
            return False
        os.rmdir(path)
        return True

    def _text(self, name: str, file: str) -> str:
        return f"{'../' * name.count('/')}{PRIVATE}/{DATA}/{file}"

    def _read(self, path: str) -> str | None:
        try:
            return os.readlink(path)
        except OSError:
            return None

    def _is_ours(self, path: str) -> bool:
        text = self._read(path)
        return text is not None and _OURS.match(text) is not None


def _in_the_way(path: str) -> PoolError:
    return PoolError(
        f"something that is not the store's is in the way: {path}",
        detail="move it elsewhere; the store does not remove what it has not made",
    )
