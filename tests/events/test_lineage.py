"""What is told of a dataset: every life of its name, where it came from, and attempts that failed."""

from collections.abc import Sequence

from imagestore.events.catalogue import (
    CreateIntent,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DatasetLost,
    DatasetRenamed,
    DestroyIntent,
    Envelope,
    Event,
    FetchIntent,
    ImageCompleted,
    NewBlank,
    NewClone,
    OperationFinished,
    OperationStarted,
)
from imagestore.events.lineage import Life, Lineage, explain

SNAPSHOT = DatasetId(name="images/deb12@made", guid=7, createtxg=1)
VOLUME = DatasetId(name="images/deb12", guid=6, createtxg=1)


def history(*appended: tuple[str, str, Event]) -> list[Envelope]:
    """Operation, principal and event, one after the other."""
    return [
        Envelope(id=f"e{seq}", seq=seq, time_ns=seq, operation=operation, principal=who, event=event)
        for seq, (operation, who, event) in enumerate(appended, 1)
    ]


def made(name: str, guid: int, *, origin: DatasetId | None = None) -> DatasetCreated:
    return DatasetCreated(
        name=name, kind="volume", role="volume", guid=guid, createtxg=guid, size_bytes=1, origin=origin
    )


def creation(name: str) -> OperationStarted:
    intent = CreateIntent(datasets=(NewBlank(name=name, size_bytes=1),))
    return OperationStarted(method="CreateVolume", subject=name, intent=intent)


def deletion(name: str, guid: int) -> OperationStarted:
    intent = DestroyIntent(datasets=(DatasetId(name=name, guid=guid, createtxg=guid),))
    return OperationStarted(method="DeleteDataset", subject=name, intent=intent)


DONE = OperationFinished(outcome="succeeded")
REFUSED = OperationFinished(outcome="failed", error="dataset is in use")


def told(name: str, events: Sequence[Envelope]) -> Lineage:
    return explain(name, lambda: events)


def seqs(life: Life) -> list[int]:
    return [envelope.seq for envelope in life.events]


def test_a_name_may_have_had_several_lives() -> None:
    events = history(
        ("a", "alice", creation("data")),
        ("a", "alice", made("data", 1)),
        ("a", "alice", DONE),
        ("x", "eve", creation("other")),
        ("x", "eve", made("other", 9)),
        ("x", "eve", DONE),
        ("b", "bob", deletion("data", 1)),
        ("b", "bob", DatasetDestroyed(name="data", guid=1, createtxg=1)),
        ("b", "bob", DONE),
        ("c", "carol", creation("data")),
        ("c", "carol", made("data", 2)),
        ("c", "carol", DONE),
    )
    first, second = told("data", events).lives
    assert (first.guid, seqs(first), first.ended) == (1, [1, 2, 3, 7, 8, 9], 8)
    assert (second.guid, seqs(second), second.ended) == (2, [10, 11, 12], 0)
    assert [envelope.principal for envelope in first.events] == ["alice"] * 3 + ["bob"] * 3


def test_a_rename_is_part_of_one_life_under_either_name() -> None:
    events = history(
        ("a", "alice", creation("old")),
        ("a", "alice", made("old", 1)),
        ("a", "alice", DONE),
        ("", "imagestore", DatasetRenamed(name="old", new_name="new", guid=1, createtxg=1)),
        ("b", "bob", deletion("new", 1)),
        ("b", "bob", REFUSED),
        ("", "imagestore", DatasetLost(name="new", guid=1, createtxg=1)),
    )
    for name in ("old", "new"):
        (life,) = told(name, events).lives
        assert life.names == ("old", "new")
        assert seqs(life) == [1, 2, 3, 4, 5, 6, 7]
        assert life.ended == 7


def test_what_it_was_cloned_from_is_told_back_to_the_fetch() -> None:
    fetch = OperationStarted(
        method="RequestImage",
        subject="images/deb12",
        intent=FetchIntent(image="deb12", staging="images/.staging-f"),
    )
    clone = OperationStarted(
        method="CreateGuestDisks",
        subject="guests/vm1",
        intent=CreateIntent(
            datasets=(NewClone(name="guests/vm1/disk-0", origin=SNAPSHOT, size_bytes=1, image="deb12"),)
        ),
    )
    events = history(
        ("f", "alice", fetch),
        ("f", "alice", DatasetCreated(name=VOLUME.name, kind="volume", role="image", guid=6, createtxg=1)),
        (
            "f",
            "alice",
            DatasetCreated(name=SNAPSHOT.name, kind="snapshot", role="snapshot", guid=7, createtxg=1),
        ),
        ("f", "alice", ImageCompleted(image="deb12", volume=VOLUME, snapshot=SNAPSHOT, size_bytes=1)),
        ("f", "alice", DONE),
        ("g", "bob", clone),
        ("g", "bob", made("guests/vm1/disk-0", 8, origin=SNAPSHOT)),
        ("g", "bob", DONE),
    )
    lineage = told("guests/vm1/disk-0", events)
    assert [seqs(life) for life in lineage.lives] == [[6, 7, 8]]
    snapshot, volume = lineage.origins
    assert (snapshot.names, volume.names) == (("images/deb12@made",), ("images/deb12",))
    assert seqs(volume) == [1, 2, 4, 5]
    assert seqs(snapshot) == [1, 3, 4, 5]


def test_an_attempt_that_made_nothing_is_told_as_one() -> None:
    events = history(
        ("a", "alice", creation("data")),
        ("a", "alice", OperationFinished(outcome="failed", error="no space left on device")),
        ("b", "bob", creation("data")),
    )
    lineage = told("data", events)
    assert lineage.lives == ()
    assert [envelope.seq for envelope in lineage.attempts] == [1, 2, 3]


def test_of_a_name_that_never_was_nothing_is_told() -> None:
    events = history(("a", "alice", creation("data")), ("a", "alice", made("data", 1)), ("a", "alice", DONE))
    lineage = told("dat", events)
    assert (lineage.lives, lineage.origins, lineage.attempts) == ((), (), ())
