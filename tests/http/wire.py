"""HTTP by hand: requests as bytes, answers parsed, nothing retried or hidden."""

import gzip
import zlib
from types import TracebackType
from typing import Self

import h11
import trio

RPC_PATH = "/_mistify_RPC_"


class Reply:
    """An answer as it came.  ``whole`` tells whether it ended as HTTP says it must."""

    def __init__(self, status: int, headers: list[tuple[str, str]], raw_body: bytes, whole: bool) -> None:
        self.status = status
        self.headers = dict(headers)
        self.raw_body = raw_body
        self.whole = whole

    @property
    def body(self) -> bytes:
        """The body, its content coding undone."""
        match self.headers.get("content-encoding"):
            case "gzip":
                return gzip.decompress(self.raw_body)
            case "deflate":
                return zlib.decompress(self.raw_body, -zlib.MAX_WBITS)
            case _:
                return self.raw_body


class Wire:
    """One connection to a server."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, address: tuple[str, int]) -> Self:
        return cls(await trio.open_tcp_stream(*address))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await trio.aclose_forcefully(self.stream)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        chunked: bool = False,
    ) -> Reply:
        """Send one request and read its answer."""
        await self.send(request_bytes(method, path, headers or {}, body, chunked=chunked))
        return await self.reply(method)

    async def reply(self, method: str = "POST") -> Reply:
        """The next answer on this connection, to a request of ``method``."""
        # h11 wants to have sent the request whose answer it reads.
        self._h11.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self._h11.send(h11.EndOfMessage())
        status, headers, pieces = 0, [], []
        whole = False
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                try:
                    self._h11.receive_data(await self.stream.receive_some(1 << 20))
                except trio.BrokenResourceError:
                    break
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = [(name.decode(), value.decode()) for name, value in event.headers]
            elif isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                whole = True
                break
            elif isinstance(event, h11.ConnectionClosed):
                break
        if whole and self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        return Reply(status, headers, b"".join(pieces), whole)

    async def rest(self) -> bytes:
        """Everything until the server closes the connection."""
        received = bytearray()
        try:
            while data := await self.stream.receive_some(1 << 20):
                received += data
        except trio.BrokenResourceError:
            pass
        return bytes(received)


def request_bytes(
    method: str, path: str, headers: dict[str, str], body: bytes, *, chunked: bool = False
) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: test",
        *(f"{name}: {text}" for name, text in headers.items()),
    ]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
        body += b"0\r\n\r\n"
    elif body or method not in ("GET", "HEAD"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body
