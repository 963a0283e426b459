"""The ASGI application: who answers which path, and what every request goes through.

Owns the order of things: the request's body is read whole, within a limit and
a time, before anybody sees the request; then the RPC path goes to
:mod:`imagestore.http.rpc`, downloads to :mod:`imagestore.http.downloads`, and
everything else to the Quart application, which has the health endpoints and is
where pages, feeds and metrics belong.

Also owns who asks (:func:`principal_of`).
"""

import logging
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from quart import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from imagestore.http import downloads, rpc
from imagestore.http.answer import Answer, text_answer
from imagestore.http.send import send_answer
from imagestore.http.settings import HttpSettings
from imagestore.http.shims import (
    BodyTooLarge,
    BodyTooSlow,
    BoundedStream,
    ClientGone,
    drop_until_disconnect,
    read_body,
    replay,
    shield_final_send,
)
from imagestore.service import Caller, Service

logger = logging.getLogger(__name__)

CONNECTION = "imagestore.connection"
"""The key in an ASGI scope's ``state`` under which the server puts the connection."""


def principal_of(scope: HTTPScope) -> str:
    """Who asks: the peer's address, without the port.  Goes into every event."""
    client = scope["client"]
    return client[0] if client else "local"


class Application:
    """What Hypercorn calls for each request."""

    def __init__(self, service: Service, settings: HttpSettings) -> None:
        self._service = service
        self._settings = settings
        self._quart = quart_application(service)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, shield_final_send(send))
        elif scope["type"] == "lifespan":
            await self._quart(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})

    async def _serve(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        headers = first_headers(scope)
        try:
            body = await read_body(
                receive,
                declared_bytes=_declared_length(headers),
                limit_bytes=self._settings.max_body_bytes,
                seconds=self._settings.body_seconds,
            )
        except ClientGone:
            return
        except BodyTooLarge:
            await self._refuse_body(scope, receive, send, await self._too_large(scope, headers))
            return
        except BodyTooSlow:
            slow = text_answer(408, f"request body took over {self._settings.body_seconds:g} seconds\n")
            await self._refuse_body(scope, receive, send, slow)
            return
        path = path_of(scope)
        if path == rpc.PATH:
            await self._serve_rpc(scope, headers, body, receive, send)
        elif path == downloads.PATH:
            await self._serve_download(scope, headers, body, receive, send)
        else:
            await self._quart(scope, replay(body, receive), send)

    async def _serve_rpc(
        self,
        scope: HTTPScope,
        headers: Mapping[str, str],
        body: bytes,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        answer: Answer | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drop_until_disconnect, receive, nursery.cancel_scope.cancel)
            answer = await rpc.answer(self._service, self._caller(scope), scope["method"], headers, body)
            nursery.cancel_scope.cancel()
        if answer is not None:
            await send_answer(send, answer)

    async def _serve_download(
        self,
        scope: HTTPScope,
        headers: Mapping[str, str],
        body: bytes,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        accept_encoding = headers.get("accept-encoding", "")
        if scope["method"] not in ("GET", "POST"):
            answer = downloads.refusal(405, "GET or POST method required", accept_encoding)
            await send_answer(send, answer)
            return
        try:
            request = downloads.read_download_request(
                scope["method"], scope["query_string"].decode("latin-1"), body
            )
        except downloads.BadRequest as error:
            await send_answer(send, downloads.refusal(400, str(error), accept_encoding))
            return
        whole = await downloads.serve_download(
            self._service, self._caller(scope), request, accept_encoding, receive, send
        )
        if not whole and scope["http_version"] < "1.1":
            # Without chunks only a reset tells a broken stream from a whole one.
            _connection_of(scope).abort()

    async def _too_large(self, scope: HTTPScope, headers: Mapping[str, str]) -> Answer:
        if path_of(scope) == rpc.PATH:
            return await rpc.answer(self._service, self._caller(scope), scope["method"], headers, None)
        return text_answer(413, f"request body over {self._settings.max_body_bytes} bytes\n")

    async def _refuse_body(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable, answer: Answer
    ) -> None:
        """Answer although the body is not whole, and close."""
        _connection_of(scope).lingers = True
        async with trio.open_nursery() as nursery:
            # Hypercorn's queue must not fill up: what ends the request goes through it.
            nursery.start_soon(drop_until_disconnect, receive)
            await send_answer(send, answer, close=True)
            nursery.cancel_scope.cancel()

    def _caller(self, scope: HTTPScope) -> Caller:
        return Caller(principal=principal_of(scope))


def first_headers(scope: HTTPScope) -> dict[str, str]:
    """The request's headers by name in lower case; of repeated ones the first."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return headers


def path_of(scope: HTTPScope) -> str:
    """The path asked for, also when the request's target is a whole URL."""
    path = scope["path"]
    return path if path.startswith("/") else urlsplit(path).path


def _declared_length(headers: Mapping[str, str]) -> int | None:
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None


def _connection_of(scope: HTTPScope) -> BoundedStream:
    connection = scope["state"][CONNECTION]
    assert isinstance(connection, BoundedStream)
    return connection


# --- the Quart application ---------------------------------------------------------


def quart_application(service: Service) -> QuartTrio:
    """The endpoints that Quart serves: health, and 404 for what nobody knows."""
    quart = QuartTrio("imagestore", static_folder=None)

    @quart.get("/healthz")
    async def healthz() -> Response:
        return Response("ok\n", content_type="text/plain; charset=utf-8")

    @quart.get("/readyz")
    async def readyz() -> Response:
        readiness = service.readiness()
        if readiness.ready and not readiness.read_only:
            return Response("ready\n", content_type="text/plain; charset=utf-8")
        return problem(503, "store is read-only" if readiness.read_only else "not ready", readiness.reason)

    @quart.errorhandler(404)
    async def not_found(error: Exception) -> Response:
        response = Response("404 page not found\n", 404, content_type="text/plain; charset=utf-8")
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @quart.errorhandler(HTTPException)
    async def refused(error: HTTPException) -> Response:
        response = problem(error.code or 500, error.name, error.description or "")
        for name, value in error.get_headers():
            if name.lower() == "allow":
                response.headers[name] = value
        return response

    @quart.errorhandler(Exception)
    async def failed(error: Exception) -> Response:
        incident = rpc.report_incident("a request failed unexpectedly")
        return problem(500, "internal error", f"incident {incident}")

    return quart


def problem(status: int, title: str, detail: str) -> Response:
    """An error of a new endpoint (RFC 9457); ``detail`` is one line."""
    body = msgspec.json.encode(
        {"type": "about:blank", "title": title, "status": status, "detail": rpc.one_line(detail)}
    )
    return Response(body, status, content_type="application/problem+json")
