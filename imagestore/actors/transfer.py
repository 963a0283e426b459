"""The transfer of one image: from its origin, decoded and checked, into the pool.

Owns the tries (what is tried again, how often, how long after, and from which
byte), and the checks that need the whole body: its length against what was
announced, its sha256, its limit.  ``bodies`` asks for bytes, ``pipeline``
brings them into the pool; the stream's own checksums and END are the
receiver's business.

Promises: a try goes on behind the last byte where the server can tell that it
has the same body still, and begins anew with a new receiver where it cannot;
a receiver that was not finished is aborted, whatever happened; bytes are held
in batches, so that one transfer takes a few MiB however fast one end and slow
the other.  Content that was put together of several answers and is wrong is
fetched once more in one piece before it is refused.  Cancelling leaves no
connection and no receiver, and the spool to another life.

Knows nothing of queues, journals or names in the pool.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import trio
from msgspec import Struct

from imagestore.actors.bodies import Asking, Body, Changed, Start, open_body
from imagestore.actors.imageservice import MayPass
from imagestore.actors.origin import CheckAddress, Convert, Origin, UploadedBody
from imagestore.actors.pipeline import Imported, Pipeline
from imagestore.actors.spool import Heading, Spool
from imagestore.actors.targets import Destination
from imagestore.actors.unpacking import in_thread
from imagestore.errors import ContentRefused, FetchFailed, FetchUnreachable
from imagestore.pools.base import Dataset
from imagestore.streams.content import Piece
from imagestore.streams.signatures import Content

Phase = Literal["downloading", "importing"]

Report = Callable[[Phase, int, int | None], None]
"""Told of the phase, the bytes of the body that have come, and how many it has (None: unknown).
Called for every piece that comes (up to 1 MiB), so it must be quick; goes back when a try begins anew."""

BATCH_BYTES = 512 << 10
"""The body goes through hashing, decompression and the receiver in steps of about this size.
Four transfers at full speed on two cores: 1 MiB is 10 % faster, and the event loop twice as late."""

HELD_BYTES = 16 << 10
"""The last of what came waits until more comes or the body ends well: servers that fail midway
append the text of their error to the body, and nobody may take that for a part of an image."""

DRIP_BYTES = 1 << 10
"""A body of which less than this comes in the time of a stall has stalled, however often a byte comes."""

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
    raw ones, without it they are refused.  ``service_token_file`` holds what the
    image service is shown, "" nothing, ``service_ca_file`` the authority of its certificate.
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
    service_token_file: str = ""
    service_ca_file: str = ""


class Transferred(Struct, frozen=True, kw_only=True):
    """What came.  ``datasets`` is what the receiver made: the volume, then its snapshots.

    ``content`` is what the body was; ``sha256`` (hex) and ``body_bytes`` are
    of it as it was received; ``type`` is the metadata's, "" if unknown.
    """

    datasets: tuple[Dataset, ...]
    content: Content
    body_bytes: int
    sha256: str
    type: str = ""


class Order(Struct, frozen=True, kw_only=True):
    """What to transfer.  ``service`` is the setting ``image_service``; ``upload`` an upload's body."""

    image: str
    service: str
    origin: Origin = Origin()
    upload: UploadedBody | None = None


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
    order: Order,
    destination: Destination,
    *,
    settings: TransferSettings,
    progress: Report,
    spool: Spool | None = None,
) -> Transferred:
    """Bring one image into the pool; what may pass is tried again.

    ``spool`` is this fetch's own; what an earlier life left there is gone on from.

    Raises:
        FetchUnreachable: the source cannot be reached, breaks off or is not
            ready with this image; a later transfer may succeed.
        FetchFailed: it does not have the image, or refuses it.
        ContentRefused, StreamError: what it sent is not an image that may be
            stored, or another than was wanted.
        NoSpace, and whatever else the receiver raises.
    """
    moving = _Transfer(order, destination, settings, progress, spool)
    tries = Tries()
    try:
        while True:
            try:
                return await moving.attempt()
            except MayPass as error:
                failure = error
            accepted = moving.accepted_bytes
            await moving.after(failure)
            again = after_failure(tries, accepted, settings)
            if again is None or order.origin.is_upload:
                made = tries.made + 1
                raise FetchUnreachable(
                    f"image {order.image}: {failure} ({made} {'try' if made == 1 else 'tries'})"
                ) from failure
            tries, wait = again
            await trio.sleep(wait)
    finally:
        await moving.aclose()


