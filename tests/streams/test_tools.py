"""Inspecting, extracting and making streams: files that appear whole or not at all."""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from imagestore.errors import AlreadyExists, ContentRefused, InvalidArgument, NotFound, StreamError
from imagestore.streams.extract import ConversionFailed, extract
from imagestore.streams.inspection import StreamReport, inspect
from imagestore.streams.make import make
from imagestore.streams.member import Compression
from tests.streams.samples import SAMPLES, chain, digest, load


def stored(directory: Path, name: str) -> str:
    path = directory / f"{name}.zfs"
    path.write_bytes(load(name))
    return str(path)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "volume.raw"


def test_a_chain_is_extracted_to_its_volume(tmp_path: Path, output: Path) -> None:
    streams = [stored(tmp_path, name) for name in chain("v8k-s2-s3-c")]
    taken: list[int] = []
    snapshots = extract(streams, str(output), progress=taken.append)
    assert digest(output) == SAMPLES["v8k-s2-s3-c"].sha256
    assert [info.snapshot for info in snapshots] == ["s1", "s2", "s3"]
    assert taken[-1] == sum(SAMPLES[name].stream_bytes for name in chain("v8k-s2-s3-c"))
    assert output.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_gzipped_stream_is_extracted(tmp_path: Path, output: Path) -> None:
    path = tmp_path / "stream.gz"
    path.write_bytes(gzip.compress(load("v8k-s1-plain")))
    extract([str(path)], str(output))
    assert digest(output) == SAMPLES["v8k-s1-plain"].sha256


def test_a_stream_comes_from_standard_input(tmp_path: Path, output: Path) -> None:
    code = "import sys; from imagestore.streams.extract import extract; extract(['-'], sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(output)], input=load("v8k-s1-c"), check=True)
    assert digest(output) == SAMPLES["v8k-s1-c"].sha256


@pytest.mark.parametrize("damage", ["cut", "bit", "order", "raw"])
def test_a_failed_extraction_leaves_nothing(damage: str, tmp_path: Path, output: Path) -> None:
    streams = [stored(tmp_path, name) for name in chain("v8k-s1-s2-plain")]
    data = bytearray(load("v8k-s1-s2-plain"))
    match damage:
        case "cut":
            del data[-400:]
        case "bit":
            data[5000] ^= 1
        case "order":
            streams.reverse()
        case "raw":
            data[:] = bytes(4096)
    if damage != "order":
        Path(streams[1]).write_bytes(data)
    with pytest.raises(StreamError) as caught:
        extract(streams, str(output))
    assert str(caught.value).startswith(streams[1] if damage != "order" else streams[0]) or damage == "raw"
    assert list(output.parent.iterdir()) == []


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path, output: Path) -> None:
    stream = stored(tmp_path, "empty-a")
    output.write_text("precious")
    with pytest.raises(AlreadyExists):
        extract([stream], str(output))
    assert output.read_text() == "precious"
    extract([stream], str(output), overwrite=True)
    assert digest(output) == SAMPLES["empty-a"].sha256
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_what_is_missing_is_named(tmp_path: Path, output: Path) -> None:
    with pytest.raises(NotFound, match="absent"):
        extract([str(tmp_path / "absent")], str(output))
    with pytest.raises(NotFound, match="no directory"):
        extract([stored(tmp_path, "empty-a")], str(tmp_path / "nowhere" / "file"))
    with pytest.raises(InvalidArgument):
        extract([], str(output))


def test_qcow2_without_qemu_img_says_what_to_install(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConversionFailed, match="qemu-img"):
        extract([stored(tmp_path, "empty-a")], str(output), output_format="qcow2")
    assert list(output.parent.iterdir()) == []


def test_a_converter_that_fails_is_quoted_and_leaves_nothing(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = tmp_path / "qemu-img"
    converter.write_text("#!/bin/sh\necho 'no room for that' >&2\nexit 1\n")
    converter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConversionFailed, match="no room for that"):
        extract([stored(tmp_path, "empty-a")], str(output), output_format="qcow2")
    assert list(output.parent.iterdir()) == []


