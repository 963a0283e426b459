import pytest

from imagestore.actors.claims import Claim
from imagestore.actors.commands import (
    CloneImage,
    Command,
    CreateGuestDisks,
    CreateSnapshot,
    CreateVolume,
    DeleteDataset,
    DeleteGuestDisks,
    DeleteImage,
    DeleteSnapshot,
    DiskOrder,
    RollbackSnapshot,
)
from imagestore.actors.decisions import claim_of, decide
from imagestore.actors.plans import Plan, Settled, is_visible
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    HasClones,
    ImageStoreError,
    InvalidArgument,
    NewerSnapshots,
    NotFound,
    NotSnapshot,
    NotValid,
)
from imagestore.events.catalogue import (
    CreateIntent,
    DestroyIntent,
    FetchIntent,
    NewBlank,
    NewClone,
    NewParent,
    RollbackIntent,
    SnapshotIntent,
)
from imagestore.events.state import ImageRecord, OperationRecord, State
from imagestore.pools.base import Dataset, Tags
from tests.actors.rows import MIB, dataset_id, image_rows, record_of, row, state_with_image, view_of

DEB = image_rows("deb")
STATE = state_with_image("deb", DEB)

GUEST = (
    row("guests/g"),
    row("guests/g@one", createtxg=20),
    row("guests/g/disk-0", volsize=MIB),
    row("guests/g/disk-0@one", createtxg=20, volsize=MIB),
    row("guests/g/disk-1", volsize=MIB),
    row("guests/g/disk-1@one", createtxg=20, volsize=MIB),
)


def plan(command: Command, *rows: Dataset, state: State = STATE) -> Plan:
    decided = decide(command, state, view_of(*DEB, *rows))
    assert isinstance(decided, Plan)
    return decided


def refusal(command: Command, *rows: Dataset, state: State = STATE) -> ImageStoreError:
    with pytest.raises(ImageStoreError) as raised:
        decide(command, state, view_of(*DEB, *rows))
    return raised.value


def names_in(intent: object) -> list[str]:
    assert isinstance(intent, CreateIntent | SnapshotIntent | DestroyIntent)
    return [d.name for d in intent.datasets]


# --- CreateVolume ------------------------------------------------------------------


def test_a_volume_is_made_with_its_parents_each_by_itself() -> None:
    made = plan(CreateVolume(name="a/b/c", size=MIB))
    assert made.intent == CreateIntent(
        datasets=(NewParent(name="a"), NewParent(name="a/b"), NewBlank(name="a/b/c", size_bytes=MIB))
    )
    assert made.reserve_bytes == MIB


def test_the_same_volume_again_is_settled() -> None:
    there = row("v", volsize=MIB)
    assert decide(CreateVolume(name="v", size=MIB), STATE, view_of(there)) == Settled(rows=(there,))


@pytest.mark.parametrize(
    "there",
    [row("v", volsize=2 * MIB), row("v"), row("v", volsize=MIB, origin="images/deb@base")],
)
def test_another_dataset_of_that_name_is_refused(there: Dataset) -> None:
    error = refusal(CreateVolume(name="v", size=MIB), there)
    assert isinstance(error, AlreadyExists)
    assert str(error) == "dataset already exists: v"


@pytest.mark.parametrize("name", ["", "images", "guests", "images/x", "v@s"])
def test_names_that_are_no_volumes_are_refused(name: str) -> None:
    assert isinstance(refusal(CreateVolume(name=name, size=MIB)), NotValid)


def test_nothing_is_made_below_a_volume() -> None:
    assert isinstance(refusal(CreateVolume(name="v/w", size=MIB), row("v", volsize=MIB)), NotValid)


def test_a_volume_in_a_guest_belongs_to_it() -> None:
    intent = plan(CreateVolume(name="guests/g/extra", size=MIB)).intent
    assert isinstance(intent, CreateIntent)
    assert [getattr(new, "guest", "") for new in intent.datasets] == ["g", "g"]


