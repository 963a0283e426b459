"""The sockets that a server listens on: TCP, a Unix socket, those that were handed over, and what TLS needs.

Promises: what cannot be listened on is a ``ConfigError`` that says what to do.
A Unix socket appears with its mode and group already set, takes the place of
one that a killed store left, and never that of a living one; it is gone when
its context ends.
"""

import errno
import grp
import os
import secrets
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from imagestore.errors import ConfigError

BACKLOG = 1024

SOCKET_MODE = 0o660
DIRECTORY_MODE = 0o755

LONGEST_PATH_BYTES = 107
"""Of a Unix socket, as Linux has it."""


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
        _suit_connections(listener)
        await listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(host, port, error)) from None
    return trio.SocketListener(listener)


def _suit_connections(listener: trio.socket.SocketType) -> None:
    """Inherited by every connection; found out: a peer that vanished while it waits for an answer."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)


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


# --- handed over ---------------------------------------------------------------------


def adopt_listener(handed: socket.socket) -> trio.SocketListener:
    """A socket that the service manager has opened, bound and listens on; its name is the manager's business.

    Raises:
        ConfigError: it is none that connections come from.
    """
    listening = handed.type == socket.SOCK_STREAM and handed.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    )
    if not listening or handed.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise ConfigError(
            f"the socket that was handed over as descriptor {handed.fileno()} takes no connections",
            detail="what the store serves is ListenStream= with a path or an address, and Accept=no",
        )
    adopted = trio.socket.from_stdlib_socket(handed)
    if handed.family != socket.AF_UNIX:
        _suit_connections(adopted)
    return trio.SocketListener(adopted)


def path_of(listener: trio.SocketListener) -> str:
    """The path of a Unix socket; an abstract one begins with ``@``."""
    return os.fsdecode(listener.socket.getsockname()).replace("\0", "@")


# --- a Unix socket -----------------------------------------------------------------


@asynccontextmanager
async def open_unix_listener(path: str, *, group: str = "") -> AsyncIterator[trio.SocketListener]:
    """Listen on the Unix socket ``path``, open to its owner and ``group`` ("": the process's).

    Its directory is made if it is missing.

    Raises:
        ConfigError: it cannot be; says what to do.
    """
    listener = _listening(path, group)
    try:
        identity = _identity(path)
        yield trio.SocketListener(listener)
    finally:
        listener.close()
        with suppress(OSError):
            if _identity(path) == identity:
                os.unlink(path)


def _listening(path: str, group: str) -> trio.socket.SocketType:
    if len(os.fsencode(path)) > LONGEST_PATH_BYTES:
        raise ConfigError(f"the socket's path is over {LONGEST_PATH_BYTES} bytes long: {path}")
    number = _group_number(group)
    # Under a name of its own until everything about it is right: nobody connects too early.
    hidden = f"{os.path.dirname(path)}/.{secrets.token_hex(4)}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.makedirs(os.path.dirname(path), DIRECTORY_MODE, exist_ok=True)
        _check_free(path)
        listener.bind(hidden)
        try:
            os.chown(hidden, -1, number)
            os.chmod(hidden, SOCKET_MODE)
            listener.listen(BACKLOG)
            os.rename(hidden, path)
        except BaseException:
            os.unlink(hidden)
            raise
    except OSError as error:
        listener.close()
        why = os.strerror(error.errno or 0)
        raise ConfigError(
            f"cannot listen on the socket {path}: {why}",
            detail="choose another with --socket PATH, or none with --socket none",
        ) from None
    except ConfigError:
        listener.close()
        raise
    return trio.socket.from_stdlib_socket(listener)


def _group_number(group: str) -> int:
    if not group:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            f"socket_group: there is no group {group!r}", detail=f"make it with: groupadd --system {group}"
        ) from None


def _check_free(path: str) -> None:
    """Raises ConfigError unless there is nothing, or a socket that nobody listens on. Raises OSError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is there and is no socket", detail="choose another with --socket PATH")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:
            pass  # its queue is full: somebody listens
    raise ConfigError(
        f"another store listens on the socket {path}",
        detail="stop it, or choose another with --socket PATH, or none with --socket none",
    )


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


# --- TLS ---------------------------------------------------------------------------


def tls_context(certificate: str, key: str, client_ca: str) -> ssl.SSLContext:
    """The store's side of TLS.  ``key`` "" is in the certificate's file.

    With ``client_ca`` clients may show a certificate of it, and one that they
    show must be good; without one they need a token.

    Raises:
        ConfigError: a file cannot be read or used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An encrypted key must not make OpenSSL ask at a terminal.
        context.load_cert_chain(certificate, key or None, password=lambda: b"")
    except OSError as error:
        raise ConfigError(
            f"tls_certificate {certificate}, tls_key {key or certificate}: {_reason(error)}",
            detail="needed are PEM files: the certificate with its chain, and its key without a passphrase",
        ) from None
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise ConfigError(
                f"tls_client_ca {client_ca}: {_reason(error)}",
                detail="needed is a PEM file of the authority that signs the clients' certificates",
            ) from None
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM file that can be used").lower().replace("_", " ")
    return os.strerror(error.errno or 0).lower()
