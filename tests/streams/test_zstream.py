"""OpenZFS's own ``zstream dump`` finds nothing wrong with what we write.

Its exit status says nothing (0 for damaged streams too): right is an empty
stderr and the line of END's checksum.
"""

import subprocess
from pathlib import Path

import pytest

from imagestore.streams.member import Compression, PackageMember
from imagestore.streams.writer import write_package
from tests.streams.samples import load
from tests.streams.test_writer import Volume, joined

pytestmark = pytest.mark.system


def dump(stream: bytes) -> tuple[str, str]:
    done = subprocess.run(["zstream", "dump", "-v"], input=stream, capture_output=True, check=True)
    return done.stdout.decode(), done.stderr.decode()


def test_a_damaged_stream_is_one_that_it_complains_of() -> None:
    damaged = bytearray(load("v8k-s1-plain"))
    damaged[5000] ^= 1
    _, complaint = dump(bytes(damaged))
    assert complaint


@pytest.mark.parametrize("block", [512, 4096, 8192, 131072, 1 << 20])
@pytest.mark.parametrize("compress", [None, "lz4"])
def test_full_and_incremental_streams_are_right(
    block: int, compress: Compression | None, tmp_path: Path
) -> None:
    old = Volume(tmp_path / "a", block * 24, block, seed=1)
    new = Volume(tmp_path / "b", block * 29, block, seed=2, before=old)
    for stream in (old.stream(compress=compress), new.stream(old, compress)):
        said, complaint = dump(stream)
        assert complaint == ""
        assert "END checksum" in said


def test_a_package_is_right(tmp_path: Path) -> None:
    old = Volume(tmp_path / "a", 1 << 20, 8192, seed=1)
    new = Volume(tmp_path / "b", 1 << 20, 8192, seed=2, before=old)
    members = [
        PackageMember(source_fd=old.fd, snapshot=old.info),
        PackageMember(source_fd=new.fd, snapshot=new.info, base_fd=old.fd, base=old.info),
    ]
    said, complaint = dump(joined(write_package(members)))
    assert complaint == ""
    assert said.count("END checksum") >= 2
