"""What may be adopted and released, and what becomes of it: pure decisions and facts."""

import pytest

from imagestore.actors.commands import (
    Adopt,
    Command,
    CreateGuestDisks,
    CreateSnapshot,
    DeleteGuestDisks,
    DeleteSnapshot,
    DiskOrder,
    Release,
    RollbackSnapshot,
)
from imagestore.actors.decisions import claim_of, decide
from imagestore.actors.effects import driver_command
from imagestore.actors.plans import Plan, Settled, is_visible
from imagestore.actors.verdicts import Finish, Undo, Verdict, verdict
from imagestore.actors.view import View
from imagestore.actors.zpool import Adopt as AdoptEffect
from imagestore.actors.zpool import Retag
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    HasClones,
    InvalidArgument,
    NotFound,
    NotValid,
    NotVolume,
)
from imagestore.events.catalogue import (
    Adoptee,
    AdoptIntent,
    DatasetAdopted,
    DatasetReleased,
    DestroyIntent,
    ImageCompleted,
    ImageReleased,
    ImageRequested,
    NewParent,
    ReleaseIntent,
    RollbackIntent,
    SnapshotIntent,
)
from imagestore.events.state import DatasetRecord, ImageRecord, OperationRecord, State
from imagestore.pools.base import NO_TAGS, Dataset, Tags
from tests.actors.rows import MIB, dataset_id, row, view_of

ROOT = row("old/root", volsize=8 * MIB, createtxg=20)
MONDAY = row("old/root@monday", volsize=8 * MIB, createtxg=21)
AS_DISK = Adopt(volumes=("old/root",), guest="vm1", disks=(0,))
DISK_TAGS = Tags(op="earlier", kind="disk", guest="vm1", disk="0")


def owned(*rows: Dataset) -> State:
    """A state that knows these rows by their tags."""
    state = State(pool="tank")
    for each in rows:
        state.datasets[each.name] = DatasetRecord(
            name=each.name,
            kind=each.kind,
            role="snapshot" if each.kind == "snapshot" else "disk" if each.tags.disk else "image",
            guid=each.guid,
            createtxg=each.createtxg,
            image=each.tags.image,
            guest=each.tags.guest,
            disk=each.tags.disk,
        )
    return state


def planned(command: Command, state: State, view: View) -> Plan:
    judged = decide(command, state, view)
    assert isinstance(judged, Plan)
    return judged


def adoption(command: Adopt, state: State, view: View) -> AdoptIntent:
    intent = planned(command, state, view).intent
    assert isinstance(intent, AdoptIntent)
    return intent


def test_a_foreign_volume_becomes_a_disk_with_its_snapshots_and_keeps_its_name() -> None:
    view = view_of(row("old"), ROOT, MONDAY)
    intent = adoption(AS_DISK, State(pool="tank"), view)
    assert intent.datasets == (
        Adoptee(name="old/root", guid=ROOT.guid, createtxg=20, role="disk", guest="vm1", disk="0"),
        Adoptee(name="old/root@monday", guid=MONDAY.guid, createtxg=21, role="snapshot", guest="vm1"),
    )
    assert intent.parents == (NewParent(name="guests/vm1", guest="vm1"),)
    effect = driver_command("op", intent, force=False)
    assert isinstance(effect, AdoptEffect)
    assert [parent.name for parent in effect.parents] == ["guests/vm1"]
    assert [change.tags for change in effect.changes] == [
        Tags(op="op", kind="disk", guest="vm1", disk="0"),
        Tags(op="op", kind="snapshot", guest="vm1"),
    ]


def test_a_clone_of_an_image_of_ours_is_adopted_as_such() -> None:
    image = row("images/a@i", volsize=8 * MIB, tags=Tags(op="o", kind="snapshot", image="a"))
    clone = row("old/root", volsize=8 * MIB, origin="images/a@i")
    view = view_of(row("old"), row("images/a", volsize=8 * MIB), image, clone)
    assert adoption(AS_DISK, owned(image), view).datasets[0].image == "a"
    assert adoption(AS_DISK, State(pool="tank"), view).datasets[0].image == ""


