"""The base of an incremental download, as it was named."""

import pytest

from imagestore.actors.incremental import base_of, bases
from imagestore.errors import InvalidArgument, NotFound
from imagestore.pools.base import Dataset
from tests.actors.rows import MIB, row, view_of

ORIGIN = row("images/deb@base", volsize=MIB, createtxg=5, guid=77)
VOLUME = row("v", volsize=MIB, createtxg=10, origin="images/deb@base")
A = row("v@a", volsize=MIB, createtxg=11, guid=0xFFFFFFFFFFFFFFFE)
B = row("v@20260101", volsize=MIB, createtxg=12, guid=12)
C = row("v@c", volsize=MIB, createtxg=13, guid=20260101)
D = row("v@d", volsize=MIB, createtxg=14, guid=14)
OTHER = row("w@a", volsize=MIB, createtxg=3, guid=99)
VIEW = view_of(row("images/deb", volsize=MIB), ORIGIN, VOLUME, A, B, C, D, row("w", volsize=MIB), OTHER)


def named(text: str, snapshot: Dataset = C) -> Dataset:
    return base_of(snapshot, text, VIEW, VIEW.get)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("a", A),
        ("@a", A),
        ("v@a", A),
        ("18446744073709551614", A),
        ("0xfffffffffffffffe", A),
        ("0XFFFFFFFFFFFFFFFE", A),
        ("20260101", B),
        ("@20260101", B),
        ("12", B),
        ("images/deb@base", ORIGIN),
        ("77", ORIGIN),
        ("0x4d", ORIGIN),
    ],
)
def test_a_base_is_named_by_snapshot_or_guid(text: str, base: Dataset) -> None:
    assert named(text) == base


@pytest.mark.parametrize("text", ["x", "@x", "v@x", "w@x", "99", "0x63", "13", "x/y", "@", "v@"])
def test_a_base_that_is_not_there_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        named(text)


@pytest.mark.parametrize("text", ["c", "d", "v@d", "w@a"])
def test_a_later_snapshot_or_another_volumes_is_no_base(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no earlier snapshot of v, nor its origin"):
        named(text)


def test_a_number_is_a_guid_when_no_snapshot_is_called_so() -> None:
    assert named("20260101", D) == B
    assert named(f"{20260101:#x}", D) == C


def test_the_bases_of_a_volume_without_origin_are_its_older_snapshots() -> None:
    assert bases(D, VIEW) == [A, B, C, ORIGIN]
    assert bases(OTHER, VIEW) == []
