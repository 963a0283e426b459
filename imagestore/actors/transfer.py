"""The transfer of one image: from the image service, decoded and checked, into a receiver.

Owns the tries (what is tried again, how often, how long after), the pipeline
from socket to pool, and the checks that need the whole body: its length
against Content-Length and against the service's metadata, its sha256, its
limit.  Formats are :mod:`imagestore.streams.content`'s business, the stream's
own checksums and END the receiver's.

Promises: each try begins with a new receiver, and a receiver that was not
finished is aborted, whatever happened; bytes are held in batches, so that one
transfer takes a few MiB however fast one end and slow the other; hashing and
decompression run in threads that all transfers share, so that the event loop
keeps a processor.  Cancelling leaves no connection and no receiver.

Knows nothing of queues, journals or names in the pool.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Literal

import trio
from msgspec import Struct

from imagestore.actors.imageservice import (
    NO_METADATA,
    CannotReach,
    ImageAddress,
    MayPass,
    Metadata,
    ServiceAddress,
    download_url,
    locate,
    metadata_url,
    parse_metadata,
    parse_service,
)
from imagestore.actors.origin import CheckAddress, Convert
from imagestore.actors.unpacking import Unpacking
from imagestore.errors import ContentRefused, FetchFailed, FetchUnreachable
from imagestore.pools.base import Dataset, Receiver
from imagestore.streams.content import Decoder, Piece
from imagestore.streams.signatures import Kind as Kind

Phase = Literal["downloading", "importing"]
OpenSink = Callable[[Kind], AbstractAsyncContextManager[Receiver]]
"""Opens a receiver of a plain stream or of a raw disk image, once a try at most."""

Report = Callable[[Phase, int, int | None], None]
"""Told of the phase, the bytes of the body that have come, and how many it has (None: unknown).
Called for every piece that comes (up to 256 KiB), so it must be quick; begins at 0 again with each try."""

BATCH_BYTES = 512 << 10
"""The body goes through hashing, decompression and the receiver in steps of about this size.
Four transfers at full speed on two cores: 1 MiB is 10 % faster, and the event loop twice as late."""

METADATA_BYTES = 64 << 10
"""Longer metadata is not the service's own form."""

FIRST_WAIT_SECONDS = 1.0
"""After the first try without progress; twice as long after each further one."""


class TransferSettings(Struct, frozen=True, kw_only=True):
    """Limits of one transfer.  Times in seconds.

    ``fruitless_tries`` may fail in a row without progress, ``tries`` in all;
    between them ``wait_seconds`` are waited in all.  A connection is given up
    when it is not made in ``connect_seconds`` or moves no byte for
    ``stall_seconds``.  ``max_image_bytes`` bounds both the body and the image in it.

    ``check_address`` is asked before each connection, but for those to the
    image service and where it redirects; ``convert`` turns disk formats into
    raw ones, without it they are refused.
    """

    fruitless_tries: int = 3
    tries: int = 10
    wait_seconds: float = 5.0
    connect_seconds: float = 5.0
    metadata_seconds: float = 5.0
    stall_seconds: float = 60.0
    max_image_bytes: int | None = None
    check_address: CheckAddress | None = None
    convert: Convert | None = None


class Transferred(Struct, frozen=True, kw_only=True):
    """What came.  ``datasets`` is what the receiver made: the volume, then its snapshots.

    ``sha256`` (hex) and ``body_bytes`` are of the body as it was received;
    ``content_length`` is what the answer announced; ``type`` is the metadata's, "" if unknown.
    """

    datasets: tuple[Dataset, ...]
    kind: Kind
    body_bytes: int
    sha256: str
    content_length: int | None = None
    type: str = ""


class Tries(Struct, frozen=True, kw_only=True):
    """What was tried so far.  ``best_bytes`` is the most of the body that the pool ever took."""

    made: int = 0
    fruitless: int = 0
    best_bytes: int = 0
    waited_seconds: float = 0.0


def after_failure(
    tries: Tries, accepted_bytes: int, settings: TransferSettings
) -> tuple[Tries, float] | None:
    """The tries with one more failed, and how long to wait before the next; None to give up.

    A try made progress when the pool took more of the body than in any try before.
    """
    fruitless = 0 if accepted_bytes > tries.best_bytes else tries.fruitless + 1
    made = tries.made + 1
    if fruitless >= settings.fruitless_tries or made >= settings.tries:
        return None
    left = settings.wait_seconds - tries.waited_seconds
    wait = min(FIRST_WAIT_SECONDS * 2 ** max(0, fruitless - 1), left)
    return (
        Tries(
            made=made,
            fruitless=fruitless,
            best_bytes=max(accepted_bytes, tries.best_bytes),
            waited_seconds=tries.waited_seconds + wait,
        ),
        wait,
    )


