"""Notices that a pool has changed by another hand, without asking it.

``zpool events -f`` tells of every change of a pool's datasets as it happens.
Its lines are not read for what they say: that there are any is the sign to
look.  Guests that write to their disks cause no events; so that sizes do not
grow old, a look is also due when much was written since the last.

Owns the child.  It is read without waiting, when somebody asks; a child that
has died is started again, and that counts as a change.
"""

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from imagestore.pools.zfs.commands import Commands

MUCH_BYTES = 16 << 20
"""Written to the pool since the last look: sizes are worth another."""

WRITTEN_SECONDS = 5.0
"""At most so often is a look due only because something was written."""

RESTART_SECONDS = 5.0
"""A child that dies is not started more often than that."""


class Watch:
    """The generation of one pool.  ``clock`` counts seconds."""

    def __init__(self, commands: Commands, clock: Callable[[], float] = time.monotonic) -> None:
        self._commands = commands
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._generation = 0
        self._written = 0
        self._looked_at = 0.0
        self._started_at = 0.0
        self._start()

    def generation(self) -> int:
        """Differs from before when the pool may have changed.  Never waits for the pool."""
        if self._has_events() or self._is_much_written():
            self._generation += 1
        return self._generation

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            with suppress(OSError):
                child.kill()
            child.communicate()

    def _start(self) -> None:
        # It changes nothing, and outlives a killed store until the next event: nobody waits for it.
        self._started_at = self._clock()
        words = ("zpool", "events", "-f", "-H", self._commands.pool)
        self._child = self._commands.start(words, is_waited_for=False)
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)

    def _has_events(self) -> bool:
        if self._child is None:
            return False
        assert self._child.stdout is not None
        found = False
        with suppress(BlockingIOError):
            while data := os.read(self._child.stdout.fileno(), 65536):
                found = found or bool(data)
            if self._clock() - self._started_at >= RESTART_SECONDS:
                self.close()
                self._start()
                return True
        return found

    def _is_much_written(self) -> bool:
        now = self._clock()
        if now - self._looked_at < WRITTEN_SECONDS:
            return False
        self._looked_at = now
        written = _written_bytes(self._commands.pool)
        much = abs(written - self._written) >= MUCH_BYTES  # it shrinks when a volume goes
        if much:
            self._written = written
        return much


def _written_bytes(pool: str) -> int:
    """What the pool's open volumes and file systems were written since it was imported, in bytes."""
    directory = f"/proc/spl/kstat/zfs/{pool}"
    total = 0
    with suppress(OSError):
        for entry in os.listdir(directory):
            if not entry.startswith("objset-"):
                continue
            with suppress(OSError), open(f"{directory}/{entry}", encoding="ascii", errors="replace") as lines:
                for line in lines:
                    if line.startswith("nwritten"):
                        total += int(line.split()[2])
    return total
