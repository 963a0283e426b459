"""Where a store is, from the client's side, and how a connection to it is made.

Owns the spellings of an address (``http://``, ``https://``, ``unix:``), TLS,
and the token, which is read from a file and shown to nobody but the store.
Only the standard library is used: a command must start in no time.
"""

import http.client
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from imagestore.errors import ConfigError

DEFAULT_SERVER = "http://127.0.0.1:19999"

CONNECT_SECONDS = 10.0
"""A store on the same machine takes a connection at once or not at all."""

MOST_TOKEN_BYTES = 256

_OF_ANOTHER_NAME = (62, 64)
"""OpenSSL's codes for a certificate of another host, and of another IP address."""


class Credentials(Struct, frozen=True, kw_only=True):
    """Files that say who asks, and who may answer; "" is none.

    ``token_file`` holds a token; ``ca_file`` whom to trust instead of the
    system's authorities; ``certificate_file`` and ``key_file`` a client's
    certificate (``key_file`` "": the key is in the same file).
    """

    token_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""


NO_CREDENTIALS = Credentials()


class Endpoint:
    """A store's address, and how to connect to it.

    Parameters:
        server: ``http://HOST:PORT`` (``HOST:PORT`` will do), ``https://HOST:PORT``,
            ``unix:PATH`` or ``http+unix://PATH`` with its slashes as ``%2F``.
        credentials: who asks, and whom to trust.

    Raises ConfigError: the address is none, or a file cannot be used.
    """

    def __init__(self, server: str, credentials: Credentials = NO_CREDENTIALS) -> None:
        self._path = _socket_path(server)
        self.shown = f"unix:{self._path}" if self._path else server if "://" in server else f"http://{server}"
        self._host, self._port, scheme = "localhost", 0, "unix"
        if not self._path:
            self._host, self._port, scheme = _place(self.shown)
        self._tls = _tls(credentials) if scheme == "https" else None
        self.headers = {"Authorization": f"Bearer {_token(credentials)}"} if credentials.token_file else {}
        """What every request carries."""

    def connection(self) -> http.client.HTTPConnection:
        """A connection that is still to be made."""
        if self._path:
            return _UnixConnection(self._path)
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_SECONDS, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)

    def advice(self, problem: OSError) -> str:
        """What to do when no connection could be made."""
        if isinstance(problem, ssl.SSLError) and problem.reason == "WRONG_VERSION_NUMBER":
            return f"what answers there speaks no TLS: name it as http://{self._host}:{self._port}"
        if isinstance(problem, ssl.SSLCertVerificationError) and problem.verify_code in _OF_ANOTHER_NAME:
            return "name the store as its certificate does, with --server"
        if isinstance(problem, ssl.SSLCertVerificationError):
            return "name the file of the authority that signed its certificate with --ca-file"
        if isinstance(problem, PermissionError):
            return "ask for the group of the socket, or use a token at another address"
        return "start one with: imagestore serve; or name another with --server"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CONNECT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _socket_path(server: str) -> str:
    """The path that ``server`` names, "" if it names no Unix socket."""
    scheme, colon, rest = server.partition(":")
    if colon and scheme == "unix":
        path = "/" + rest.lstrip("/") if rest.startswith("/") else os.path.abspath(rest) if rest else ""
    elif colon and scheme == "http+unix":
        path = unquote(rest.removeprefix("//")).rstrip("/")
    else:
        return ""
    if not path.startswith("/"):
        raise ConfigError(f"server {server!r} is not unix:PATH", detail="for example unix:/run/x.sock")
    return path


def _place(server: str) -> tuple[str, int, str]:
    """Host, port and scheme. Raises ConfigError."""
    parts = urlsplit(server)
    try:
        host, port = parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError:
        host, port = None, 0
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/"):
        raise ConfigError(
            f"server {server!r} is not http://HOST:PORT, https://HOST:PORT or unix:PATH",
            detail=f"for example {DEFAULT_SERVER}",
        )
    return host, port, parts.scheme


def _tls(credentials: Credentials) -> ssl.SSLContext:
    with _naming(credentials.ca_file):
        context = ssl.create_default_context(cafile=credentials.ca_file or None)
    if credentials.certificate_file:
        with _naming(credentials.certificate_file):
            # An encrypted key must not make OpenSSL ask at a terminal.
            key = credentials.key_file or None
            context.load_cert_chain(credentials.certificate_file, key, password=lambda: b"")
    return context


def _token(credentials: Credentials) -> str:
    with _naming(credentials.token_file), open(credentials.token_file, "rb") as file:
        token = file.read(MOST_TOKEN_BYTES + 1).strip().decode("ascii", "replace")
    if not (token.isascii() and token.isprintable() and 0 < len(token) <= MOST_TOKEN_BYTES):
        raise ConfigError(
            f"{credentials.token_file} holds no token",
            detail="it is the one line that imagestore token create printed",
        )
    return token


@contextmanager
def _naming(file: str) -> Iterator[None]:
    """What goes wrong with ``file`` is a ConfigError that names it."""
    try:
        yield
    except OSError as error:
        why = "no PEM file that can be used" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"cannot use {file}: {why}") from error