@pytest.mark.system
def test_qcow2_holds_the_volume(tmp_path: Path, output: Path) -> None:
    converter = shutil.which("qemu-img")
    assert converter is not None
    extract([stored(tmp_path, "v8k-s1-c")], str(output), output_format="qcow2")
    back = tmp_path / "back.raw"
    subprocess.run([converter, "convert", "-f", "qcow2", "-O", "raw", output, back], check=True)
    assert digest(back) == SAMPLES["v8k-s1-c"].sha256


def test_a_report_is_json_and_names_everything(tmp_path: Path) -> None:
    report = inspect(stored(tmp_path, "v64k-R"))
    again = msgspec.json.decode(msgspec.json.encode(report), type=StreamReport)
    assert again == report
    assert report.package is not None
    assert report.package.snapshots[0] == ("s1", "13992829872530946771")
    assert [snapshot.kind for snapshot in report.snapshots] == ["full", "incremental", "incremental"]


def test_an_incremental_is_inspected_without_its_base(tmp_path: Path) -> None:
    (snapshot,) = inspect(stored(tmp_path, "clone-inc")).snapshots
    assert (snapshot.kind, snapshot.from_guid) == ("clone", SAMPLES["v8k-s1-s2-plain"].guid)


def test_a_damaged_or_other_file_is_not_reported_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(load("v8k-s1-c")[:-1])
    with pytest.raises(StreamError, match="cut"):
        inspect(str(path))
    path.write_bytes(bytes(1024))
    with pytest.raises(StreamError, match="no ZFS send stream"):
        inspect(str(path))
    path.write_bytes(b"PK\3\4" + bytes(1024))
    with pytest.raises(ContentRefused, match="zip"):
        inspect(str(path))


def images(directory: Path) -> tuple[str, str]:
    old, new = directory / "monday.raw", directory / "tuesday.raw"
    old.write_bytes(b"monday  " * 8192 + bytes(65536))
    new.write_bytes(b"monday  " * 4096 + b"tuesday " * 4096 + bytes(131072))
    return str(old), str(new)


@pytest.mark.parametrize("compress", [None, "lz4"])
def test_what_is_made_can_be_extracted(compress: Compression | None, tmp_path: Path, output: Path) -> None:
    old, new = images(tmp_path)
    first, second = str(tmp_path / "1.zfs"), str(tmp_path / "2.zfs")
    made = make(old, first, name="tank/vm@monday", compress=compress)
    after = make(new, second, from_raw=old, name="tank/vm@tuesday", compress=compress)
    assert after.from_guid == made.guid
    snapshots = extract([first, second], str(output))
    assert [info.name for info in snapshots] == ["tank/vm@monday", "tank/vm@tuesday"]
    assert output.read_bytes() == Path(new).read_bytes()


def test_the_same_image_makes_the_same_stream(tmp_path: Path) -> None:
    old, _ = images(tmp_path)
    copy = shutil.copy2(old, tmp_path / "copy")
    one, two = tmp_path / "1.zfs", tmp_path / "2.zfs"
    make(old, str(one))
    make(str(copy), str(two))
    assert one.read_bytes() == two.read_bytes()


def test_guids_and_time_are_taken_as_told(tmp_path: Path) -> None:
    old, new = images(tmp_path)
    made = make(
        new, str(tmp_path / "s"), from_raw=old, guid=5, from_guid=6, creation_seconds=7, block_bytes=4096
    )
    assert (made.guid, made.from_guid, made.creation_seconds, made.volblocksize) == (5, 6, 7, 4096)


def test_nothing_is_made_of_what_is_no_image(tmp_path: Path) -> None:
    old, _ = images(tmp_path)
    odd = tmp_path / "odd"
    odd.write_bytes(bytes(1000))
    target = tmp_path / "out.zfs"
    with pytest.raises(InvalidArgument, match="1000 bytes"):
        make(str(odd), str(target))
    with pytest.raises(InvalidArgument, match="nothing to send"):
        make(old, str(target), from_raw=old)
    with pytest.raises(InvalidArgument, match="block size"):
        make(old, str(target), block_bytes=3072)
    assert not target.exists()
