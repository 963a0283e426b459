"""Calling a method by its entry in the table: with an idempotency key, or without waiting for the answer.

Owns what a key means for any method, the answer that is given again among it:
made of what the journal says happened and, for a guest, of the request that
came again.  Knows nothing of any single method.
"""

import typing
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache, partial

import msgspec
import trio
from msgspec import Struct, structs

from imagestore import errors
from imagestore.actors.base import Reply
from imagestore.actors.history import Receipt as Told
from imagestore.actors.keys import key_of
from imagestore.errors import ImageStoreError, NotFound
from imagestore.events.catalogue import (
    DestroyIntent,
    Envelope,
    OperationFinished,
    OperationStarted,
    Shown,
)
from imagestore.events.subjects import images_of
from imagestore.guestorders import answered
from imagestore.methods.imagelife import ImageLifeMethods
from imagestore.methods.operations import OperationMethods
from imagestore.model import (
    MIB,
    GuestRequest,
    GuestResponse,
    ImageRequest,
    ImageResponse,
    OperationRequest,
    ReceiveResponse,
    Snapshot,
    SnapshotResponse,
    Volume,
    VolumeResponse,
)
from imagestore.service import Binding, Caller, Method, Receipt, Service
from imagestore.timings import Called

_Run = Callable[[Struct, Caller], Awaitable[Struct]]

_encode = msgspec.json.Encoder(order="sorted").encode
"""One text for requests that mean the same, whatever order their members came in."""


DESCRIBING = ("SetImageAlias", "PublishImage")
"""The methods of one operation that answer with all that is known of an image."""


