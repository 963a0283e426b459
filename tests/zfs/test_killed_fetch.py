"""kill -9 in the middle of a fetch into OpenZFS: what came is in the spool, beside the journal."""

import gzip
import random
from pathlib import Path

import pytest
import trio

from tests.crash.killedfetch import MIB, fetch_killed_at_its_half
from tests.zfs.place import zfs_place

pytestmark = pytest.mark.zfs

RAW = random.Random(8).randbytes(48 * MIB)
GZIPPED = gzip.compress(RAW, 1)


@pytest.mark.parametrize("body", [pytest.param(RAW, id="raw"), pytest.param(GZIPPED, id="gzip")])
async def test_a_fetch_killed_at_its_half_goes_on_behind_it(
    body: bytes, tmp_path: Path, nursery: trio.Nursery
) -> None:
    directory = tmp_path / "killedfetch"
    directory.mkdir()
    with zfs_place(directory) as place:
        await fetch_killed_at_its_half(place, Path(f"{place.journal}.spool"), body, RAW, nursery)
