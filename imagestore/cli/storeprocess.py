"""A store in a process of its own, which may be killed: for the demo.

Owns the child: started with the very command that people type, and gone when
the context is left, whatever happens.
"""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from imagestore.client import Client
from imagestore.errors import ImageStoreError

START_SECONDS = 30.0
"""A store that has not said that it is ready by then will not."""

STOP_SECONDS = 15.0
"""SIGTERM ends a store within 10 seconds."""

_ADDRESS = re.compile(r"https?://[^\s,]+")


class StoreProcess:
    """``imagestore serve`` on the directory pool ``<directory>/pool``, journal ``<directory>/journal``.

    ``port`` 0 takes a free one, another each time; ``more`` are further flags.
    The machine's own socket is left to the machine's own store."""

    def __init__(
        self,
        directory: str,
        image_service: str,
        *,
        port: int = 0,
        more: Sequence[str] = ("--socket", "none"),
    ) -> None:
        self.directory = directory
        self._port = port
        self._more = more
        self._log = os.path.join(directory, "store.log")
        self._image_service = image_service
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows ``imagestore`` on the command line, in the store's directory."""
        return (
            "serve",
            "--pool",
            "dir:pool",
            "--journal",
            "journal",
            "--port",
            str(self._port),
            "--image-service",
            self._image_service,
            *self._more,
        )

    def start(self) -> Client:
        """Start the store; returns a client of it when it is ready.

        Raises:
            ImageStoreError: it did not start; its own words say why.
        """
        assert self._process is None
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and arguments)
                [sys.executable, "-m", "imagestore", *self.arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith("IMAGESTORE_")},
            )
        assert self._process.stdout is not None
        said = (
            self._process.stdout if select.select([self._process.stdout], [], [], START_SECONDS)[0] else None
        )
        line = said.readline().decode() if said is not None else ""
        address = _ADDRESS.search(line)
        if address is None:
            self.kill()
            raise ImageStoreError("the store did not start", detail=self._last_words())
        return Client(address[0])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """``kill -9``; returns when the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit status. Raises ImageStoreError if it does not end."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        process = self._process
        assert process is not None
        process.send_signal(how)
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ImageStoreError(f"the store did not end within {STOP_SECONDS:g} s") from None
        finally:
            assert process.stdout is not None
            process.stdout.close()
            self._process = None
        return status

    def _last_words(self) -> str:
        with open(self._log, encoding="utf-8", errors="replace") as log:
            return " / ".join(line.strip() for line in log.readlines()[-4:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()
