"""Disks of other programs' forms: what qemu-img says is judged, and with the real one they convert."""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
import trio

from imagestore.actors.boundedprocess import OUTPUT_BYTES, Limits, find_program, run_bounded
from imagestore.actors.conversion import convert, judge
from imagestore.errors import ConfigError, ContentRefused, FetchFailed
from imagestore.streams.signatures import DiskFormat

SOURCE = "/pool/spool/a"
GOOD = {"virtual-size": 4096, "filename": SOURCE, "format": "qcow2"}
MIB = 1 << 20


def info(**others: object) -> bytes:
    return json.dumps({**GOOD, **{key.replace("_", "-"): value for key, value in others.items()}}).encode()


def test_an_image_that_stands_alone_has_its_size() -> None:
    said = info(
        children=[{"name": "file", "info": {"filename": SOURCE}}],
        format_specific={"data": {"data-file": None}},
    )
    assert judge(said, SOURCE, "qcow2", 4096).size_bytes == 4096


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (info(backing_filename="base"), "other files"),
        (info(full_backing_filename="/etc/shadow"), "other files"),
        (info(format_specific={"data": {"data-file": "x"}}), "other files"),
        (info(format_specific={"data": {"extents": [{"filename": "/dev/sda"}]}}), "other files"),
        (info(children=[{"info": {"filename": "nbd://h"}}]), "other files"),
        (info(encrypted=True), "encrypted"),
        (info(format="raw"), "something else"),
        (info(virtual_size=0), "no size"),
        (info(virtual_size=4097), "over the limit of 4096"),
        (info(virtual_size="1G"), "something else"),
        (b"{}", "nothing of its size"),
        (b"qemu-img: what?", "nothing of its size"),
    ],
)
def test_what_qemu_img_says_can_refuse_an_image(said: bytes, reason: str) -> None:
    with pytest.raises(ContentRefused, match=reason):
        judge(said, SOURCE, "qcow2", 4096)


async def test_without_qemu_img_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("imagestore.actors.boundedprocess.SEARCH_PATH", str(tmp_path))
    with pytest.raises(FetchFailed, match=r"a qcow2 image needs qemu-img, .* apt-get install qemu-utils"):
        await convert(SOURCE, "qcow2", "/pool/spool/b", None)


# --- programs in bounds -----------------------------------------------------------------


def shell() -> str:
    return find_program("sh", "dash", "a test")


async def test_a_program_is_given_nothing_of_ours_and_gives_what_it_says() -> None:
    finished = await run_bounded(
        shell(), "-c", "pwd; echo $HOME; echo why >&2; exit 3", limits=Limits(seconds=60)
    )
    assert (finished.status, finished.output, finished.complaint) == (3, b"/\n\n", "why")


async def test_a_program_that_says_too_much_is_killed() -> None:
    finished = await run_bounded(shell(), "-c", "yes", limits=Limits(seconds=60))
    assert finished.status is None
    assert len(finished.output) == OUTPUT_BYTES


async def test_a_program_that_writes_too_much_is_stopped(tmp_path: Path) -> None:
    file = tmp_path / "file"
    limits = Limits(seconds=60, file_bytes=4096)
    finished = await run_bounded(shell(), "-c", f"yes > {file}", limits=limits)
    assert finished.status != 0
    assert file.stat().st_size == 4096


async def test_a_program_no_longer_wanted_is_killed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await run_bounded(shell(), "-c", f"echo $$ > {pipe}; sleep 1000", limits=Limits(seconds=2000))

        nursery.start_soon(run)
        pid = int(await trio.to_thread.run_sync(pipe.read_text))
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_program_that_is_not_there_is_asked_for_by_its_package() -> None:
    with pytest.raises(ConfigError, match=r"a dream needs no-such-program, .* apt-get install dreams"):
        find_program("no-such-program", "dreams", "a dream")


# --- the real qemu-img --------------------------------------------------------------------


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A sparse raw disk with something in it."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(20 * MIB)
        for at in (0, 5 * MIB + 512, 20 * MIB - 4096):
            file.seek(at)
            file.write(random.Random(at).randbytes(4096))
    return path


FORMS: dict[str, tuple[DiskFormat, str, str]] = {
    "qcow2": ("qcow2", "qcow2", "compat=1.1"),
    "qcow2 of version 2": ("qcow2", "qcow2", "compat=0.10"),
    "qcow2 with zstd": ("qcow2", "qcow2", "compression_type=zstd"),
    "vmdk": ("vmdk", "vmdk", "subformat=monolithicSparse"),
    "vmdk for streaming": ("vmdk", "vmdk", "subformat=streamOptimized"),
    "vdi": ("vdi", "vdi", "static=off"),
    "static vdi": ("vdi", "vdi", "static=on"),
    "vhd": ("vhd", "vpc", "subformat=dynamic"),
    "vhdx": ("vhdx", "vhdx", "subformat=dynamic"),
}


@pytest.mark.system
@pytest.mark.parametrize("form", FORMS)
async def test_a_conversion_is_what_qemu_img_makes(form: str, disk: Path, tmp_path: Path) -> None:
    kind, driver, options = FORMS[form]
    source, ours, theirs = tmp_path / "source", tmp_path / "ours", tmp_path / "theirs"
    qemu_img("convert", "-f", "raw", "-O", driver, "-o", options, disk, source)
    qemu_img("convert", "-f", driver, "-O", "raw", source, theirs)
    await convert(str(source), kind, str(ours), None)
    assert ours.read_bytes() == theirs.read_bytes()
    assert theirs.read_bytes().startswith(disk.read_bytes())


@pytest.mark.system
async def test_a_compressed_qcow2_is_converted(disk: Path, tmp_path: Path) -> None:
    source, ours = tmp_path / "source", tmp_path / "ours"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", disk, source)
    await convert(str(source), "qcow2", str(ours), None)
    assert ours.read_bytes() == disk.read_bytes()


@pytest.mark.system
async def test_a_backing_file_is_not_opened(disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    qemu_img("create", "-f", "qcow2", "-b", disk, "-F", "raw", source)
    with pytest.raises(ContentRefused, match="backing file"):
        await convert(str(source), "qcow2", str(tmp_path / "ours"), None)
    assert not (tmp_path / "ours").exists()


@pytest.mark.system
async def test_an_external_data_file_is_not_opened(tmp_path: Path) -> None:
    source = tmp_path / "source"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", source, "1M")
    with pytest.raises(ContentRefused, match="external data file"):
        await convert(str(source), "qcow2", str(tmp_path / "ours"), None)


@pytest.mark.system
async def test_extents_in_other_files_are_not_opened(disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", disk, source)
    with pytest.raises(ContentRefused):
        await convert(str(source), "vmdk", str(tmp_path / "ours"), None)


@pytest.mark.system
async def test_a_disk_over_the_limit_is_not_converted(disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, source)
    with pytest.raises(ContentRefused, match="20971520 bytes, over the limit of 1048576"):
        await convert(str(source), "qcow2", str(tmp_path / "ours"), MIB)


@pytest.mark.system
async def test_a_damaged_image_is_refused_in_one_line(disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, source)
    with source.open("r+b") as file:
        file.seek(40)
        file.write(b"\xff" * 8)  # where its tables are
    with pytest.raises(ContentRefused) as raised:
        await convert(str(source), "qcow2", str(tmp_path / "ours"), None)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) not in str(raised.value)
