"""check: what is wrong, how bad it is, and the line that a monitoring system reads."""

import pytest

from imagestore.cli.check import CRITICAL, WARNING, Limits, Measured, judge, read
from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore

NOW = 1_700_000_000.0
HOUR = 3600
GOOD = Measured(ready=True, read_only=False, pool_size=100, pool_available=30, pool_free=10)


@pytest.mark.parametrize(
    ("measured", "limits", "found"),
    [
        (GOOD, Limits(), []),
        (GOOD, Limits(pool_critical=0.8, pool_warning=0.75), []),
        (GOOD, Limits(pool_critical=0.8, pool_warning=0.6), [(WARNING, "pool is 70% full, limit 60%")]),
        (GOOD, Limits(pool_critical=0.6, pool_warning=0.5), [(CRITICAL, "pool is 70% full, limit 60%")]),
        (
            Measured(ready=False, read_only=True),
            Limits(),
            [(CRITICAL, "read-only: the journal failed; mend its disk and restart the store")],
        ),
        (Measured(ready=False, read_only=False), Limits(), [(CRITICAL, "not ready; /readyz says why")]),
        (
            Measured(
                ready=True,
                read_only=False,
                last_snapshots={f"g{n}": NOW - 27 * HOUR for n in range(7)} | {"new": NOW - HOUR},
            ),
            Limits(snapshot_age=26 * HOUR),
            [(WARNING, "last snapshot too old: g0, g1, g2, g3, g4 and 2 more")],
        ),
        (
            Measured(ready=True, read_only=False, broken_images=2, failed_operations=3),
            Limits(failed_operations=2),
            [
                (WARNING, "3 operations failed since the start"),
                (WARNING, "2 images are broken: imagestore image ls"),
            ],
        ),
    ],
)
def test_what_is_over_its_limit_is_told(
    measured: Measured, limits: Limits, found: list[tuple[int, str]]
) -> None:
    assert judge(measured, limits, NOW) == found


def test_the_metrics_are_read() -> None:
    text = (
        "imagestore_ready 1.0\nimagestore_read_only 0.0\nimagestore_pool_size_bytes 100.0\n"
        'imagestore_pool_available_bytes 40.0\nimagestore_images{status="error"} 2.0\n'
        'imagestore_operations_total{outcome="failed"} 5.0\n'
        'imagestore_guest_last_snapshot_timestamp_seconds{guest="vm1"} 17.0\n'
    )
    measured = read(text)
    assert (measured.ready, measured.read_only) == (True, False)
    assert (measured.pool_size, measured.pool_available) == (100, 40)
    assert (measured.broken_images, measured.failed_operations) == (2, 5)
    assert measured.last_snapshots == {"vm1": 17.0}


def test_a_store_that_is_not_there_is_critical(run: Run) -> None:
    ended = run("check", "--server", "http://127.0.0.1:1")
    assert ended.status == CRITICAL
    assert ended.out.startswith("IMAGESTORE CRITICAL: ")


def test_one_line_and_the_status(run: Run, memory_store: MemoryStore) -> None:
    ended = run("check", "--pool-max", "80%")
    assert ended.out == ("IMAGESTORE OK: ready | pool_used=60B;;80;0;100 failed_operations=0c\n")
    assert ended.status == 0
    ended = run("check", "--pool-max", "50%")
    assert ended.out.startswith("IMAGESTORE CRITICAL: pool is 60% full, limit 50% | ")
    assert ended.status == CRITICAL
    assert "80%" in run("check", "--pool-max", "much").err
    assert "26h" in run("check", "--snapshot-age", "old").err
