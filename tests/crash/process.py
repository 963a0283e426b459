"""A real ``imagestore serve``, in a process group of its own, that is killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio
from msgspec import Struct

from tests.crash import files
from tests.crash.files import Row

ROOT = Path(__file__).parent.parent.parent
READY_SECONDS = 120.0
_ADDRESS = re.compile(rb"ready at (http://[^\s,]+)")


class Place(Struct, frozen=True):
    """Where one store lives, and what its pool holds by the pool's own testimony."""

    directory: Path

    @property
    def address(self) -> str:
        """The pool's, as a setting has it."""
        return f"dir:{self.pool}"

    @property
    def pool_name(self) -> str:
        return self.pool.name

    @property
    def disks(self) -> str:
        """The directory in which volumes can be opened by their names."""
        return str(self.pool)

    @property
    def flushes(self) -> bool:
        """Whether what a client writes has to be flushed for the pool to hold it."""
        return False

    @property
    def force_overrides(self) -> bool:
        """Whether a disk that a process has open can be pulled away by force."""
        return True

    def rows(self) -> dict[str, Row]:
        """Every dataset but the root."""
        return files.rows_of(self.pool)

    def sha256_of(self, row: Row) -> str:
        return files.sha256_of(self.pool, row)

    def strays(self, rows: dict[str, Row]) -> list[str]:
        """What lies in the pool and belongs to nothing."""
        return files.strays_of(self.pool, rows)

    @property
    def pool(self) -> Path:
        return self.directory / "pool"

    @property
    def journal(self) -> Path:
        return self.directory / "journal"

    @property
    def log(self) -> Path:
        return self.directory / "store.log"


class Died(AssertionError):
    """The store ended by itself."""


class StoreProcess:
    """One life of a store on ``place``; ``under`` is the command of a program that runs it."""

    def __init__(self, place: Place, image_service: str, *, under: Sequence[str] = ()) -> None:
        self._place = place
        self._under = under
        self._arguments = [
            *("serve", "--pool", place.address, "--journal", str(place.journal), "-p", "0"),
            *("-i", image_service, "--log-level", "info"),
            # Small, so that rotation and checkpoints are among what is cut short.
            *("--set", f"journal_segment_bytes={1 << 16}", "--set", "checkpoint_events=150"),
            *("--set", "fetch_tries=1", "--set", "fetch_wait_seconds=0.1", "--set", "guest_idle_seconds=0.2"),
        ]
        self._process: trio.Process | None = None

    async def spawn(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("IMAGESTORE_")}
        with self._place.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                [*self._under, sys.executable, "-m", "imagestore", *self._arguments],
                cwd=str(ROOT),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                process_group=0,
            )

    async def until_ready(self) -> str:
        """The store's address. Raises Died."""
        assert self._process is not None
        assert self._process.stdout is not None
        said = b""
        with trio.fail_after(READY_SECONDS):
            while (found := _ADDRESS.search(said)) is None or b"\n" not in said:
                piece = await self._process.stdout.receive_some()
                if not piece:
                    await self._process.wait()
                    raise Died(f"it did not start (status {self._process.returncode}): {self._last_words()}")
                said += piece
        return found[1].decode()

    def check_alive(self) -> None:
        """Raises Died."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise Died(f"it ended by itself (status {self._process.returncode}): {self._last_words()}")

    async def stop(self) -> int:
        """SIGTERM; returns the status when the process has ended and nobody holds its output any more."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.terminate()
        with trio.fail_after(READY_SECONDS):
            async for _ in self._process.stdout:
                pass
            return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL to the whole group; returns when the process is gone."""
        process = self._process
        if process is None:
            return
        self._process = None
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()

    def _last_words(self) -> str:
        return "\n".join(self._place.log.read_text(errors="replace").splitlines()[-40:])
