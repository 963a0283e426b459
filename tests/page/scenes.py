"""Stores worth looking at: an image service that waits when it is told to, and many guests."""

import http.client
import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

from imagestore.client import Client
from imagestore.model import Guest

MIB = 1 << 20

BATCH = 50
"""Calls of one batch; the store takes 100."""


def raw_image(size: int) -> bytes:
    """A raw disk image without a signature."""
    block = bytes(itertools.islice(itertools.cycle(range(251)), 4096))
    return block * (size // 4096)


class SlowService:
    """An image service. An image in ``held`` is sent to its half and no further, until it is let go."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.held: dict[str, threading.Event] = {}
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = self.path.split("/")
                size = service.sizes.get(parts[2]) if parts[3:] == ["download"] else None
                self.send_response(404 if size is None else 200)
                self.send_header("Content-Length", str(size or 0))
                self.end_headers()
                if size is not None:
                    body = raw_image(size)
                    self.wfile.write(body[: size // 2])
                    self.wfile.flush()
                    if (gate := service.held.get(parts[2])) is not None:
                        gate.wait()
                    self.wfile.write(body[size // 2 :])

            def log_message(self, *arguments: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for gate in self.held.values():
            gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def pulling(client: Client, service: SlowService, image: str) -> Iterator[threading.Event]:
    """The image is asked for, and half of it comes until the event is set; at the end it is there."""
    gate = service.held[image] = threading.Event()
    puller = threading.Thread(target=client.request_image, args=(image,))
    puller.start()
    try:
        yield gate
    finally:
        gate.set()
        puller.join()


def make_guests(client: Client, guests: Sequence[Guest]) -> None:
    """Many guests, in batches."""
    parts = urlsplit(client.server)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    for begin in range(0, len(guests), BATCH):
        calls = [
            {
                "jsonrpc": "2.0",
                "id": number,
                "method": "ImageStore.CreateGuestDisks",
                "params": {"guest": guest},
            }
            for number, guest in enumerate(guests[begin : begin + BATCH])
        ]
        connection.request("POST", "/_mistify_RPC_", json.dumps(calls), {"Content-Type": "application/json"})
        answers = json.loads(connection.getresponse().read())
        assert all("error" not in answer for answer in answers), answers
    connection.close()
