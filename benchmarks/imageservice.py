"""An image service on loopback that serves files as fast as the kernel can: ``sendfile``.

``python -m benchmarks.imageservice DIRECTORY`` prints HOST:PORT and serves
until it is terminated.  Image ``x`` is the file ``DIRECTORY/x``.
"""

import http.server
import json
import os
import re
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    directory = ""

    def do_GET(self) -> None:
        found = re.fullmatch(r"/images/([A-Za-z0-9_.-]+)(/download)?", self.path)
        if found is None or not os.path.isfile(path := os.path.join(self.directory, found[1])):
            self.send_error(404)
        elif found[2]:
            self._send_file(path)
        else:
            self._send_metadata(found[1], os.path.getsize(path))

    def _send_file(self, path: str) -> None:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            self.wfile.flush()
            sent = 0
            while sent < size:
                sent += os.sendfile(self.connection.fileno(), file.fileno(), sent, min(size - sent, 1 << 24))

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
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