class CallMethods(OperationMethods, ImageLifeMethods):
    """See the module."""

    async def call(self, method: Method, request: Struct, caller: Caller) -> Struct:
        """See ``imagestore.service.Service.call``."""
        began, outcome, error_type = trio.current_time(), "failed", "failed"
        if method.mutates and caller.receipt is None:
            caller = structs.replace(caller, receipt=Receipt())
        try:
            answer = await self._call(method, request, caller)
            outcome, error_type = "succeeded", ""
            return answer
        except ImageStoreError as error:
            outcome, error_type = "refused", type(error).__name__
            raise
        finally:
            if self._actors is not None:
                seconds = trio.current_time() - began
                self._actors.operations.timings.calls[method.name, outcome].observe(seconds)
                self._tell_call(method, caller, outcome, error_type, seconds)

    def _tell_call(
        self, method: Method, caller: Caller, outcome: str, error_type: str, seconds: float
    ) -> None:
        """Tell whoever makes spans of calls, if anybody does."""
        tell = self._running().operations.timings.tell_call
        if tell is None:
            return
        ended_ns = self._running().now_ns()
        called = Called(
            method=method.name,
            principal=caller.principal,
            operation=caller.receipt.operation if caller.receipt is not None else "",
            outcome=outcome,
            error_type=error_type,
            began_ns=ended_ns - int(seconds * 1e9),
            ended_ns=ended_ns,
        )
        tell(called)

    async def _call(self, method: Method, request: Struct, caller: Caller) -> Struct:
        run: _Run = getattr(self, method.attribute)
        if not method.mutates:
            return await run(request, caller)
        receipt = caller.receipt or Receipt()
        told: Told = receipt
        try:
            if not caller.key and not caller.no_wait:
                return await run(request, structs.replace(caller, receipt=receipt))
            reply, told = self._begin(method, run, request, caller)
            if caller.no_wait:
                await _either(reply, told.accepted)
                if not reply.is_set:
                    receipt.early = True
                    return await self.get_operation(OperationRequest(id=told.operation), caller)
            return await reply.wait()
        except ImageStoreError as error:
            if told.accepted.is_set():
                error.operation = told.operation
            raise
        finally:
            receipt.operation = told.operation

    def _begin(
        self, method: Method, run: _Run, request: Struct, caller: Caller
    ) -> tuple[Reply[Struct], Told]:
        """Have the request carried out by a task of the store's, or join it."""
        keys = self._running().keys
        receipt = Receipt()
        alone = structs.replace(caller, key="", no_wait=False, receipt=receipt)
        if not caller.key:
            return keys.begin(partial(run, request, alone)), receipt
        key = key_of(caller.key, principal=caller.principal, method=method.name, request=_encode(request))
        alone = structs.replace(alone, binding=Binding(key=key.key, request=key.request))
        again = partial(self.answer_again, _answer_of(method.attribute), request)
        return keys.claim(key, receipt, partial(run, request, alone), again)

    # -- the same answer again ---------------------------------------------------------

    async def answer_again(self, answer: type[Struct], request: Struct, events: Sequence[Envelope]) -> Struct:
        """The answer of an operation that ended, of type ``answer``; raises its failure."""
        started, finished = events[0].event, events[-1].event
        assert isinstance(started, OperationStarted)
        assert isinstance(finished, OperationFinished)
        if finished.outcome != "succeeded":
            raise failure_of(finished)
        rows = (*started.gone, *finished.answer)
        if started.shown:
            return msgspec.json.decode(started.shown, type=answer)
        if answer is VolumeResponse:
            return VolumeResponse(volumes=tuple(map(self._volume_again, rows)))
        if answer is SnapshotResponse:
            return SnapshotResponse(snapshots=tuple(map(self._snapshot_again, rows)))
        if answer is ReceiveResponse:
            volume, *snapshots = rows
            return ReceiveResponse(
                volume=self._volume_again(volume), snapshots=tuple(map(self._snapshot_again, snapshots))
            )
        if answer is GuestResponse:
            return self._guest_again(request, started, rows)
        if answer is ImageResponse:
            return await self._image_again(events)
        raise ImageStoreError(
            f"the operation succeeded; its answer cannot be given again: {events[0].operation}"
        )

    def _volume_again(self, row: Shown) -> Volume:
        device = self._running().zpool.driver.device(row.name) if row.kind == "volume" else ""
        return Volume(id=self._full(row.name), size=row.size_bytes // MIB, device=device)

    def _snapshot_again(self, row: Shown) -> Snapshot:
        return Snapshot(id=self._full(row.name), size=row.written_bytes // MIB)

    def _guest_again(
        self, request: Struct, started: OperationStarted, rows: Sequence[Shown]
    ) -> GuestResponse:
        assert isinstance(request, GuestRequest)
        assert request.guest is not None
        if isinstance(started.intent, DestroyIntent):
            return GuestResponse(guest={key: value for key, value in request.guest.items() if key != "disks"})
        return GuestResponse(guest=answered(request, [self._volume_again(row) for row in rows]))

    async def _image_again(self, events: Sequence[Envelope]) -> ImageResponse:
        """The image as it is now; none if it went since."""
        images = [image for envelope in events for image in images_of(envelope.event) if image]
        started = events[0].event
        assert isinstance(started, OperationStarted)
        tell = self.describe_images if started.method in DESCRIBING else self.get_image
        if images:
            with suppress(NotFound):
                return await tell(ImageRequest(id=images[0]))
        return ImageResponse(images=())


def failure_of(finished: OperationFinished) -> ImageStoreError:
    """The failure that an operation ended with, as it was raised then."""
    kind = getattr(errors, finished.error_type, None)
    if isinstance(kind, type) and issubclass(kind, ImageStoreError):
        return kind(finished.error)
    return ImageStoreError(finished.error)


@cache
def _answer_of(attribute: str) -> type[Struct]:
    answer: type[Struct] = typing.get_type_hints(getattr(Service, attribute))["return"]
    return answer


async def _either(reply: Reply[Struct], accepted: trio.Event) -> None:
    """Return once one of the two has come."""

    async def wait(what: Callable[[], Awaitable[None]]) -> None:
        await what()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, reply.settled)
        nursery.start_soon(wait, accepted.wait)
