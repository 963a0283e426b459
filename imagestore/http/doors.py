"""The doors of a store, as its settings have them: socket, TLS, whom it trusts; and whether any is of use.

Owns what the settings mean for a server.  The server itself is
:mod:`imagestore.http.server`.
"""

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from msgspec import Struct

from imagestore.access import ROLES, is_loopback, parse_client_roles
from imagestore.config import DEFAULT_SOCKET, Config
from imagestore.errors import ConfigError
from imagestore.http.listeners import adopt_listener, open_unix_listener, path_of, tls_context
from imagestore.http.settings import AccessSettings

_log = logging.getLogger(__name__)

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 (recognised, not listened on)


class Doors(Struct, frozen=True, kw_only=True):
    """What a server is given besides its address.  ``socket`` is the path of ``unix``, "" without one.

    ``tcp`` are listening sockets that were handed over, and stand for its address.
    """

    access: AccessSettings
    tls: ssl.SSLContext | None
    unix: trio.SocketListener | None
    socket: str
    tcp: tuple[trio.SocketListener, ...] = ()

    def widest_host(self, otherwise: str) -> str:
        """The address that most can reach of those that are served; ``otherwise`` if none was handed over."""
        hosts = [str(listener.socket.getsockname()[0]) for listener in self.tcp]
        return min(hosts or [otherwise], key=is_loopback)


@asynccontextmanager
async def open_doors(config: Config, handed: Sequence[socket.socket] = ()) -> AsyncIterator[Doors]:
    """The doors of ``config``; the socket is gone when the context ends.

    ``handed`` are sockets that the service manager listens on: a Unix one stands for the setting
    ``socket``, others for ``host`` and ``port``.

    Raises:
        ConfigError: one of them cannot be; says what to do.
    """
    async with AsyncExitStack() as opened:
        adopted = [await opened.enter_async_context(adopt_listener(each)) for each in handed]
        tcp = tuple(each for each in adopted if each.socket.family != socket.AF_UNIX)
        unix, path = _unix_of(adopted)
        if unix is None:
            unix, path = await _unix_listener(config, opened)
        tls = (
            tls_context(config.tls_certificate, config.tls_key, config.tls_client_ca)
            if config.tls_certificate
            else None
        )
        yield Doors(access=access_of(config), tls=tls, unix=unix, socket=path, tcp=tcp)


def _unix_of(adopted: Sequence[trio.SocketListener]) -> tuple[trio.SocketListener | None, str]:
    """The Unix socket of those that were handed over, and its path."""
    found = [each for each in adopted if each.socket.family == socket.AF_UNIX]
    if len(found) > 1:
        raise ConfigError(
            f"{len(found)} Unix sockets were handed over: {', '.join(map(path_of, found))}",
            detail="leave one ListenStream= with a path",
        )
    return (found[0], path_of(found[0])) if found else (None, "")


async def _unix_listener(config: Config, opened: AsyncExitStack) -> tuple[trio.SocketListener | None, str]:
    """The socket; none where the one that nobody asked for by name cannot be."""
    match config.socket:
        case "none":
            return None, ""
        case "auto":
            try:
                door = open_unix_listener(DEFAULT_SOCKET, group=config.socket_group)
                return await opened.enter_async_context(door), DEFAULT_SOCKET
            except ConfigError as error:
                if config.socket_group:
                    raise
                _log.info("no Unix socket: %s", error)
                return None, ""
        case path:
            door = open_unix_listener(path, group=config.socket_group)
            return await opened.enter_async_context(door), path


def access_of(config: Config) -> AccessSettings:
    """Whom the settings trust."""
    return AccessSettings(
        loopback_role=next((role for role in ROLES if role == config.loopback_role), None),
        allow_unauthenticated=config.allow_unauthenticated,
        open_images=config.open_images,
        client_roles=parse_client_roles(config.tls_client_roles) if config.tls_client_ca else {},
    )


def check_way_in(config: Config, *, socket: str, tokens: bool) -> None:
    """Refuse to serve at an address at which nobody could ever be let in; warn of what is half done.

    ``socket`` is the Unix socket that is served, "" if none is; ``tokens``
    whether there is one that is good.

    Raises:
        ConfigError: says how to make a first token.
    """
    from_here = config.loopback_role != "none" and (is_loopback(config.host) or config.host in _EVERY_ADDRESS)
    if config.allow_unauthenticated:
        _log.warning("everybody who reaches %s may do everything (allow_unauthenticated)", config.host)
        return
    if not (from_here or socket or tokens or config.tls_client_ca):
        raise ConfigError(
            f"nobody could be let in at {config.host}: there is no token, and no tls_client_ca",
            detail="give it a socket for the first token, --socket PATH, then:"
            " imagestore token create NAME --role operator --server unix:PATH",
        )
    if is_loopback(config.host):
        return
    if not (tokens or config.tls_client_ca):
        server = f" --server unix:{socket}" if socket else ""
        _log.warning(
            "nobody from elsewhere is let in at %s yet; make a token: imagestore token create NAME"
            " --role operator%s",
            config.host,
            server,
        )
    if not config.tls_certificate:
        _log.warning("tokens and data travel unencrypted at %s; set tls_certificate and tls_key", config.host)
