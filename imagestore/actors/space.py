"""Space for what is on its way into the pool and of which nobody knows how long it will be."""

from imagestore.actors.zpool import ZpoolActor
from imagestore.pools.base import Dataset, Receiver

RESERVE_STEP_BYTES = 8 << 20
"""So much is reserved ahead of what has come: nobody knows how much an image unpacks to."""


class Ahead:
    """Reserves a step of space ahead of what is written, under a holder's name in the ledger."""

    def __init__(self, zpool: ZpoolActor, holder: str) -> None:
        self._zpool = zpool
        self._holder = holder
        self._ahead = 0

    async def __call__(self, size: int) -> None:
        """So many bytes more are about to be written. Raises NoSpace."""
        if self._ahead < size:
            self._ahead = max(RESERVE_STEP_BYTES, size)
            await self._zpool.reserve(self._holder, self._ahead, renew=True)
        self._ahead -= size

    def release(self) -> None:
        """Nothing more will be written."""
        self._ahead = 0
        self._zpool.ledger.release(self._holder)


class SpaceKeeper:
    """A receiver that reserves a step of space ahead of what it takes, for an operation."""

    def __init__(self, receiver: Receiver, zpool: ZpoolActor, operation: str) -> None:
        self._receiver = receiver
        self._ahead = Ahead(zpool, operation)

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        await self._ahead(len(data))
        await self._receiver.feed(data)

    async def finish(self) -> tuple[Dataset, ...]:
        return await self._receiver.finish()

    async def abort(self) -> None:
        await self._receiver.abort()