@pytest.mark.parametrize(
    ("command", "error", "text"),
    [
        (Adopt(volumes=("gone",)), NotFound, "not found"),
        (Adopt(volumes=("old",)), NotVolume, "not a volume"),
        (Adopt(volumes=("old/root@monday",)), NotVolume, "not a volume"),
        (Adopt(volumes=("images/x",)), NotValid, "not a valid dataset"),
        (Adopt(volumes=("images/x",), guest="vm1", disks=(0,)), NotValid, "not a valid dataset"),
        (Adopt(volumes=("old/root",), image="x"), NotValid, "not a valid dataset"),
        (Adopt(volumes=("images/x",), image="x"), Blocked, "image has no snapshot: images/x"),
        (
            Adopt(volumes=("guests/vm2/disk-1",), guest="vm1", disks=(1,)),
            InvalidArgument,
            "the name of guests/vm2/disk-1 says whose disk it is",
        ),
        (
            Adopt(volumes=("guests/vm2/disk-1",), guest="vm2", disks=(0,)),
            InvalidArgument,
            "the name of guests/vm2/disk-1 says whose disk it is",
        ),
        (
            Adopt(volumes=("old/root",), guest="vm2", disks=(1,)),
            AlreadyExists,
            "dataset already exists: guests/vm2/disk-1",
        ),
    ],
)
def test_what_is_no_foreign_volume_or_has_no_place_is_refused(
    command: Adopt, error: type[Exception], text: str
) -> None:
    view = view_of(
        row("old"),
        ROOT,
        MONDAY,
        row("images/x", volsize=MIB),
        row("guests/vm2"),
        row("guests/vm2/disk-1", volsize=MIB),
    )
    with pytest.raises(error) as refusal:
        decide(command, State(pool="tank"), view)
    assert str(refusal.value) == text


def test_what_is_ours_is_refused_and_named_also_under_another_name() -> None:
    disk = row("old/root", volsize=MIB, tags=DISK_TAGS)
    state, view = owned(disk), view_of(row("old"), disk)
    with pytest.raises(Blocked, match=r"already: old/root \(disk 0 of guest vm1\)"):
        decide(AS_DISK, state, view)
    state.datasets["guests/vm1/disk-0"] = state.datasets.pop("old/root")
    state.datasets["guests/vm1/disk-0"].name = "guests/vm1/disk-0"
    with pytest.raises(Blocked, match=r"\(disk 0 of guest vm1, known as guests/vm1/disk-0\)"):
        decide(AS_DISK, state, view)


@pytest.mark.parametrize("tagged", ["old/root", "old/root@monday"])
def test_another_stores_tags_are_refused_on_the_volume_and_on_its_snapshots(tagged: str) -> None:
    theirs = Tags(op="0192-their-operation", kind="disk", guest="x", disk="1")
    rows = [
        row(each.name, volsize=each.volsize, tags=theirs if each.name == tagged else NO_TAGS)
        for each in (ROOT, MONDAY)
    ]
    with pytest.raises(Blocked, match=f"another store: {tagged} .disk of operation 0192-their-operation"):
        decide(AS_DISK, State(pool="tank"), view_of(row("old"), *rows))


def test_a_snapshot_that_we_took_of_a_foreign_volume_stays_as_it_is() -> None:
    ours = row("old/root@ours", volsize=MIB, createtxg=30, tags=Tags(op="taken", kind="snapshot"))
    intent = adoption(AS_DISK, owned(ours), view_of(row("old"), ROOT, MONDAY, ours))
    assert [adoptee.name for adoptee in intent.datasets] == ["old/root", "old/root@monday"]


