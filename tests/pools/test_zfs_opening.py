"""The block size of new volumes, from ``zpool status`` as OpenZFS 2.1.11 prints it."""

import pytest

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