# --- CloneImage ----------------------------------------------------------------------


def test_a_clone_is_of_the_images_snapshot() -> None:
    made = plan(CloneImage(image="deb", name="c"))
    assert made.intent == CreateIntent(
        datasets=(NewClone(name="c", origin=dataset_id(DEB[1]), size_bytes=64 * MIB, image="deb"),)
    )
    assert made.reserve_bytes == 64 * MIB


def test_the_same_clone_again_is_settled_and_another_refused() -> None:
    clone = row("c", volsize=64 * MIB, origin="images/deb@base")
    assert decide(CloneImage(image="deb", name="c"), STATE, view_of(*DEB, clone)) == Settled(rows=(clone,))
    assert isinstance(refusal(CloneImage(image="deb", name="c"), row("c", volsize=64 * MIB)), AlreadyExists)


def test_an_image_that_is_not_whole_cannot_be_cloned() -> None:
    state = State(pool="mistify", images={"new": ImageRecord(id="new")})
    assert isinstance(refusal(CloneImage(image="new", name="c"), state=state), NotFound)
    assert isinstance(refusal(CloneImage(image="none", name="c"), state=state), NotFound)


def test_an_image_whose_dataset_was_replaced_is_not_whole() -> None:
    other = (row("images/deb", volsize=MIB, guid=5), row("images/deb@base", guid=6))
    with pytest.raises(NotFound):
        decide(CloneImage(image="deb", name="c"), STATE, view_of(*other))


# --- deletions ---------------------------------------------------------------------


def test_a_deletion_lists_every_target_with_its_identity() -> None:
    rows = (row("a"), row("a/v", volsize=MIB), row("a/v@s"))
    made = plan(DeleteDataset(name="a"), *rows)
    assert made.intent == DestroyIntent(datasets=tuple(map(dataset_id, rows)))
    assert made.gone == (rows[0],)


@pytest.mark.parametrize("name", ["images", "guests", "images/deb", "images/deb@base"])
def test_the_stores_own_datasets_are_protected(name: str) -> None:
    assert isinstance(refusal(DeleteDataset(name=name)), Blocked)


def test_an_images_snapshot_is_protected_from_a_recursive_deletion_too() -> None:
    assert isinstance(
        refusal(DeleteSnapshot(name="images@base", recursive=True), row("images@base")), Blocked
    )


def test_a_snapshot_is_deleted_with_those_below_it_as_a_dataset_is() -> None:
    """``zfs destroy -r`` of a snapshot, and a guest is not left with half of one."""
    command = DeleteDataset(name="guests/g@one")
    assert names_in(plan(command, *GUEST).intent) == [
        "guests/g@one",
        "guests/g/disk-0@one",
        "guests/g/disk-1@one",
    ]
    assert claim_of(command, STATE, view_of(*GUEST)) == Claim(exclusive=("guests/g",))


def test_a_snapshot_of_an_image_that_is_not_its_own_may_go() -> None:
    mine = row("images/deb@mine", createtxg=30)
    assert names_in(plan(DeleteSnapshot(name="images/deb@mine"), mine).intent) == ["images/deb@mine"]


def test_clones_are_named_in_a_fixed_order() -> None:
    rows = (
        row("v", volsize=MIB),
        row("v@s"),
        row("z", volsize=MIB, origin="v@s"),
        row("c", volsize=MIB, origin="v@s"),
    )
    error = refusal(DeleteDataset(name="v"), *rows)
    assert isinstance(error, HasClones)
    assert str(error) == "snapshot has dependent clones: c, z"
    assert str(refusal(DeleteSnapshot(name="v@s"), *rows)) == "snapshot has dependent clones: c, z"


def test_clones_that_go_with_it_do_not_stand_in_the_way() -> None:
    rows = (row("a"), row("a/v", volsize=MIB), row("a/v@s"), row("a/c", volsize=MIB, origin="a/v@s"))
    assert len(names_in(plan(DeleteDataset(name="a"), *rows).intent)) == 4


