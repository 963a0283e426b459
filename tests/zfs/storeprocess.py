"""A whole store on a ZFS pool, in a process of its own, for tests in the machine."""

import re
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from imagestore.client import Client

START_SECONDS = 120.0
"""The machine is emulated, and slow."""

_ADDRESS = re.compile(r"http://[^\s,]+")


class ZfsStore:
    """``imagestore serve --pool zfs:NAME``, journal and log in ``directory``."""

    def __init__(
        self,
        pool: str,
        directory: Path,
        image_service: str = "127.0.0.1:1",
        *,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.pool = pool
        self._settings = {"allow_unsafe_filesystem": "true", **(settings or {})}
        self.directory = directory
        self._image_service = image_service
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    def client(self) -> Client:
        """A client of it; it is started if it does not run."""
        return Client(self._address) if self._process is not None else self.start()

    def start(self) -> Client:
        """Start it; a client of it once it is ready. Fails with its own words if it is not."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._words(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        said = ""
        if select.select([self._process.stdout], [], [], START_SECONDS)[0]:
            said = self._process.stdout.readline().decode()
        address = _ADDRESS.search(said)
        if address is None:
            self.end(signal.SIGKILL)
            raise AssertionError(f"the store did not start: {(self.directory / 'log').read_text()[-2000:]}")
        self._address = address[0]
        return Client(self._address)

    def _words(self, **settings: object) -> list[str]:
        """The journal's disk is memory in the machine: nobody minds whether it is safe."""
        given = {**self._settings, **settings}
        return [
            sys.executable, "-m", "imagestore", "serve",
            "--pool", f"zfs:{self.pool}", "--journal", str(self.directory / "journal"), "--port", "0",
            "--image-service", self._image_service,
            *(word for key, value in given.items() for word in ("--set", f"{key}={value}")),
        ]  # fmt: skip

    def refused(self, **settings: object) -> subprocess.CompletedProcess[str]:
        """Another store of the same kind, which does not start."""
        return subprocess.run(self._words(**settings), capture_output=True, text=True, timeout=START_SECONDS)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, how: signal.Signals) -> None:
        """Signal it; it may take its time to end."""
        assert self._process is not None
        self._process.send_signal(how)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Signal it and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
