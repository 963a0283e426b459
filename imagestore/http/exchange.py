"""One request and the way to answer it, as the endpoints see them.

Owns what is read off an ASGI scope: names of headers in lower case, the path,
who asks.  The endpoints that do not go through Quart get an
:class:`Exchange` and nothing of ASGI besides.
"""

from urllib.parse import urlsplit

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from imagestore.http.answer import Answer
from imagestore.http.connection import CONNECTION, Connection
from imagestore.http.peers import PEER, Peer
from imagestore.http.shims import drop_rest
from imagestore.service import Caller

RPC_PATH = "/_mistify_RPC_"


def connection_of(scope: HTTPScope) -> Connection:
    """The connection that a request came on."""
    connection = scope["state"][CONNECTION]
    assert isinstance(connection, Connection)
    return connection


def peer_of(scope: HTTPScope) -> Peer:
    """Who is at the other end of the connection that a request came on."""
    peer = scope["state"][PEER]
    assert isinstance(peer, Peer)
    return peer


class Exchange:
    """One request, without its body."""

    def __init__(self, scope: HTTPScope, send: ASGISendCallable) -> None:
        self.method = scope["method"]
        path = scope["path"]
        # A request's target may be a whole URL.
        self.path = path if path.startswith("/") else urlsplit(path).path
        self.query = scope["query_string"].decode("latin-1")
        self.http_version = scope["http_version"]
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        self.peer = peer_of(scope)
        self.caller = Caller(principal=self.peer.principal, role="reader")
        """Who asks, once the gate has said so; until then somebody who may not do anything."""
        self.token_sha256 = ""
        """Of the token that let it in, for what goes on for longer than the token may; "" if none did."""
        self.send = send
        self.connection = connection_of(scope)
        self.stream = self.connection.stream

    @property
    def declared_bytes(self) -> int | None:
        """The body's length as the client says it; None when it does not."""
        length = self.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None

    @property
    def accept_encoding(self) -> str:
        return self.headers.get("accept-encoding", "")

    async def answer(self, answer: Answer) -> None:
        """Send ``answer``, headers and body in one packet."""
        await self._send(answer, answer.all_headers())

    async def refuse_body(self, answer: Answer, receive: ASGIReceiveCallable) -> None:
        """Send ``answer`` although the request's body is not whole, and close."""
        self.stream.lingers = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drop_rest, receive)
            await self._send(answer, [*answer.all_headers(), (b"connection", b"close")])

    async def _send(self, answer: Answer, headers: list[tuple[bytes, bytes]]) -> None:
        self.stream.hold_next()
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": answer.body, "more_body": False})
