"""Notices what other hands change in a pool, without asking it.

``zpool events -f`` tells of every change of a pool's datasets as it happens:
which one, and in which transaction group.  A row that was read when a group
had been synced holds all changes up to that group; so those that the store
made itself, and has read since, are told apart and not looked at again.

Two things cause no events.  Guests write to their disks: a dataset is worth a
look when much was written to it since the last.  And a volume can be resized:
then everything is looked at.

Owns the child.  It is read without waiting, when somebody asks; one that has
died is started again, and everything is looked at.
"""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct

from imagestore.pools.zfs.commands import Commands
from imagestore.pools.zfs.failures import relative
from imagestore.pools.zfs.history import UNKNOWN, Change, change_of, split

MUCH_BYTES = 16 << 20
"""Written to a dataset since the last look: its size is worth another."""

STATISTICS_SECONDS = 5.0
"""How often it is looked how much was written, at most."""

REST_FACTOR = 30
"""A look that takes long, at many datasets, is followed by so many times as long without one."""

RESTART_SECONDS = 5.0
"""A child that dies is not started more often than that."""

_KSTAT = "/proc/spl/kstat/zfs"
_BLOCK = "/sys/block"


class Watch:
    """What is to be looked at again in one pool.  ``clock`` counts seconds."""

    def __init__(self, commands: Commands, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = commands.pool
        self._events = EventChild(commands, clock)
        self._statistics = Statistics(commands.pool, clock)
        self._generation = 0
        self._pending: list[Change] = []
        self._under_way: Counter[str] = Counter()
        self._read: dict[str, int] = {}
        self._all_read = 0

    def poll(self) -> "Polled":
        """Read what there is to read. Never waits for the pool, but may start a process."""
        return Polled(self._events.read(), *self._statistics.read())

    def take(self, polled: "Polled") -> None:
        """Take over what was polled.  With this, all methods but :meth:`poll` are for one thread."""
        found = [change for event in polled.events if (change := change_of(event, self._pool)) is not None]
        if polled.is_resized:
            found.append(UNKNOWN)
        if polled.written:
            found.append(Change(names=tuple(polled.written), txg=UNKNOWN.txg))
        kept: list[Change] = []
        for change in (*self._pending, *found):
            if self._is_read(change):
                continue
            if any(name in self._under_way for name in change.names):
                kept.append(change)
            elif change.reaches_further:
                self._generation += 1
            else:
                kept.append(change)
        self._pending = kept
        told = [change.txg for change in found if change.txg < UNKNOWN.txg]
        if told:  # events come in the order of their groups: what was read before the last is of no use
            self._read = {name: txg for name, txg in self._read.items() if txg >= told[-1]}

    def _is_read(self, change: Change) -> bool:
        if not change.names:
            return False
        return all(self._read.get(name, self._all_read) >= change.txg for name in change.names)

    @property
    def generation(self) -> int:
        """Differs from before when more may have changed than :meth:`changes` tells."""
        return self._generation

    def changes(self) -> Sequence[str]:
        """Names to be looked at again. Each is told once; those that the store is changing, later."""
        due, self._pending = self._pending, []
        found: dict[str, None] = {}
        for change in due:
            if change.reaches_further or any(name in self._under_way for name in change.names):
                self._pending.append(change)  # to be judged by the next take()
            else:
                found.update(dict.fromkeys(change.names))
        return list(found)

    def synced(self) -> int:
        """The latest transaction group that is in the pool; 0 where the kernel does not tell."""
        return _synced_txg(self._pool)

    def listed(self, txg: int) -> None:
        """All rows were read after ``txg`` was in the pool."""
        self._all_read = max(self._all_read, txg)
        self._pending = [change for change in self._pending if not self._is_read(change)]

    @contextmanager
    def changing(self, names: Sequence[str]) -> Iterator[Callable[[], None]]:
        """While the store itself changes ``names``. What it gives is called when that is done, and
        before their rows are read."""
        self._under_way.update(names)

        def done() -> None:
            txg = self.synced()
            self._read.update((name, max(txg, self._read.get(name, 0))) for name in names)

        try:
            yield done
        finally:
            self._under_way.subtract(names)
            self._under_way += Counter()  # drops those that nobody changes any more

    def close(self) -> None:
        """End the child."""
        self._events.close()


class Polled(Struct, frozen=True):
    """What one poll has found: events, datasets that much was written to, whether a size differs."""

    events: Sequence[str]
    written: Sequence[str]
    is_resized: bool


class EventChild:
    """``zpool events`` of one pool."""

    def __init__(self, commands: Commands, clock: Callable[[], float]) -> None:
        self._commands = commands
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._rest = ""
        self._start()

    def _start(self) -> None:
        # It changes nothing, and outlives a killed store until the next event: nobody waits for it.
        self._started_at = self._clock()
        words = ("zpool", "events", "-f", "-v", "-H", self._commands.pool)
        self._child = self._commands.start(words, is_waited_for=False)
        self._rest = ""
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)

    def read(self) -> Sequence[str]:
        """The events since the last time; an empty one, which nobody understands, when some were missed."""
        if self._child is None:
            return ()
        assert self._child.stdout is not None
        text = self._rest
        has_died = False
        with suppress(BlockingIOError):
            while data := os.read(self._child.stdout.fileno(), 65536):
                text += data.decode(errors="replace")
            has_died = True
        whole, self._rest = split(text)
        if has_died and self._clock() - self._started_at >= RESTART_SECONDS:
            self.close()
            self._start()
            whole.append("")
        return whole

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with suppress(OSError):
                child.kill()
            child.communicate()


