"""A small image service for tests, on a real loopback socket, that misbehaves on demand.

Each path has a list of scripts, one a request, the last one for ever.  A
script is an async function that writes whatever it likes to the connection,
which is closed (or reset) when it returns.  An unknown path is a 404.
"""

import json
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence

import trio

Script = Callable[[trio.SocketStream], Awaitable[None]]

PIECE = 64 << 10


class ImageService:
    """``requests`` are the paths asked for, in order; ``heads`` the requests as they came.

    ``hung_up`` is set when a client went away while a script waited for that.
    """

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[str] = []
        self.heads: list[str] = []
        self.hung_up = trio.Event()
        self.open_connections = 0
        self._scripts: dict[str, list[Script]] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def downloads(self) -> int:
        return sum(path.endswith("/download") for path in self.requests)

    def on(self, path: str, *scripts: Script) -> None:
        self._scripts[path] = list(scripts)

    def download(self, image: str, *scripts: Script) -> None:
        self.on(f"/images/{image}/download", *scripts)

    def metadata(self, image: str, *scripts: Script, **fields: object) -> None:
        """Scripts, or the fields of the service's own answer."""
        self.on(f"/images/{image}", *(scripts or (answer(json.dumps({"id": image, **fields}).encode()),)))

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.open_connections += 1
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some()
                if not data:
                    return
                head += data
            path = head.split(b" ")[1].decode()
            self.requests.append(path)
            self.heads.append(head.decode())
            scripts = self._scripts.get(path, [status(404)])
            script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
            await script(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.hung_up.set()  # a client that goes away midway is what many tests are about
        finally:
            self.open_connections -= 1
            await trio.aclose_forcefully(stream)

    async def until_hung_up(self, stream: trio.SocketStream) -> None:
        """Say nothing more, and wait until the client goes away."""
        while await stream.receive_some():
            pass
        self.hung_up.set()


def head(code: int = 200, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {code} Said So"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(body: bytes, code: int = 200) -> Script:
    return sends(head(code, Content_Length=len(body)), body)


def status(code: int) -> Script:
    return answer(b"said so\n", code)


def redirect(location: str, code: int = 302) -> Script:
    return sends(head(code, Location=location, Content_Length=0))


def sends(*pieces: bytes) -> Script:
    """Send these bytes and close, whatever a client makes of them."""

    async def script(stream: trio.SocketStream) -> None:
        for piece in pieces:
            await stream.send_all(piece)

    return script


def chunked(body: bytes, *, end: bool = True) -> Script:
    pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
    encoded = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return sends(head(Transfer_Encoding="chunked"), *encoded, *([b"0\r\n\r\n"] if end else []))


def truncated(body: bytes, announced: int) -> Script:
    return sends(head(Content_Length=announced), body)


def resets(body: bytes, announced: int) -> Script:
    """Send ``body`` and reset the connection; how much of it arrives is the kernel's affair."""

    async def script(stream: trio.SocketStream) -> None:
        await stream.send_all(head(Content_Length=announced) + body)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return script


def stalls(body: bytes, announced: int) -> Script:
    async def script(stream: trio.SocketStream) -> None:
        await stream.send_all(head(Content_Length=announced) + body)
        await trio.sleep_forever()

    return script


def endless(piece: bytes, first: Sequence[bytes] = ()) -> Script:
    """A body without a length that never ends; ``first`` begins it."""

    async def script(stream: trio.SocketStream) -> None:
        await stream.send_all(head() + b"".join(first))
        while True:
            await stream.send_all(piece)

    return script


class Ranged:
    """A server that knows Range: it serves ``body`` from where it is asked to, under a strong entity tag.

    ``cuts`` are the bytes after which its answers break off, one an answer,
    counted from the answer's own beginning; None, and after the last: not at
    all.  ``sent_bytes`` is what it sent in all.  ``forgets_tag`` makes it
    answer with the part that was asked for whatever ``If-Range`` says.
    """

    def __init__(
        self,
        service: ImageService,
        body: bytes,
        *,
        tag: str = '"one"',
        cuts: Sequence[int | None] = (),
        forgets_tag: bool = False,
    ) -> None:
        self.body = body
        self.tag = tag
        self.sent_bytes = 0
        self.starts: list[int] = []
        self._service = service
        self._cuts = list(cuts)
        self._forgets_tag = forgets_tag

    async def __call__(self, stream: trio.SocketStream) -> None:
        start = self._start(self._service.heads[-1])
        self.starts.append(start)
        length = len(self.body) - start
        cut = self._cuts.pop(0) if self._cuts else None
        end = len(self.body) if cut is None else start + cut
        fields: dict[str, object] = {"Content_Length": length, "ETag": self.tag}
        if start:
            fields["Content_Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        await stream.send_all(head(206 if start else 200, **fields))
        for at in range(start, end, PIECE):
            piece = self.body[at : min(end, at + PIECE)]
            await stream.send_all(piece)
            self.sent_bytes += len(piece)

    def _start(self, request: str) -> int:
        asked = re.search(r"^range: bytes=(\d+)-\r$", request, re.IGNORECASE | re.MULTILINE)
        condition = re.search(r"^if-range: (.*)\r$", request, re.IGNORECASE | re.MULTILINE)
        if asked is None or (condition is not None and condition[1] != self.tag and not self._forgets_tag):
            return 0
        return int(asked[1])
