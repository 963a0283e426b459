"""Who has a data file open for writing, and how to keep others from opening it.

Owns the two looks at the kernel: a read lease (F_SETLEASE), which the kernel
grants only while nobody has the file open for writing, and /proc, which names
the processes as far as our rights let us see them.

What a lease promises: while it is held, an ``open`` for writing by anybody
waits.  The kernel waits with it for at most /proc/sys/fs/lease-break-time (45
seconds by default) and then lets the opener in; :meth:`Leases.intact` tells.
A file that cannot be leased (not ours and no CAP_LEASE, or a file system
without leases) is judged by /proc alone.  Every function blocks.
"""

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress

from imagestore.errors import InUse

_CANNOT_LEASE = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class Leases:
    """Read leases on files, held until :meth:`release`."""

    def __init__(self) -> None:
        self._files: list[int] = []

    def take(self, path: str, *, unless: Callable[[str], object] | None = None) -> bool:
        """Keep writers away from ``path``.  False: somebody has it open for writing.

        A file that cannot be leased is judged by /proc, or told to ``unless`` if that is given.
        """
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The default signal of a broken lease, SIGIO, would end the process; SIGURG is ignored.
            fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            os.close(file)
            if error.errno == errno.EAGAIN:
                return False
            if error.errno in _CANNOT_LEASE:
                if unless is not None:
                    unless(path)
                    return True
                return not writers(path)
            raise
        self._files.append(file)
        return True

    def intact(self) -> bool:
        """Whether no writer has asked for any of the files since they were leased."""
        return all(fcntl.fcntl(file, fcntl.F_GETLEASE) == fcntl.F_RDLCK for file in self._files)

    def check_intact(self, names: Sequence[str]) -> None:
        """Raises InUse if somebody waits to write to one of the disks, or was let in after all."""
        if not self.intact():
            raise InUse.by(", ".join(names), ("a process that opened it just now",))

    def release(self) -> None:
        while self._files:
            os.close(self._files.pop())


def is_open_for_writing(path: str) -> bool:
    """Whether some process, this one included, has ``path`` open for writing now."""
    leases = Leases()
    try:
        return not leases.take(path)
    finally:
        leases.release()


def writers(path: str) -> list[str]:
    """Those that have ``path`` open for writing, as ``pid 4242 qemu-system-x86``, by pid.

    Loop devices on it come last, as ``/dev/loop0``.  Processes that we may not
    look into are not named.
    """
    wanted = os.stat(path)
    identity = (wanted.st_dev, wanted.st_ino)
    found = [f"pid {pid} {_command(pid)}" for pid in _pids() if _writes(pid, identity)]
    return found + list(_loop_devices(os.path.realpath(path)))


def written_to(paths: Iterable[str]) -> set[str]:
    """Those of ``paths``, plain files, that somebody has open for writing; what is missing has no writer."""
    found: set[str] = set()
    undecided: list[str] = []
    for path in paths:
        leases = Leases()
        with suppress(FileNotFoundError):
            try:
                if not leases.take(path, unless=undecided.append):
                    found.add(path)
            finally:
                leases.release()
    return found | (seen_written_to(undecided) if undecided else set())


def seen_written_to(paths: Iterable[str]) -> set[str]:
    """Those of ``paths`` that a process has open for writing that we may look into. One look at /proc."""
    wanted: dict[tuple[int, int], str] = {}
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            wanted[status.st_dev, status.st_ino] = path
    return {wanted[each] for pid in _pids() for each in _written_by(pid, wanted)}


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _writes(pid: int, identity: tuple[int, int]) -> bool:
    return next(_written_by(pid, {identity}), None) is not None


def _written_by(pid: int, wanted: Container[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Which of the files ``wanted`` the process has open for writing."""
    # A process may end, or close a file, at any step of this.
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                link = f"/proc/{pid}/fd/{number}"
                if not os.readlink(link).startswith("/"):
                    continue
                status = os.stat(link)
                identity = (status.st_dev, status.st_ino)
                if identity in wanted and _open_flags(pid, number) & os.O_ACCMODE:
                    yield identity


def _open_flags(pid: int, number: str) -> int:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("flags:"):
                return int(line.split()[1], 8)
    return 0


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def _loop_devices(path: str) -> Iterator[str]:
    with suppress(OSError):
        for device in sorted(os.listdir("/sys/block")):
            if not device.startswith("loop"):
                continue
            with (
                suppress(OSError),
                open(
                    f"/sys/block/{device}/loop/backing_file", encoding="utf-8", errors="surrogateescape"
                ) as file,
            ):
                if file.read().rstrip("\n") == path:
                    yield f"/dev/{device}"
