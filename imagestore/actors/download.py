"""One HTTP body, fetched through httpcore on trio.

Promises: nothing of the environment is used (no proxies, no netrc); TLS is
verified against the system's authorities, or the one that is given; at most ten redirects, each of
them through :func:`redirected`; no connection outlives its body; bytes come
as they were sent, never decoded.  Whoever stops reading midway leaves no
socket and no suspended generator behind.  Failures are one line and name
hosts, never whole addresses, whose queries may hold signatures.

Importing this module imports httpcore; see :func:`imagestore.actors.transfer.transfer`.
"""

import functools
import os
import socket
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpcore
import trio
from msgspec import Struct

from imagestore import __version__
from imagestore.actors import plainbody
from imagestore.actors.imageservice import CannotReach, MayPass
from imagestore.actors.origin import CheckAddress
from imagestore.actors.plainbody import HeadReader
from imagestore.errors import FetchFailed
from imagestore.serviceaddress import is_host

MAX_REDIRECTS = 10

READ_BYTES = 256 << 10
"""Most bytes of one read. httpcore asks for 64 KiB, which costs the event loop twice the time."""

_MAY_PASS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.RemoteProtocolError,
    OSError,
)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAFE = "/%:=&?~+!$,;'@()*[]"


Piece = bytes | memoryview


