"""``/snapshots/download``: one snapshot's stream, or a whole guest's tar.

Owns the reading of the request (a bare SnapshotRequest as body, or ``?id=``),
the texts of its refusals, and the sending: pieces of 256 KiB to 1 MiB, a
strong ETag where the store gives one, and a broken connection, never an
appended text, when the stream fails midway.  The store's stream is closed
whatever happens: end, failure, or a client that hangs up.

It speaks ASGI itself instead of through Quart, because the store's stream is
opened before the headers and must be closed by the same task afterwards.
"""

import logging
from collections.abc import Iterator
from urllib.parse import parse_qs

from imagestore.errors import ImageStoreError
from imagestore.http.answer import NOSNIFF, Answer, Header, choose_coding, coded, text_answer
from imagestore.http.exchange import Exchange
from imagestore.http.json_text import MalformedJson, document_of, value
from imagestore.http.rpc import one_line, report_incident
from imagestore.http.shapes import WrongType, read_request
from imagestore.model import SnapshotRequest
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
        ids = parse_qs(query).get("id")
        if ids:
            return SnapshotRequest(id=ids[0])
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
    with exchange.connection.cancelled_by_hangup():
        answer = await _stream(service, exchange, request)
        if answer is not None:
            await exchange.answer(answer)


async def _stream(service: Service, exchange: Exchange, request: SnapshotRequest) -> Answer | None:
    """Send the stream; returns the refusal to send instead when it did not begin."""
    begun = False
    try:
        async with service.download(request, exchange.caller) as download:
            begun = True
            await _send_stream(exchange, download)
    except ImageStoreError as error:
        text = one_line(str(error))
        if not begun:
            status = error.http_status if error.http_status in (400, 404) else 500
            return refusal(status, text, exchange.accept_encoding)
        logger.warning("download of %s broke off: %s", request.id, text)
    except Exception:
        report_incident(f"download of {request.id!r} failed unexpectedly")
        if not begun:
            return refusal(500, "internal error", exchange.accept_encoding)
    else:
        await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})
        return None
    if exchange.http_version < "1.1":
        exchange.connection.abort()  # without chunks only a reset tells a broken stream from a whole one
    return None  # Hypercorn closes a connection whose answer was not ended


async def _send_stream(exchange: Exchange, download: Download) -> None:
    headers = stream_headers(download)
    await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
    gathered = bytearray()
    async for chunk in download.chunks:
        for piece in regroup(gathered, chunk):
            await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
    await exchange.send({"type": "http.response.body", "body": bytes(gathered), "more_body": True})


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
    return headers
