"""An image service on loopback that serves files as fast as the kernel can: ``sendfile``.

``python -m benchmarks.imageservice DIRECTORY`` prints HOST:PORT and serves
until it is terminated.  Image ``x`` is the file ``DIRECTORY/x``, and so is
``x.2`` and any other ``x.N``.  Range is understood.  The first answer with
``cut-x`` breaks off at nine tenths; ``/sent`` is how many bytes of images were
sent in all.
"""

import http.server
import json
import os
import re
import sys
from typing import ClassVar


class Handler(http.server.BaseHTTPRequestHandler):
    directory = ""
    sent_bytes = 0
    cut: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        found = re.fullmatch(r"/images/((?:cut-)?([A-Za-z0-9_-]+)(?:\.\d+)?)(/download)?", self.path)
        if self.path == "/sent":
            self._answer(str(Handler.sent_bytes).encode())
        elif found is None or not os.path.isfile(path := os.path.join(self.directory, found[2])):
            self.send_error(404)
        elif found[3]:
            self._send_file(path, found[1])
        else:
            self._send_metadata(found[1], os.path.getsize(path))

    def _send_file(self, path: str, image: str) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.send_response(206 if asked else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size - first))
            self.send_header("ETag", '"bench"')
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
            self.end_headers()
            self.wfile.flush()
            end = size
            if image.startswith("cut-") and image not in self.cut:
                self.cut.add(image)
                end = size * 9 // 10
                self.close_connection = True
            sent = first
            while sent < end:
                count = os.sendfile(self.connection.fileno(), file.fileno(), sent, min(end - sent, 1 << 24))
                sent += count
                Handler.sent_bytes += count

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_metadata(self, image: str, size: int) -> None:
        body = json.dumps(
            {
                "id": image,
                "source": "",
                "type": "kvm",
                "comment": "",
                "status": "complete",
                "size": size,
                "expected_size": size,
            }
        ).encode()
        self._answer(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Nothing: a benchmark's output is its table."""


def main() -> None:
    Handler.directory = sys.argv[1]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host, port = server.socket.getsockname()
    print(f"{host}:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
