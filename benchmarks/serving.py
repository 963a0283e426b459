"""A real ``imagestore serve`` in a process of its own, and a small image service beside it.

Owns the processes and their ends.  Measures nothing but readiness and memory.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 120.0
POLL_SECONDS = 0.02
"""Between two questions whether it is ready. Asked every 2 ms a store answered so much that its start took
twice as long, and the memory that this cost was counted as its own."""

STOP_SECONDS = 20.0
RPC_PATH = "/_mistify_RPC_"


class Store:
    """A running store.  ``started_seconds`` is from exec to the first 200 of /readyz."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.started_seconds = 0.0

    def wait_ready(self, began: float) -> None:
        while time.perf_counter() - began < START_SECONDS:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"the store ended with {self.process.returncode}: {self.log.read_text()[-800:]}"
                )
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/readyz")
                status = connection.getresponse().status
                connection.close()
                if status == 200:
                    self.started_seconds = time.perf_counter() - began
                    return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"the store was not ready in {START_SECONDS:g} s: {self.log.read_text()[-800:]}")

    def resident_mb(self) -> float:
        """VmRSS in MB (10^6 bytes)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024 / 1e6

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port)

    def call(self, method: str, parameters: object) -> dict[str, list[dict[str, object]]]:
        """One RPC on a connection of its own; raises RuntimeError with the store's text."""
        connection = self.connection()
        try:
            return call_on(connection, method, parameters)
        finally:
            connection.close()


def request_body(method: str, parameters: object) -> bytes:
    return json.dumps({"method": f"ImageStore.{method}", "params": [parameters], "id": 1}).encode()


def call_on(
    connection: http.client.HTTPConnection, method: str, parameters: object
) -> dict[str, list[dict[str, object]]]:
    connection.request(
        "POST", RPC_PATH, request_body(method, parameters), {"Content-Type": "application/json"}
    )
    answer = json.loads(connection.getresponse().read())
    if answer["error"] is not None:
        raise RuntimeError(f"{method}: {answer['error']}")
    result: dict[str, list[dict[str, object]]] = answer["result"]
    return result


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serve(pool: Path | str, journal: Path, *options: str) -> Iterator[Store]:
    """Start a store, wait until it is ready, stop it with SIGTERM.

    ``pool`` is the directory of a directory pool, or any pool's address.
    """
    port = free_port()
    log = journal.parent / "store.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGESTORE_")}
    command = [
        sys.executable,
        "-m",
        "imagestore",
        "serve",
        "--pool",
        pool if isinstance(pool, str) else f"dir:{pool}",
        "--journal",
        str(journal),
    ]
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port", str(port), *options], stdout=output, stderr=output, env=environment
        )
    store = Store(process, port, log)
    try:
        store.wait_ready(began)
        yield store
    finally:
        _stop(process)


@contextlib.contextmanager
def image_service(directory: Path) -> Iterator[str]:
    """Serve the files of ``directory`` as images; yields HOST:PORT."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.imageservice", str(directory)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()
    finally:
        _stop(process)
        if process.stdout is not None:
            process.stdout.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