def test_an_image_with_clones_is_not_deleted() -> None:
    clone = row("guests/g/disk-0", volsize=64 * MIB, origin="images/deb@base")
    error = refusal(DeleteImage(image="deb"), row("guests/g"), clone)
    assert str(error) == "image has dependent clones: guests/g/disk-0"


def test_an_image_is_deleted_with_its_datasets() -> None:
    made = plan(DeleteImage(image="deb"))
    assert made.intent == DestroyIntent(datasets=tuple(map(dataset_id, DEB)), image="deb")


def test_a_failed_image_is_deleted_without_datasets() -> None:
    state = State(pool="mistify", images={"bad": ImageRecord(id="bad", status="error")})
    made = decide(DeleteImage(image="bad"), state, view_of())
    assert isinstance(made, Plan)
    assert made.intent == DestroyIntent(datasets=(), image="bad")


def test_an_image_whose_snapshot_somebody_destroyed_is_deleted_whole() -> None:
    """Else its volume keeps the name, and the image can never be fetched again."""
    volume = DEB[0]
    intent = DestroyIntent(datasets=(dataset_id(volume),), image="deb")
    made = decide(DeleteImage(image="deb"), STATE, view_of(volume))
    assert isinstance(made, Plan)
    assert made.intent == intent

    asked_again = State(pool="mistify", images={"deb": ImageRecord(id="deb", status="error")})
    asked_again.datasets[volume.name] = record_of(volume)
    made = decide(DeleteImage(image="deb"), asked_again, view_of(volume))
    assert isinstance(made, Plan)
    assert made.intent == intent


def test_a_foreign_dataset_under_an_images_name_is_not_deleted_with_it() -> None:
    foreign = row("images/deb", volsize=MIB, guid=99, createtxg=99)
    made = decide(DeleteImage(image="deb"), STATE, view_of(foreign))
    assert isinstance(made, Plan)
    assert made.intent == DestroyIntent(datasets=(), image="deb")


def test_an_image_that_is_being_fetched_is_not_deleted() -> None:
    state = State(pool="mistify", images={"new": ImageRecord(id="new")})
    assert str(refusal(DeleteImage(image="new"), state=state)) == "image is being fetched: new"


def test_deleting_a_guest_that_has_nothing_is_settled() -> None:
    assert decide(DeleteGuestDisks(guest="g"), STATE, view_of()) == Settled()


def test_deleting_a_guest_takes_all_that_is_its() -> None:
    assert names_in(plan(DeleteGuestDisks(guest="g"), *GUEST).intent) == [
        "guests/g",
        "guests/g@one",
        "guests/g/disk-0",
        "guests/g/disk-0@one",
        "guests/g/disk-1",
        "guests/g/disk-1@one",
    ]


# --- snapshots -----------------------------------------------------------------------


def test_a_snapshot_of_one_dataset_is_of_it_alone() -> None:
    rows = (row("a"), row("a/v", volsize=MIB))
    assert names_in(plan(CreateSnapshot(name="a", snapshot="s"), *rows).intent) == ["a"]


def test_a_recursive_snapshot_names_its_targets_one_by_one() -> None:
    rows = (row("a"), row("a/v", volsize=MIB), row("a/v@old"))
    made = plan(CreateSnapshot(name="a", snapshot="s", recursive=True), *rows)
    assert names_in(made.intent) == ["a", "a/v"]
    assert made.answer == ("a@s", "a/v@s")


def test_a_snapshot_of_a_guest_is_of_all_its_disks() -> None:
    made = plan(CreateSnapshot(name="guests/g", snapshot="two"), *GUEST)
    assert names_in(made.intent) == ["guests/g", "guests/g/disk-0", "guests/g/disk-1"]


def test_a_snapshot_that_exists_is_refused_by_name_before_anything() -> None:
    error = refusal(
        CreateSnapshot(name="a", snapshot="s", recursive=True),
        row("a"),
        row("a/v", volsize=MIB),
        row("a/v@s"),
    )
    assert str(error) == "dataset already exists: a/v@s"


