"""What an opening pool is looked at for: blocks for its geometry, and an OpenZFS that is there and works.

``zpool status`` is as OpenZFS 2.1.11 prints it.
"""

import errno
from pathlib import Path

import pytest

from imagestore.errors import ConfigError, PoolError
from imagestore.pools.zfs import commands, core
from imagestore.pools.zfs.core import ZfsCore
from imagestore.pools.zfs.driver import open_zfs_pool
from imagestore.pools.zfs.opening import block_bytes_for, data_disks

STATUS = """\
  pool: tank
 state: ONLINE
config:

\tNAME                  STATE     READ WRITE CKSUM
\ttank                  ONLINE       0     0     0
{vdevs}
errors: No known data errors
"""


def status(*lines: str) -> str:
    return STATUS.format(vdevs="".join(f"\t{line}  ONLINE       0     0     0\n" for line in lines))


def vdev(name: str, count: int) -> list[str]:
    return [f"  {name}", *(f"    /disks/{name}-{number}" for number in range(count))]


@pytest.mark.parametrize(
    ("lines", "disks"),
    [
        (["  /disks/one"], 1),
        (vdev("mirror-0", 2) + vdev("mirror-1", 3), 1),
        (vdev("raidz1-0", 3), 2),
        (vdev("raidz2-0", 10), 8),
        (vdev("raidz1-0", 3) + vdev("raidz1-1", 5), 4),
        ([*vdev("raidz1-0", 5), "logs", "  /disks/log", "cache", "  /disks/cache"], 4),
        (vdev("draid2:4d:11c:1s-0", 11), 4),
    ],
)
def test_the_disks_that_hold_data_are_counted(lines: list[str], disks: int) -> None:
    assert data_disks(status(*lines)) == disks


def test_a_disk_that_is_being_replaced_counts_once() -> None:
    replacing = ["  raidz1-0", "    a", "    replacing-1", "      old", "      new", "    c"]
    assert data_disks(status(*replacing)) == 2


@pytest.mark.parametrize(
    ("disks", "sector", "block"),
    [
        (1, 4096, 16384),
        (4, 4096, 16384),
        (5, 4096, 32768),
        (8, 4096, 32768),
        (40, 4096, 131072),
        (2, 512, 16384),
    ],
)
def test_each_data_disk_gets_a_sector_of_a_block(disks: int, sector: int, block: int) -> None:
    assert block_bytes_for(disks, sector) == block


# --- no OpenZFS -----------------------------------------------------------------------------


async def test_without_the_commands_it_says_what_to_install_and_what_to_use_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(commands, "_SEARCH_PATH", str(tmp_path))
    with pytest.raises(PoolError, match="OpenZFS is not installed: there is no zfs command") as refusal:
        await open_zfs_pool("tank", lock_directory=str(tmp_path))
    assert "apt-get install zfs-dkms zfsutils-linux" in refusal.value.detail
    assert "--pool dir:" in refusal.value.detail


async def test_without_the_library_it_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zfs", "zpool"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(core, "_LIBRARIES", ("libno_such_thing.so",))
    with pytest.raises(
        PoolError, match=r"OpenZFS is not installed: there is no libno_such_thing\.so"
    ) as refusal:
        await open_zfs_pool("tank", lock_directory=str(tmp_path))
    assert "--pool dir:" in refusal.value.detail


class Library:
    """libzfs_core as it is where ``libzfs_core_init`` gives ``status``."""

    def __init__(self, status: int) -> None:
        self._status = status

    def libzfs_core_init(self) -> int:
        return self._status

    def __getattr__(self, name: str) -> "Library":
        return self


@pytest.mark.parametrize(
    ("status", "says", "mend"),
    [
        (errno.ENOENT, "its kernel module does not answer", "modprobe zfs"),
        (errno.EACCES, "/dev/zfs may not be opened by user", "run the store as root"),
    ],
)
def test_a_kernel_that_does_not_let_us_in_is_told_with_what_mends_it(
    monkeypatch: pytest.MonkeyPatch, status: int, says: str, mend: str
) -> None:
    monkeypatch.setattr(core, "_load", lambda names: Library(status))
    with pytest.raises(PoolError, match=says) as refusal:
        ZfsCore()
    assert mend in refusal.value.detail


@pytest.mark.parametrize("name", ["", "-f", "tank/v", "tank@s", "a b", "tank#b", "9tank", "../etc"])
async def test_what_cannot_be_a_pool_is_refused_before_anything_is_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a ZFS pool"):
        await open_zfs_pool(name, lock_directory=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
