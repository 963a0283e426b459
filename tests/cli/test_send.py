"""send: the file of the final name is the whole stream or is not there."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore


def test_a_stream_lands_whole_under_its_name(run: Run, memory_store: MemoryStore, tmp_path: Path) -> None:
    memory_store.snapshots["v@a"] = 1
    target = tmp_path / "v.zfs"
    target.write_bytes(b"an older one")
    assert run("send", "v@a", "-o", str(target)).status == 0
    assert target.read_bytes() == memory_store.stream
    assert [path.name for path in tmp_path.iterdir()] == ["v.zfs"]


def test_a_stream_that_breaks_leaves_nothing(run: Run, memory_store: MemoryStore, tmp_path: Path) -> None:
    memory_store.snapshots["v@a"] = 1
    memory_store.breaks_after = 2500
    ended = run("send", "v@a", "-o", str(tmp_path / "v.zfs"))
    assert ended.status == 41
    assert "broke off" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_breaks_leaves_an_older_file_alone(
    run: Run, memory_store: MemoryStore, tmp_path: Path
) -> None:
    memory_store.snapshots["v@a"] = 1
    memory_store.breaks_after = 2500
    target = tmp_path / "v.zfs"
    target.write_bytes(b"an older one")
    assert run("send", "v@a", "-o", str(target)).status == 41
    assert target.read_bytes() == b"an older one"


def test_a_snapshot_that_is_not_there_is_not_found(
    run: Run, memory_store: MemoryStore, tmp_path: Path
) -> None:
    ended = run("send", "v@a", "-o", str(tmp_path / "v.zfs"))
    assert (ended.status, ended.err) == (3, "imagestore: not found\n")
    assert list(tmp_path.iterdir()) == []


def command(memory_store: MemoryStore, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "imagestore", *arguments, "--server", memory_store.address]


def test_without_a_file_the_stream_goes_to_stdout(memory_store: MemoryStore) -> None:
    memory_store.snapshots["v@a"] = 1
    ended = subprocess.run(command(memory_store, "send", "v@a"), capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (memory_store.stream, b"")


def test_a_reader_that_goes_away_ends_the_command_quietly(memory_store: MemoryStore) -> None:
    memory_store.snapshots["v@a"] = 1
    memory_store.stream = bytes(4 << 20)
    with subprocess.Popen(
        command(memory_store, "send", "v@a"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as sending:
        assert sending.stdout is not None
        assert sending.stderr is not None
        sending.stdout.read(1)
        sending.stdout.close()
        assert sending.stderr.read() == b""
        assert sending.wait() == 141


def test_a_terminal_is_not_fed_a_stream(memory_store: MemoryStore) -> None:
    ours, theirs = pty.openpty()
    try:
        ended = subprocess.run(
            command(memory_store, "send", "v@a"), stdout=theirs, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == 2
    assert b"a stream is not for a terminal" in ended.stderr


def test_a_directory_that_is_not_there_is_named(run: Run, memory_store: MemoryStore, tmp_path: Path) -> None:
    memory_store.snapshots["v@a"] = 1
    ended = run("send", "v@a", "-o", str(tmp_path / "none" / "v.zfs"))
    assert ended.status == 3
    assert ended.err == f"imagestore: {tmp_path / 'none'} is no directory\n"


def test_a_device_is_written_directly(run: Run, memory_store: MemoryStore) -> None:
    memory_store.snapshots["v@a"] = 1
    assert run("send", "v@a", "-o", "/dev/null").status == 0
    assert Path("/dev/null").is_char_device()
