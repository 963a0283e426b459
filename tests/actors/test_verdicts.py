import pytest

from imagestore.actors.verdicts import (
    MAX_ATTEMPTS,
    Finish,
    GoOn,
    Requeue,
    Undo,
    Verdict,
    verdict,
)
from imagestore.actors.view import View
from imagestore.events.catalogue import (
    AliasSet,
    CreateIntent,
    DatasetCreated,
    DatasetDestroyed,
    DatasetReceived,
    DatasetResized,
    DatasetRolledBack,
    DestroyIntent,
    FetchIntent,
    ImageCompleted,
    ImageDeleted,
    ImagePublished,
    Intent,
    NewBlank,
    NewParent,
    NoteIntent,
    PublishIntent,
    ReceiveIntent,
    ResizeIntent,
    RollbackIntent,
    SnapshotIntent,
)
from imagestore.events.state import OperationRecord
from imagestore.pools.base import Dataset, Tags
from tests.actors.rows import MIB, dataset_id, row, view_of

OURS = Tags(op="op")


def judge(intent: Intent, view: View, attempts: int = 0) -> Verdict:
    record = OperationRecord(
        id="op",
        method="M",
        subject="s",
        intent=intent,
        principal="p",
        seq=1,
        started_ns=0,
        attempts=attempts,
    )
    return verdict(record, view)


CREATE = CreateIntent(datasets=(NewParent(name="a"), NewBlank(name="a/v", size_bytes=MIB)))


def test_a_creation_that_is_whole_is_finished() -> None:
    ruling = judge(CREATE, view_of(row("a", tags=OURS), row("a/v", volsize=MIB, tags=OURS)))
    assert isinstance(ruling, Finish)
    assert [fact.name for fact in ruling.facts if isinstance(fact, DatasetCreated)] == ["a", "a/v"]


def test_a_creation_that_left_a_prefix_is_undone_newest_first() -> None:
    intent = CreateIntent(datasets=(*CREATE.datasets, NewBlank(name="a/w", size_bytes=MIB)))
    parent, volume = row("a", tags=OURS), row("a/v", volsize=MIB, tags=OURS)
    ruling = judge(intent, view_of(parent, volume))
    assert isinstance(ruling, Undo)
    assert ruling.targets == (volume.target, parent.target)


def test_a_creation_that_never_began_has_nothing_to_undo() -> None:
    ruling = judge(CREATE, view_of())
    assert isinstance(ruling, Undo)
    assert ruling.targets == ()


def test_a_foreign_dataset_that_took_the_name_is_not_touched() -> None:
    ruling = judge(CREATE, view_of(row("a", tags=OURS), row("a/v", volsize=MIB, tags=Tags(op="another"))))
    assert isinstance(ruling, Undo)
    assert [target.name for target in ruling.targets] == ["a"]


def test_a_snapshot_that_was_taken_is_finished() -> None:
    volume = row("v", volsize=MIB)
    intent = SnapshotIntent(datasets=(dataset_id(volume),), snapshot="s")
    assert isinstance(judge(intent, view_of(volume)), Undo)
    taken = row("v@s", volsize=MIB, tags=OURS)
    ruling = judge(intent, view_of(volume, taken))
    assert isinstance(ruling, Finish)


def test_a_deletion_goes_on_by_identity_even_under_another_name() -> None:
    gone, left = row("v", volsize=MIB, guid=5), row("w", volsize=MIB, guid=6)
    moved = row("moved", volsize=MIB, guid=6, createtxg=left.createtxg)
    foreign = row("v", volsize=MIB, guid=99)
    intent = DestroyIntent(datasets=(dataset_id(gone), dataset_id(left)), image="i")
    ruling = judge(intent, view_of(moved, foreign))
    assert isinstance(ruling, GoOn)
    assert ruling.targets == (moved.target,)
    assert ruling.gone == (DatasetDestroyed(name="v", guid=5, createtxg=gone.createtxg),)
    assert ruling.then == (ImageDeleted(image="i"),)


def test_a_deletion_that_failed_in_three_lives_is_given_up() -> None:
    left = row("w", volsize=MIB)
    intent = DestroyIntent(datasets=(dataset_id(left),))
    assert isinstance(judge(intent, view_of(left), attempts=MAX_ATTEMPTS - 1), GoOn)
    assert isinstance(judge(intent, view_of(left), attempts=MAX_ATTEMPTS), Undo)
    assert isinstance(judge(intent, view_of(), attempts=MAX_ATTEMPTS), GoOn)


def test_a_rollback_is_never_repeated_its_mark_tells_whether_it_happened() -> None:
    volume, snapshot = row("v", volsize=MIB), row("v@s", volsize=MIB)
    intent = RollbackIntent(snapshots=(dataset_id(snapshot),), volumes=(dataset_id(volume),))
    assert judge(intent, view_of(volume, snapshot)) == Undo(
        targets=(), reason="interrupted: the store was restarted before it was whole"
    )
    marked = row("v", volsize=MIB, tags=Tags(last="op"))
    ruling = judge(intent, view_of(marked, snapshot))
    assert isinstance(ruling, Finish)
    assert isinstance(ruling.facts[0], DatasetRolledBack)


