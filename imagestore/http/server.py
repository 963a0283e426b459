"""The HTTP server of a running store: connections, Hypercorn, and the end.

Owns who is at the other end of a connection, the bound on connections, and the phases of
stopping: accept no more, close idle connections, let requests under way finish
within ``grace_seconds``, then cut.  When :func:`serve_http` returns, no
connection is left.

Each connection is a :class:`~imagestore.http.shims.BoundedStream`, which can be cut, and
runs Hypercorn's HTTP/1 by :mod:`imagestore.http.connection` instead of its ``serve``.
"""

import logging
import socket
import ssl
from collections.abc import Sequence
from functools import partial

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from imagestore.access import source_of
from imagestore.http.app import Application
from imagestore.http.connection import Connection
from imagestore.http.gate import Gate
from imagestore.http.incidents import report_incident
from imagestore.http.listeners import open_listener
from imagestore.http.peers import (
    PEER,
    Peer,
    Users,
    certificate_of,
    peer_of_address,
    peer_of_certificate,
    was_unverified,
)
from imagestore.http.settings import AccessSettings, HttpSettings
from imagestore.http.shims import BoundedStream
from imagestore.service import Service

logger = logging.getLogger(__name__)

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 21\r\nConnection: close\r\nRetry-After: 1\r\n\r\ntoo many connections\n"
)


async def serve_http(
    service: Service,
    *,
    host: str,
    port: int,
    shutdown: trio.Event,
    settings: HttpSettings | None = None,
    access: AccessSettings | None = None,
    tls: ssl.SSLContext | None = None,
    unix: trio.SocketListener | None = None,
    tcp: Sequence[trio.SocketListener] = (),
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``service`` until ``shutdown`` is set and the requests under way have ended.

    Args:
        service: the store; it may still be getting ready, ``/readyz`` says so.
        host: a name or address to listen on; the first address it has is taken.
        port: TCP port; 0 takes a free one.
        shutdown: once set, nothing more is accepted.
        settings: limits; None means the defaults.
        access: whom it trusts; None means this machine.
        tls: what TCP connections are encrypted with, if they are.
        unix: a Unix socket to serve as well; its peers are known by their users.
        tcp: listening sockets to serve instead of ``host`` and ``port``.
        task_status: told the address and port as soon as connections are accepted.

    Raises:
        ConfigError: the address cannot be listened on; says what to do.
    """
    server = _Server(service, settings or HttpSettings(), access or AccessSettings(), tls)
    beside = [] if unix is None else [unix]
    if tcp:
        await server.run([*tcp, *beside], shutdown, task_status)
        return
    async with await open_listener(host, port) as listener:
        await server.run([listener, *beside], shutdown, task_status)


def hypercorn_config(settings: HttpSettings) -> Config:
    """Hypercorn's own settings: ours where we have one, no logs of its own making."""
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_max_requests = 1 << 62
    config.h11_max_incomplete_size = settings.max_header_bytes
    return config


class _Server:
    """One run of the server: the application, and the connections it has."""

    def __init__(
        self, service: Service, settings: HttpSettings, access: AccessSettings, tls: ssl.SSLContext | None
    ) -> None:
        self._settings = settings
        self._access = access
        self._tls = tls
        self._users = Users()
        self._gate = Gate(service, access)
        self._config = hypercorn_config(settings)
        self._application = ASGIWrapper(Application(service, settings, self._gate))
        self._context = WorkerContext(None)
        self._connections: dict[BoundedStream, None] = {}

    async def run(
        self,
        listeners: Sequence[trio.SocketListener],
        shutdown: trio.Event,
        task_status: trio.TaskStatus[tuple[str, int]],
    ) -> None:
        lifespan = Lifespan(self._application, self._config, {})
        async with trio.open_nursery() as application:
            await application.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            async with trio.open_nursery() as connections:
                await self._accept(listeners, shutdown, connections, task_status)
                await self._context.terminated.set()  # idle connections close themselves
                connections.cancel_scope.deadline = trio.current_time() + self._settings.grace_seconds
            await lifespan.wait_for_shutdown()
            application.cancel_scope.cancel()

    async def _accept(
        self,
        listeners: Sequence[trio.SocketListener],
        shutdown: trio.Event,
        connections: trio.Nursery,
        task_status: trio.TaskStatus[tuple[str, int]],
    ) -> None:
        async with trio.open_nursery() as accepting:
            await accepting.start(
                partial(
                    trio.serve_listeners, self._serve_connection, list(listeners), handler_nursery=connections
                )
            )
            host, port, *_ = listeners[0].socket.getsockname()
            task_status.started((host, port))
            await shutdown.wait()
            accepting.cancel_scope.cancel()

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        encrypted: trio.SSLStream[trio.SocketStream] | None = None
        if self._tls is not None and stream.socket.family != socket.AF_UNIX:
            encrypted = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        connection = BoundedStream(encrypted or stream, stall_seconds=self._settings.stall_seconds)
        if len(self._connections) >= self._settings.max_connections and not self._let_one_go():
            await _turn_away(connection)
            return
        self._connections[connection] = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_abort_when_cancelled, connection)
                nursery.start_soon(connection.close_after_hangup)
                nursery.start_soon(
                    connection.close_when_idle, self._settings.keep_alive_seconds, self._context.terminated
                )
                peer = await self._greet(stream, encrypted)
                if peer is not None:
                    await self._run_protocol(connection, peer)
                nursery.cancel_scope.cancel()
        finally:
            self._connections.pop(connection, None)

    async def _greet(
        self, stream: trio.SocketStream, encrypted: trio.SSLStream[trio.SocketStream] | None
    ) -> Peer | None:
        """Who is there; None if it has gone, or its handshake failed."""
        try:
            if stream.socket.family == socket.AF_UNIX:
                return await self._users.peer_of(stream.socket)
            host = stream.socket.getpeername()[0]
        except OSError:
            return None
        if encrypted is None:
            return peer_of_address(host, self._access)
        try:
            with trio.fail_after(self._settings.handshake_seconds):
                await encrypted.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            if was_unverified(error):
                self._gate.distrust(source_of(host), host, "a certificate that is not good")
            return None
        return peer_of_certificate(host, certificate_of(encrypted), self._access)

    def _let_one_go(self) -> bool:
        """Close the connection that has been idle for longest. False: all are being served."""
        idle = [(each.idle_since, each) for each in self._connections if each.idle_since is not None]
        if not idle:
            return False
        _, longest = min(idle, key=lambda pair: pair[0])
        del self._connections[longest]
        longest.abort()
        return True

    async def _run_protocol(self, connection: BoundedStream, peer: Peer) -> None:
        """Hypercorn's part; a defect there costs this connection and no other."""
        state = ConnectionState({PEER: peer})
        try:
            await Connection(self._application, self._config, self._context, state, connection).run()
        except OSError:
            pass  # the client has gone
        except Exception:
            report_incident("a connection failed unexpectedly")


async def _abort_when_cancelled(connection: BoundedStream) -> None:
    """Hypercorn shields its sends; closing the socket under it is what ends them."""
    try:
        await trio.sleep_forever()
    finally:
        connection.abort()


async def _turn_away(connection: BoundedStream) -> None:
    try:
        with trio.move_on_after(1):
            await connection.send_all(_BUSY)
            await connection.send_eof()
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(connection)
