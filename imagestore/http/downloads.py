"""``/snapshots/download``: one snapshot's stream, or a whole guest's tar.

Owns the reading of the request (a bare SnapshotRequest as body, or ``?id=``
and ``&from=``), the texts of its refusals, and the sending: pieces of 256 KiB
to 1 MiB, a strong ETag and parts of the stream where the store's bytes are
stable, and a broken connection, never an appended text, when the stream fails
midway.  The store's stream is closed whatever happens: end, failure, or a
client that hangs up.

It speaks ASGI itself instead of through Quart, because the store's stream is
opened before the headers and must be closed by the same task afterwards.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from urllib.parse import parse_qs

from imagestore.errors import ImageStoreError, PoolError
from imagestore.http.answer import NOSNIFF, Answer, Header, choose_coding, coded, text_answer
from imagestore.http.exchange import Exchange
from imagestore.http.incidents import one_line, report_incident
from imagestore.http.json_text import MalformedJson, document_of, value
from imagestore.http.ranges import Range, content_range, is_current, read_range
from imagestore.http.shapes import WrongType, read_request
from imagestore.http.shims import ClientGone
from imagestore.model import SnapshotRequest
from imagestore.pipes import InPipe
from imagestore.service import Download, Service

logger = logging.getLogger(__name__)

PATH = "/snapshots/download"

SMALLEST_PIECE_BYTES = 256 << 10
LARGEST_PIECE_BYTES = 1 << 20


class BadRequest(Exception):
    """The request cannot be served; ``str()`` says why."""

    def __init__(self, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def read_download_request(verb: str, query: str, body: bytes) -> SnapshotRequest:
    """The request of a download.

    Raises:
        BadRequest: neither a SnapshotRequest nor an id in the query.
    """
    if not body:
        named = parse_qs(query)
        if "id" in named:
            return SnapshotRequest(id=named["id"][0], base=named.get("from", [""])[0])
        if verb == "GET":
            raise BadRequest("need an id")
    try:
        return read_request(value(document_of(body)), SnapshotRequest)
    except (MalformedJson, WrongType) as error:
        raise BadRequest(str(error)) from None


def refusal(status: int, text: str, accept_encoding: str) -> Answer:
    """An error of this endpoint: a line of text, coded as the client likes it."""
    return coded(text_answer(status, f"{text}\n", NOSNIFF), choose_coding(accept_encoding))


async def serve_download(service: Service, exchange: Exchange, body: bytes) -> None:
    """Send the stream that is asked for, or why not."""
    try:
        if exchange.method not in ("GET", "POST"):
            raise BadRequest("GET or POST method required", status=405)
        request = read_download_request(exchange.method, exchange.query, body)
    except BadRequest as error:
        await exchange.answer(refusal(error.status, str(error), exchange.accept_encoding))
        return
    with exchange.stream.cancelled_by_hangup():
        answer = await send_stream(service, exchange, request)
        if answer is not None:
            await exchange.answer(answer)


async def send_stream(service: Service, exchange: Exchange, request: SnapshotRequest) -> Answer | None:
    """Send the stream; returns the refusal to send instead when it did not begin."""
    sending = _Sending(exchange)
    try:
        answer = await _send_part(service, sending, request)
        if answer is not None:
            return answer
        if not sending.begun:
            in_pipe = exchange.connection.takes_pipes
            async with service.download(request, exchange.caller, in_pipe=in_pipe) as download:
                await sending.whole(download)
    except ImageStoreError as error:
        text = one_line(str(error))
        if not sending.begun:
            status = error.http_status if error.http_status in (400, 404) else 500
            return refusal(status, text, exchange.accept_encoding)
        logger.warning("download of %s broke off: %s", request.id, text)
    except ClientGone:
        return None
    except Exception:
        report_incident(f"download of {request.id!r} failed unexpectedly")
        if not sending.begun:
            return refusal(500, "internal error", exchange.accept_encoding)
    else:
        await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})
        return None
    if exchange.http_version < "1.1":
        exchange.stream.abort()  # without chunks only a reset tells a broken stream from a whole one
    return None  # Hypercorn closes a connection whose answer was not ended


async def _send_part(service: Service, sending: "_Sending", request: SnapshotRequest) -> Answer | None:
    """Send the part that is asked for, if one is and it is a part of what there is now.

    Returns the refusal of a part that begins behind the end.
    """
    exchange = sending.exchange
    wanted = read_range(exchange.headers.get("range", ""))
    if wanted is None:
        return None
    async with service.download(request, exchange.caller, offset=wanted.first) as download:
        current = is_current(download.etag, exchange.headers.get("if-range", ""))
        if not current or download.measure is None:
            return None
        size = await download.measure()
        if wanted.bytes_of(size) <= 0:
            header = (b"content-range", b"bytes */%d" % size)
            return text_answer(416, f"the stream has {size} bytes\n", NOSNIFF, header)
        await sending.part(download, wanted, size)
    return None


class _Sending:
    """One answer on its way; ``begun`` once its status is out and can be no other."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.begun = False

    async def whole(self, download: Download) -> None:
        length = [(b"content-length", b"%d" % download.size)] if download.size is not None else []
        await self._start(200, [*stream_headers(download), *length])
        await self._body(download.chunks)

    async def part(self, download: Download, wanted: Range, size: int) -> None:
        left = wanted.bytes_of(size)
        length = (b"content-length", b"%d" % left)
        place = (b"content-range", content_range(wanted, size).encode())
        await self._start(206, [*stream_headers(download), length, place])
        async with aclosing(_first_bytes(download.chunks, left)) as pieces:
            await self._body(pieces)

    async def _start(self, status: int, headers: list[Header]) -> None:
        self.begun = True
        await self.exchange.send({"type": "http.response.start", "status": status, "headers": headers})

    async def _body(self, chunks: AsyncIterator[bytes | memoryview | InPipe]) -> None:
        gathered = bytearray()
        async for chunk in chunks:
            if isinstance(chunk, InPipe):
                await self.exchange.connection.send_in_pipe(chunk)
                continue
            for piece in regroup(gathered, chunk):
                await self._piece(piece)
        await self._piece(bytes(gathered))

    async def _piece(self, piece: bytes) -> None:
        await self.exchange.send({"type": "http.response.body", "body": piece, "more_body": True})