def test_a_resize_happened_if_that_very_volume_has_the_size() -> None:
    volume = row("v", volsize=MIB, guid=5)
    intent = ResizeIntent(volume=dataset_id(volume), size_bytes=2 * MIB)
    ruling = judge(intent, view_of(row("v", volsize=2 * MIB, guid=5)))
    assert isinstance(ruling, Finish)
    assert isinstance(ruling.facts[0], DatasetResized)
    assert isinstance(judge(intent, view_of(volume)), Undo)
    assert isinstance(judge(intent, view_of(row("v", volsize=2 * MIB, guid=6))), Undo)
    assert isinstance(judge(intent, view_of()), Undo)


NEW = ReceiveIntent(name="a/v", staging="images/.staging-op", parents=(NewParent(name="a"),))


def test_a_stream_that_got_its_name_is_finished_with_all_that_it_brought() -> None:
    volume = row("a/v", volsize=MIB, tags=Tags(op="op", kind="volume"))
    came, foreign = row("a/v@s", volsize=MIB, tags=OURS), row("a/v@cron", volsize=MIB)
    ruling = judge(NEW, view_of(row("a", tags=OURS), volume, came, foreign))
    assert isinstance(ruling, Finish)
    assert [fact.name for fact in ruling.facts if isinstance(fact, DatasetCreated)] == ["a", "a/v", "a/v@s"]


@pytest.mark.parametrize("taken", [[], [row("a/v", volsize=MIB, tags=Tags(op="another"))]])
def test_a_stream_that_did_not_get_its_name_leaves_no_parent(taken: list[Dataset]) -> None:
    ruling = judge(NEW, view_of(row("a", tags=OURS), *taken))
    assert isinstance(ruling, Undo)
    assert [target.name for target in ruling.targets] == ["a"]
    assert judge(NEW, view_of(row("a"))) == Undo(targets=(), reason=ruling.reason)


def test_a_stream_onto_a_volume_is_never_repeated_its_mark_tells_whether_it_came() -> None:
    volume, base = row("v", volsize=MIB), row("v@a", volsize=MIB, createtxg=5)
    intent = ReceiveIntent(
        name="v", staging="images/.staging-op", volume=dataset_id(volume), base=dataset_id(base)
    )
    came = row("v@b", volsize=MIB, createtxg=6, tags=OURS)
    assert isinstance(judge(intent, view_of(volume, base)), Undo)
    marked = row("v", volsize=2 * MIB, tags=Tags(last="op"))
    ruling = judge(intent, view_of(marked, base, came))
    assert isinstance(ruling, Finish)
    made, received = ruling.facts
    assert isinstance(made, DatasetCreated)
    assert isinstance(received, DatasetReceived)
    assert (made.name, received.snapshot, received.size_bytes) == ("v@b", dataset_id(came), 2 * MIB)


FETCH = FetchIntent(image="i", staging="images/.staging-op")


def test_a_fetch_is_queued_again_until_three_lives_have_tried() -> None:
    assert isinstance(judge(FETCH, view_of()), Requeue)
    assert isinstance(judge(FETCH, view_of(), attempts=MAX_ATTEMPTS), Undo)


def test_a_fetch_that_was_published_is_finished() -> None:
    tags = Tags(op="op", kind="image", image="i", sha256="ab")
    ruling = judge(FETCH, view_of(row("images/i", volsize=MIB, tags=tags), row("images/i@s", volsize=MIB)))
    assert isinstance(ruling, Finish)
    completed = ruling.facts[-1]
    assert isinstance(completed, ImageCompleted)
    assert completed.sha256 == "ab"


@pytest.mark.parametrize("tags", [Tags(), Tags(op="another", kind="image")])
def test_an_image_of_that_name_that_is_not_this_fetchs_is_not_taken_for_it(tags: Tags) -> None:
    ruling = judge(FETCH, view_of(row("images/i", volsize=MIB, tags=tags), row("images/i@s", volsize=MIB)))
    assert isinstance(ruling, Requeue)


def test_an_image_that_lost_its_snapshot_meanwhile_is_no_reason_not_to_start() -> None:
    tags = Tags(op="op", kind="image", image="i")
    assert isinstance(judge(FETCH, view_of(row("images/i", volsize=MIB, tags=tags))), Requeue)


PUBLISH = PublishIntent(image="gold", snapshot=dataset_id(row("v@s", volsize=MIB)))


def test_a_publication_that_got_its_name_is_finished() -> None:
    volume = row("images/gold", volsize=MIB, tags=Tags(op="op", kind="image", image="gold"))
    snapshot = row("images/gold@s", volsize=MIB, tags=OURS)
    ruling = judge(PUBLISH, view_of(volume, snapshot))
    assert isinstance(ruling, Finish)
    told = [fact for fact in ruling.facts if isinstance(fact, ImagePublished | ImageCompleted)]
    assert [type(fact) for fact in told] == [ImagePublished, ImageCompleted]


def test_a_publication_that_did_not_get_its_name_is_undone_and_a_foreign_image_left_alone() -> None:
    foreign = row("images/gold", volsize=MIB, tags=Tags(op="another", kind="image"))
    for view in (view_of(), view_of(foreign, row("images/gold@s", volsize=MIB))):
        ruling = judge(PUBLISH, view)
        assert isinstance(ruling, Undo)
        assert ruling.targets == ()


def test_what_is_only_to_be_noted_is_noted_in_the_next_life() -> None:
    fact = AliasSet(alias="stable", image="deb")
    assert judge(NoteIntent(fact=fact), view_of()) == Finish(facts=(fact,))
