"""Runs ``zfs`` and ``zpool``: fixed argument lists, no shell, output in full.

Owns what every child of the driver has in common: the locale in which texts
are recorded, a session of its own (a Ctrl-C at the store's terminal is not for
it), and the lifetime lock, which it inherits: a child outlives a killed store
and may still act, so the next life waits until no process holds that lock.

A look may be cancelled; its child is killed.  A change is not cancellable: it
is waited for, up to a deadline after which the pool is considered stuck.  A
child that no signal ends (the kernel waits for a disk) is left behind, with
the lock.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress

import trio
from msgspec import Struct

from imagestore.errors import PoolError
from imagestore.pools.zfsfailures import failure

CHANGE_SECONDS = 300.0
"""How long one command may take before its pool is considered stuck."""

_CHILDREN = trio.CapacityLimiter(64)
"""Threads that wait for children; what bounds the children themselves is the zpool actor."""

_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Finished(Struct, frozen=True, kw_only=True):
    status: int
    output: str
    complaint: str


def find_command(name: str) -> str:
    """The absolute path of ``zfs`` or ``zpool``. Raises PoolError if it is not installed."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}")
    if path is None:
        raise PoolError(
            f"OpenZFS is not installed: there is no {name} command",
            detail="install it (Debian: apt-get install zfs-dkms zfsutils-linux), or use a directory "
            "pool: --pool dir:/srv/imagestore/pool",
        )
    return path


class Commands:
    """Children of one open pool.  ``lock`` is the lifetime lock's open file."""

    def __init__(self, pool: str, lock: int, *, change_seconds: float = CHANGE_SECONDS) -> None:
        self.pool = pool
        self._lock = lock
        self._change_seconds = change_seconds
        self._paths = {name: find_command(name) for name in ("zfs", "zpool")}
        self._environment = {"PATH": _SEARCH_PATH, "LC_ALL": "C"}

    def start(
        self, words: Sequence[str], *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start a child that the caller feeds, reads and reaps. Raises PoolError."""
        try:
            return subprocess.Popen(  # noqa: S603 (no shell; names were checked by imagestore.names)
                [self._paths[words[0]], *words[1:]],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=self._environment,
                cwd="/",
                pass_fds=(self._lock,),
                start_new_session=True,
            )
        except OSError as error:
            raise PoolError(f"{words[0]} cannot be started: {error.strerror}") from error

    async def look(self, *words: str) -> str:
        """Run a command that changes nothing; its output. Raises what ``failure`` makes of a failure."""
        finished = await self._run(words, "", kill_when_cancelled=True)
        if finished.status:
            raise failure(words, finished.complaint, self.pool)
        return finished.output

    async def change(self, *words: str, script: str = "") -> str:
        """Run a command that changes the pool, whatever is cancelled; ``script`` goes to its stdin.

        Raises what ``failure`` makes of a failure, and PoolError if it does not end.
        """
        self.check_alive()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._change_seconds):
            finished = await self._run(words, script, kill_when_cancelled=False)
            if finished.status:
                raise failure(words, finished.complaint, self.pool)
            return finished.output
        raise PoolError(
            f"{words[0]} {words[1]} has not ended after {self._change_seconds:.0f} seconds; "
            f"pool {self.pool} is {self.health() or 'stuck'}",
            detail=f"see zpool status {self.pool}; the store waits for the command when it starts again",
        )

    def health(self) -> str:
        """``ONLINE``, ``SUSPENDED``…, or "" for a pool that is not imported. Asks the kernel, never hangs."""
        try:
            with open(f"/proc/spl/kstat/zfs/{self.pool}/state", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""

    def check_alive(self) -> None:
        """Raises PoolError for a pool whose commands would hang or cannot succeed."""
        health = self.health()
        if health == "SUSPENDED":
            raise PoolError(
                f"pool {self.pool} is suspended: its disks do not answer",
                detail=f"see zpool status {self.pool}; when the disks are back: zpool clear {self.pool}",
            )
        if not health:
            raise PoolError(
                f"pool {self.pool} is not imported", detail=f"import it: zpool import {self.pool}"
            )

    async def _run(self, words: Sequence[str], script: str, *, kill_when_cancelled: bool) -> Finished:
        stdin = subprocess.PIPE if script else subprocess.DEVNULL
        child = self.start(words, stdin=stdin)
        try:
            output, complaint = await trio.to_thread.run_sync(
                child.communicate,
                script.encode() if script else None,
                abandon_on_cancel=True,
                limiter=_CHILDREN,
            )
        except trio.Cancelled:
            if kill_when_cancelled:
                with suppress(OSError):
                    child.kill()
            raise
        return Finished(
            status=child.returncode,
            output=output.decode(errors="replace"),
            complaint=complaint.decode(errors="replace"),
        )
