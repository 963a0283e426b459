"""Space for what is on its way into the pool and of which nobody knows how long it will be."""

from imagestore.actors.zpool import ZpoolActor
from imagestore.pools.base import Dataset, Receiver

RESERVE_STEP_BYTES = 8 << 20
"""So much is reserved ahead of what has come: nobody knows how much an image unpacks to."""


class SpaceKeeper:
    """A receiver that reserves a step of space ahead of what it takes, for an operation."""

    def __init__(self, receiver: Receiver, zpool: ZpoolActor, operation: str) -> None:
        self._receiver = receiver
        self._zpool = zpool
        self._operation = operation
        self._ahead = 0

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        if self._ahead < len(data):
            self._ahead = max(RESERVE_STEP_BYTES, len(data))
            await self._zpool.reserve(self._operation, self._ahead, renew=True)
        self._ahead -= len(data)
        await self._receiver.feed(data)

    async def finish(self) -> tuple[Dataset, ...]:
        return await self._receiver.finish()

    async def abort(self) -> None:
        await self._receiver.abort()
