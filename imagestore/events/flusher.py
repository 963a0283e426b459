"""The thread in which the journal's writes and flushes block.

Owns that thread and the way to it and back: one hop there and one back a commit
group, so that nothing blocking ever runs on trio's thread.  A thread of its own
and not one of trio's pool, since it is needed for the whole life of the journal
and a blocked disk must not eat a shared limit.
"""

import os
import queue
import threading
from collections.abc import Callable

import trio

from imagestore.events.tail import Group

Commit = Callable[[Group], None]
Deliver = Callable[[BaseException | None], None]


class Flusher:
    """Runs ``commit`` for each submitted group, then ``deliver`` with its error on trio's thread.

    At most one group at a time is under way.  With ``threads`` off the groups
    are committed at once on trio's own thread: for simulations on a virtual clock.

    The way back is a pipe that a task of trio's reads: half the time of
    ``run_sync_soon``, which takes a lock and wakes through a socket.
    """

    def __init__(self, commit: Commit, deliver: Deliver, *, threads: bool) -> None:
        self._commit = commit
        self._deliver = deliver
        self._groups: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._outcome: BaseException | None = None
        self._thread: threading.Thread | None = None
        if threads:
            self._finished, self._finish = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            trio.lowlevel.spawn_system_task(self._await_outcomes, name="journal")
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()

    def submit(self, group: Group) -> None:
        if self._thread is not None:
            self._groups.put(group)
        else:
            token = trio.lowlevel.current_trio_token()
            token.run_sync_soon(self._deliver, self._attempt(group))

    def stop(self) -> None:
        """End thread and task; only when nothing is under way, so that this does not block."""
        if self._thread is not None:
            self._groups.put(None)
            self._thread.join()
            self._thread = None
            trio.lowlevel.notify_closing(self._finished)
            os.close(self._finished)
            os.close(self._finish)

    def _attempt(self, group: Group) -> BaseException | None:
        try:
            self._commit(group)
        except BaseException as error:
            return error
        return None

    def _run(self) -> None:
        """The thread.  Trio may be gone when it has an outcome: then nobody reads the pipe."""
        while (group := self._groups.get()) is not None:
            self._outcome = self._attempt(group)
            os.write(self._finish, b"\0")

    async def _await_outcomes(self) -> None:
        """The task.  A system task: outcomes must also arrive while the journal is being closed."""
        while self._thread is not None:
            try:
                await trio.lowlevel.wait_readable(self._finished)
            except trio.ClosedResourceError:
                return
            os.read(self._finished, 1)
            outcome, self._outcome = self._outcome, None
            self._deliver(outcome)
