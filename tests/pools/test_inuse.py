"""Who has a file open for writing, and keeping others from opening it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imagestore.errors import InUse
from imagestore.pools.inuse import Leases, is_open_for_writing, seen_written_to, writers, written_to
from tests.pools.harness import opened_for_writing


@pytest.fixture
def disk(tmp_path: Path) -> str:
    (tmp_path / "disk").write_bytes(bytes(512))
    return str(tmp_path / "disk")


def test_a_writer_is_seen_and_named_and_a_reader_is_not(disk: str) -> None:
    with open(disk, "rb"):
        assert not is_open_for_writing(disk)
        assert writers(disk) == []
        with opened_for_writing(disk) as writer:
            assert is_open_for_writing(disk)
            (name,) = writers(disk)
            assert name.split()[:2] == ["pid", str(writer.pid)]
            leases = Leases()
            assert not leases.take(disk)
    assert not is_open_for_writing(disk)


def test_a_lease_keeps_writers_out_until_it_is_released(disk: str) -> None:
    leases = Leases()
    assert leases.take(disk)
    with open(disk, "rb"):
        leases.check_intact(["disk"])
    # O_NONBLOCK fails where another open would wait, and asks for the lease back all the same.
    with pytest.raises(BlockingIOError):
        os.open(disk, os.O_RDWR | os.O_NONBLOCK)
    with pytest.raises(InUse, match="dataset is in use: disk"):
        leases.check_intact(["disk"])
    leases.release()
    os.close(os.open(disk, os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.parametrize("look", [written_to, seen_written_to])
def test_of_many_those_with_a_writer_are_told(look: Callable[[list[str]], set[str]], disk: str) -> None:
    other = disk + "2"
    Path(other).write_bytes(bytes(512))
    with opened_for_writing(disk):
        assert look([disk, other, disk + "-missing"]) == {disk}
    assert look([disk, other]) == set()


def test_what_cannot_be_leased_is_judged_by_the_processes(disk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_leases(file: int, command: int, argument: int = 0) -> int:
        raise OSError(errno.EINVAL, "no leases here")

    with opened_for_writing(disk):
        monkeypatch.setattr("fcntl.fcntl", no_leases)
        assert written_to([disk]) == {disk}
    assert written_to([disk]) == set()