class _Transfer:
    """What is there of an image between one try and the next."""

    def __init__(
        self,
        order: Order,
        destination: Destination,
        settings: TransferSettings,
        progress: Report,
        spool: Spool | None,
    ) -> None:
        self._order = order
        self._destination = destination
        self._settings = settings
        self._progress = progress
        self._spool = spool
        self._pipeline = self._new_pipeline()
        self._of: Heading | None = None
        """What the bytes in the pipeline are of."""
        self._is_first = True
        self._seen_bytes = 0
        self._total: int | None = None
        self._broken: MayPass | FetchFailed | None = None

    @property
    def accepted_bytes(self) -> int:
        """So much of the body was decoded and taken by the receiver."""
        return self._pipeline.received_bytes

    def _new_pipeline(self) -> Pipeline:
        settings = self._settings
        return Pipeline(
            self._destination,
            spool=self._spool,
            limit_bytes=settings.max_image_bytes,
            convert=settings.convert,
        )

    async def aclose(self) -> None:
        """Leave no receiver; what is in the spool stays there."""
        await self._pipeline.aclose()
        if self._spool is not None:
            with trio.CancelScope(shield=True):
                await in_thread(self._spool.close)

    async def after(self, failure: MayPass) -> None:
        """Keep what the next try can go on from, and only that."""
        if isinstance(failure, Changed) or self._of is None or not self._of.validator:
            await self._anew()

    async def _anew(self) -> None:
        """Forget every byte."""
        await self._pipeline.aclose()
        self._pipeline = self._new_pipeline()
        self._of = None
        if self._spool is not None:
            await in_thread(self._spool.remove)

    # -- one try --------------------------------------------------------------------

    async def attempt(self) -> Transferred:
        """Raises MayPass for what is worth another try, else as :func:`transfer`."""
        if self._is_first:
            self._is_first = False
            await self._replay()
        try:
            return await self._attempt()
        except ContentRefused as error:
            if self._pipeline.is_patched:
                raise Changed(f"what was put together of several answers is wrong: {error}") from error
            raise

    async def _attempt(self) -> Transferred:
        if self._of is not None and self.accepted_bytes == self._of.total_bytes:
            # All of it is there: only the end of its way is not.
            return self._transferred(await self._finish(), "")
        start = None
        if self._of is not None:
            start = Start(
                length=self.accepted_bytes,
                source=self._of.source,
                validator=self._of.validator,
                total_bytes=self._of.total_bytes,
            )
        settings = self._settings
        asking = Asking(
            connect_seconds=settings.connect_seconds,
            metadata_seconds=settings.metadata_seconds,
            stall_seconds=settings.stall_seconds,
            max_bytes=settings.max_image_bytes,
            check_address=settings.check_address,
            service_token_file=settings.service_token_file,
            service_ca_file=settings.service_ca_file,
        )
        async with open_body(
            self._order.image,
            self._order.origin,
            service=self._order.service,
            start=start,
            asking=asking,
            upload=self._order.upload,
        ) as body:
            await self._begin(body)
            return self._transferred(await self._pump(body), body.type)

    def _transferred(self, imported: Imported, image_type: str) -> Transferred:
        return Transferred(
            datasets=imported.datasets,
            content=imported.content,
            body_bytes=self.accepted_bytes,
            sha256=self._pipeline.sha256,
            type=image_type,
        )

    async def _replay(self) -> None:
        """Go through what an earlier life kept. Whatever is wrong with it is the spool's fault first."""
        if self._spool is None or self._order.origin.is_upload:
            return
        kept = await in_thread(self._spool.kept)
        if kept is None:
            return
        self._of = kept.heading
        self._progress("downloading", 0, kept.heading.total_bytes)
        try:
            is_whole = await self._pipeline.replay(kept)
        except (ContentRefused, OSError):
            is_whole = False
        if is_whole:
            self._progress("downloading", self.accepted_bytes, kept.heading.total_bytes)
        else:
            await self._anew()

    async def _begin(self, body: Body) -> None:
        """What comes belongs behind what is there, or is the beginning of it all."""
        if body.start != self.accepted_bytes or (body.start == 0 and self._of is not None):
            assert body.start == 0, "only what was asked for comes"
            await self._anew()
        self._total = body.total_bytes
        self._seen_bytes = body.start
        self._broken = None
        self._pipeline.is_patched |= body.start > 0
        if body.start == 0:
            self._of = Heading(source=body.source, validator=body.validator, total_bytes=body.total_bytes)
            if self._spool is not None:
                await in_thread(partial(self._spool.begin, self._of))

    async def _pump(self, body: Body) -> Imported:
        """Read and import side by side."""
        self._progress("downloading", self._seen_bytes, self._total)
        send, receive = trio.open_memory_channel[list[Piece]](0)
        failure: Exception | None = None
        imported: Imported | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, body, send)
            try:
                imported = await self._import(receive, nursery)
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

    async def _read(self, body: Body, send: trio.MemorySendChannel[list[Piece]]) -> None:
        """Hand the body over in batches; what breaks it stands in ``_broken`` before the channel ends."""
        batch = _Batch()
        pace = _Pace(body.host, self._settings.stall_seconds)
        async with send:
            try:
                async for piece in body.pieces:
                    pace.came(len(piece))
                    self._count(body.host, len(piece))
                    batch.add(piece)
                    if batch.size >= BATCH_BYTES:
                        await send.send(batch.take(but=HELD_BYTES))
                if self._total is not None and self._seen_bytes != self._total:
                    raise MayPass(
                        f"{body.host} sent {self._seen_bytes} bytes of an image of {self._total}: truncated"
                    )
            except (MayPass, FetchFailed) as error:
                self._broken = error
                ready = batch.take(but=HELD_BYTES)
            else:
                ready = batch.take(but=0)
            if ready:
                await send.send(ready)

    def _count(self, host: str, size: int) -> None:
        self._seen_bytes += size
        limit = self._settings.max_image_bytes
        if self._total is not None and self._seen_bytes > self._total:
            raise Changed(f"{host} sent more than the {self._total} bytes of the image")
        if limit is not None and self._seen_bytes > limit:
            raise ContentRefused(f"image is over the limit of {limit} bytes")
        self._progress("downloading", self._seen_bytes, self._total)

    async def _import(
        self, batches: trio.MemoryReceiveChannel[list[Piece]], nursery: trio.Nursery
    ) -> Imported:
        """Take what comes until the body ends; finish it if the body was whole."""
        async for batch in batches:
            await self._pipeline.take(batch, nursery)
        await self._pipeline.flush()
        if self._broken is not None:
            raise self._broken
        return await self._finish()

    async def _finish(self) -> Imported:
        wanted, came = self._order.origin.sha256, self._pipeline.sha256
        if wanted and came != wanted:
            raise ContentRefused(f"image has sha256 {came}, wanted is {wanted}")
        self._progress("importing", self.accepted_bytes, self.accepted_bytes)
        return await self._pipeline.finish()


class _Pace:
    """Whether a body comes fast enough to be going somewhere."""

    def __init__(self, host: str, stall_seconds: float) -> None:
        self._host = host
        self._stall_seconds = stall_seconds
        self._since = trio.current_time()
        self._bytes = 0

    def came(self, size: int) -> None:
        """Raises MayPass."""
        self._bytes += size
        waited = trio.current_time() - self._since
        if waited <= self._stall_seconds:
            return
        if self._bytes < DRIP_BYTES:
            raise MayPass(f"{self._host} stalled: {self._bytes} bytes came in {waited:.0f} s")
        self._since, self._bytes = trio.current_time(), 0


class _Batch:
    """Pieces on their way, in order."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self.size = 0

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self.size += len(piece)

    def take(self, *, but: int) -> list[Piece]:
        """All, but the last ``but`` bytes, which stay."""
        taken, self._pieces, self.size = self._pieces, [], 0
        while taken and self.size < but:
            last = memoryview(taken.pop())
            held = last[max(0, len(last) - (but - self.size)) :]
            self._pieces.insert(0, held)
            self.size += len(held)
            if len(held) < len(last):
                taken.append(last[: len(last) - len(held)])
        return taken