def test_refusals_of_a_snapshot_come_in_the_contracts_order() -> None:
    assert isinstance(refusal(CreateSnapshot(name="none", snapshot="/")), NotFound)
    assert str(refusal(CreateSnapshot(name="v@s", snapshot="/"), row("v"), row("v@s"))) == (
        "cannot create a snapshot of a snapshot"
    )
    error = refusal(CreateSnapshot(name="v", snapshot="a/b"), row("v"))
    assert isinstance(error, InvalidArgument)
    assert str(error) == "invalid snapshot dest"


def test_a_snapshot_of_a_thick_volume_costs_what_it_refers_to() -> None:
    thick = row("v", volsize=8 * MIB, written=3 * MIB, sparse=False)
    assert plan(CreateSnapshot(name="v", snapshot="s"), thick).reserve_bytes == 3 * MIB


# --- rollback ------------------------------------------------------------------------


def test_a_rollback_to_the_newest_snapshot_destroys_nothing() -> None:
    volume, snapshot = row("v", volsize=MIB), row("v@s")
    made = plan(RollbackSnapshot(name="v@s"), volume, snapshot)
    assert made.intent == RollbackIntent(snapshots=(dataset_id(snapshot),), volumes=(dataset_id(volume),))


def test_newer_snapshots_are_named_and_kept_unless_told() -> None:
    rows = (
        row("v", volsize=MIB),
        row("v@1", createtxg=1),
        row("v@3", createtxg=3),
        row("v@2", createtxg=2),
    )
    error = refusal(RollbackSnapshot(name="v@1"), *rows)
    assert isinstance(error, NewerSnapshots)
    assert str(error) == "more recent snapshots exist: v@2, v@3"
    intent = plan(RollbackSnapshot(name="v@1", destroy_more_recent=True), *rows).intent
    assert isinstance(intent, RollbackIntent)
    assert [newer.name for newer in intent.newer] == ["v@2", "v@3"]


def test_clones_of_newer_snapshots_stand_in_the_way() -> None:
    rows = (
        row("v", volsize=MIB),
        row("v@1", createtxg=1),
        row("v@2", createtxg=2),
        row("c", volsize=MIB, origin="v@2"),
    )
    error = refusal(RollbackSnapshot(name="v@1", destroy_more_recent=True), *rows)
    assert str(error) == "snapshot has dependent clones: c"


def test_a_whole_guest_goes_back_in_one_step() -> None:
    newer = row("guests/g/disk-1@two", createtxg=30, volsize=MIB)
    made = plan(RollbackSnapshot(name="guests/g@one", destroy_more_recent=True), *GUEST, newer)
    assert isinstance(made.intent, RollbackIntent)
    assert [s.name for s in made.intent.snapshots] == ["guests/g/disk-0@one", "guests/g/disk-1@one"]
    assert [n.name for n in made.intent.newer] == ["guests/g/disk-1@two"]


def test_of_a_guest_its_volumes_go_back_whatever_else_is_in_it() -> None:
    notes, snapshot = row("guests/g/notes"), row("guests/g/notes@one")
    made = plan(RollbackSnapshot(name="guests/g@one"), *GUEST, notes, snapshot)
    assert isinstance(made.intent, RollbackIntent)
    assert [s.name for s in made.intent.snapshots] == ["guests/g/disk-0@one", "guests/g/disk-1@one"]


def test_a_guest_does_not_go_back_by_halves() -> None:
    later = row("guests/g/disk-2", volsize=MIB)
    error = refusal(RollbackSnapshot(name="guests/g@one"), *GUEST, later)
    assert str(error) == "snapshot one does not cover: guests/g/disk-2"


def test_a_volume_is_no_snapshot() -> None:
    assert isinstance(refusal(RollbackSnapshot(name="v"), row("v", volsize=MIB)), NotSnapshot)


# --- guests --------------------------------------------------------------------------


