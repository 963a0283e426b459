"""The ASGI application: who answers which path, and what every request goes through.

Owns the order of things: whoever asks is let in by :mod:`imagestore.http.gate`,
or refused before anything is read; uploads go to :mod:`imagestore.http.uploads`, which
reads their bodies piece by piece; any other request's body is read whole,
within a limit and a time, before anybody sees the request; then the RPC path goes to
:mod:`imagestore.http.rpc`, downloads to :mod:`imagestore.http.downloads`, and
everything else to the Quart application, which has the health endpoints and is
where pages, feeds and metrics belong.
"""

import msgspec
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from quart import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from imagestore.http import downloads, events, images, pages, rpc, uploads
from imagestore.http.answer import Answer, text_answer
from imagestore.http.exchange import Exchange
from imagestore.http.gate import Gate
from imagestore.http.incidents import one_line, report_incident
from imagestore.http.settings import HttpSettings
from imagestore.http.shims import (
    BodyTooLarge,
    BodyTooSlow,
    ClientGone,
    read_body,
    replay,
    shield_final_send,
)
from imagestore.service import Service

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Application:
    """What Hypercorn calls for each request."""

    def __init__(self, service: Service, settings: HttpSettings, gate: Gate) -> None:
        self._service = service
        self._gate = gate
        self._settings = settings
        self._feeds = events.Feeds(service)
        self._quart = quart_application(service)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._quart(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})

    async def _serve(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        exchange = Exchange(scope, send)
        refusal = self._gate.admit(exchange)
        if refusal is not None:
            await exchange.refuse_body(refusal, receive)
            return
        if uploads.takes(exchange):
            await uploads.serve_upload(self._service, exchange, receive, self._settings)
            return
        try:
            body = await read_body(
                receive,
                declared_bytes=exchange.declared_bytes,
                limit_bytes=self._settings.max_body_bytes,
                seconds=self._settings.body_seconds,
            )
        except ClientGone:
            return
        except BodyTooLarge:
            await exchange.refuse_body(await self._too_large(exchange), receive)
            return
        except BodyTooSlow:
            text = f"request body took over {self._settings.body_seconds:g} seconds\n"
            await exchange.refuse_body(text_answer(408, text), receive)
            return
        if exchange.path == rpc.PATH:
            await self._serve_rpc(exchange, body)
        elif exchange.path == events.PATH:
            await self._feeds.serve(exchange)
        elif exchange.path == downloads.PATH:
            await downloads.serve_download(self._service, exchange, body)
        elif pages.takes(exchange.path):
            await exchange.answer(pages.page_answer(exchange))
        elif (path := images.read_path(exchange.path)) is not None:
            await images.serve_images(self._service, exchange, path)
        else:
            await self._quart(scope, replay(body, receive), shield_final_send(send))

    async def _serve_rpc(self, exchange: Exchange, body: bytes) -> None:
        answer: Answer | None = None
        with exchange.stream.cancelled_by_hangup():
            answer = await rpc.answer(self._service, exchange.caller, exchange.method, exchange.headers, body)
        if answer is not None:
            await exchange.answer(answer)

    async def _too_large(self, exchange: Exchange) -> Answer:
        if exchange.path == rpc.PATH:  # other refusals come first there
            return await rpc.answer(self._service, exchange.caller, exchange.method, exchange.headers, None)
        return text_answer(413, f"request body over {self._settings.max_body_bytes} bytes\n")


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

    @quart.get("/metrics")
    async def metrics() -> Response:
        return Response(await service.metrics(), content_type=METRICS_TYPE)

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
        incident = report_incident("a request failed unexpectedly")
        return problem(500, "internal error", f"incident {incident}")

    return quart


def problem(status: int, title: str, detail: str) -> Response:
    """An error of a new endpoint (RFC 9457); ``detail`` is one line."""
    body = msgspec.json.encode(
        {"type": "about:blank", "title": title, "status": status, "detail": one_line(detail)}
    )
    return Response(body, status, content_type="application/problem+json")
