"""Tests that need OpenZFS are all where ``make test-zfs`` looks: collecting the others takes a minute."""

from pathlib import Path

TESTS = Path(__file__).parent
MARK = "mark." + "zfs"


def test_what_is_marked_zfs_is_below_tests_zfs() -> None:
    marked = {file.relative_to(TESTS).parts[0] for file in TESTS.rglob("*.py") if MARK in file.read_text()}
    assert marked == {"zfs"}
