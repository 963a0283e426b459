"""A store on loopback that speaks the RPC from memory: enough to see what a command asked and showed.

Not a model of the store: it knows names and sizes, and answers what a test
put into ``refusals``.
"""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from imagestore.service import METHODS

POOL = "tank"
METRICS = (
    b"imagestore_ready 1.0\nimagestore_read_only 0.0\n"
    b"imagestore_pool_size_bytes 100.0\nimagestore_pool_available_bytes 40.0\n"
)

ATTRIBUTES = {method.name: method.attribute for method in METHODS}


class MemoryStore:
    """``address`` is where it listens; ``calls`` what was asked, in order."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, str] = {}
        self.volumes: dict[str, int] = {}
        self.snapshots: dict[str, int] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refusals: dict[str, str] = {}
        self.stream = b"stream" * 1000
        self.breaks_after: int | None = None
        self.breaks = -1
        """How many downloads break; -1: all."""
        self.etag = ""
        self.starting = 0
        """How many downloads are refused because it is not ready yet."""
        self.ranges: list[str] = []
        self.bases: list[str] = []
        self.received: dict[str, bytes] = {}
        self.problem: dict[str, Any] | None = None
        self.answers_late = threading.Event()
        self.waits = False
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                if self.path.startswith("/volumes/receive"):
                    self.receive()
                    return
                if self.path.startswith("/images/upload"):
                    self.upload()
                    return
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/snapshots/download":
                    self.download(body)
                else:
                    self.rpc(body)

            def do_GET(self) -> None:
                self.answer(200, "text/plain", METRICS if self.path == "/metrics" else b"ready\n")

            def rpc(self, body: dict[str, Any]) -> None:
                service, _, method = body["method"].partition(".")
                assert (self.path, service) == ("/_mistify_RPC_", "ImageStore")
                (request,) = body["params"]
                store.calls.append((method, request))
                if store.waits:
                    store.answers_late.wait()
                refusal = store.refusals.get(method)
                reply: dict[str, Any] = {"result": None, "error": refusal, "id": body["id"]}
                if refusal is None:
                    try:
                        reply["result"] = getattr(store, ATTRIBUTES[method])(request)
                    except KeyError:
                        reply["error"] = "not found"
                self.answer(200, "application/json; charset=utf-8", json.dumps(reply).encode())

            def download(self, request: dict[str, Any]) -> None:
                if store.starting:
                    store.starting -= 1
                    self.answer(500, "text/plain; charset=utf-8", b"store is starting\n")
                    return
                if request["id"] not in store.snapshots:
                    self.answer(404, "text/plain; charset=utf-8", b"not found\n")
                    return
                store.ranges.append(self.headers.get("Range", ""))
                store.bases.append(request["from"])
                first, end = 0, len(store.stream)
                if store.etag and self.headers.get("If-Range") == store.etag:
                    first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if first == end:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{end}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if first else 200)
                if first:
                    self.send_header("Content-Range", f"bytes {first}-{end - 1}/{end}")
                if store.etag:
                    self.send_header("ETag", store.etag)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.close_connection = True
                breaks = store.breaks_after is not None and store.breaks != 0
                store.breaks -= breaks
                body = store.stream[first : first + (store.breaks_after or 0) if breaks else None]
                with suppress(ConnectionError):
                    for start in range(0, len(body), 1000):
                        piece = body[start : start + 1000]
                        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    if not breaks:
                        self.wfile.write(b"0\r\n\r\n")

            def receive(self) -> None:
                if store.problem is not None:
                    self.close_connection = True
                    text = json.dumps(store.problem).encode()
                    self.answer(store.problem["status"], "application/problem+json", text)
                    return
                body = self.body()
                asked = parse_qs(urlsplit(self.path).query)
                (name,) = asked["id"]
                store.calls.append(("receive", {"id": name, "force": asked["force"] == ["true"]}))
                store.received[name] = bytes(body)
                store.volumes[name], store.snapshots[f"{name}@a"] = 8, 3
                reply = {"volume": store.volume(name), "snapshots": [store.snapshot(f"{name}@a")]}
                self.answer(200, "application/json", json.dumps(reply).encode())

            def upload(self) -> None:
                body = self.body()
                asked = parse_qs(urlsplit(self.path).query)
                request: dict[str, Any] = {key: values[0] for key, values in asked.items()}
                request["announced"] = self.headers.get("Content-Length")
                store.calls.append(("upload", request))
                store.received[request["id"]] = body
                reply = store.request_image({"type": "", **request})
                self.answer(200, "application/json", json.dumps(reply).encode())

            def body(self) -> bytes:
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                body = bytearray()
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return bytes(body)

            def answer(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as in the base class)
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answers_late.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # -- shapes -----------------------------------------------------------------

    def volume(self, name: str) -> dict[str, Any]:
        return {"id": f"{POOL}/{name}", "size": self.volumes[name], "device": f"/dev/zvol/{POOL}/{name}"}

    def snapshot(self, name: str) -> dict[str, Any]:
        return {"id": f"{POOL}/{name}", "size": self.snapshots[name]}

    # -- methods ----------------------------------------------------------------

    def list_images(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"images": list(self.images.values())}

    def get_image(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"images": [self.images[request["id"]]]}

    def list_sources(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"sources": list(self.sources.values())}

    def register_source(self, request: dict[str, Any]) -> dict[str, Any]:
        self.sources[request["id"]] = request
        return {"sources": [request]}

    def remove_source(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"sources": [self.sources.pop(request["id"])]}

    def request_image(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["id"]
        self.images[name] = {
            "id": name,
            "type": request["type"],
            "volume": f"{POOL}/images/{name}",
            "snapshot": f"{POOL}/images/{name}@made",
            "size": 2048,
            "status": "complete",
        }
        self.volumes[f"images/{name}"] = 2048
        return self.get_image(request)

    def delete_image(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"images": [self.images.pop(request["id"])]}

    def describe_images(self, request: dict[str, Any]) -> dict[str, Any]:
        image = self.aliases.get(request["id"], request["id"])
        asked = [self.images[image]] if image else list(self.images.values())
        return {"images": [self.described(each) for each in asked]}

    def described(self, image: dict[str, Any]) -> dict[str, Any]:
        aliases = [alias for alias, named in self.aliases.items() if named == image["id"]]
        return {"size_bytes": 3 << 20, "clones": [], "retired": False, **image, "aliases": aliases}

    def set_image_alias(self, request: dict[str, Any]) -> dict[str, Any]:
        self.aliases[request["alias"]] = request["id"]
        return self.describe_images(request)

    def remove_image_alias(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.describe_images({"id": self.aliases.pop(request["alias"])})

    def publish_image(self, request: dict[str, Any]) -> dict[str, Any]:
        self.get_snapshot({"id": request["snapshot"]})
        return self.request_image(request)

    def collect_images(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self.describe_images({"id": ""})
        if not request["dryRun"]:
            self.images.clear()
        return answer

    def clone_image(self, request: dict[str, Any]) -> dict[str, Any]:
        self.volumes[request["dest"]] = self.images[request["id"]]["size"]
        return {"volumes": [self.volume(request["dest"])]}

    def list_volumes(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"volumes": [self.volume(name) for name in self.volumes]}

    def create_volume(self, request: dict[str, Any]) -> dict[str, Any]:
        self.volumes[request["id"]] = request["size"]
        return self.get_volume(request)

    def resize_volume(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.create_volume(request)

    def get_volume(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"volumes": [self.volume(request["id"])]}

    def delete_dataset(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self.get_volume(request)
        del self.volumes[request["id"]]
        return answer

    def create_snapshot(self, request: dict[str, Any]) -> dict[str, Any]:
        name = f"{request['id']}@{request['dest']}"
        self.snapshots[name] = 3
        return {"snapshots": [self.snapshot(name)]}

    def get_snapshot(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"snapshots": [self.snapshot(request["id"])]}

    def list_snapshots(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "snapshots": [self.snapshot(name) for name in self.snapshots if name.startswith(request["id"])]
        }

    def delete_snapshot(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self.get_snapshot(request)
        del self.snapshots[request["id"]]
        return answer

    rollback_snapshot = get_snapshot

    def create_guest_disks(self, request: dict[str, Any]) -> dict[str, Any]:
        guest = request["guest"]
        for number, disk in enumerate(guest["disks"]):
            name = f"guests/{guest['id']}/disk-{number}"
            disk.setdefault("size", 2048)
            self.volumes[name] = disk["size"]
            disk["volume"], disk["source"] = f"{POOL}/{name}", f"/dev/zvol/{POOL}/{name}"
        return {"guest": guest}

    def delete_guests_disks(self, request: dict[str, Any]) -> dict[str, Any]:
        prefix = f"guests/{request['guest']['id']}/"
        self.volumes = {name: size for name, size in self.volumes.items() if not name.startswith(prefix)}
        return {"guest": {**request["guest"], "disks": []}}


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is what some tests are about."""
