"""receive: what is read goes to the store, and what the store says is told."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore

STREAM = bytes(range(251)) * 20_000


def command(memory_store: MemoryStore, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "imagestore", "receive", *arguments, "--server", memory_store.address]


def test_a_file_goes_whole_and_what_came_is_shown(
    run: Run, memory_store: MemoryStore, tmp_path: Path
) -> None:
    source = tmp_path / "v.zfs"
    source.write_bytes(STREAM)
    ended = run("receive", "guests/a/disk-0", str(source))
    assert (ended.status, ended.err) == (0, "")
    assert "tank/guests/a/disk-0@a" in ended.out
    assert memory_store.received == {"guests/a/disk-0": STREAM}
    assert memory_store.calls == [("receive", {"id": "guests/a/disk-0", "force": False})]


def test_force_is_passed_on(run: Run, memory_store: MemoryStore, tmp_path: Path) -> None:
    source = tmp_path / "v.zfs"
    source.write_bytes(b"stream")
    assert run("receive", "--force", "v", str(source)).status == 0
    assert memory_store.calls == [("receive", {"id": "v", "force": True})]


@pytest.mark.parametrize("arguments", [("v",), ("v", "-")])
def test_without_a_file_the_stream_comes_from_stdin(
    arguments: tuple[str, ...], memory_store: MemoryStore
) -> None:
    subprocess.run(command(memory_store, *arguments), input=STREAM, capture_output=True, check=True)
    assert memory_store.received == {"v": STREAM}


@pytest.mark.parametrize(
    ("error", "status", "exit_code"),
    [
        ("StreamError", 422, 11),
        ("AlreadyExists", 409, 4),
        ("Modified", 409, 5),
        ("NoSpace", 507, 6),
        ("New", 500, 1),
    ],
)
def test_a_refusal_is_told_although_the_store_has_not_read_all(
    error: str, status: int, exit_code: int, run: Run, memory_store: MemoryStore, tmp_path: Path
) -> None:
    source = tmp_path / "v.zfs"
    source.write_bytes(STREAM * 4)
    memory_store.problem = {"title": "it does not fit", "detail": "do this", "status": status, "error": error}
    ended = run("receive", "v", str(source))
    assert (ended.status, ended.err) == (exit_code, "imagestore: it does not fit\n  do this\n")


def test_a_file_that_is_not_there_is_named(run: Run, memory_store: MemoryStore, tmp_path: Path) -> None:
    ended = run("receive", "v", str(tmp_path / "none"))
    assert (ended.status, ended.err) == (3, f"imagestore: {tmp_path / 'none'} does not exist\n")


def test_a_terminal_is_not_read(memory_store: MemoryStore) -> None:
    ours, theirs = pty.openpty()
    try:
        ended = subprocess.run(command(memory_store, "v"), stdin=theirs, capture_output=True, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == 2
    assert b"a terminal sends no stream" in ended.stderr
