"""OK, ATTENTION or READ-ONLY: the judgement that the page and ``imagestore status`` share."""

from typing import Any

import pytest
from msgspec.structs import replace

from imagestore.condition import Facts, judge

WELL = Facts(pool="tank", size_bytes=100 << 30, available_bytes=60 << 30, promised_bytes=10 << 30)


def test_all_well_is_ok_and_needs_no_reason() -> None:
    condition = judge(WELL)
    assert (condition.level, condition.reason, condition.next, condition.findings) == ("ok", "", "", ())


def test_a_pool_that_has_not_said_its_space_is_not_judged_full() -> None:
    assert judge(replace(WELL, size_bytes=0, available_bytes=0)).level == "ok"


@pytest.mark.parametrize(
    ("changed", "level", "reason", "command"),
    [
        (
            {"read_only": True, "trouble": "read-only: the journal failed: EIO"},
            "read-only",
            "read-only: the journal failed: EIO; mend that and start the store again",
            "systemctl restart imagestore.service",
        ),
        (
            {"trouble": "suspended", "pool_trouble": "suspended", "is_zfs": True},
            "attention",
            "suspended",
            "zpool status -v tank",
        ),
        (
            {"trouble": "gone", "pool_trouble": "gone"},
            "attention",
            "gone",
            "journalctl -u imagestore.service -e",
        ),
        (
            {"trouble": "the journal's disk does not answer"},
            "attention",
            "the journal's disk does not answer",
            "dmesg --level=err,warn",
        ),
        (
            {"trouble": "store is shutting down", "stopping": True},
            "attention",
            "store is shutting down",
            "systemctl status imagestore.service",
        ),
        (
            {"available_bytes": 19 << 30},
            "attention",
            "the pool is 81% full; 19G are left",
            "imagestore image gc --unused 30d --dry-run",
        ),
        (
            {"promised_bytes": 61 << 30},
            "attention",
            "guests may still write 61G, and 60G are left: nothing new can be made",
            "imagestore guest ls",
        ),
        (
            {"lost": 1, "renamed": 2},
            "attention",
            "datasets of the store were changed by others: 1 destroyed, 2 renamed",
            "imagestore drift",
        ),
        (
            {"broken_images": ("deb12", "web")},
            "attention",
            "images that are asked for and are not there: deb12 and 1 more",
            "imagestore image pull deb12",
        ),
        (
            {"failures": ("CloneImage a: no space left on device",), "failed_operation": "01a2"},
            "attention",
            "failed: CloneImage a: no space left on device",
            "imagestore op show 01a2",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_wrong_is_said_with_the_command_that_is_next(
    changed: dict[str, Any], level: str, reason: str, command: str
) -> None:
    condition = judge(replace(WELL, **changed))
    assert (condition.level, condition.reason, condition.next) == (level, reason, command)
    assert [finding.reason for finding in condition.findings] == [reason]


def test_exactly_at_its_limits_a_pool_is_well() -> None:
    assert judge(replace(WELL, size_bytes=100, available_bytes=20, promised_bytes=20)).level == "ok"


def test_the_worst_comes_first_and_the_rest_is_told() -> None:
    condition = judge(
        replace(
            WELL,
            read_only=True,
            trouble="read-only: x",
            lost=1,
            available_bytes=1,
            failures=("a", "b", "c"),
            failed_operation="1",
        )
    )
    assert condition.level == "read-only"
    assert [finding.level for finding in condition.findings] == ["read-only", *["attention"] * 4]
    assert condition.findings[-1].reason == "failed: a, and 2 more in a day"
