"""What a stream means for the pool, decided by its heading."""

import pytest
from msgspec.structs import replace

from imagestore.actors.claims import Claim
from imagestore.actors.incoming import Order, check_same, claim_of, judge
from imagestore.errors import AlreadyExists, Blocked, NotFound, NotValid, NotVolume
from imagestore.events.catalogue import NewParent, ReceiveIntent
from imagestore.events.state import State
from imagestore.pools.base import Dataset, Tags
from imagestore.streams.snapshot import SnapshotInfo
from tests.actors.rows import MIB, dataset_id, row, view_of

VOLUME = row("guests/g/disk-0", volsize=MIB, createtxg=10)
A = row("guests/g/disk-0@a", volsize=MIB, createtxg=11, guid=111)
B = row("guests/g/disk-0@b", volsize=MIB, createtxg=12, guid=222)
ORIGIN = row("images/deb@base", volsize=MIB, createtxg=5, guid=77, tags=Tags(kind="snapshot", image="deb"))
ROWS = (row("guests/g"), VOLUME, A, B, row("images/deb", volsize=MIB), ORIGIN)

FULL = SnapshotInfo(name="tank/v@c", guid=333, volsize=0, volblocksize=0)


def judged(name: str, heading: SnapshotInfo, *rows: Dataset) -> ReceiveIntent:
    return judge(Order(name=name), heading, "op", State(pool="mistify"), view_of(*(rows or ROWS)))


def since(guid: int, *, is_clone: bool = False) -> SnapshotInfo:
    return replace(FULL, from_guid=guid, is_clone=is_clone)


def test_a_full_stream_makes_a_volume_and_its_parents() -> None:
    assert judged("guests/new/disk-12", FULL) == ReceiveIntent(
        name="guests/new/disk-12",
        staging="images/.staging-op",
        parents=(NewParent(name="guests/new", guest="new"),),
        guest="new",
        disk="12",
    )
    assert judged("scratch", FULL) == ReceiveIntent(name="scratch", staging="images/.staging-op")


@pytest.mark.parametrize("name", ["guests/g/data", "guests/g/disk-01", "guests/g/x/disk-0", "a/disk-0"])
def test_only_a_guests_numbered_volume_is_a_disk(name: str) -> None:
    assert judged(name, FULL).disk == ""


def test_a_clones_stream_finds_its_origin_by_guid() -> None:
    intent = judged("guests/g/disk-1", since(77, is_clone=True))
    assert (intent.base, intent.image, intent.volume) == (dataset_id(ORIGIN), "deb", None)


def test_an_incremental_stream_goes_onto_the_volume_whose_newest_snapshot_is_its_base() -> None:
    intent = judged(VOLUME.name, since(222))
    assert (intent.volume, intent.base, intent.parents) == (dataset_id(VOLUME), dataset_id(B), ())


@pytest.mark.parametrize(
    ("name", "heading", "error", "text"),
    [
        (VOLUME.name, FULL, AlreadyExists, "dataset already exists: guests/g/disk-0"),
        (VOLUME.name, since(111), Blocked, "most recent snapshot .* guests/g/disk-0@b with guid 222"),
        (VOLUME.name, since(77, is_clone=True), Blocked, "most recent snapshot"),
        (VOLUME.name, replace(since(222), name="x@a"), AlreadyExists, "guests/g/disk-0@a"),
        ("new", since(222), NotFound, "not found"),
        ("new", since(999, is_clone=True), NotFound, "not found"),
        ("images/x", FULL, NotValid, "not a valid dataset"),
        ("guests", FULL, NotValid, "not a valid dataset"),
        ("guests/g", FULL, NotVolume, "not a volume"),
        ("guests/g/disk-0/x", FULL, NotValid, "not a valid dataset"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, heading: SnapshotInfo, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        judged(name, heading)


def test_a_volume_without_snapshots_is_no_base() -> None:
    with pytest.raises(Blocked, match="is not the stream's base: none"):
        judged("v", since(5), row("v", volsize=MIB))


def test_a_new_volume_claims_what_it_brings_into_being_and_leans_on_its_origin() -> None:
    intent = judged("guests/new/disk-0", since(77, is_clone=True))
    assert claim_of(intent, view_of(*ROWS)) == Claim(
        exclusive=("guests/new", "images/.staging-op"), shared=("images/deb@base",)
    )
    assert claim_of(judged(VOLUME.name, since(222)), view_of(*ROWS)) == Claim(exclusive=(VOLUME.name,))


def test_what_was_judged_must_still_be_so_but_parents_may_have_come() -> None:
    planned = judged("a/b/v", FULL)
    check_same(planned, judged("a/b/v", FULL, row("a")))
    with pytest.raises(Blocked, match="dataset was changed while it was received: a/b/v"):
        check_same(judged("a/b/v", FULL, row("a")), planned)
    onto = judged(VOLUME.name, since(222))
    with pytest.raises(Blocked):
        check_same(onto, replace(onto, volume=dataset_id(A)))