def test_an_image_stands_at_its_place_and_its_oldest_snapshot_is_its_content() -> None:
    volume = row("images/a", volsize=8 * MIB, createtxg=5)
    first, second = (row(f"images/a@{n}", volsize=8 * MIB, createtxg=6 + n) for n in range(2))
    view = view_of(volume, first, second)
    intent = adoption(Adopt(volumes=("images/a",), image="a", type="kvm"), State(pool="tank"), view)
    assert intent.snapshot == dataset_id(first)
    assert [(a.name, a.role, a.image) for a in intent.datasets] == [
        ("images/a", "image", "a"),
        ("images/a@0", "snapshot", "a"),
        ("images/a@1", "snapshot", ""),
    ]
    named = adoption(Adopt(volumes=("images/a",), image="a", snapshot="1"), State(pool="tank"), view)
    assert named.snapshot == dataset_id(second)
    known = State(pool="tank", images={"a": ImageRecord(id="a")}, aliases={"b": "a"})
    with pytest.raises(AlreadyExists, match="image already exists: a"):
        decide(Adopt(volumes=("images/a",), image="a"), known, view)
    with pytest.raises(AlreadyExists, match="alias already exists: b"):
        decide(Adopt(volumes=("images/b",), image="b"), known, view_of(row("images/b", volsize=MIB)))


def test_what_is_being_adopted_stays_listed() -> None:
    tagged = row("old/root", volsize=MIB, tags=Tags(op="op", kind="disk"))
    state = State(pool="tank")
    state.operations["op"] = under_way(AdoptIntent(datasets=()))
    assert is_visible(tagged, state)


# --- a guest whose disk stands elsewhere ---------------------------------------------


ADOPTED = row("old/root", volsize=8 * MIB, createtxg=20, tags=DISK_TAGS)
SNAPPED = row("old/root@s", volsize=8 * MIB, createtxg=21, tags=Tags(op="t", kind="snapshot", guest="vm1"))
INSIDE = row(
    "guests/vm1/disk-1", volsize=MIB, createtxg=22, tags=Tags(op="o", kind="disk", guest="vm1", disk="1")
)
INSIDE_SNAPPED = row("guests/vm1/disk-1@s", volsize=MIB, createtxg=23)
GUEST = (row("old"), row("guests/vm1"), INSIDE, INSIDE_SNAPPED, ADOPTED, SNAPPED)
GUEST_STATE = owned(INSIDE, INSIDE_SNAPPED, ADOPTED, SNAPPED)


def test_all_that_is_done_to_a_guest_claims_its_disks_wherever_they_stand() -> None:
    view = view_of(*GUEST)
    for command in (
        CreateSnapshot(name="guests/vm1", snapshot="t"),
        RollbackSnapshot(name="guests/vm1@s"),
        DeleteSnapshot(name="guests/vm1@s"),
        CreateGuestDisks(guest="vm1", disks=(DiskOrder(size=MIB),)),
        DeleteGuestDisks(guest="vm1"),
    ):
        assert claim_of(command, GUEST_STATE, view).exclusive == ("guests/vm1", "old/root")
    assert claim_of(CreateSnapshot(name="old/root", snapshot="t"), GUEST_STATE, view).exclusive == (
        "old/root",
    )


