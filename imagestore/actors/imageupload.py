"""The body of an uploaded image, between the task that reads a request and the fetch that takes it in.

The reader goes away with its client; the fetch lives in the queue and ends
what was begun.  Nothing is buffered but one batch on either side: a reader
waits until the fetch takes more.
"""

from collections.abc import AsyncIterator

import trio

from imagestore.actors.base import Reply
from imagestore.errors import FetchFailed

BATCH_BYTES = 512 << 10
"""Smaller pieces are gathered to this length."""


class ImageUpload:
    """See the module.  An ``actors.origin.UploadedBody``; ``reply`` is the fetch's outcome."""

    def __init__(self, content_length: int | None) -> None:
        self.content_length = content_length
        self.reply: Reply[None] = _Ending(self)
        self._send, self._receive = trio.open_memory_channel[bytes](0)
        self._gathered = bytearray()
        self._is_whole = False
        self._given_bytes = 0

    async def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises the error that ended the fetch."""
        if self.reply.is_set:
            self._raise()
        self._gathered += data
        if len(self._gathered) >= BATCH_BYTES:
            await self._hand_over()

    async def finish(self) -> None:
        """The body has ended; waits for the outcome. Raises the error that it was."""
        if self._gathered:
            await self._hand_over()
        self._is_whole = True
        self._send.close()
        await self.reply.wait()

    def abandon(self) -> None:
        """No more will come. Harmless after :meth:`finish`."""
        self._send.close()

    def end(self) -> None:
        """Nobody takes any more; whoever waits in :meth:`feed` is told."""
        self._receive.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, as it comes. Raises FetchFailed if it breaks off."""
        async for batch in self._receive:
            self._given_bytes += len(batch)
            yield batch
        if not self._is_whole:
            raise FetchFailed(f"the upload broke off after {self._given_bytes} bytes")

    async def _hand_over(self) -> None:
        batch = bytes(self._gathered)
        self._gathered.clear()
        try:
            await self._send.send(batch)
        except trio.BrokenResourceError:
            self._raise()

    def _raise(self) -> None:
        """What ended the fetch; an image that was there before all of the body came is no outcome of it."""
        self.reply.result()
        raise FetchFailed("the image was complete before its upload was")


class _Ending(Reply[None]):
    """A reply that ends the upload as well: set, nobody takes more of the body."""

    __slots__ = ("_upload",)

    def __init__(self, upload: ImageUpload) -> None:
        super().__init__()
        self._upload = upload

    def put(self, answer: None) -> None:
        super().put(answer)
        self._upload.end()

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        self._upload.end()
