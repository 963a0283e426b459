"""A disk in memory that forgets what was not flushed, and fails where it is told to.

It keeps what an application sees and what is durable apart: contents by
``sync`` and ``sync_data``, names by ``sync_directory``.  ``crash`` gives the
disk that a power cut may leave: of what was not durable any sectors are there,
old, or zeros, and any names are there or not.
"""

import errno
import os
import random
from collections.abc import Callable

SECTOR = 512

Fault = Callable[[int, str, str], None]
"""Called before each system call with its number (from 1), its name and the file's; may raise."""


class Inode:
    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.durable = bytes(data)


class MemoryDisk:
    """Implements ``imagestore.events.files.Files`` for one directory."""

    def __init__(self, directory: str = "/journal", contents: dict[str, bytes] | None = None) -> None:
        self.directory = directory
        self.names: dict[str, Inode] = {name: Inode(data) for name, data in (contents or {}).items()}
        self.durable_names = dict(self.names)
        self.calls = 0
        self.fault: Fault = lambda call, name, path: None
        self.short_write: int | None = None
        self.free: int | None = None
        self.holder: str | None = None
        self.read_errors: set[str] = set()
        self._open: dict[int, tuple[str, Inode]] = {}
        self._next = 100

    # --- what tests look at --------------------------------------------------

    def contents(self) -> dict[str, bytes]:
        return {name: bytes(inode.data) for name, inode in self.names.items()}

    def copy(self) -> "MemoryDisk":
        return MemoryDisk(self.directory, self.contents())

    def crash(self, chance: random.Random) -> "MemoryDisk":
        """The disk after a power cut now."""
        contents = {}
        for name in {*self.names, *self.durable_names}:
            old, new = self.durable_names.get(name), self.names.get(name)
            inode = new if old is new or chance.random() < 0.5 else old
            if inode is not None:
                contents[name] = _survivor(inode, chance)
        return MemoryDisk(self.directory, contents)

    # --- Files ---------------------------------------------------------------

    def list(self, directory: str) -> list[str]:
        self._call("list", directory)
        return list(self.names)

    def make_directory(self, directory: str) -> None:
        self._call("make_directory", directory)

    def exists(self, path: str) -> bool:
        return path == self.directory or os.path.basename(path) in self.names

    def open(self, path: str, flags: int) -> int:
        self._call("open", path)
        name = os.path.basename(path)
        if name not in self.names:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self.names[name] = Inode()
        inode = self.names[name]
        if flags & os.O_TRUNC:
            inode.data.clear()
        self._next += 1
        self._open[self._next] = (path, inode)
        return self._next

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]

    def size(self, descriptor: int) -> int:
        return len(self._open[descriptor][1].data)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        path, inode = self._open[descriptor]
        self._call("read", path)
        if os.path.basename(path) in self.read_errors:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return bytes(inode.data[offset : offset + length])

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        path, inode = self._open[descriptor]
        self._call("write", path)
        if self.short_write is not None:
            data, self.short_write = data[: self.short_write], None
        if len(inode.data) < offset + len(data):
            inode.data.extend(bytes(offset + len(data) - len(inode.data)))
        inode.data[offset : offset + len(data)] = data
        return len(data)

    def allocate(self, descriptor: int, offset: int, length: int) -> None:
        path, inode = self._open[descriptor]
        self._call("allocate", path)
        more = offset + length - len(inode.data)
        if self.free is not None and more > self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if more > 0:
            inode.data.extend(bytes(more))
            if self.free is not None:
                self.free -= more

    def truncate(self, descriptor: int, length: int) -> None:
        path, inode = self._open[descriptor]
        self._call("truncate", path)
        del inode.data[length:]

    def sync(self, descriptor: int) -> None:
        path, inode = self._open[descriptor]
        self._call("sync", path)
        inode.durable = bytes(inode.data)

    def sync_data(self, descriptor: int) -> None:
        path, inode = self._open[descriptor]
        self._call("sync_data", path)
        inode.durable = bytes(inode.data)

    def is_named(self, descriptor: int) -> bool:
        inode = self._open[descriptor][1]
        return any(named is inode for named in self.names.values())

    def sync_directory(self, directory: str) -> None:
        self._call("sync_directory", directory)
        self.durable_names = dict(self.names)

    def rename(self, source: str, target: str) -> None:
        self._call("rename", target)
        self.names[os.path.basename(target)] = self.names.pop(os.path.basename(source))

    def remove(self, path: str) -> None:
        self._call("remove", path)
        del self.names[os.path.basename(path)]

    def lock(self, descriptor: int) -> bool:
        return self.holder is None

    def _call(self, name: str, path: str) -> None:
        self.calls += 1
        self.fault(self.calls, name, os.path.basename(path))


def _survivor(inode: Inode, chance: random.Random) -> bytes:
    """What is left of a file's contents: durable sectors, and of the others any state."""
    new, old = bytes(inode.data), inode.durable
    if new == old:
        return old
    size = len(new) if chance.random() < 0.5 else len(old)
    style = chance.choice(["new", "old", "mixed", "mixed", "mixed"])
    result = bytearray()
    for start in range(0, max(len(new), len(old)), SECTOR):
        was = old[start : start + SECTOR].ljust(SECTOR, b"\0")
        now = new[start : start + SECTOR].ljust(SECTOR, b"\0")
        if was == now or style == "new":
            result += now
        elif style == "old":
            result += was
        else:
            result += chance.choice([was, now, bytes(SECTOR)] if not any(was) else [was, now])
    return bytes(result[:size])


def errors_at(call: int, number: int) -> Fault:
    """A fault: the system call of that number fails with errno ``number``, once."""

    def fault(current: int, name: str, path: str) -> None:
        if current == call:
            raise OSError(number, os.strerror(number))

    return fault