def test_a_snapshot_a_rollback_and_the_deletion_of_a_guest_reach_its_disk_elsewhere() -> None:
    parent_snapped = row("guests/vm1@s", createtxg=24)
    view = view_of(*GUEST, parent_snapped)
    taken = planned(CreateSnapshot(name="guests/vm1", snapshot="t"), GUEST_STATE, view).intent
    assert isinstance(taken, SnapshotIntent)
    assert {d.name for d in taken.datasets} == {"guests/vm1", "guests/vm1/disk-1", "old/root"}
    rolled = planned(RollbackSnapshot(name="guests/vm1@s"), GUEST_STATE, view).intent
    assert isinstance(rolled, RollbackIntent)
    assert {d.name for d in rolled.snapshots} == {"guests/vm1/disk-1@s", "old/root@s"}
    dropped = planned(DeleteSnapshot(name="guests/vm1@s"), GUEST_STATE, view).intent
    assert isinstance(dropped, DestroyIntent)
    assert {d.name for d in dropped.datasets} == {"guests/vm1@s", "guests/vm1/disk-1@s", "old/root@s"}
    deleted = planned(DeleteGuestDisks(guest="vm1"), GUEST_STATE, view).intent
    assert isinstance(deleted, DestroyIntent)
    assert {d.name for d in deleted.datasets} == {each.name for each in (*GUEST[1:], parent_snapped)}


def test_a_tag_that_the_journal_does_not_know_moves_no_foreign_volume_into_a_guest() -> None:
    view = view_of(*GUEST)
    deleted = planned(DeleteGuestDisks(guest="vm1"), owned(INSIDE, INSIDE_SNAPPED), view).intent
    assert isinstance(deleted, DestroyIntent)
    assert not any(d.name.startswith("old") for d in deleted.datasets)


def test_a_guest_is_made_with_the_disk_that_was_adopted() -> None:
    view = view_of(*GUEST)
    same = CreateGuestDisks(guest="vm1", disks=(DiskOrder(size=8 * MIB), DiskOrder(size=MIB)))
    judged = decide(same, GUEST_STATE, view)
    assert isinstance(judged, Settled)
    assert [each.name for each in judged.rows] == ["old/root", "guests/vm1/disk-1"]
    with pytest.raises(AlreadyExists, match="dataset already exists: old/root"):
        decide(CreateGuestDisks(guest="vm1", disks=(DiskOrder(size=MIB),)), GUEST_STATE, view)
    with pytest.raises(AlreadyExists, match="dataset already exists: old/root"):
        decide(
            Adopt(volumes=("new",), guest="vm1", disks=(0,)),
            GUEST_STATE,
            view_of(*GUEST, row("new", volsize=MIB)),
        )


# --- release -------------------------------------------------------------------------


def test_a_release_takes_the_tags_off_all_that_is_ours_of_a_volume() -> None:
    foreign = row("old/root@cron", volsize=MIB, createtxg=40)
    intent = planned(Release(name="old/root"), GUEST_STATE, view_of(*GUEST, foreign)).intent
    assert intent == ReleaseIntent(datasets=(dataset_id(ADOPTED), dataset_id(SNAPPED)))
    effect = driver_command("op", intent, force=False)
    assert isinstance(effect, Retag)
    assert {change.tags for change in effect.changes} == {NO_TAGS}


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("gone", NotFound, "not found"),
        ("old", NotVolume, "not a volume"),
        ("old/root@s", NotVolume, "not a volume"),
        ("foreign", Blocked, "dataset is not the store's: foreign"),
        ("images/a", HasClones, "image has dependent clones: guests/vm1/disk-1"),
        ("images/b", Blocked, "image has aliases: stable"),
    ],
)
def test_what_is_not_ours_or_is_leant_on_is_not_released(
    name: str, error: type[Exception], text: str
) -> None:
    images = [
        row(f"images/{image}{suffix}", volsize=MIB, tags=Tags(op="o", kind="image", image=image))
        for image in ("a", "b")
        for suffix in ("", "@i")
    ]
    clone = row("guests/vm1/disk-1", volsize=MIB, origin="images/a@i")
    view = view_of(
        row("old"), row("guests/vm1"), ADOPTED, SNAPPED, *images, clone, row("foreign", volsize=MIB)
    )
    state = owned(ADOPTED, SNAPPED, *images, clone)
    for volume in images[::2]:
        image = volume.tags.image
        state.images[image] = ImageRecord(id=image, status="complete", volume=dataset_id(volume))
    state.aliases["stable"] = "b"
    with pytest.raises(error) as refusal:
        decide(Release(name=name), state, view)
    assert str(refusal.value) == text