async def transfer(
    image: ImageAddress, sink: OpenSink, *, settings: TransferSettings, progress: Report
) -> Transferred:
    """Bring one image into the pool; what may pass is tried again.

    Raises:
        FetchUnreachable: the service cannot be reached, breaks off or is not
            ready with this image; a later transfer may succeed.
        FetchFailed: it does not have the image, or refuses it.
        ContentRefused, StreamError: what it sent is not an image that may be stored.
        NoSpace, and whatever else the receiver raises.
    """
    service = parse_service(image.service)
    tries = Tries()
    while True:
        attempt = _Attempt(image.image, sink, settings, progress)
        try:
            return await attempt.run(service)
        except MayPass as error:
            failure = error
        again = after_failure(tries, attempt.accepted_bytes, settings)
        if again is None:
            made = tries.made + 1
            raise FetchUnreachable(
                f"image {image.image}: {failure} ({made} {'try' if made == 1 else 'tries'})"
            ) from failure
        tries, wait = again
        await trio.sleep(wait)


def admit(image: str, host: str, status: int, metadata: Metadata) -> None:
    """Decide by its status whether an answer's body is the image.

    Raises:
        FetchUnreachable: the service is still fetching the image itself.
        FetchFailed: it does not have it, or refuses.
        MayPass: it is in trouble.
    """
    if status == 404 and metadata.status in {"pending", "downloading"}:
        raise FetchUnreachable(
            f"image {image} is not complete at the image service {host} yet: it is {metadata.status} there"
        )
    if status == 404:
        raise FetchFailed(f"image {image} was not found at the image service {host}")
    if 500 <= status < 600:
        raise MayPass(f"{host} answered with status {status}")
    if status != 200:
        raise FetchFailed(f"image {image} cannot be had: {host} answered with status {status}")


def expected_bytes(
    host: str, content_length: int | None, metadata: Metadata, limit: int | None
) -> int | None:
    """How long the body must be, from what was announced; None if nothing was.

    Raises:
        MayPass: the announcements contradict each other: one of them is stale.
        ContentRefused: it is over ``limit`` bytes.
    """
    known = metadata.body_bytes
    if content_length is not None and known is not None and content_length != known:
        raise MayPass(f"{host} announced {content_length} bytes of an image of {known}: truncated or stale")
    total = content_length if content_length is not None else known
    if total is not None and limit is not None and total > limit:
        raise ContentRefused(f"image has {total} bytes, over the limit of {limit}")
    return total