async def _first_bytes(
    chunks: AsyncIterator[bytes | memoryview | InPipe], left: int
) -> AsyncGenerator[bytes | memoryview, None]:
    """The first ``left`` bytes. Raises PoolError when there are fewer."""
    async for chunk in chunks:
        assert not isinstance(chunk, InPipe), "nobody asked for it"
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return
    raise PoolError(f"the stream ended {left} bytes before its measured end")


def regroup(gathered: bytearray, chunk: bytes | memoryview) -> Iterator[bytes]:
    """The pieces that are ready once ``chunk`` has arrived.

    Small chunks are copied together in ``gathered``, large ones cut; what is
    left in ``gathered`` at the end is the last piece.
    """
    if not gathered and SMALLEST_PIECE_BYTES <= len(chunk) <= LARGEST_PIECE_BYTES:
        yield bytes(chunk)
        return
    with memoryview(chunk) as view:
        for start in range(0, len(view), LARGEST_PIECE_BYTES):
            gathered += view[start : start + LARGEST_PIECE_BYTES]
            if len(gathered) >= SMALLEST_PIECE_BYTES:
                yield bytes(gathered)
                gathered.clear()


def stream_headers(download: Download) -> list[Header]:
    headers: list[Header] = [(b"content-type", download.content_type.encode()), NOSNIFF]
    if download.filename:
        name = "".join(
            c if c.isascii() and c.isprintable() and c not in '"\\/' else "_" for c in download.filename
        )
        headers.append((b"content-disposition", f'attachment; filename="{name}"'.encode()))
    if download.etag:
        headers.append((b"etag", f'"{download.etag}"'.encode()))
        headers.append((b"accept-ranges", b"bytes"))
    return headers
