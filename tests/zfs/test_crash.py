"""A slice of the long crash test on OpenZFS (``make crash-zfs``): load, SIGKILL, restart, judgement."""

import secrets
from pathlib import Path

import pytest

from tests.crash.rounds import run
from tests.zfs.crash import COURSE

pytestmark = pytest.mark.zfs

ROUNDS = 2


async def test_a_store_killed_under_load_on_zfs_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    summary = await run(tmp_path, seed=seed, rounds=ROUNDS, course=COURSE)
    print(summary.line)
    assert summary.rounds == ROUNDS
    assert summary.statistics.acknowledged
    assert summary.findings == []
