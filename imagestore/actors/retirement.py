"""The end of retired images: each is deleted when its last clone has gone.

Owns the watch over images that were to go when unused.  It looks whenever an
operation ends, and every :data:`LOOK_SECONDS` besides, since clones are also
removed by other hands.  The deletion is an operation like any other, in the
fetch queue's hands; its cause is the operation that took the last clone.

Promises: what was due when the store ended is deleted in the next life, before
:meth:`Retirement.run` reports that it has started.  A deletion that is refused
is tried again with the next look.  Asks the fetch queue, and is asked by nobody.
"""

import logging

import trio

from imagestore.actors.base import NO_DEADLINE, Reply
from imagestore.actors.commands import ReapImage
from imagestore.actors.fetcher import Fetcher
from imagestore.actors.imagedecisions import is_due
from imagestore.actors.mutator import Mutate
from imagestore.actors.operation import Operations
from imagestore.errors import ImageStoreError
from imagestore.pools.base import Dataset

_log = logging.getLogger(__name__)

PRINCIPAL = "imagestore"

LOOK_SECONDS = 1.0
"""While there are retired images; without any the watch waits for an operation to end."""


class Retirement:
    """See the module. Start it with ``await nursery.start(retirement.run)``."""

    def __init__(self, operations: Operations, fetcher: Fetcher) -> None:
        self._operations = operations
        self._fetcher = fetcher
        self._poked = trio.Event()
        self._refused: dict[str, str] = {}
        self._scope = trio.CancelScope()
        operations.zpool.on_release = self._poke

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until :meth:`close`."""
        with self._scope:
            await self._look()
            task_status.started()
            while True:
                with trio.move_on_after(LOOK_SECONDS if self._operations.state.retired else float("inf")):
                    await self._poked.wait()
                self._poked = trio.Event()
                await self._look()

    def close(self) -> None:
        self._scope.cancel(reason="the store is shutting down")

    def _poke(self) -> None:
        if self._operations.state.retired:
            self._poked.set()

    async def _look(self) -> None:
        for image in list(self._operations.state.retired):
            if is_due(image, self._operations.state, self._operations.zpool.view):
                await self._reap(image)

    async def _reap(self, image: str) -> None:
        reply: Reply[tuple[Dataset, ...]] = Reply()
        command = ReapImage(image=image)
        try:
            self._fetcher.post_nowait(
                Mutate(command=command, principal=PRINCIPAL, deadline=NO_DEADLINE, reply=reply)
            )
            await reply.wait()
        except ImageStoreError as error:
            if self._refused.get(image) != str(error):
                _log.warning("image %s is unused and was not deleted yet: %s", image, error)
            self._refused[image] = str(error)
        else:
            self._refused.pop(image, None)