class _Attempt:
    """One try.  ``accepted_bytes`` of the body were decoded and taken by the receiver."""

    def __init__(self, image: str, sink: OpenSink, settings: TransferSettings, progress: Report) -> None:
        self.accepted_bytes = 0
        self._image = image
        self._sink = sink
        self._settings = settings
        self._progress = progress
        self._received_bytes = 0
        self._total: int | None = None
        self._broken: MayPass | FetchFailed | None = None
        self._digest = hashlib.sha256()
        self._decoder = Decoder()
        self._unpacking = Unpacking(limit_bytes=settings.max_image_bytes)

    async def run(self, service: ServiceAddress) -> Transferred:
        """Raises MayPass for what is worth another try, else as :func:`transfer`."""
        # Importing the HTTP library takes tens of milliseconds: not on the event loop.
        await trio.to_thread.run_sync(_load_client)
        from imagestore.actors.download import Timeouts, opened

        service = await locate(service)
        metadata = await self._ask_metadata(service)
        if metadata.status == "error":
            raise FetchFailed(f"image {self._image} is in error at the image service {service}")
        timeouts = Timeouts(connect=self._settings.connect_seconds, stall=self._settings.stall_seconds)
        async with opened(download_url(service, self._image), timeouts) as response:
            admit(self._image, response.host, response.status, metadata)
            self._total = expected_bytes(
                response.host, response.content_length, metadata, self._settings.max_image_bytes
            )
            kind, datasets = await self._pump(response.host, response.body)
        return Transferred(
            datasets=datasets,
            kind=kind,
            body_bytes=self._received_bytes,
            sha256=self._digest.hexdigest(),
            content_length=response.content_length,
            type=metadata.type,
        )

    async def _ask_metadata(self, service: ServiceAddress) -> Metadata:
        """What the service says of the image, NO_METADATA for whatever it fails to say properly."""
        from imagestore.actors.download import Timeouts, opened

        seconds = self._settings.metadata_seconds
        timeouts = Timeouts(connect=self._settings.connect_seconds, stall=seconds)
        body = bytearray()
        with trio.move_on_after(seconds):
            try:
                async with opened(metadata_url(service, self._image), timeouts) as response:
                    if response.status != 200:
                        return NO_METADATA
                    async for piece in response.body:
                        body += piece
                        if len(body) > METADATA_BYTES:
                            return NO_METADATA
                    return parse_metadata(bytes(body))
            except CannotReach:
                raise
            except (MayPass, FetchFailed):
                return NO_METADATA
        return NO_METADATA

    async def _pump(self, host: str, body: AsyncIterator[Piece]) -> tuple[Kind, tuple[Dataset, ...]]:
        """Read and import side by side."""
        self._progress("downloading", 0, self._total)
        send, receive = trio.open_memory_channel[list[Piece]](0)
        failure: Exception | None = None
        imported: tuple[Kind, tuple[Dataset, ...]] | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, host, body, send)
            try:
                imported = await self._import(receive)
            except Exception as error:
                failure = error
            nursery.cancel_scope.cancel(reason="the body is imported, or no longer wanted")
        # A body that broke off explains why its content is wrong, not the other way round.
        if self._broken is not None:
            raise self._broken
        if failure is not None:
            raise failure
        assert imported is not None
        return imported

    async def _read(
        self, host: str, body: AsyncIterator[Piece], send: trio.MemorySendChannel[list[Piece]]
    ) -> None:
        """Hand the body over in batches; what breaks it stands in ``_broken`` before the channel ends."""
        batch: list[Piece] = []
        size = 0
        async with send:
            try:
                async for piece in body:
                    batch.append(piece)
                    size += len(piece)
                    self._count(host, len(piece))
                    if size >= BATCH_BYTES:
                        await send.send(batch)
                        batch, size = [], 0
                if self._total is not None and self._received_bytes != self._total:
                    raise MayPass(
                        f"{host} sent {self._received_bytes} bytes of an image of {self._total}: truncated"
                    )
            except (MayPass, FetchFailed) as error:
                self._broken = error
                return
            if batch:
                await send.send(batch)

    def _count(self, host: str, size: int) -> None:
        self._received_bytes += size
        if self._total is not None and self._received_bytes > self._total:
            raise MayPass(f"{host} sent more than the {self._total} bytes of the image")
        self._progress("downloading", self._received_bytes, self._total)

    async def _import(
        self, batches: trio.MemoryReceiveChannel[list[Piece]]
    ) -> tuple[Kind, tuple[Dataset, ...]]:
        """Decode, and feed the receiver, until the body ends; finish it if the body was whole."""
        async with AsyncExitStack() as stack:
            receiver: Receiver | None = None
            async for batch in batches:
                receiver = await self._take(self._decoded(batch), receiver, stack)
                self.accepted_bytes += sum(map(len, batch))
            if self._broken is not None:
                raise self._broken
            receiver = await self._take(self._decoder.finish(), receiver, stack)
            kind = self._decoder.kind
            assert receiver is not None
            assert kind is not None
            self._progress("importing", self._received_bytes, self._total)
            return kind, await receiver.finish()

    def _decoded(self, batch: list[Piece]) -> Iterator[Piece]:
        for piece in batch:
            self._digest.update(piece)
            yield from self._decoder.feed(piece)

    async def _take(
        self, work: Iterator[Piece], receiver: Receiver | None, stack: AsyncExitStack
    ) -> Receiver | None:
        """Do ``work`` in a thread, step by step, and feed what comes out.

        Opens the receiver as soon as the content's kind is known.
        """
        more = True
        while more:
            data, more = await self._unpacking.step(work)
            if receiver is None and self._decoder.kind is not None:
                receiver = await stack.enter_async_context(self._sink(self._decoder.kind))
            if data:
                assert receiver is not None
                await receiver.feed(data)
        return receiver


def _load_client() -> None:
    import imagestore.actors.download  # noqa: F401
