"""Our reader and writer against the real sender and receiver."""

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from imagestore.streams.applier import StreamApplier
from imagestore.streams.member import PackageMember
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.writer import write_package, write_stream
from tests.pools.harness import MIB
from tests.zfs.pools import command, device, pool_on_file

pytestmark = pytest.mark.zfs

SIZE = 4 * MIB


@pytest.fixture(scope="module")
def pool_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pool_on_file("sender", tmp_path_factory.mktemp("zfs")) as name:
        yield name


@pytest.fixture(scope="module")
def contents(pool_name: str) -> list[bytes]:
    """What ``v`` holds at @a, @b and @c: data of every kind, and zeros that were data before."""
    command(
        "zfs",
        "create",
        "-s",
        "-V",
        str(SIZE),
        "-o",
        "volblocksize=16K",
        "-o",
        "compression=lz4",
        f"{pool_name}/v",
    )
    noise = random.Random(1).randbytes(MIB)
    content = bytearray(SIZE)
    content[:MIB] = noise
    content[MIB : MIB + len(noise) // 2] = b"compressible " * (len(noise) // 26) + bytes(len(noise) // 2 % 13)
    content[3 * MIB : 3 * MIB + 40] = b"small enough to be embedded in a pointer"
    states = []
    for number, snapshot in enumerate("abc"):
        if number == 1:
            content[2 * MIB : 2 * MIB + 100_000] = noise[:100_000]
        if number == 2:
            content[:MIB] = bytes(MIB)
        with open(device(f"{pool_name}/v"), "r+b") as volume:
            volume.write(content)
            volume.flush()
            os.fsync(volume.fileno())
        command("zfs", "snapshot", f"{pool_name}/v@{snapshot}")
        states.append(bytes(content))
    return states


def sent(*words: str) -> bytes:
    finished = subprocess.run(["zfs", "send", *words], capture_output=True)
    assert finished.returncode == 0, finished.stderr.decode()
    return finished.stdout


def applied(path: Path, stream: bytes, base: SnapshotInfo | None = None) -> SnapshotInfo:
    """Our reader's view of a stream, applied to the file at ``path``."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        applier = StreamApplier(file, base=base)
        applier.feed(stream)
        return applier.finish().snapshots[-1]
    finally:
        os.close(file)


@pytest.mark.parametrize("flags", ["", "-c", "-Lec", "-R", "-p"])
def test_our_reader_takes_what_zfs_sends(
    pool_name: str, contents: list[bytes], tmp_path: Path, flags: str
) -> None:
    snapshot = applied(tmp_path / "v", sent(*([flags] if flags else []), f"{pool_name}/v@c"))
    assert (tmp_path / "v").read_bytes() == contents[2]
    assert snapshot.guid == int(command("zfs", "get", "-Hpo", "value", "guid", f"{pool_name}/v@c"))


@pytest.mark.parametrize("flags", [["-i"], ["-c", "-i"], ["-Lec", "-I"], ["-I"]])
def test_our_reader_takes_increments_that_zfs_sends(
    pool_name: str, contents: list[bytes], tmp_path: Path, flags: list[str]
) -> None:
    base = applied(tmp_path / "v", sent(f"{pool_name}/v@a"))
    applied(tmp_path / "v", sent(*flags, f"{pool_name}/v@a", f"{pool_name}/v@c"), base)
    assert (tmp_path / "v").read_bytes() == contents[2]


@pytest.mark.parametrize("compress", [None, "lz4"])
@pytest.mark.parametrize("form", ["streams", "package"])
def test_zfs_receives_what_our_writer_writes(
    pool_name: str, contents: list[bytes], tmp_path: Path, form: str, compress: Literal["lz4"] | None
) -> None:
    target = f"{pool_name}/w-{form}-{compress or 'plain'}"
    files = [tmp_path / str(number) for number in range(3)]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    opened = [file.open("rb") for file in files]
    members: list[PackageMember] = []
    for number, source in enumerate(opened):
        before = members[-1] if members else None
        info = SnapshotInfo(
            name=f"ours/v@s{number}",
            guid=random.Random(f"{target}{number}").getrandbits(63) + 1,
            volsize=SIZE,
            volblocksize=8192,
            from_guid=before.snapshot.guid if before else 0,
            creation_seconds=1_700_000_000 + number,
        )
        members.append(
            PackageMember(
                source_fd=source.fileno(),
                snapshot=info,
                base_fd=before.source_fd if before else None,
                base=before.snapshot if before else None,
            )
        )
    if form == "package":
        streams = [b"".join(map(bytes, write_package(members, compress=compress)))]
    else:
        streams = [
            b"".join(
                map(
                    bytes,
                    write_stream(m.source_fd, m.snapshot, base_fd=m.base_fd, base=m.base, compress=compress),
                )
            )
            for m in members
        ]
    for stream in streams:
        command("zfs", "receive", "-u", target, data=stream)
    for source in opened:
        source.close()
    received = command("zfs", "get", "-Hpo", "value", "guid", *(f"{target}@s{n}" for n in range(3))).split()
    assert [int(guid) for guid in received] == [member.snapshot.guid for member in members]
    with open(device(target), "rb") as volume:
        assert hashlib.sha256(volume.read()).digest() == hashlib.sha256(contents[2]).digest()
    # And back: the real sender's stream of it is read by us.
    applied(tmp_path / "back", sent(f"{target}@s1"))
    assert (tmp_path / "back").read_bytes() == contents[1]
    command("zpool", "scrub", "-w", pool_name)
    assert "errors: No known data errors" in command("zpool", "status", pool_name)


def test_real_increments_on_top_of_ours_are_read_by_us(
    pool_name: str, contents: list[bytes], tmp_path: Path
) -> None:
    ours = SnapshotInfo(name="ours/v@s", guid=0x1234567890ABCDE, volsize=SIZE, volblocksize=8192)
    kept = tmp_path / "kept"
    kept.write_bytes(contents[0])
    with kept.open("rb") as source:
        stream = b"".join(map(bytes, write_stream(source.fileno(), ours)))
    target = f"{pool_name}/onwards"
    command("zfs", "receive", "-u", target, data=stream)
    expected = bytearray(contents[0])
    base = ours
    for number in range(2):
        patch = bytes([number + 1]) * 20_000
        with open(device(target), "r+b", buffering=0) as volume:
            volume.seek(1 << 20)
            volume.write(patch)
            os.fsync(volume.fileno())
        expected[1 << 20 : (1 << 20) + len(patch)] = patch
        command("zfs", "snapshot", f"{target}@r{number}")
        before = f"{target}@{base.snapshot}"
        base = applied(kept, sent("-i", before, f"{target}@r{number}"), base)
        assert kept.read_bytes() == expected
