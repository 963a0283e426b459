"""A store that answers the RPC from memory, and the command line run in this process."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from imagestore.cli.main import main
from imagestore.cli.storeprocess import StoreProcess
from imagestore.config import NOT_SETTINGS
from tests.cli.memory_store import MemoryStore


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``imagestore ARGUMENTS…``; nothing is a terminal."""
    for variable in NOT_SETTINGS:
        monkeypatch.delenv(variable, raising=False)

    def command(*arguments: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, captured.out, captured.err)

    return command


@pytest.fixture
def memory_store(monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[MemoryStore]:
    """A store that the commands of this test find by ``IMAGESTORE_SERVER``."""
    with MemoryStore() as store:
        monkeypatch.setenv("IMAGESTORE_SERVER", store.address)
        yield store


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[StoreProcess]:
    """A store that runs, and comes back at the same address; commands of this test find it."""
    port = free_port()
    monkeypatch.setenv("IMAGESTORE_SERVER", f"http://127.0.0.1:{port}")
    with StoreProcess(str(tmp_path), "127.0.0.1:9", port=port) as process:
        process.start()
        yield process
