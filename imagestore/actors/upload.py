"""An upload between two tasks: the one that reads a request, and the one that receives the stream.

The reader goes away with its client; the receiver lives in an actor and sees
to it that what was begun is ended.  Nothing is buffered but one batch on
either side: a reader waits until the receiver takes more.
"""

import trio

from imagestore.actors.base import Reply
from imagestore.actors.incoming import Order
from imagestore.pools.base import Dataset

BATCH_BYTES = 512 << 10
"""Smaller pieces are gathered to this length."""


class Upload:
    """What a reader holds.  ``batches`` is the receiver's end."""

    def __init__(self, order: Order, principal: str, operation: str = "") -> None:
        self.order = order
        self.operation = operation
        self.principal = principal
        self.reply: Reply[tuple[Dataset, ...]] = Reply()
        self.is_whole = False
        """The body has ended as it should; known when ``batches`` ends."""
        self._send, self.batches = trio.open_memory_channel[bytes](0)
        self._gathered = bytearray()

    async def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises the error that ended the reception."""
        if self.reply.is_set:
            self.reply.result()
        self._gathered += data
        if len(self._gathered) >= BATCH_BYTES:
            await self._hand_over()

    async def finish(self) -> tuple[Dataset, ...]:
        """The body has ended; waits for the outcome. Raises the error that it was."""
        if self._gathered:
            await self._hand_over()
        self.is_whole = True
        self._send.close()
        return await self.reply.wait()

    def abandon(self) -> None:
        """No more will come. Harmless after :meth:`finish`."""
        self._send.close()

    async def _hand_over(self) -> None:
        batch = bytes(self._gathered)
        self._gathered.clear()
        try:
            await self._send.send(batch)
        except trio.BrokenResourceError:
            await self.reply.wait()
            raise
