"""Streams that real OpenZFS sent become exactly the volumes that it had."""

import os
import random
from pathlib import Path

import pytest

from imagestore.errors import StreamError
from imagestore.streams.applier import StreamApplier
from imagestore.streams.guard import ReceiveGuard
from imagestore.streams.inspection import Inspector
from imagestore.streams.snapshot import SnapshotInfo
from tests.streams.building import positions
from tests.streams.samples import ACCEPTED, SAMPLES, apply, apply_chain, chain, digest, load


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_real_stream_becomes_its_volume(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    info = apply_chain(tmp_path / "volume", name)
    assert digest(tmp_path / "volume") == sample.sha256
    assert (info.volsize, info.volblocksize, str(info.guid)) == (
        sample.volsize,
        sample.volblocksize,
        sample.guid,
    )
    assert info.name == f"{sample.volume}@{sample.snapshot}"


@pytest.mark.parametrize("name", ["v8k-s1-plain", "v8k-s1-c", "v64k-R", "vz-s1-Lec", "empty-a"])
@pytest.mark.parametrize("seed", range(3))
def test_any_cut_gives_the_same_volume(name: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    data = load(name)
    fd = os.open(tmp_path / "volume", os.O_RDWR | os.O_CREAT)
    applier = StreamApplier(fd)
    at = 0
    while at < len(data):
        size = chance.choice([1, 7, 311, 312, 313, 8504, 60_000, 1 << 20, 3 << 20])
        applier.feed(memoryview(data)[at : at + size])
        at += size
    applier.finish()
    os.close(fd)
    assert digest(tmp_path / "volume") == SAMPLES[name].sha256


def test_byte_by_byte_gives_the_same_volume(tmp_path: Path) -> None:
    apply(tmp_path / "volume", load("empty-a"), cut=1)
    assert digest(tmp_path / "volume") == SAMPLES["empty-a"].sha256


def test_reading_from_a_descriptor_is_the_same_as_being_fed(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(load("v8k-s1-plain"))
    with open(tmp_path / "stream", "rb") as source, open(tmp_path / "volume", "w+b") as target:
        applier = StreamApplier(target.fileno())
        applier.read_from(source.fileno())
        applier.finish()
    assert digest(tmp_path / "volume") == SAMPLES["v8k-s1-plain"].sha256


def test_holes_and_written_zeros_take_no_space(tmp_path: Path) -> None:
    apply(tmp_path / "volume", load("v8k-s1-plain"))
    data = (tmp_path / "volume").read_bytes()
    nonzero = sum(any(data[at : at + 8192]) for at in range(0, len(data), 8192)) * 8192
    assert os.stat(tmp_path / "volume").st_blocks * 512 <= nonzero + 65536


def test_an_incremental_frees_what_was_discarded(tmp_path: Path) -> None:
    info = apply(tmp_path / "volume", load("v8k-s1-plain"))
    apply(tmp_path / "volume", load("v8k-s1-s2-plain"), info)
    data = (tmp_path / "volume").read_bytes()
    nonzero = sum(any(data[at : at + 8192]) for at in range(0, len(data), 8192)) * 8192
    assert os.stat(tmp_path / "volume").st_blocks * 512 <= nonzero + 65536


def test_a_package_lands_snapshot_by_snapshot(tmp_path: Path) -> None:
    landed: list[tuple[str, int, int]] = []
    fd = os.open(tmp_path / "volume", os.O_RDWR | os.O_CREAT)

    def keep(info: SnapshotInfo) -> None:
        landed.append((info.name, info.guid, os.fstat(fd).st_size))
        if info.name.endswith("s1"):
            assert digest(tmp_path / "volume") == SAMPLES["v64k-s1-plain"].sha256

    applier = StreamApplier(fd, on_snapshot=keep)
    applier.feed(load("v64k-R"))
    applied = applier.finish()
    os.close(fd)
    assert [name for name, _, _ in landed] == ["tank/v64k@s1", "tank/v64k@s2", "tank/v64k@s3"]
    assert [size for _, _, size in landed] == [6291456, 6291456, 8388608]
    assert [info.guid for info in applied.snapshots] == [guid for _, guid, _ in landed]
    assert applied.snapshots[1].from_guid == applied.snapshots[0].guid


def test_a_clone_says_that_its_base_is_an_origin(tmp_path: Path) -> None:
    info = apply_chain(tmp_path / "volume", "clone-inc")
    assert info.is_clone
    assert str(info.from_guid) == SAMPLES["v8k-s1-s2-plain"].guid


@pytest.mark.parametrize(
    ("name", "reason"), [("refuse-filesystem", "file system"), ("refuse-raw-encrypted", "encrypted")]
)
def test_what_is_no_plain_volume_is_refused_by_name(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=reason):
        apply(tmp_path / "volume", load(name))


def test_a_refusal_comes_before_the_stream_has_ended(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "volume", os.O_RDWR | os.O_CREAT)
    applier = StreamApplier(fd)
    with pytest.raises(StreamError, match="encrypted"):
        applier.feed(load("refuse-raw-encrypted"))
    os.close(fd)


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_guard_passes_a_real_stream_unchanged_but_for_its_wrapping(name: str, tmp_path: Path) -> None:
    bases = chain(name)[:-1]
    base = None
    for link in bases:
        base = apply(tmp_path / "volume", load(link), base)
    data = load(name)
    guard = ReceiveGuard(base=base)
    passed = bytearray()
    ended: list[int] = []
    for at in range(0, len(data), 100_000):
        for piece in guard.feed(data[at : at + 100_000]):
            passed += piece.data
            ended += [piece.snapshot.guid] if piece.snapshot else []
    assert len(ended) == 0 or SAMPLES[name].kind in {"replication", "package-incremental"}
    for piece in guard.finish():
        passed += piece.data
        ended += [piece.snapshot.guid] if piece.snapshot else []
    assert str(ended[-1]) == SAMPLES[name].guid
    assert bytes(passed) == unwrapped(data)


def unwrapped(data: bytes) -> bytes:
    """The plain streams of a package, one behind the other; a plain stream as it is."""
    if data[16] & 3 == 1:
        return data
    return data[positions(data)[2] : -312]


@pytest.mark.parametrize("name", ACCEPTED)
def test_inspection_counts_what_is_there(name: str) -> None:
    inspector = Inspector()
    inspector.feed(load(name))
    report = inspector.finish()
    last = report.snapshots[-1]
    assert report.stream_bytes == SAMPLES[name].stream_bytes
    assert report.records == len(positions(load(name)))
    assert last.guid == SAMPLES[name].guid
    assert last.volsize_bytes in {SAMPLES[name].volsize, 0}
    assert sum(last.map.data) == last.data_bytes
    assert sum(last.compression.values()) * last.block_bytes == last.data_bytes or not last.block_bytes
