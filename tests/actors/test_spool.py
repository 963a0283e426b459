"""The spool on its own: what is kept, what is counted, and what a full disk or quota means."""

import hashlib
import os
from pathlib import Path

import pytest

from imagestore.actors.spool import Heading, Kept, Mark, Spool, Spools
from imagestore.errors import NoSpace

OPERATION = "01a20db3-7b2b-7000-b1f6-e452cc7f8af7"
OTHER = "01a20db3-7b2b-7000-b1f6-000000000000"
HEADING = Heading(source="s", validator='"v"', total_bytes=1 << 20)
BLOCK = 4096


@pytest.fixture
def spools(tmp_path: Path) -> Spools:
    spools = Spools(str(tmp_path / "spool"), quota_bytes=1 << 20)
    spools.prepare(())
    return spools


@pytest.fixture
def spool(spools: Spools) -> Spool:
    spool = spools.open(OPERATION)
    spool.begin(HEADING)
    return spool


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def keep(spool: Spool, *pieces: bytes) -> None:
    for piece in pieces:
        spool.write(piece)
    spool.mark(sha256(b"".join(pieces)))


@pytest.mark.parametrize("cut", [1, 511, BLOCK, 3 * BLOCK + 7])
def test_what_was_written_is_read_again_holes_and_all(spools: Spools, spool: Spool, cut: int) -> None:
    body = b"a" * BLOCK + bytes(5 * BLOCK) + b"b" * 100 + bytes(3 * BLOCK) + b"c" + bytes(2 * BLOCK)
    keep(spool, *(body[at : at + cut] for at in range(0, len(body), cut)))
    spool.close()
    again = spools.open(OPERATION)
    kept = again.kept()
    assert kept == Kept(heading=HEADING, mark=Mark(length=len(body), sha256=sha256(body)))
    assert again.resume(kept)
    assert b"".join(again.read()) == body
    again.write(b"more")
    assert b"".join(again.read()) == body + b"more"
    again.remove()


def test_what_is_behind_the_last_mark_is_not_read(spools: Spools, spool: Spool) -> None:
    keep(spool, b"marked")
    spool.write(b"and not marked")
    spool.close()
    again = spools.open(OPERATION)
    kept = again.kept()
    assert kept is not None
    assert again.resume(kept)
    assert b"".join(again.read()) == b"marked"
    again.remove()


def test_over_the_quota_a_second_copy_is_given_up(spools: Spools, spool: Spool) -> None:
    spool.write(bytes(1 << 19))
    assert spools.used_bytes == 1 << 19
    spool.write(b"x" * ((1 << 19) + 1))
    assert not spool.is_kept
    assert spools.used_bytes == 0
    assert os.listdir(spools.directory) == []
    spool.write(b"nobody minds")
    spool.close()


def test_an_image_s_own_file_counts_for_nothing(spools: Spools, spool: Spool) -> None:
    spool.write(b"x" * (1 << 19))
    spool.become_image()
    spool.write(b"y" * (1 << 20))
    assert spool.is_kept
    assert spools.used_bytes == 0
    other = spools.open(OTHER)
    other.begin(HEADING)
    other.write(b"z" * (1 << 20))
    assert other.is_kept
    for each in (spool, other):
        each.remove()


def test_a_file_that_is_needed_whole_fails_over_the_quota(spool: Spool) -> None:
    spool.write(b"x" * (1 << 19))
    spool.become_source()
    with pytest.raises(NoSpace):
        spool.write(b"x" * (1 << 20))
    spool.remove()


def test_what_earlier_lives_left_counts_until_it_is_taken_up(tmp_path: Path, spools: Spools) -> None:
    left = spools.open(OPERATION)
    left.begin(HEADING)
    keep(left, b"x" * (1 << 19))
    left.close()
    later = Spools(spools.directory, quota_bytes=1 << 20)
    later.prepare({OPERATION})
    assert later.used_bytes == 1 << 19
    assert not later.has_room((1 << 19) + 1)
    later.open(OPERATION).remove()
    assert later.used_bytes == 0


def test_a_spool_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    spool = Spools(str(tmp_path / "nowhere"), quota_bytes=1 << 20).open(OPERATION)
    spool.begin(HEADING)
    assert not spool.is_kept
    keep(spool, b"x")
    assert spool.kept() is None
    spool.remove()


def test_marks_come_every_mebibyte_and_then_less_often(tmp_path: Path) -> None:
    spools = Spools(str(tmp_path), quota_bytes=1 << 40)
    spool = spools.open(OPERATION)
    spool.begin(HEADING)
    marks = 0
    for _ in range(1024):
        spool.write(bytes(1 << 20))
        if spool.wants_mark:
            spool.mark("0" * 64)
            marks += 1
    assert 400 < marks < 1024
    spool.remove()
