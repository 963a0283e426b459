"""What OpenZFS's answers mean, from answers that OpenZFS 2.1.11 gave."""

import pytest

from imagestore.errors import (
    Blocked,
    HasClones,
    Held,
    ImageStoreError,
    InUse,
    InvalidArgument,
    NewerSnapshots,
    NoSpace,
    NotFound,
    PoolError,
)
from imagestore.pools.base import Tags
from imagestore.pools.zfs.programs import refusal_of
from imagestore.pools.zfs.rows import listed_rows, rows, signed, tag_properties, unsigned
from imagestore.streams.nvlist import NvValue


def fields(*values: str) -> str:
    return "\x1f".join(values)


NONE = ("",) * 7
ANSWER: dict[str, NvValue] = {
    "tank/v@s2": fields("snapshot", "5", "30", "1795514521", "1048576", "0", "57344", "", "", *NONE),
    "tank/v": fields(
        "volume", "-7923071223486350871", "6", "1795514516", "1048576", "4096", "61440", "", "1081344",
        "op-1", "disk", "", "", "vm", "0", "",
    ),
    "tank/v@s10": fields("snapshot", "4", "20", "1795514520", "1048576", "57344", "57344", "", "", *NONE),
    "tank": fields("filesystem", "7", "1", "1795514500", "", "98304", "98304", "", "0", *NONE),
    "tank/c": fields("volume", "8", "31", "1795514522", "1048576", "0", "57344", "tank/v@s2", "0", *NONE),
    "tank/.receiving-ab": fields("volume", "9", "32", "1795514523", "512", "0", "0", "", "0", *NONE),
    "tank/.receiving-ab@x": fields("snapshot", "10", "33", "1795514524", "512", "0", "0", "", "", *NONE),
}  # fmt: skip


def test_rows_are_in_the_order_of_zfs_list_without_what_is_on_its_way_in() -> None:
    assert [row.name for row in rows(ANSWER, "tank")] == ["", "c", "v", "v@s10", "v@s2"]


def test_a_row_says_what_the_pool_says() -> None:
    found = {row.name: row for row in rows(ANSWER, "tank")}
    volume = found["v"]
    assert volume.guid == 10523672850223200745
    assert (volume.volsize, volume.written, volume.referenced) == (1048576, 4096, 61440)
    assert volume.tags == Tags(op="op-1", kind="disk", guest="vm", disk="0")
    assert not volume.sparse
    assert found["c"].origin == "v@s2"
    assert found["c"].sparse


def test_what_the_command_lists_is_what_the_program_sees() -> None:
    text = """\
tank\ttype\tfilesystem\t-
tank\tguid\t7\t-
tank\tcreatetxg\t1\t-
tank\tcreation\t1795514500\t-
tank\tvolsize\t-\t-
tank\twritten\t98304\t-
tank\treferenced\t98304\t-
tank\torigin\t-\t-
tank\trefreservation\t0\tdefault
tank\timagestore:op\top-9\tlocal
tank\timagestore:kind\t-\t-
tank/c\ttype\tvolume\t-
tank/c\tguid\t16106755916728254781\t-
tank/c\tcreatetxg\t31\t-
tank/c\tcreation\t1795514522\t-
tank/c\tvolsize\t1048576\tlocal
tank/c\twritten\t0\t-
tank/c\treferenced\t57344\t-
tank/c\torigin\ttank/v@s2\t-
tank/c\trefreservation\t0\tdefault
tank/c\timagestore:op\top-9\tinherited from tank
tank/c\timagestore:kind\tdisk\treceived
"""
    root, clone = listed_rows(text, "tank")
    assert (root.name, root.kind, root.tags) == ("", "filesystem", Tags(op="op-9"))
    assert (clone.name, clone.guid, clone.origin, clone.tags) == ("c", 16106755916728254781, "v@s2", Tags())
    assert (clone.volsize, clone.written, clone.referenced, clone.sparse) == (1048576, 0, 57344, True)


@pytest.mark.parametrize("answer", [None, "", {"tank/v": "volume"}, {"tank/v": 7}])
def test_an_answer_that_is_not_understood_is_quoted(answer: NvValue) -> None:
    with pytest.raises(PoolError, match="not understood"):
        rows(answer, "tank")


@pytest.mark.parametrize("number", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_guid_survives_the_programs_signed_integers(number: int) -> None:
    assert unsigned(str(signed(number))) == number


def test_absent_tags_are_not_set() -> None:
    assert tag_properties(Tags(op="op-1", kind="disk")) == {
        "imagestore:op": "op-1",
        "imagestore:kind": "disk",
    }


@pytest.mark.parametrize(
    ("refusal", "error", "says"),
    [
        ("missing", NotFound, "not found"),
        ("children", Blocked, "dataset has children: a, b@s"),
        ("clones", HasClones, "snapshot has dependent clones: a, b@s"),
        ("held", Held, "snapshot is held: a, b@s"),
        ("busy", InUse, "dataset is in use: a"),
        ("newer", NewerSnapshots, "more recent snapshots exist: a, b@s"),
        ("full", NoSpace, "no space left on device"),
        ("others", InvalidArgument, "invalid argument"),
        ("left", PoolError, "left: a, b@s"),
        ("something new", PoolError, "left: a, b@s"),
    ],
)
def test_a_programs_refusal_has_its_error(refusal: str, error: type[ImageStoreError], says: str) -> None:
    answer: NvValue = {"refusal": refusal, "datasets": {"tank/b@s": True, "tank/a": True}}
    made = refusal_of(answer, "tank")
    assert type(made) is error
    assert says in str(made)


def test_what_was_done_is_no_refusal() -> None:
    assert refusal_of({"refusal": "", "datasets": {}}, "tank") is None


@pytest.mark.parametrize("answer", [None, {}, {"refusal": ""}, "done"])
def test_an_outcome_that_is_not_understood_is_not_taken_for_done(answer: NvValue) -> None:
    assert isinstance(refusal_of(answer, "tank"), PoolError)
