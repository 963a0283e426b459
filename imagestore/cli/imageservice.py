"""A small image service: the files of a directory, in the form that the store fetches from.

``GET /images/<id>`` is an image's metadata, ``GET /images/<id>/download`` its
bytes with their length; the image's id is the file's name.  Real HTTP, one
thread a connection, loopback unless told otherwise.  For the demo, for trying
things out, and for serving a handful of machines; it knows no users.
"""

import os
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import click
import msgspec

from imagestore.cli.connection import examples
from imagestore.errors import ConfigError, NotValid
from imagestore.names import check_image_id

PIECE_BYTES = 256 << 10
"""How much is read and sent at a time."""

STALL_SECONDS = 60.0
"""A client that takes nothing for so long is cut off."""


class Hold:
    """A brake on one image: its downloads stop after ``after_bytes`` until :meth:`release`.

    ``reached`` is set when one has stopped there.
    """

    def __init__(self, after_bytes: int) -> None:
        self.after_bytes = after_bytes
        self.reached = threading.Event()
        self._released = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        self._released.wait()

    def release(self) -> None:
        self._released.set()


class ImageService:
    """Serves ``directory`` from entering the context to leaving it.

    Parameters:
        directory: where the images lie, one file each.
        port: 0 takes a free one.
        holds: brakes by image id.

    Raises:
        ConfigError: the directory cannot be read, or the port not be bound.
    """

    def __init__(
        self,
        directory: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        holds: Mapping[str, Hold] | None = None,
    ) -> None:
        if not os.path.isdir(directory):
            raise ConfigError(f"{directory} is not a directory", detail="give one with image files in it")
        self.directory = directory
        self.holds = dict(holds or {})
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as problem:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {problem.strerror}", detail="choose another --port"
            ) from problem
        self._server.service = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        """``HOST:PORT``, as ``--image-service`` takes it."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def path(self, image: str) -> str | None:
        """The file of an image, or None if there is none."""
        try:
            path = os.path.join(self.directory, check_image_id(image))
        except NotValid:
            return None
        return path if os.path.isfile(path) else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hold in self.holds.values():
            hold.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self) -> None:
        """Serve until interrupted."""
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    service: ImageService

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = STALL_SECONDS
    server: _Server

    def do_GET(self) -> None:
        match [unquote(part) for part in self.path.partition("?")[0].split("/")]:
            case ["", "images", image]:
                self._metadata(image)
            case ["", "images", image, "download"]:
                self._download(image)
            case _:
                self._answer(404, b"not found\n", "text/plain; charset=utf-8")

    def _metadata(self, image: str) -> None:
        path = self.server.service.path(image)
        if path is None:
            self._answer(404, b"not found\n", "text/plain; charset=utf-8")
            return
        size = os.path.getsize(path)
        body = msgspec.json.encode(
            {
                "id": image,
                "source": "",
                "type": "kvm",
                "comment": "",
                "status": "complete",
                "size": size,
                "expected_size": size,
            }
        )
        self._answer(200, body, "application/json")

    def _download(self, image: str) -> None:
        path = self.server.service.path(image)
        if path is None:
            self._answer(404, b"not found\n", "text/plain; charset=utf-8")
            return
        hold = self.server.service.holds.get(image)
        with open(path, "rb") as body:
            self._begin(200, os.fstat(body.fileno()).st_size, "application/octet-stream")
            sent = 0
            while piece := body.read(PIECE_BYTES):
                self.wfile.write(piece)
                sent += len(piece)
                if hold is not None and sent >= hold.after_bytes:
                    hold.wait()

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self._begin(status, len(body), content_type)
        self.wfile.write(body)

    def _begin(self, status: int, length: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as in the base class)
        """Silence: what matters, the store says."""


@click.command(
    epilog=examples(
        "imagestore image-service ./images --port 20000",
        "imagestore serve --image-service 127.0.0.1:20000        # in another shell",
    )
)
@click.argument("directory", type=click.Path())
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on."
)
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    default=20000,
    show_default=True,
    metavar="PORT",
    help="Port to listen on; 0 takes a free one.",
)
def image_service(directory: str, host: str, port: int) -> None:
    """Serve the files of DIRECTORY as images, until Ctrl-C. A file's name is the image's id.

    Raw disk images and ZFS send streams of one volume, plain or gzipped.
    """
    with ImageService(directory, host=host, port=port) as service:
        click.echo(
            f"imagestore: images of {directory} at {service.address}; "
            f"try: imagestore serve --image-service {service.address}"
        )
        service.wait()
