"""Syncing ahead: in steps, never in the way, and a failure is not forgotten."""

import errno
import os
import threading
from pathlib import Path

import pytest

from imagestore.streams.syncahead import SyncAhead


@pytest.fixture
def file(tmp_path: Path) -> int:
    return os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)


def test_a_sync_begins_with_each_step_and_closes_what_it_opened(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    before = set(os.listdir("/proc/self/fd"))
    ahead = SyncAhead(file, step_bytes=100)
    for _ in range(3):
        ahead.wrote(99)
        assert len(synced) == 0
        ahead.wrote(1)
        ahead.finish()
        assert len(synced) == 1
        assert synced.pop() != file
    assert set(os.listdir("/proc/self/fd")) == before


def test_writing_does_not_wait_for_a_sync_under_way(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    begun: list[int] = []

    def slow(fd: int) -> None:
        begun.append(fd)
        release.wait()

    monkeypatch.setattr(os, "fdatasync", slow)
    ahead = SyncAhead(file, step_bytes=10)
    for _ in range(50):
        ahead.wrote(10)
    assert len(begun) <= 1
    release.set()
    ahead.finish()
    assert len(begun) == 1


def test_a_failed_sync_is_raised_and_raised_again(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "disk broke")

    monkeypatch.setattr(os, "fdatasync", fail)
    ahead = SyncAhead(file, step_bytes=10)
    ahead.wrote(10)
    with pytest.raises(OSError, match="disk broke"):
        ahead.finish()
    with pytest.raises(OSError, match="disk broke"):
        ahead.wrote(1)
