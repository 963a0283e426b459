"""send: the file of the final name is the whole stream or is not there."""

import fcntl
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from imagestore.cli import download
from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore
from tests.streams.samples import load


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
    assert (ended.status, ended.err.splitlines()[0]) == (3, "imagestore: not found")
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


# --- downloads that go on


def breaking(memory_store: MemoryStore, *, stream: bytes, after: int, times: int = -1) -> None:
    """A store whose connections break after so many bytes, so many times."""
    memory_store.snapshots["v@a"] = 1
    memory_store.stream = stream
    memory_store.etag = '"1"'
    memory_store.breaks_after = after
    memory_store.breaks = times


STREAM = load("v8k-s1-c")


def test_a_connection_that_breaks_is_made_again_for_what_is_missing(
    run: Run, memory_store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(download, "sleep", waited.append)
    breaking(memory_store, stream=STREAM, after=200_000)
    target = tmp_path / "v.zfs"
    memory_store.breaks = 4
    assert run("send", "v@a", "-o", str(target)).status == 0
    assert target.read_bytes() == STREAM
    assert memory_store.ranges == ["", *(f"bytes={n * 200_000}-" for n in (1, 2, 3, 4))]
    assert [path.name for path in tmp_path.iterdir()] == ["v.zfs"]
    assert len(waited) == 4


def test_a_store_that_is_started_again_is_waited_for(
    run: Run, memory_store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(memory_store, stream=STREAM, after=200_000, times=1)

    def restart(seconds: float) -> None:
        waited.append(seconds)
        memory_store.starting = 3 if len(waited) == 1 else memory_store.starting

    waited: list[float] = []
    monkeypatch.setattr(download, "sleep", restart)
    assert run("send", "v@a", "-o", str(tmp_path / "v.zfs")).status == 0
    assert (tmp_path / "v.zfs").read_bytes() == STREAM
    assert waited == [0.5, 0.5, 1, 2]


def test_a_snapshot_that_is_gone_meanwhile_is_not_waited_for(
    run: Run, memory_store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(memory_store, stream=STREAM, after=200_000, times=1)
    monkeypatch.setattr(download, "sleep", lambda seconds: memory_store.snapshots.clear())
    assert run("send", "v@a", "-o", str(tmp_path / "v.zfs")).status == 3


def test_a_store_that_brings_nothing_any_more_is_given_up_and_the_next_run_goes_on(
    run: Run, memory_store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(download, "sleep", waited.append)
    breaking(memory_store, stream=STREAM, after=300_000, times=1)
    target = tmp_path / "v.zfs"

    def never_again(seconds: float) -> None:
        waited.append(seconds)
        memory_store.breaks_after, memory_store.breaks = 0, -1

    monkeypatch.setattr(download, "sleep", never_again)
    ended = run("send", "v@a", "-o", str(target))
    assert ended.status == 41
    assert waited == [0.5, 0.5, 1, 2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.zfs.part", "v.zfs.part.etag"]
    assert (tmp_path / "v.zfs.part").read_bytes() == STREAM[:300_000]
    memory_store.breaks_after, memory_store.ranges = None, []
    assert run("send", "v@a", "-o", str(target)).status == 0
    assert target.read_bytes() == STREAM
    assert memory_store.ranges == ["bytes=300000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["v.zfs"]


def left(tmp_path: Path, memory_store: MemoryStore, content: bytes, *, etag: str = '"1"') -> Path:
    """What an earlier run has left of v.zfs."""
    breaking(memory_store, stream=STREAM, after=0, times=0)
    (tmp_path / "v.zfs.part").write_bytes(content)
    kept = {"etag": etag, "wanted": {"server": memory_store.address, "snapshot": "v@a", "base": ""}}
    (tmp_path / "v.zfs.part.etag").write_text(json.dumps(kept))
    return tmp_path / "v.zfs"


def test_a_part_that_is_all_there_needs_no_more(run: Run, memory_store: MemoryStore, tmp_path: Path) -> None:
    target = left(tmp_path, memory_store, STREAM)
    assert run("send", "v@a", "-o", str(target)).status == 0
    assert target.read_bytes() == STREAM
    assert memory_store.ranges == [f"bytes={len(STREAM)}-"]


@pytest.mark.parametrize("change", ["etag", "snapshot", "base", "label"])
def test_a_part_of_another_stream_is_not_gone_on_with(
    change: str, run: Run, memory_store: MemoryStore, tmp_path: Path
) -> None:
    target = left(tmp_path, memory_store, b"x" * 1000, etag='"2"' if change == "etag" else '"1"')
    memory_store.snapshots["w@a"] = 1
    if change == "label":
        (tmp_path / "v.zfs.part.etag").write_text("{")
        (tmp_path / "v.zfs.part").write_bytes(b"")
    name = "w@a" if change == "snapshot" else "v@a"
    base = ["--from", "@z"] if change == "base" else []
    assert run("send", name, *base, "-o", str(target)).status == 0
    assert target.read_bytes() == STREAM
    assert memory_store.ranges == (["bytes=1000-"] if change == "etag" else [""])
    assert memory_store.bases == ["@z" if base else ""]
    assert [path.name for path in tmp_path.iterdir()] == ["v.zfs"]


def test_a_part_that_the_machine_lost_a_piece_of_is_fetched_anew(
    run: Run, memory_store: MemoryStore, tmp_path: Path
) -> None:
    target = left(tmp_path, memory_store, STREAM[:100_000] + bytes(50_000) + STREAM[150_000:400_000])
    assert run("send", "v@a", "-o", str(target)).status == 0
    assert target.read_bytes() == STREAM
    assert memory_store.ranges == ["bytes=400000-", ""]


def test_somebody_elses_file_is_not_taken_for_a_part(
    run: Run, memory_store: MemoryStore, tmp_path: Path
) -> None:
    memory_store.snapshots["v@a"] = 1
    (tmp_path / "v.zfs.part").write_bytes(b"mine")
    ended = run("send", "v@a", "-o", str(tmp_path / "v.zfs"))
    assert ended.status == 4
    assert "v.zfs.part exists already and is no download of ours" in ended.err
    assert (tmp_path / "v.zfs.part").read_bytes() == b"mine"


def test_two_downloads_to_one_file_do_not_mix(run: Run, memory_store: MemoryStore, tmp_path: Path) -> None:
    target = left(tmp_path, memory_store, STREAM[:1000])
    with (tmp_path / "v.zfs.part").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ended = run("send", "v@a", "-o", str(target))
    assert (ended.status, "another process downloads to" in ended.err) == (41, True)
    assert (tmp_path / "v.zfs.part").read_bytes() == STREAM[:1000]


def test_a_pipe_gets_each_byte_once_however_often_the_connection_breaks(memory_store: MemoryStore) -> None:
    breaking(memory_store, stream=STREAM, after=400_000, times=2)
    ended = subprocess.run(command(memory_store, "send", "v@a"), capture_output=True, check=True)
    assert ended.stdout == STREAM
    assert memory_store.ranges == ["", "bytes=400000-", "bytes=800000-"]


def test_a_pipe_is_not_fed_another_stream_midway(memory_store: MemoryStore) -> None:
    breaking(memory_store, stream=STREAM, after=400_000, times=1)
    with subprocess.Popen(
        command(memory_store, "send", "v@a"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as sending:
        assert sending.stdout is not None
        assert sending.stderr is not None
        sending.stdout.read(100_000)
        memory_store.etag = '"2"'
        assert len(sending.stdout.read()) == 300_000
        assert b"the snapshot was replaced by another while it was sent" in sending.stderr.read()
        assert sending.wait() == 41
