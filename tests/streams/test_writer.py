"""What is written is read back the same, always in the same bytes, and is what receivers need."""

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from imagestore.errors import InvalidArgument
from imagestore.streams import records
from imagestore.streams.checker import Checker
from imagestore.streams.decoding import decode
from imagestore.streams.member import Compression, PackageMember
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.writer import (
    PIECE_BYTES,
    stream_bytes,
    write_package,
    write_stream,
)
from tests.streams.building import positions, stream
from tests.streams.samples import SAMPLES, apply, apply_chain, digest, load

COMPRESSIONS: list[Compression | None] = [None, "lz4"]
BLOCKS = [512, 1024, 4096, 8192, 16384, 65536, 131072, 1 << 20]


class Volume:
    """A raw file with chance content: data, text, zeros, holes."""

    def __init__(self, path: Path, size: int, block: int, seed: int, before: "Volume | None" = None) -> None:
        chance = random.Random(seed)
        self.path = path
        path.write_bytes(before.path.read_bytes() if before else b"")
        os.truncate(path, size)
        with open(path, "r+b") as file:
            for _ in range(24):
                at = chance.randrange(0, size, 512)
                length = min(chance.choice([512, 4096, block, 3 * block]), size - at)
                file.seek(at)
                file.write(chance.choice([chance.randbytes(length), b"text" * (length // 4), bytes(length)]))
        self.fd = os.open(path, os.O_RDONLY)
        self.info: SnapshotInfo = SnapshotInfo(
            name=f"pool/volume@s{seed}",
            guid=chance.getrandbits(64) | 1,
            volsize=size,
            volblocksize=block,
            creation_seconds=1_700_000_000 + seed,
            from_guid=before.info.guid if before else 0,
        )

    def stream(self, before: "Volume | None" = None, compress: Compression | None = None) -> bytes:
        if before is None:
            return joined(write_stream(self.fd, self.info, compress=compress))
        return joined(
            write_stream(self.fd, self.info, base_fd=before.fd, base=before.info, compress=compress)
        )


def joined(pieces: Iterator[memoryview]) -> bytes:
    out = bytearray()
    for piece in pieces:
        assert 0 < len(piece) <= PIECE_BYTES
        out += piece
    return bytes(out)


def kinds(data: bytes) -> list[records.Record]:
    return [decode(memoryview(data), at) for at in positions(data)]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_a_full_stream_is_read_back(block: int, compress: Compression | None, tmp_path: Path) -> None:
    volume = Volume(tmp_path / "a", block * 24, block, seed=block)
    info = apply(tmp_path / "back", volume.stream(compress=compress))
    assert info == volume.info
    assert digest(tmp_path / "back") == digest(volume.path)


@pytest.mark.parametrize("block", [512, 4096, 65536])
@pytest.mark.parametrize("grows_by", [0, 5, -7, 0.5])
@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_an_incremental_is_read_back_on_its_base(
    block: int, grows_by: float, compress: Compression | None, tmp_path: Path
) -> None:
    old = Volume(tmp_path / "a", block * 24, block, seed=1)
    size = (block * 24 + int(block * grows_by)) // 512 * 512
    new = Volume(tmp_path / "b", size, block, seed=2, before=old)
    apply(tmp_path / "back", old.stream())
    info = apply(tmp_path / "back", new.stream(old, compress), old.info)
    assert info == new.info
    assert digest(tmp_path / "back") == digest(new.path)


def test_a_volume_whose_size_is_no_multiple_of_its_blocks_is_padded(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "a", 8 * 16384 + 8192, 16384, seed=3)
    with open(volume.path, "r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(b"\x55" * 512)
    data = volume.stream()
    last = [r for r in kinds(data) if isinstance(r, records.Write) and r.object == 1][-1]
    assert (last.offset, last.logical_bytes) == (8 * 16384, 16384)
    assert apply(tmp_path / "back", data).volsize == 8 * 16384 + 8192
    assert digest(tmp_path / "back") == digest(volume.path)


def test_bytes_behind_the_volumes_end_are_not_sent(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "a", 8 * 4096 + 512, 4096, seed=3)
    before = volume.stream()
    with open(volume.path, "ab") as file:
        file.write(b"not the volume's" * 1000)
    assert volume.stream() == before


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_the_same_content_gives_the_same_bytes_whatever_its_holes(
    compress: Compression | None, tmp_path: Path
) -> None:
    old = Volume(tmp_path / "a", 1 << 22, 8192, seed=5)
    new = Volume(tmp_path / "b", 1 << 22, 8192, seed=6, before=old)
    copies = []
    for volume in (old, new):
        dense = volume.path.with_suffix(".dense")
        dense.write_bytes(volume.path.read_bytes())
        copies.append(os.open(dense, os.O_RDONLY))
    assert joined(write_stream(copies[0], old.info, compress=compress)) == old.stream(compress=compress)
    assert joined(
        write_stream(copies[1], new.info, base_fd=copies[0], base=old.info, compress=compress)
    ) == new.stream(old, compress)


@pytest.mark.parametrize("skip", [0, 1, 311, 312, 5000, 70_000])
def test_a_stream_goes_on_where_it_was_broken_off(skip: int, tmp_path: Path) -> None:
    volume = Volume(tmp_path / "a", 1 << 20, 4096, seed=8)
    whole = volume.stream()
    assert joined(write_stream(volume.fd, volume.info, skip=skip)) == whole[skip:]
    assert stream_bytes(volume.fd, volume.info) == len(whole)


def test_skipping_everything_gives_nothing(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "a", 1 << 20, 4096, seed=8)
    assert joined(write_stream(volume.fd, volume.info, skip=1 << 30)) == b""


def test_an_unchanged_snapshot_is_begin_and_end(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "a", 1 << 20, 8192, seed=9)
    again = replace(volume.info, guid=77)
    data = joined(write_stream(volume.fd, again, base_fd=volume.fd, base=volume.info))
    assert len(data) == 624
    apply(tmp_path / "back", volume.stream())
    assert apply(tmp_path / "back", data, volume.info).guid == 77


def test_a_volume_that_only_grew_says_so(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "a", 1 << 20, 8192, seed=9)
    grown = replace(volume.info, guid=77, volsize=2 << 20)
    data = joined(write_stream(volume.fd, grown, base_fd=volume.fd, base=volume.info))
    apply(tmp_path / "back", volume.stream())
    assert apply(tmp_path / "back", data, volume.info).volsize == 2 << 20
    assert os.path.getsize(tmp_path / "back") == 2 << 20


def test_an_incremental_sends_changed_blocks_only(tmp_path: Path) -> None:
    old = Volume(tmp_path / "a", 1 << 22, 8192, seed=10)
    path = tmp_path / "b"
    path.write_bytes(old.path.read_bytes())
    with open(path, "r+b") as file:
        file.seek(5 * 8192)
        file.write(b"\x77" * 100)
        file.seek(9 * 8192)
        file.write(b"\x77" * 8192 * 2)
    with open(path, "rb") as file:
        data = joined(write_stream(file.fileno(), replace(old.info, guid=5), base_fd=old.fd, base=old.info))
    written = [r.offset for r in kinds(data) if isinstance(r, records.Write) and r.object == 1]
    assert written == [5 * 8192, 9 * 8192, 10 * 8192]


def test_what_became_zero_is_freed(tmp_path: Path) -> None:
    first = tmp_path / "a"
    first.write_bytes(b"\x11" * (8 * 4096))
    second = tmp_path / "b"
    second.write_bytes(b"\x11" * (2 * 4096) + bytes(3 * 4096) + b"\x11" * (3 * 4096))
    base = SnapshotInfo(name="p/v@a", guid=1, volsize=8 * 4096, volblocksize=4096)
    with open(first, "rb") as old, open(second, "rb") as new:
        data = joined(write_stream(new.fileno(), replace(base, guid=2), base_fd=old.fileno(), base=base))
    holes = [(r.offset, r.length) for r in kinds(data) if isinstance(r, records.Free) and r.object == 1]
    assert holes == [(8 * 4096, records.TO_THE_END), (2 * 4096, 3 * 4096)]


def test_a_full_stream_has_the_records_of_a_real_one(tmp_path: Path) -> None:
    """Ours, of what a real stream became, record by record: all is there, in the order."""
    info = apply(tmp_path / "volume", load("v8k-s1-plain"))
    with open(tmp_path / "volume", "rb") as file:
        ours = joined(write_stream(file.fileno(), info))
    assert shape(ours) == shape(load("v8k-s1-plain"))


@pytest.mark.parametrize("name", ["v8k-s1-s2-plain", "v8k-s2-s3-plain", "clone-inc", "empty-a-b"])
def test_an_incremental_has_the_frame_of_a_real_one(name: str, tmp_path: Path) -> None:
    base = apply_chain(tmp_path / "base", SAMPLES[name].base)
    info = apply_chain(tmp_path / "volume", name)
    with open(tmp_path / "base", "rb") as old, open(tmp_path / "volume", "rb") as new:
        ours = joined(write_stream(new.fileno(), info, base_fd=old.fileno(), base=base))
    real = load(name)
    assert frame(ours) == frame(real)
    assert ours[:56] == real[:56], "BEGIN says the same, the clone's flag included"
    assert apply(tmp_path / "base", ours, base) == info
    assert digest(tmp_path / "base") == SAMPLES[name].sha256


def shape(data: bytes) -> list[tuple[object, ...]]:
    """Records without what senders may choose: tail FREE's offset, END's sum."""
    found: list[tuple[object, ...]] = []
    for record in kinds(data):
        match record:
            case records.Write():
                found.append(("WRITE", record.object, record.offset, record.logical_bytes, record.toguid))
            case records.Free():
                found.append(("FREE", record.object, record.offset, record.length))
            case records.Object():
                found.append(("OBJECT", record))
            case records.End():
                found.append(("END", record.toguid))
            case _:
                found.append((records.type_name(record), record))
    return found


def frame(data: bytes) -> list[tuple[object, ...]]:
    """The shape without the records of object 1's content."""
    return [entry for entry in shape(data) if entry[0] not in {"WRITE", "FREE"} or entry[1] == 2]


def test_lz4_blocks_are_padded_sectors_and_only_where_they_save_an_eighth(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(random.Random(1).randbytes(8192) + b"text" * 2048)
    info = SnapshotInfo(name="p/v@a", guid=1, volsize=16384, volblocksize=8192)
    with open(path, "rb") as file:
        data = joined(write_stream(file.fileno(), info, compress="lz4"))
    first, second = (r for r in kinds(data) if isinstance(r, records.Write) and r.object == 1)
    assert (first.compression, second.compression) == (0, 15)
    assert second.compressed_bytes == 512
    begin = kinds(data)[0]
    assert isinstance(begin, records.Begin)
    assert set(records.feature_names(begin.features)) == {"LZ4", "COMPRESSED"}


def test_a_plain_stream_uses_no_features_below_large_blocks(tmp_path: Path) -> None:
    for block, features in ((131072, ()), (1 << 20, ("LARGE_BLOCKS",))):
        begin = kinds(Volume(tmp_path / "a", block * 8, block, seed=1).stream())[0]
        assert isinstance(begin, records.Begin)
        assert records.feature_names(begin.features) == features
        assert begin.flags == 0xC


def test_a_package_lands_every_snapshot(tmp_path: Path) -> None:
    one = Volume(tmp_path / "1", 1 << 20, 8192, seed=1)
    two = Volume(tmp_path / "2", 1 << 20, 8192, seed=2, before=one)
    three = Volume(tmp_path / "3", 2 << 20, 8192, seed=3, before=two)
    members = [PackageMember(source_fd=one.fd, snapshot=one.info)]
    for volume, before in ((two, one), (three, two)):
        members.append(
            PackageMember(source_fd=volume.fd, snapshot=volume.info, base_fd=before.fd, base=before.info)
        )
    data = joined(write_package(members, compress="lz4"))
    checker = Checker()
    for groups in (checker.feed(data), checker.finish()):
        for _ in groups:
            pass
    assert checker.snapshots == [one.info, two.info, three.info]
    assert checker.package is not None
    assert checker.package.snapshots == {v.info.guid: v.info.snapshot for v in (one, two, three)}
    apply(tmp_path / "back", data)
    assert digest(tmp_path / "back") == digest(three.path)
    apply(tmp_path / "back2", one.stream())
    apply(tmp_path / "back2", joined(write_package(members[1:])), one.info)
    assert digest(tmp_path / "back2") == digest(three.path)


GOOD = SnapshotInfo(name="p/v@a", guid=1, volsize=65536, volblocksize=4096)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(GOOD, volblocksize=3072),
        replace(GOOD, volblocksize=256),
        replace(GOOD, volblocksize=2 << 20),
        replace(GOOD, volsize=0),
        replace(GOOD, volsize=1000),
        replace(GOOD, guid=0),
        replace(GOOD, guid=1 << 64),
        replace(GOOD, name="p/v"),
        replace(GOOD, name="p/v@" + "x" * 260),
        replace(GOOD, name="p/vö@a"),
        replace(GOOD, name="p/v@a b\n"),
    ],
    ids=str,
)
def test_a_stream_that_would_harm_or_be_refused_is_not_written(wrong: SnapshotInfo) -> None:
    with pytest.raises(InvalidArgument):
        write_stream(0, wrong)


def test_an_incremental_that_would_empty_the_volume_is_not_written() -> None:
    with pytest.raises(InvalidArgument, match="must stay"):
        write_stream(0, replace(GOOD, guid=2, volblocksize=8192), base_fd=0, base=GOOD)
    with pytest.raises(InvalidArgument, match="own base"):
        write_stream(0, GOOD, base_fd=0, base=GOOD)
    with pytest.raises(InvalidArgument, match="both"):
        write_stream(0, GOOD, base=GOOD)


def test_our_streams_are_sealed_as_defined(tmp_path: Path) -> None:
    data = Volume(tmp_path / "a", 65536, 4096, seed=4).stream()
    at = [*positions(data), len(data)]
    blank = [
        (data[start : start + 280] + bytes(32), data[start + 312 : end])
        for start, end in itertools.pairwise(at)
    ]
    blank[0] = (data[:312], b"")
    assert stream(blank) == data
