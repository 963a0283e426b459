"""A raw image made into a stream is that image again when our own reader takes it."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagestore.errors import ContentRefused
from imagestore.pools.zfs.raw import SECTOR_BYTES, RawStream
from imagestore.pools.zfs.receiving import RawSource
from imagestore.streams.applier import StreamApplier
from imagestore.streams.snapshot import SnapshotInfo

NOISE = random.Random(3).randbytes(1 << 20)
BLOCK = 16 << 10


def stream_of(content: bytes, *, cut: int, block: int = BLOCK) -> bytes:
    raw = RawStream(snapshot="s", guid=77, creation_seconds=1_700_000_000, block_bytes=block)
    view = memoryview(content)
    pieces = [bytes(p) for at in range(0, len(content), cut) for p in raw.feed(view[at : at + cut])]
    return b"".join([*pieces, *map(bytes, raw.finish())])


def test_the_source_marks_only_its_last_bytes() -> None:
    raw = RawStream(snapshot="s", guid=77, creation_seconds=1_700_000_000, block_bytes=BLOCK)
    source = RawSource(raw, "s")
    parts = [(bytes(part.data), part.snapshot) for part in source.feed(memoryview(NOISE[:204_800]))]
    ends = list(source.finish())  # what was given stays as it was
    parts += [(bytes(part.data), part.snapshot) for part in ends]
    assert [snapshot for _, snapshot in parts] == [None] * (len(parts) - 1) + ["s"]
    assert b"".join(data for data, _ in parts) == stream_of(NOISE[:204_800], cut=204_800)


def applied(path: Path, stream: bytes) -> SnapshotInfo:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        applier = StreamApplier(file)
        applier.feed(stream)
        (snapshot,) = applier.finish().snapshots
        return snapshot
    finally:
        os.close(file)


RUNS = st.lists(
    st.tuples(st.booleans(), st.integers(1, 40), st.sampled_from([SECTOR_BYTES, BLOCK])),
    min_size=1,
    max_size=8,
)
"""Stretches of noise or zeros: how many units of how many bytes."""


@settings(deadline=None, max_examples=40)
@given(runs=RUNS, cut=st.sampled_from([1000, 100_000, 1 << 20]), block=st.sampled_from([512, BLOCK]))
def test_our_reader_makes_the_image_of_it_again(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[bool, int, int]], cut: int, block: int
) -> None:
    content = b"".join(
        NOISE[: count * unit] if is_noise else bytes(count * unit) for is_noise, count, unit in runs
    )
    path = tmp_path_factory.mktemp("raw") / "disk"
    snapshot = applied(path, stream_of(content, cut=cut, block=block))
    assert path.read_bytes() == content
    assert (snapshot.volsize, snapshot.guid, snapshot.snapshot) == (len(content), 77, "s")


def test_zeros_are_not_sent() -> None:
    assert len(stream_of(bytes(64 << 20), cut=1 << 20)) < 4096


@pytest.mark.parametrize("length", [0, 511, 513])
def test_what_is_not_whole_sectors_is_refused(length: int) -> None:
    with pytest.raises(ContentRefused):
        stream_of(b"x" * length, cut=1000)
