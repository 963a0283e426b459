"""kill -9 in the middle of a fetch into a directory pool."""

import gzip
import random
from pathlib import Path

import pytest
import trio

from tests.crash.killedfetch import MIB, fetch_killed_at_its_half
from tests.crash.process import Place

RAW = random.Random(8).randbytes(48 * MIB)
GZIPPED = gzip.compress(RAW, 1)


@pytest.mark.parametrize("body", [pytest.param(RAW, id="raw"), pytest.param(GZIPPED, id="gzip")])
async def test_row_13_a_fetch_killed_at_its_half_goes_on_behind_it(
    body: bytes, tmp_path: Path, nursery: trio.Nursery
) -> None:
    place = Place(tmp_path)
    spool = place.pool / ".imagestore" / "spool"
    await fetch_killed_at_its_half(place, spool, body, RAW, nursery)
