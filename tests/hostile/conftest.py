"""A real store in a process of its own, and what it may not do whatever is sent to it."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from imagestore.cli.storeprocess import StoreProcess

MOST_BYTES = 300 << 20
"""What a store may hold in memory, whatever its clients do."""


class Target(StoreProcess):
    """The store under attack."""

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory), "127.0.0.1:1")

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*super().arguments, "--set", "fetch_wait_seconds=0.01", "--set", "fetch_tries=1")

    def begin(self) -> None:
        parts = urlsplit(self.start().server)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = (parts.hostname, parts.port)

    def check(self) -> None:
        """It has met nothing that it did not expect, and is not swollen."""
        log = Path(self.directory, "store.log").read_text(errors="replace")
        assert "incident" not in log, log[-4000:]
        assert "Traceback" not in log, log[-4000:]
        assert self.memory_bytes() < MOST_BYTES

    def memory_bytes(self) -> int:
        """What of it is in memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with Target(tmp_path) as store:
        store.begin()
        yield store
        store.check()


@pytest.fixture(scope="session")
def many_files() -> int:
    """As many descriptors as this process may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
