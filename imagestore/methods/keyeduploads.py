"""Uploads with an idempotency key: the same again is not taken in twice.

A body cannot be asked for again, so an upload that failed frees its key: the
next one with it is another try.  Of one that is under way, or has succeeded,
the bytes that come again are dropped, and its answer is given.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Generic, TypeVar

import msgspec
import trio
from msgspec import Struct, structs

from imagestore.actors.base import Reply
from imagestore.actors.history import Receipt as Told
from imagestore.actors.keys import key_of
from imagestore.errors import ContentRefused, ImageStoreError
from imagestore.events.catalogue import OperationFinished
from imagestore.methods.calls import CallMethods
from imagestore.methods.imageuploads import ImageUploadMethods
from imagestore.methods.streams import StreamMethods
from imagestore.model import ImageResponse, ReceiveRequest, ReceiveResponse, UploadRequest
from imagestore.service import LOCAL, Binding, Caller, Receipt, Upload

_Answer = TypeVar("_Answer", bound=Struct)

_Open = Callable[[Caller], AbstractAsyncContextManager[Upload[_Answer]]]


class KeyedUploadMethods(CallMethods, ImageUploadMethods, StreamMethods):
    """See the module."""

    @asynccontextmanager
    async def receive(
        self, request: ReceiveRequest, caller: Caller = LOCAL
    ) -> AsyncIterator[Upload[ReceiveResponse]]:
        """See ``imagestore.service.Service.receive``."""
        opened = partial(super().receive, request)
        async with self._upload("receive", request, caller, opened, ReceiveResponse) as upload:
            yield upload

    @asynccontextmanager
    async def upload_image(
        self, request: UploadRequest, caller: Caller = LOCAL, *, content_length: int | None = None
    ) -> AsyncIterator[Upload[ImageResponse]]:
        """See ``imagestore.service.Service.upload_image``."""
        opened = partial(super().upload_image, request, content_length=content_length)
        async with self._upload("upload_image", request, caller, opened, ImageResponse) as upload:
            yield upload

    @asynccontextmanager
    async def _upload(
        self, method: str, request: Struct, caller: Caller, opened: _Open[_Answer], answer: type[_Answer]
    ) -> AsyncIterator[Upload[_Answer]]:
        receipt = caller.receipt or Receipt()
        told: Told = receipt
        try:
            if not caller.key:
                async with opened(structs.replace(caller, receipt=receipt)) as upload:
                    yield upload
                return
            door: _Door[_Answer] = _Door()
            reply, told = self._claimed(method, request, caller, partial(door.carry, opened), answer)
            await door.until_open(reply)
            try:
                yield _KeyedUpload(door, reply)
            finally:
                door.closed.set()
        except ImageStoreError as error:
            if told.accepted.is_set():
                error.operation = told.operation
            raise
        finally:
            receipt.operation = told.operation

    def _claimed(
        self,
        method: str,
        request: Struct,
        caller: Caller,
        carry: Callable[[Caller], Awaitable[Struct]],
        answer: type[Struct],
    ) -> tuple[Reply[Struct], Told]:
        key = key_of(
            caller.key, principal=caller.principal, method=method, request=msgspec.json.encode(request)
        )
        inner = Receipt()
        alone = structs.replace(
            caller, key="", receipt=inner, binding=Binding(key=key.key, request=key.request)
        )
        again = partial(self.answer_again, answer, request)
        return self._running().keys.claim(key, inner, partial(carry, alone), again, frees=_failed)


def _failed(finished: OperationFinished) -> bool:
    return finished.outcome != "succeeded"


class _Door(Generic[_Answer]):
    """Between the task that carries a keyed upload and the one that reads its body."""

    def __init__(self) -> None:
        self.upload: Upload[_Answer] | None = None
        self.closed = trio.Event()
        """No more bytes will come."""
        self.is_whole = False
        self._opened = trio.Event()

    async def carry(self, opened: _Open[_Answer], caller: Caller) -> Struct:
        """Open the upload for the reader, and wait for what becomes of it."""
        async with opened(caller) as upload:
            self.upload = upload
            self._opened.set()
            await self.closed.wait()
            if not self.is_whole:
                raise ContentRefused("the upload broke off")
            return await upload.finish()

    async def until_open(self, reply: Reply[Struct]) -> None:
        """Return once bytes can be taken, or the answer is there. Raises it if it is a refusal."""

        async def wait(nursery: trio.Nursery, what: Callable[[], Awaitable[None]]) -> None:
            await what()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as either:
            either.start_soon(wait, either, self._opened.wait)
            either.start_soon(wait, either, reply.settled)
        if reply.is_set:
            reply.result()


class _KeyedUpload(Generic[_Answer]):
    """What the reader of the body has: the upload itself, or one whose bytes are not needed."""

    def __init__(self, door: _Door[_Answer], reply: Reply[Struct]) -> None:
        self._door = door
        self._reply = reply

    async def feed(self, data: bytes) -> None:
        if self._door.upload is not None:
            await self._door.upload.feed(data)
        else:
            await trio.lowlevel.checkpoint()

    async def finish(self) -> _Answer:
        self._door.is_whole = True
        self._door.closed.set()
        answer: _Answer = await self._reply.wait()  # type: ignore[assignment]  # the key stands for the method
        return answer
