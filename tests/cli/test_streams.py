"""stream inspect, extract and make: what they take, print and leave."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from tests.cli.conftest import Ended, Run

SIZE = 1 << 20


def disk(seed: int) -> bytes:
    """Data, a hole, data; the second half depends on the seed."""
    return random.Random(1).randbytes(SIZE // 4) + bytes(SIZE // 2) + random.Random(seed).randbytes(SIZE // 4)


@pytest.fixture
def made(run: Run, tmp_path: Path) -> Path:
    """A directory with two disks and the streams made of them."""
    for name, seed in (("monday", 2), ("tuesday", 3)):
        (tmp_path / f"{name}.raw").write_bytes(disk(seed))
    done(make(run, tmp_path, "monday"))
    done(make(run, tmp_path, "tuesday", "--from", str(tmp_path / "monday.raw")))
    return tmp_path


def make(run: Run, directory: Path, day: str, *options: str) -> Ended:
    return run(
        "stream",
        "make",
        str(directory / f"{day}.raw"),
        str(directory / f"{day}.zfs"),
        "--name",
        f"tank/disk@{day}",
        *options,
    )


def done(ended: Ended) -> Ended:
    assert (ended.status, ended.err) == (0, "")
    return ended


def test_a_full_and_an_incremental_stream_unpack_to_the_later_disk(run: Run, made: Path) -> None:
    target = made / "out.raw"
    ended = done(run("stream", "extract", str(made / "monday.zfs"), str(made / "tuesday.zfs"), str(target)))
    assert target.read_bytes() == disk(3)
    assert ended.out == f"{target}: 1M, the content of tank/disk@tuesday\n"


def test_an_incremental_alone_cannot_be_unpacked_and_leaves_nothing(run: Run, made: Path) -> None:
    ended = run("stream", "extract", str(made / "tuesday.zfs"), str(made / "out.raw"))
    assert ended.status == 11
    assert str(made / "tuesday.zfs") in ended.err
    assert sorted(os.listdir(made)) == ["monday.raw", "monday.zfs", "tuesday.raw", "tuesday.zfs"]


def test_inspect_tells_name_size_and_that_all_is_right(run: Run, made: Path) -> None:
    out = done(run("stream", "inspect", str(made / "monday.zfs"))).out
    assert "tank/disk@monday  full" in out
    assert "volume of 1M in blocks of 16K" in out
    assert "data        512K (32 off)" in out
    assert out.splitlines()[-1].startswith("whole and right: ")


def test_inspect_names_the_base_of_an_incremental(run: Run, made: Path) -> None:
    monday, tuesday = (
        json.loads(done(run("stream", "inspect", str(made / f"{day}.zfs"), "-o", "json")).out)["snapshots"][0]
        for day in ("monday", "tuesday")
    )
    assert (monday["kind"], tuesday["kind"]) == ("full", "incremental")
    assert tuesday["from_guid"] == monday["guid"]
    assert tuesday["data_bytes"] == SIZE // 4
    assert f"from guid {int(monday['guid']):x}" in run("stream", "inspect", str(made / "tuesday.zfs")).out


def test_inspect_reads_gzip_by_content(run: Run, made: Path) -> None:
    packed = made / "packed"
    packed.write_bytes(gzip.compress((made / "monday.zfs").read_bytes()))
    assert "tank/disk@monday  full" in done(run("stream", "inspect", str(packed))).out


def test_lz4_is_told_and_unpacks_to_the_same_disk(run: Run, made: Path) -> None:
    content = b"imagestore" * 100_000
    (made / "text.raw").write_bytes(content[: 512 * 1024])
    done(make(run, made, "text", "--compress", "lz4"))
    snapshot = json.loads(run("stream", "inspect", str(made / "text.zfs"), "-o", "jsonl").out)["snapshots"][0]
    assert list(snapshot["compression"]) == ["lz4"]
    assert snapshot["stored_bytes"] < snapshot["data_bytes"]
    done(run("stream", "extract", str(made / "text.zfs"), str(made / "text.out")))
    assert (made / "text.out").read_bytes() == content[: 512 * 1024]


@pytest.mark.parametrize("where", [100, 400, 20_000, -1])
def test_a_damaged_stream_is_refused_with_the_place(run: Run, made: Path, where: int) -> None:
    damaged = bytearray((made / "monday.zfs").read_bytes())
    damaged[where] ^= 1
    (made / "monday.zfs").write_bytes(damaged)
    ended = run("stream", "inspect", str(made / "monday.zfs"))
    assert (ended.status, ended.out) == (11, "")
    assert ended.err.startswith("imagestore: ")
    assert run("stream", "extract", str(made / "monday.zfs"), str(made / "out.raw")).status == 11
    assert not (made / "out.raw").exists()


def test_what_is_no_stream_is_said_to_be_none(run: Run, made: Path) -> None:
    ended = run("stream", "inspect", str(made / "monday.raw"))
    assert ended.status == 11
    assert "this is no ZFS send stream" in ended.err


def test_a_file_that_is_there_is_replaced_only_by_force(run: Run, made: Path) -> None:
    target = made / "out.raw"
    target.write_text("mine")
    arguments = ("stream", "extract", str(made / "monday.zfs"), str(target))
    assert run(*arguments).status == 4
    assert target.read_text() == "mine"
    done(run(*arguments, "--force"))
    assert target.read_bytes() == disk(2)


def test_guids_can_be_named(run: Run, made: Path) -> None:
    tuesday = ("--from", str(made / "monday.raw"), "--guid", "beef", "--from-guid", "cafe", "--force")
    done(make(run, made, "tuesday", *tuesday))
    report = json.loads(run("stream", "inspect", str(made / "tuesday.zfs"), "-o", "json").out)
    assert report["snapshots"][0]["guid"] == str(0xBEEF)
    assert report["snapshots"][0]["from_guid"] == str(0xCAFE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--guid", "xyz"), "is no guid"),
        (("--from-guid", "1"), "name the base with --from"),
        (("--name", "nosnapshot", "--force"), "is not the name of a snapshot"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, made: Path, options: tuple[str, ...], message: str) -> None:
    ended = make(run, made, "monday", *options)
    assert ended.status == 2
    assert message in ended.err


def test_a_stream_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    ended = run("stream", "inspect", str(tmp_path / "none"))
    assert (ended.status, ended.err) == (3, f"imagestore: {tmp_path / 'none'} does not exist\n")


def test_a_directory_is_no_stream(run: Run, tmp_path: Path) -> None:
    ended = run("stream", "inspect", str(tmp_path))
    assert (ended.status, ended.err) == (2, f"imagestore: {tmp_path} is a directory\n  name a file in it\n")
