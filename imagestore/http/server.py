"""The HTTP server of a running store: sockets, Hypercorn, and the end.

Owns the listening socket, the bound on connections, and the phases of
stopping: accept no more, close idle connections, let requests under way finish
within ``grace_seconds``, then cut.  When :func:`serve_http` returns, no
connection is left.

Connections are handed to Hypercorn's ``TCPServer`` one by one instead of
through its ``serve``: so each is a :class:`~imagestore.http.shims.BoundedStream`
that can be cut, and a faster front can be put before it.
"""

import errno
import logging
import os
import socket
from functools import partial

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from imagestore.errors import ConfigError
from imagestore.http.app import Application
from imagestore.http.exchange import CONNECTION
from imagestore.http.incidents import report_incident
from imagestore.http.settings import HttpSettings
from imagestore.http.shims import BoundedStream
from imagestore.service import Service

logger = logging.getLogger(__name__)

BACKLOG = 1024
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
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``service`` until ``shutdown`` is set and the requests under way have ended.

    Args:
        service: the store; it may still be getting ready, ``/readyz`` says so.
        host: a name or address to listen on; the first address it has is taken.
        port: TCP port; 0 takes a free one.
        shutdown: once set, nothing more is accepted.
        settings: limits; None means the defaults.
        task_status: told the address and port as soon as connections are accepted.

    Raises:
        ConfigError: the address cannot be listened on; says what to do.
    """
    settings = settings or HttpSettings()
    async with await open_listener(host, port) as listener:
        await _Server(service, settings).run(listener, shutdown, task_status)


async def open_listener(host: str, port: int) -> trio.SocketListener:
    """A listening socket on the first address of ``host``.

    Raises:
        ConfigError: naming the address, and what to do.
    """
    try:
        addresses = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}: {error.strerror}; give an address of this machine"
        ) from None
    family, kind, protocol, _, address = addresses[0]
    listener = trio.socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by every connection; found out: a peer that vanished while it waits for an answer.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        await listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(host, port, error)) from None
    return trio.SocketListener(listener)


def _why_not(host: str, port: int, error: OSError) -> str:
    where = f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} is in use: stop what listens on {where}, or choose another with --port"
                " (0 takes a free one)"
            )
        case errno.EADDRNOTAVAIL:
            return f"cannot listen on {where}: not an address of this machine; 127.0.0.1 always is"
        case errno.EACCES | errno.EPERM:
            return (
                f"cannot listen on {where}: no right to; ports below 1024 need root, choose a higher --port"
            )
        case _:
            return (
                f"cannot listen on {where}: {os.strerror(error.errno or 0)}; choose another address or port"
            )


def hypercorn_config(settings: HttpSettings) -> Config:
    """Hypercorn's own settings: ours where we have one, no logs of its own making."""
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = settings.keep_alive_seconds
    config.keep_alive_max_requests = 1 << 62
    config.h11_max_incomplete_size = settings.max_header_bytes
    config.h2_max_header_list_size = settings.max_header_bytes
    config.graceful_timeout = settings.grace_seconds
    return config


class _Server:
    """One run of the server: the application, and the connections it has."""

    def __init__(self, service: Service, settings: HttpSettings) -> None:
        self._settings = settings
        self._config = hypercorn_config(settings)
        self._application = ASGIWrapper(Application(service, settings))
        self._context = WorkerContext(None)
        self._connections: dict[BoundedStream, None] = {}

    async def run(
        self,
        listener: trio.SocketListener,
        shutdown: trio.Event,
        task_status: trio.TaskStatus[tuple[str, int]],
    ) -> None:
        lifespan = Lifespan(self._application, self._config, {})
        async with trio.open_nursery() as application:
            await application.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            async with trio.open_nursery() as connections:
                await self._accept(listener, shutdown, connections, task_status)
                await self._context.terminated.set()  # idle connections close themselves
                connections.cancel_scope.deadline = trio.current_time() + self._settings.grace_seconds
            await lifespan.wait_for_shutdown()
            application.cancel_scope.cancel()

    async def _accept(
        self,
        listener: trio.SocketListener,
        shutdown: trio.Event,
        connections: trio.Nursery,
        task_status: trio.TaskStatus[tuple[str, int]],
    ) -> None:
        async with trio.open_nursery() as accepting:
            await accepting.start(
                partial(trio.serve_listeners, self._serve_connection, [listener], handler_nursery=connections)
            )
            host, port, *_ = listener.socket.getsockname()
            task_status.started((host, port))
            await shutdown.wait()
            accepting.cancel_scope.cancel()

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        connection = BoundedStream(stream, stall_seconds=self._settings.stall_seconds)
        if len(self._connections) >= self._settings.max_connections and not self._let_one_go():
            await _turn_away(connection)
            return
        self._connections[connection] = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_abort_when_cancelled, connection)
                nursery.start_soon(connection.close_after_hangup)
                await self._run_protocol(connection)
                nursery.cancel_scope.cancel()
        finally:
            self._connections.pop(connection, None)

    def _let_one_go(self) -> bool:
        """Close the connection that has been idle for longest. False: all are being served."""
        idle = [(each.idle_since, each) for each in self._connections if each.idle_since is not None]
        if not idle:
            return False
        _, longest = min(idle, key=lambda pair: pair[0])
        del self._connections[longest]
        longest.abort()
        return True

    async def _run_protocol(self, connection: BoundedStream) -> None:
        """Hypercorn's part; a defect there costs this connection and no other."""
        state = ConnectionState({CONNECTION: connection})
        try:
            await TCPServer(
                self._application,
                self._config,
                self._context,
                state,
                connection,  # type: ignore[arg-type]  # has what TCPServer uses of a SocketStream
            )
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
