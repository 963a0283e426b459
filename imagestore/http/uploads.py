"""Uploads: a send stream into the store (``POST /volumes/receive?id=NAME``), or an image
(``POST /images/upload?id=ID``).

Owns the reading of the body: piece by piece, the next one only when the store
has taken the one before, so that an upload of any length needs no memory;
counted here; a client from which too little comes is refused.  Refusals are
``application/problem+json`` (RFC 9457) with the error's own status, and its
type of ``imagestore.errors`` as ``error``.

It speaks ASGI itself: Quart takes in bodies without back-pressure.
"""

from contextlib import AbstractAsyncContextManager
from urllib.parse import parse_qs

import msgspec
import trio
from hypercorn.typing import ASGIReceiveCallable
from msgspec import Struct, structs

from imagestore.errors import ImageStoreError, InvalidArgument
from imagestore.http.answer import JSON_TYPE, NOSNIFF, Answer
from imagestore.http.exchange import Exchange
from imagestore.http.incidents import one_line, report_incident
from imagestore.http.permission import check
from imagestore.http.problems import PROBLEM_TYPE
from imagestore.http.rpc import Refusal, asking, with_receipt
from imagestore.http.settings import HttpSettings
from imagestore.http.shims import BodyTooSlow, ClientGone
from imagestore.model import ReceiveRequest, UploadRequest
from imagestore.service import Caller, Receipt, Service, Upload

PATH = "/volumes/receive"
IMAGE_PATH = "/images/upload"
PATHS = (PATH, IMAGE_PATH)

_FLAGS = {"": True, "1": True, "true": True, "0": False, "false": False}


def takes(exchange: Exchange) -> bool:
    """Whether the request is an upload, which nobody else may read the body of."""
    # An image may be called "upload", and be asked for.
    is_image = exchange.path == IMAGE_PATH and exchange.method in ("POST", "PUT")
    return is_image or exchange.path == PATH


def read_receive_request(query: str) -> ReceiveRequest:
    """The request of an upload.

    Raises:
        InvalidArgument: no id, or a flag that is none.
    """
    named = parse_qs(query, keep_blank_values=True)
    force = named.get("force", ["false"])[0].lower()
    if force not in _FLAGS:
        raise InvalidArgument(f"force is true or false, not {force[:20]}")
    if not named.get("id", [""])[0]:
        raise InvalidArgument("need an id", detail="say ?id=NAME, the volume that the stream is to be")
    return ReceiveRequest(id=named["id"][0], force=_FLAGS[force])


def read_upload_request(query: str) -> UploadRequest:
    """The request of an image's upload. Raises InvalidArgument: no id."""
    named = parse_qs(query, keep_blank_values=True)
    if not named.get("id", [""])[0]:
        raise InvalidArgument("need an id", detail="say ?id=ID, the image that the body is to be")
    return UploadRequest(
        id=named["id"][0], type=named.get("type", [""])[0], sha256=named.get("sha256", [""])[0]
    )


def problem(status: int, title: str, *, detail: str = "", error: str = "") -> Answer:
    """A refusal; ``title`` and ``detail`` become one line each."""
    members = {"type": "about:blank", "title": one_line(title), "status": status}
    if detail:
        members["detail"] = one_line(detail)
    if error:
        members["error"] = error
    return Answer(status=status, headers=(PROBLEM_TYPE, NOSNIFF), body=msgspec.json.encode(members))


async def serve_upload(
    service: Service, exchange: Exchange, receive: ASGIReceiveCallable, settings: HttpSettings
) -> None:
    """Take in the body that comes, and answer with what it has become."""
    body = PacedBody(receive, settings)
    receipt = Receipt()
    try:
        caller = structs.replace(asking(exchange.caller, exchange.headers), receipt=receipt, no_wait=False)
        answer = await _answer(service, exchange, caller, body, settings)
    except Refusal as refusal:
        answer = problem(refusal.status, str(refusal))
    except ClientGone:
        return
    if receipt.operation:
        answer = with_receipt(answer, receipt)
    if body.at_end:
        await exchange.answer(answer)
    else:
        await exchange.refuse_body(answer, receive)


async def _answer(
    service: Service, exchange: Exchange, caller: Caller, body: "PacedBody", settings: HttpSettings
) -> Answer:
    """Raises ClientGone."""
    if exchange.method not in ("POST", "PUT"):
        return problem(405, "POST method required")
    try:
        async with _opened(service, exchange, caller) as upload:
            while (piece := await body.next_piece()) is not None:
                await upload.feed(piece)
            response = await upload.finish()
    except BodyTooSlow:
        least, seconds = settings.least_upload_bytes, settings.stall_seconds
        return problem(408, f"less than {least} bytes came in {seconds:g} seconds")
    except ImageStoreError as error:
        return problem(error.http_status, str(error), detail=error.detail, error=type(error).__name__)
    except ClientGone:
        raise
    except Exception:
        incident = report_incident("an upload failed unexpectedly")
        return problem(500, "internal error", detail=f"incident {incident}")
    return Answer(status=200, headers=(JSON_TYPE, NOSNIFF), body=msgspec.json.encode(response))


def _opened(
    service: Service, exchange: Exchange, caller: Caller
) -> AbstractAsyncContextManager[Upload[Struct]]:
    """Where the body goes. Raises InvalidArgument, Forbidden."""
    if exchange.path == IMAGE_PATH:
        request = read_upload_request(exchange.query)
        return service.upload_image(request, caller, content_length=exchange.declared_bytes)
    received = read_receive_request(exchange.query)
    if received.force:
        check(caller, "receive with force", "admin")
    return service.receive(received, caller)


class PacedBody:
    """A request's body, a piece at a time.

    The client's pace is judged over the time in which we wait for it, not over
    that in which it waits for the store.
    """

    def __init__(self, receive: ASGIReceiveCallable, settings: HttpSettings) -> None:
        self.at_end = False
        self._receive = receive
        self._settings = settings
        self._waited_seconds = 0.0
        self._came_bytes = 0

    async def next_piece(self) -> bytes | None:
        """The next bytes; None at the end. Raises ClientGone, BodyTooSlow."""
        while not self.at_end:
            began = trio.current_time()
            with trio.move_on_after(self._settings.stall_seconds - self._waited_seconds) as scope:
                message = await self._receive()
            if scope.cancelled_caught:
                raise BodyTooSlow
            if message["type"] != "http.request":
                raise ClientGone
            piece = message.get("body", b"")
            self.at_end = not message.get("more_body", False)
            self._count(len(piece), trio.current_time() - began)
            if piece:
                return piece
        return None

    def _count(self, size: int, seconds: float) -> None:
        """Enough within the time begins a new time."""
        self._came_bytes += size
        self._waited_seconds += seconds
        if self._came_bytes >= self._settings.least_upload_bytes:
            self._came_bytes, self._waited_seconds = 0, 0.0