def test_a_guests_disks_are_made_in_one_intent() -> None:
    command = CreateGuestDisks(guest="g", disks=(DiskOrder(image="deb"), DiskOrder(size=MIB)))
    made = plan(command)
    assert made.intent == CreateIntent(
        datasets=(
            NewParent(name="guests/g", guest="g"),
            NewClone(
                name="guests/g/disk-0",
                origin=dataset_id(DEB[1]),
                size_bytes=64 * MIB,
                image="deb",
                guest="g",
                disk="0",
            ),
            NewBlank(name="guests/g/disk-1", size_bytes=MIB, guest="g", disk="1"),
        )
    )
    assert made.reserve_bytes == 65 * MIB


def test_disks_that_are_there_are_not_made_again() -> None:
    command = CreateGuestDisks(guest="g", disks=(DiskOrder(size=MIB), DiskOrder(size=MIB), DiskOrder(size=2)))
    made = plan(command, *GUEST)
    assert names_in(made.intent) == ["guests/g/disk-2"]
    assert made.answer == ("guests/g/disk-0", "guests/g/disk-1", "guests/g/disk-2")


def test_all_disks_there_is_settled() -> None:
    command = CreateGuestDisks(guest="g", disks=(DiskOrder(size=MIB), DiskOrder(size=MIB)))
    assert decide(command, STATE, view_of(*GUEST)) == Settled(rows=(GUEST[2], GUEST[4]))


@pytest.mark.parametrize("disk", [DiskOrder(size=2 * MIB), DiskOrder(image="deb")])
def test_an_existing_disk_of_another_size_or_origin_refuses_all(disk: DiskOrder) -> None:
    command = CreateGuestDisks(guest="g", disks=(disk, DiskOrder(size=MIB), DiskOrder(size=MIB)))
    assert str(refusal(command, *GUEST)) == "dataset already exists: guests/g/disk-0"


def test_an_unknown_image_refuses_all() -> None:
    command = CreateGuestDisks(guest="g", disks=(DiskOrder(size=MIB), DiskOrder(image="none")))
    assert isinstance(refusal(command), NotFound)


# --- claims and visibility -------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (CreateVolume(name="a/b/c", size=1), Claim(exclusive=("a",))),
        (CreateVolume(name="guests/x/y", size=1), Claim(exclusive=("guests/x",))),
        (CloneImage(image="deb", name="c"), Claim(exclusive=("c",), shared=("images/deb@base",))),
        (CloneImage(image="no", name="c"), Claim(exclusive=("c",), shared=("images/no",))),
        (DeleteImage(image="deb"), Claim(exclusive=("images/deb",))),
        (DeleteSnapshot(name="v@s"), Claim(exclusive=("v",))),
        (RollbackSnapshot(name="v@s"), Claim(exclusive=("v",))),
        (CreateSnapshot(name="", snapshot="s", recursive=True), Claim(exclusive=("",))),
        (DeleteGuestDisks(guest="g"), Claim(exclusive=("guests/g",))),
        (
            CreateGuestDisks(guest="g", disks=(DiskOrder(image="deb"), DiskOrder(image="deb"))),
            Claim(exclusive=("guests/g",), shared=("images/deb@base",)),
        ),
    ],
)
def test_claims_cover_what_a_command_changes_and_leans_on(command: Command, expected: Claim) -> None:
    assert claim_of(command, STATE, view_of(*DEB)) == expected


def test_datasets_of_unfinished_operations_and_staging_are_not_listed() -> None:
    under_way = OperationRecord(
        id="op", method="M", subject="s", intent=FetchIntent(image="i", staging="x"), principal="p", seq=1,
        started_ns=0,
    )  # fmt: skip
    made = row("v", volsize=MIB, tags=Tags(op="op"))
    state = State(operations={"op": under_way})
    assert not is_visible(made, state)
    assert is_visible(made, State())
    state.datasets["v"] = record_of(made)
    assert is_visible(made, state)
    assert not is_visible(row("images/.staging-1", volsize=MIB), State())