class Statistics:
    """What the kernel counts of each dataset that is in use, and the sizes of all volumes."""

    def __init__(self, pool: str, clock: Callable[[], float]) -> None:
        self._directory = f"{_KSTAT}/{pool}"
        self._pool = pool
        self._clock = clock
        self._due_at = clock()
        self._written: dict[str, int] = {}
        self._sizes: dict[str, str] = {}

    def read(self) -> tuple[Sequence[str], bool]:
        """Names that much was written to, and whether a volume's size differs, since the last time."""
        began = self._clock()
        if began < self._due_at:
            return (), False
        found = self._grown(), self._is_resized()
        now = self._clock()
        self._due_at = now + max(STATISTICS_SECONDS, REST_FACTOR * (now - began))
        return found

    def _grown(self) -> Sequence[str]:
        found = []
        for name, written in _written_bytes(self._directory):
            before = self._written.get(name, 0)
            if written >= before + MUCH_BYTES:
                found.append(relative(name, self._pool))
            if written >= before + MUCH_BYTES or written < before:
                self._written[name] = written
        return found

    def _is_resized(self) -> bool:
        sizes = dict(_volume_sizes())
        differs = any(self._sizes.get(device, size) != size for device, size in sizes.items())
        self._sizes = sizes
        return differs


def _written_bytes(directory: str) -> Iterator[tuple[str, int]]:
    """Full names, and what was written since each was opened, in bytes."""
    with suppress(OSError):
        for entry in os.listdir(directory):
            if not entry.startswith("objset-"):
                continue
            with suppress(OSError, ValueError):
                with open(f"{directory}/{entry}", encoding="ascii", errors="replace") as lines:
                    fields = {words[0]: words[2] for line in lines if len(words := line.split(None, 2)) == 3}
                yield fields.get("dataset_name", "").strip(), int(fields.get("nwritten", "0"))


def _volume_sizes() -> Iterator[tuple[str, str]]:
    """Each volume's block device, and its size in sectors.

    A device's number is used again, its sequence number (Linux 5.15) is not.
    One that is being removed has no size, or 0 sectors, which is no other size.
    """
    with suppress(OSError):
        for device in os.listdir(_BLOCK):
            if device.startswith("zd"):
                sequence = _first_line(f"{_BLOCK}/{device}/diskseq")
                size = _first_line(f"{_BLOCK}/{device}/size")
                if size.strip() not in ("", "0"):
                    yield f"{device} {sequence}", size


def _first_line(path: str) -> str:
    with suppress(OSError), open(path, encoding="ascii") as file:
        return file.readline()
    return ""


def _synced_txg(pool: str) -> int:
    synced = 0
    with suppress(OSError), open(f"{_KSTAT}/{pool}/txgs", encoding="ascii") as lines:
        for line in lines:
            words = line.split()
            if len(words) > 2 and words[2] == "C":
                synced = max(synced, int(words[0]))
    return synced