class Response(Struct, frozen=True, kw_only=True):
    """The head of an answer, and its body.  ``host`` is who gave it, after all redirects.

    ``content_length`` is None when the answer does not say, ``etag`` and
    ``content_range`` are "".  ``body`` raises MayPass when it breaks off,
    stalls, or is shorter than was announced.
    """

    host: str
    status: int
    content_length: int | None
    body: AsyncIterator[Piece]
    etag: str = ""
    content_range: str = ""


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds: to connect (TLS included), and how long no byte may come."""

    connect: float
    stall: float


@asynccontextmanager
async def opened(
    url: str,
    timeouts: Timeouts,
    *,
    check_address: CheckAddress | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    authorization: Mapping[str, str] = MappingProxyType({}),
    ca_file: str = "",
) -> AsyncIterator[Response]:
    """GET ``url``, following redirects, and give its answer, whatever its status.

    ``check_address`` is asked of every address before it is connected to;
    ``headers`` are sent besides our own, to every host, ``authorization`` only to that of ``url``,
    whose certificate is of the authority in ``ca_file``, or with "" of one that the system trusts.

    Raises:
        CannotReach: no connection, or none with a trusted certificate.
        MayPass: broken off, or not HTTP.
        FetchFailed: too many redirects, or one that may not be followed; ``ca_file`` cannot be used;
            whatever ``check_address`` raises.
    """
    asked = origin_of(url)
    for _ in range(MAX_REDIRECTS + 1):
        is_asked = origin_of(url) == asked
        sent = {**headers, **authorization} if is_asked else headers
        authority = ca_file if is_asked else ""
        async with _exchange(url, timeouts, check_address, sent, authority) as (response, location):
            if location is None:
                yield response
                return
        url = redirected(url, location)
    raise FetchFailed(f"more than {MAX_REDIRECTS} redirects, the last one to {urlsplit(url).hostname}")


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: whom a secret that is meant for one address may be sent to."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port


def redirected(url: str, location: str) -> str:
    """Where ``location`` leads from ``url``.

    Raises:
        FetchFailed: to no HTTP address, to one with credentials, or from https to http.
    """
    before = urlsplit(url).hostname
    try:
        target = urlsplit(urljoin(url, location))
        host = (target.hostname or "").encode("idna").decode()
        port = "" if target.port is None else f":{target.port}"
    except ValueError as error:
        raise FetchFailed(f"{before} redirects to an address that is none") from error
    if target.scheme not in {"http", "https"} or not is_host(host):
        raise FetchFailed(f"{before} redirects to an address that is not HTTP: {target.scheme[:20]!r}")
    if target.scheme == "http" and url.startswith("https:"):
        raise FetchFailed(f"{before} redirects from https to http, which anybody on the way can change")
    if target.username is not None or target.password is not None:
        raise FetchFailed(f"{before} redirects to an address with credentials, which are not sent")
    host = f"[{host}]" if ":" in host else host
    query = f"?{quote(target.query, safe=_SAFE)}" if target.query else ""
    return f"{target.scheme}://{host}{port}{quote(target.path or '/', safe=_SAFE)}{query}"


@asynccontextmanager
async def _exchange(
    url: str, timeouts: Timeouts, check_address: CheckAddress | None, extra: Mapping[str, str], ca_file: str
) -> AsyncIterator[tuple[Response, str | None]]:
    parts = urlsplit(url)
    host = parts.netloc
    context = await trio.to_thread.run_sync(_tls_context, ca_file) if parts.scheme == "https" else None
    own = {
        "Host": host,
        "User-Agent": f"imagestore/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    request = httpcore.Request(
        "GET",
        url,
        headers=[*own.items(), *extra.items()],
        extensions={
            "timeout": {"connect": timeouts.connect, "read": timeouts.stall, "write": timeouts.stall}
        },
    )
    backend = _Backend(check_address)
    try:
        connection = httpcore.AsyncHTTPConnection(
            request.url.origin, ssl_context=context, network_backend=backend
        )
        with _one_line(host), _in_time(host, timeouts):
            answer = await connection.handle_async_request(request)
        headers = {name.lower(): value for name, value in answer.headers}
        length = headers.get(b"content-length", b"")
        announced = int(length) if length.isdigit() else None
        plain = backend.after_head
        is_chunked = b"transfer-encoding" in headers
        if plain is not None and announced is not None and not is_chunked and answer.status in {200, 206}:
            pieces = _plain_pieces(plain, announced, host, timeouts)
        else:
            pieces = _pieces(answer, host)
        try:
            yield (
                Response(
                    host=host,
                    status=answer.status,
                    content_length=announced,
                    body=pieces,
                    etag=headers.get(b"etag", b"").decode("latin-1"),
                    content_range=headers.get(b"content-range", b"").decode("latin-1"),
                ),
                headers[b"location"].decode("latin-1")
                if answer.status in _REDIRECTS and b"location" in headers
                else None,
            )
        finally:
            await _unwind(pieces)
    finally:
        await backend.close()


async def _pieces(answer: httpcore.Response, host: str) -> AsyncGenerator[Piece, None]:
    stream = answer.stream
    assert isinstance(stream, AsyncIterable)
    with _one_line(host):
        async for piece in stream:
            yield piece


async def _plain_pieces(
    plain: trio.socket.SocketType, length: int, host: str, timeouts: Timeouts
) -> AsyncGenerator[Piece, None]:
    with _one_line(host):
        try:
            async with aclosing(plainbody.body(plain, length, timeouts.stall)) as pieces:
                async for piece in pieces:
                    yield piece
        except plainbody.Stalled as error:
            raise MayPass(f"{host} stalled: no byte came in time") from error
        except plainbody.Truncated as error:
            raise MayPass(f"{host} broke off: the body is truncated") from error


async def _unwind(pieces: AsyncGenerator[Piece, None]) -> None:
    # httpcore nests generators that nobody can close from outside.  Read on under
    # a cancelled scope: what is buffered comes out, then the wait for the network
    # is cancelled, and that exception ends them all, innermost first.
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            async for _ in pieces:
                pass
        except MayPass:
            pass  # the body is no longer wanted, nor is what became of it


@contextmanager
def _in_time(host: str, timeouts: Timeouts) -> Iterator[None]:
    """A head may trickle; it may not trickle for ever."""
    try:
        with trio.fail_after(timeouts.connect + 2 * timeouts.stall):
            yield
    except trio.TooSlowError as error:
        raise MayPass(f"{host} sent no complete answer in time") from error


@contextmanager
def _one_line(host: str) -> Iterator[None]:
    """What went wrong on the network, as an error of ours, without anybody's address."""
    try:
        yield
    except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError, UnicodeError) as error:
        raise FetchFailed(f"{host} cannot be asked: {_cause(error)}") from error
    except httpcore.ConnectTimeout as error:
        raise CannotReach(f"{host} cannot be reached: no connection in time") from error
    except httpcore.ConnectError as error:
        raise CannotReach(f"{host} cannot be reached: {_cause(error)}") from error
    except httpcore.TimeoutException as error:
        raise MayPass(f"{host} stalled: no byte came in time") from error
    except httpcore.RemoteProtocolError as error:
        if "without sending complete message body" in str(error):
            raise MayPass(f"{host} broke off: the body is truncated") from error
        raise MayPass(f"{host} did not answer as an HTTP server does: {_cause(error)}") from error
    except _MAY_PASS as error:
        raise MayPass(f"{host} broke off: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The innermost reason that says something, as one line."""
    seen: BaseException | None = error
    found = str(error)
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
            continue
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {seen.verify_message}"
        if isinstance(seen, socket.gaierror):
            found = seen.strerror or found
        elif isinstance(seen, OSError) and seen.errno:
            found = os.strerror(seen.errno)  # strerror of the error itself holds trio's wording
        seen = seen.__cause__ or seen.__context__
    return " ".join(found.split())[:200] or type(error).__name__


@functools.cache
def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Reads the authorities, the system's with "": tens of milliseconds, so once, and in a thread.

    Raises FetchFailed.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        why = "no PEM file that can be used" if isinstance(error, ssl.SSLError) else error.strerror
        raise FetchFailed(f"the authority's file cannot be read: {ca_file}: {why}") from error


class _Backend(httpcore.AsyncNetworkBackend):
    """trio's network, with larger reads, and closing what was opened whatever happened."""

    def __init__(self, check_address: CheckAddress | None) -> None:
        self._check_address = check_address
        self._trio = httpcore.TrioBackend()
        self._stream: httpcore.AsyncNetworkStream | None = None
        self.head: HeadReader | None = None

    @property
    def after_head(self) -> trio.socket.SocketType | None:
        """The socket, if what was not read yet is the answer's body, as it was sent."""
        return self.head.socket if self.head is not None and self.head.is_complete else None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses: Sequence[str] = [host]
        if self._check_address is not None:
            # Connected is to what was checked, whatever the DNS says a moment later.
            addresses = await _checked(host, port, timeout, self._check_address)
        stream = await self._connect(addresses, port, timeout, local_address, socket_options)
        self._stream = stream
        self.head = HeadReader(stream.get_extra_info("socket"))
        return _Stream(stream, self)

    async def _connect(
        self,
        addresses: Sequence[str],
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[Any] | None,
    ) -> httpcore.AsyncNetworkStream:
        """To the first of ``addresses`` that takes a connection."""
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._trio.connect_tcp(address, port, timeout, local_address, socket_options)
        return await self._trio.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def close(self) -> None:
        """Close the connection at once; nothing that the other side may do delays it."""
        if self._stream is not None:
            with trio.CancelScope(shield=True) as scope:
                scope.cancel()
                await self._stream.aclose()


async def _checked(host: str, port: int, timeout: float | None, check_address: CheckAddress) -> Sequence[str]:
    """The addresses of ``host``, once all of them were checked."""
    try:
        with trio.fail_after(float("inf") if timeout is None else timeout):
            found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except trio.TooSlowError as error:
        raise httpcore.ConnectTimeout from error
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    addresses = list(dict.fromkeys(str(address[4][0]) for address in found))
    for address in addresses:
        check_address(host, address)
    return addresses


class _Stream(httpcore.AsyncNetworkStream):
    """``backend`` is None once TLS has begun: then only the library knows where a head ends."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, backend: _Backend | None) -> None:
        self._stream = stream
        self._backend = backend

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        head = self._backend.head if self._backend is not None else None
        if head is not None and not head.is_complete:
            return await self._read_head(head, timeout)
        return await self._stream.read(max(max_bytes, READ_BYTES), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if self._backend is not None:
            self._backend.head = None
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout), None)

    async def _read_head(self, head: HeadReader, timeout: float | None) -> bytes:
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                return await head.read(READ_BYTES)
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout from error
        except OSError as error:
            raise httpcore.ReadError from error

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
