"""How a pool is told what to do: calls of libzfs_core, and ``zfs`` and ``zpool`` for the rest.

Calls run in worker threads.  Children get fixed argument lists and no shell;
they have in common the locale in which texts are recorded, a session of their
own (a Ctrl-C at the store's terminal is not for them), and the lifetime lock,
which they inherit: a child outlives a killed store and may still act, so the
next life waits until no process holds that lock.

A look may be cancelled.  A change is waited for, up to a deadline after which
the pool is considered stuck: what the kernel makes wait for a disk, no signal
ends; it is left behind, with the lock.
"""

import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import trio
from msgspec import Struct

from imagestore.errors import NotFound, PoolError, PoolStuck
from imagestore.pools.zfs.core import ZfsCore
from imagestore.pools.zfs.failures import failure, failure_of_number
from imagestore.streams.nvlist import NvValue

CHANGE_SECONDS = 300.0
"""How long one command may take before its pool is considered stuck."""

_WAITING = trio.CapacityLimiter(64)
"""Threads that wait for the kernel; what bounds the work itself is the zpool actor."""

T = TypeVar("T")

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
        self.core = ZfsCore()

    def start(
        self,
        words: Sequence[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        is_waited_for: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start a child that the caller feeds, reads and reaps. Raises PoolError.

        ``is_waited_for``: the next life does not begin before this child has ended.
        """
        try:
            return subprocess.Popen(  # noqa: S603 (no shell; names were checked by imagestore.names)
                [self._paths[words[0]], *words[1:]],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=self._environment,
                cwd="/",
                pass_fds=(self._lock,) if is_waited_for else (),
                start_new_session=True,
            )
        except OSError as error:
            raise PoolError(f"{words[0]} cannot be started: {error.strerror}") from error

    async def look(self, *words: str, may_lack: bool = False) -> str:
        """Run a command that changes nothing; its output.

        With ``may_lack`` some of what it is asked about may not exist.
        Raises what ``failure`` makes of a failure.
        """
        if self.health():  # of a pool that is not there the command says so
            self.check_alive()
        finished = await self._run(words)
        if finished.status:
            error = failure(words, finished.complaint, self.pool)
            if not (may_lack and isinstance(error, NotFound)):
                raise error
        return finished.output

    async def change(self, *words: str) -> str:
        """Run a command that changes the pool, whatever is cancelled.

        Raises what ``failure`` makes of a failure, and PoolStuck if it does not end.
        """
        finished = await self._finish(" ".join(words[:2]), partial(self._run, words))
        if finished.status:
            raise failure(words, finished.complaint, self.pool)
        return finished.output

    async def call(self, doing: str, name: str, function: Callable[[], int]) -> None:
        """Run a change by libzfs_core, whatever is cancelled; ``doing`` and ``name`` are for errors.

        Raises what ``failure_of_number`` makes of its errno, and PoolStuck if it does not end.
        """
        status = await self._finish(doing, partial(_in_thread, function))
        if status:
            raise failure_of_number(doing, status, name, self.pool)

    async def program(self, text: str, arguments: Sequence[str], *, changes: bool) -> NvValue:
        """Run a channel program; what it returned. With ``changes`` it is not cancellable.

        Raises what ``failure_of_number`` makes of its errno, PoolError for an error in it, PoolStuck.
        """
        run = partial(self.core.program, self.pool, text, arguments, changes=changes)
        if changes:
            status, output = await self._finish("zfs program", partial(_in_thread, run))
        else:
            self.check_alive()
            status, output = await _in_thread(run)
        if "error" in output:
            raise PoolError(f"a channel program failed: {output['error']}")
        if status:
            raise failure_of_number("zfs program", status, "", self.pool)
        return output.get("return")

    async def _finish(self, doing: str, run: Callable[[], Awaitable[T]]) -> T:
        """Wait for a change, whatever is cancelled, but not for ever."""
        self.check_alive()
        done: list[T] = []
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._change_seconds):
            done.append(await run())
        if done:
            return done[0]
        raise PoolStuck(
            f"{doing} has not ended after {self._change_seconds:.0f} seconds; "
            f"pool {self.pool} is {self.health() or 'stuck'}",
            detail=f"see zpool status {self.pool}; a store that starts waits until it has ended",
        )

    def health(self) -> str:
        """``ONLINE``, ``SUSPENDED``…, or "" for a pool that is not imported. Asks the kernel, never hangs."""
        try:
            with open(f"/proc/spl/kstat/zfs/{self.pool}/state", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""

    def trouble(self) -> str:
        """Why the pool's commands would hang or cannot succeed; "" if they may."""
        health = self.health()
        if health == "SUSPENDED":
            return f"pool {self.pool} is suspended: its disks do not answer"
        return "" if health else f"pool {self.pool} is not imported"

    def check_alive(self) -> None:
        """Raises PoolError for a pool whose commands would hang or cannot succeed."""
        if trouble := self.trouble():
            mend = "when the disks are back: zpool clear" if self.health() else "import it: zpool import"
            raise PoolError(trouble, detail=f"see zpool status {self.pool}; {mend} {self.pool}")

    async def _run(self, words: Sequence[str]) -> Finished:
        child = self.start(words)
        output, complaint = await _in_thread(child.communicate)
        return Finished(
            status=child.returncode,
            output=output.decode(errors="replace"),
            complaint=complaint.decode(errors="replace"),
        )


async def _in_thread(function: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=_WAITING)
