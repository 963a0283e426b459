"""The owner of free-standing volumes and of changes that reach across the pool.

Owns what belongs to no image and no guest.  Claims, not a queue, keep its
changes apart: each is served by a task of its own, at most ``concurrency`` at
a time, so that a slow one does not hold up the others.
"""

import trio

from imagestore.actors.base import Mailbox
from imagestore.actors.mutator import Mutate, serve
from imagestore.actors.operation import Operations


class Volumes:
    """See the module. Start it with ``await nursery.start(volumes.run)``."""

    def __init__(self, operations: Operations, *, mailbox: int = 256, concurrency: int = 64) -> None:
        self._operations = operations
        self._mailbox: Mailbox[Mutate] = Mailbox(mailbox)
        self._slots = trio.Semaphore(concurrency)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until the mailbox is closed and drained."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            try:
                while True:
                    await self._slots.acquire()
                    nursery.start_soon(self._serve, await self._mailbox.receive())
            except trio.EndOfChannel:
                pass

    def close(self) -> None:
        self._mailbox.close()

    def post_nowait(self, message: Mutate) -> None:
        """Raises TemporarilyUnavailable when the mailbox is full, Stopping when closed."""
        self._mailbox.post_nowait(message)

    async def _serve(self, message: Mutate) -> None:
        try:
            await serve(message, self._operations)
        finally:
            self._slots.release()
