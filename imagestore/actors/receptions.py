"""The host of uploads: which streams are coming in, and the tasks that receive them.

Owns that there are at most ``most`` at a time, and one for a name.  A task
outlives the request that it serves as long as it has something to end.
"""

import trio

from imagestore.actors.incoming import Order, check_order
from imagestore.actors.operation import Operations
from imagestore.actors.reception import receive
from imagestore.actors.upload import Upload
from imagestore.errors import Blocked, ImageStoreError, Stopping, TemporarilyUnavailable


class Receptions:
    """See the module. Start it with ``await nursery.start(receptions.run)``."""

    def __init__(self, operations: Operations, *, most: int = 16) -> None:
        self._operations = operations
        self._most = most
        self._names: set[str] = set()
        self._nursery: trio.Nursery | None = None
        self._closing = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host receptions until :meth:`close`; those that are not being published are broken off then."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self._closing.wait()
            nursery.cancel_scope.cancel(reason="the store is shutting down")

    def close(self) -> None:
        self._closing.set()

    def begin_nowait(self, order: Order, principal: str, operation: str = "") -> Upload:
        """Begin a reception. Its bytes go into what is returned; ``operation`` is its id if it has one.

        Raises:
            NotValid, NotVolume, AlreadyExists: whatever comes, it cannot go there.
            Blocked: another stream is on its way there.
            TemporarilyUnavailable, ReadOnly, Stopping: not now.
        """
        if self._closing.is_set() or self._nursery is None:
            raise Stopping
        self._operations.check_writable()
        check_order(order, self._operations.state, self._operations.zpool.view)
        if order.name in self._names:
            raise Blocked(f"dataset is being received: {order.name}", blockers=(order.name,))
        if len(self._names) >= self._most:
            raise TemporarilyUnavailable(detail=f"{self._most} streams are being received")
        upload = Upload(order, principal, operation)
        self._names.add(order.name)
        self._nursery.start_soon(self._live, upload)
        return upload

    async def _live(self, upload: Upload) -> None:
        """One reception, and its answer.

        An error of imagestore is the answer.  Anything else ends the process:
        it may have struck between intent and outcome.
        """
        refused: ImageStoreError | None = None
        try:
            rows = await receive(upload, self._operations)
        except ImageStoreError as error:
            refused = error
            upload.reply.fail(error)
        except trio.Cancelled:
            refused = Stopping()
            upload.reply.fail(refused)
            raise
        else:
            upload.reply.put(rows)
        finally:
            self._names.discard(upload.order.name)
            upload.batches.close()
            self._operations.history.conclude(upload.operation, refused)
