"""Guest actors: one for each guest that is being worked on.

Owns the order of changes to one guest: its disks, snapshots, rollbacks and
deletion, one mutation at a time.  An actor is started on demand and gone when
idle; it is deregistered in the same step in which its mailbox was seen empty,
so no message is lost to a dying actor.
"""

import trio

from imagestore.actors.base import Mailbox
from imagestore.actors.mutator import Mutate, serve
from imagestore.actors.operation import Operations
from imagestore.errors import Stopping

MAX_IDLE = 1024
"""While there are more actors than this, idle ones end at once: whoever asks for guests that are
none could else have any number of them."""


class Guests:
    """The guest actors by guest id, in one nursery."""

    def __init__(self, operations: Operations, *, mailbox: int = 32, idle_seconds: float = 60.0) -> None:
        self._operations = operations
        self._mailbox_size = mailbox
        self._idle_seconds = idle_seconds
        self._mailboxes: dict[str, Mailbox[Mutate]] = {}
        self._nursery: trio.Nursery | None = None
        self._closing = trio.Event()

    def __len__(self) -> int:
        return len(self._mailboxes)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host the actors until :meth:`close`, then until each has emptied its mailbox."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self._closing.wait()

    def close(self) -> None:
        """Take no new messages."""
        self._closing.set()
        for mailbox in self._mailboxes.values():
            mailbox.close()

    def post_nowait(self, guest: str, message: Mutate) -> None:
        """Hand ``message`` to the guest's actor, starting it if need be.

        Raises TemporarilyUnavailable when its mailbox is full, Stopping when closed.
        """
        if self._closing.is_set() or self._nursery is None:
            raise Stopping
        mailbox = self._mailboxes.get(guest)
        if mailbox is None:
            mailbox = self._mailboxes[guest] = Mailbox(self._mailbox_size)
            self._nursery.start_soon(self._act, guest, mailbox)
        mailbox.post_nowait(message)

    async def _act(self, guest: str, mailbox: Mailbox[Mutate]) -> None:
        """One guest's actor."""
        while True:
            if mailbox.is_empty() and len(self._mailboxes) > MAX_IDLE:
                del self._mailboxes[guest]
                return
            message: Mutate | None = None
            with trio.move_on_after(self._idle_seconds):
                try:
                    message = await mailbox.receive()
                except trio.EndOfChannel:
                    return
            if message is not None:
                await serve(message, self._operations)
            elif mailbox.is_empty():
                del self._mailboxes[guest]
                return