# --- recovery ------------------------------------------------------------------------


def under_way(intent: AdoptIntent | ReleaseIntent) -> OperationRecord:
    return OperationRecord(
        id="op", method="M", subject="s", intent=intent, principal="p", seq=1, started_ns=0
    )


def judged(intent: AdoptIntent | ReleaseIntent, *rows: Dataset) -> Verdict:
    return verdict(under_way(intent), view_of(*rows))


def tagged(each: Dataset, tags: Tags, name: str = "") -> Dataset:
    return row(
        name or each.name,
        volsize=each.volsize,
        guid=each.guid,
        createtxg=each.createtxg,
        tags=tags,
    )


OF_OPERATION = Tags(op="op", kind="disk", guest="vm1", disk="0")
INTENT = adoption(AS_DISK, State(pool="tank"), view_of(row("old"), ROOT, MONDAY))


def test_an_adoption_whose_tags_are_set_is_finished_whatever_its_volume_is_called_now() -> None:
    parent = row("guests/vm1", tags=Tags(op="op", kind="parent", guest="vm1"))
    for name in ("old/root", "renamed"):
        ruling = judged(INTENT, row("old"), parent, tagged(ROOT, OF_OPERATION, name))
        assert isinstance(ruling, Finish)
        facts = [fact for fact in ruling.facts if isinstance(fact, DatasetAdopted)]
        assert [(fact.name, fact.guid, fact.role, fact.disk) for fact in facts] == [
            (name, ROOT.guid, "disk", "0")
        ]
        assert len(ruling.facts) == 2, "the parent that was made is a fact, too"


@pytest.mark.parametrize("tags", [NO_TAGS, Tags(op="another", kind="disk")])
def test_an_adoption_whose_tags_are_not_set_is_undone_and_destroys_only_the_parent_it_made(
    tags: Tags,
) -> None:
    parent = row("guests/vm1", tags=Tags(op="op", kind="parent", guest="vm1"))
    ruling = judged(INTENT, row("old"), parent, tagged(ROOT, tags), MONDAY)
    assert isinstance(ruling, Undo)
    assert ruling.targets == (parent.target,)
    gone = judged(INTENT, row("old"))
    assert isinstance(gone, Undo)
    assert gone.targets == ()


def test_an_image_that_was_adopted_is_complete_after_recovery() -> None:
    volume, content = row("images/a", volsize=MIB, createtxg=5), row("images/a@i", volsize=MIB, createtxg=6)
    view = view_of(volume, content)
    intent = adoption(Adopt(volumes=("images/a",), image="a", type="kvm"), State(pool="tank"), view)
    image, snapshot = Tags(op="op", kind="image", image="a"), Tags(op="op", kind="snapshot", image="a")
    ruling = judged(intent, tagged(volume, image), tagged(content, snapshot))
    assert isinstance(ruling, Finish)
    assert ruling.facts[-2:] == (
        ImageRequested(image="a", type="kvm"),
        ImageCompleted(image="a", volume=dataset_id(volume), snapshot=dataset_id(content), size_bytes=MIB),
    )


def test_a_release_is_finished_when_the_tags_are_off_and_undone_when_they_are_on() -> None:
    intent = ReleaseIntent(datasets=(dataset_id(ADOPTED), dataset_id(SNAPPED)), image="a")
    ruling = judged(intent, row("old"), tagged(ADOPTED, NO_TAGS), tagged(SNAPPED, NO_TAGS))
    assert isinstance(ruling, Finish)
    assert [type(fact) for fact in ruling.facts] == [DatasetReleased, DatasetReleased, ImageReleased]
    assert isinstance(judged(intent, row("old"), ADOPTED, SNAPPED), Undo)
    assert isinstance(judged(intent, row("old")), Undo)
