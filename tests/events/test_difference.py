"""What differs between two states: by identity, field by field, in a fixed order."""

from imagestore.access import AccessRole
from imagestore.events.catalogue import (
    DatasetId,
    DatasetReceived,
    DatasetRolledBack,
    DestroyIntent,
    Envelope,
)
from imagestore.events.difference import Difference, contents, difference
from imagestore.events.state import (
    DatasetRecord,
    ImageRecord,
    OperationRecord,
    SourceRecord,
    State,
    TokenRecord,
)

NOW = {"role": "volume", "size_bytes": "1"}


def volume(name: str, guid: int, size_bytes: int = 1) -> DatasetRecord:
    return DatasetRecord(
        name=name, kind="volume", role="volume", guid=guid, createtxg=1, size_bytes=size_bytes
    )


def state(*datasets: DatasetRecord, images: tuple[ImageRecord, ...] = ()) -> State:
    return State(
        datasets={record.name: record for record in datasets},
        images={record.id: record for record in images},
    )


def test_a_dataset_is_the_same_while_its_identity_is() -> None:
    before = state(volume("a", 1), volume("b", 2), volume("c", 3))
    after = state(volume("a", 1), volume("b", 9), volume("d", 3, size_bytes=5))
    assert list(difference(before, after)) == [
        Difference(change="added", what="dataset", name="b", now=NOW | {"guid": "9"}),
        Difference(change="removed", what="dataset", name="b", was=NOW | {"guid": "2"}),
        Difference(
            change="changed",
            what="dataset",
            name="d",
            was={"name": "c", "size_bytes": "1"},
            now={"name": "d", "size_bytes": "5"},
        ),
    ]


def test_images_are_told_field_by_field() -> None:
    snapshot = DatasetId(name="images/deb12@made", guid=7, createtxg=1)
    before = state(images=(ImageRecord(id="deb12"), ImageRecord(id="old")))
    after = state(
        images=(
            ImageRecord(id="deb12", status="complete", snapshot=snapshot),
            ImageRecord(id="new", status="error", reason="not found"),
        )
    )
    assert list(difference(before, after)) == [
        Difference(
            change="changed",
            what="image",
            name="deb12",
            was={"status": "pending", "snapshot": ""},
            now={"status": "complete", "snapshot": "images/deb12@made"},
        ),
        Difference(change="added", what="image", name="new", now={"status": "error", "reason": "not found"}),
        Difference(change="removed", what="image", name="old", was={"status": "pending"}),
    ]


def test_what_is_in_a_volume_is_told_by_the_events_in_between() -> None:
    again = DatasetId(name="a@s", guid=8, createtxg=2)
    events = [
        Envelope(id="e", seq=seq, time_ns=0, event=event(name="a", guid=1, createtxg=1, snapshot=again))
        for seq, event in ((5, DatasetReceived), (6, DatasetRolledBack))
    ]
    assert contents(events[:1]) == {(1, 1): "a@s received at seq 5"}
    same = state(volume("a", 1), volume("b", 2))
    assert list(difference(same, same, contents(events))) == [
        Difference(change="changed", what="dataset", name="a", now={"content": "a@s rolled back at seq 6"})
    ]
    gone = list(difference(same, state(), contents(events)))
    assert [each.change for each in gone] == ["removed", "removed"]


def test_tokens_are_told_without_anything_of_their_secret() -> None:
    def token(name: str, role: AccessRole, created_ns: int) -> TokenRecord:
        return TokenRecord(
            name=name, role=role, sha256="5ec4e7" * 8, created_ns=created_ns, created_by="root"
        )

    before = State(tokens={"gone": token("gone", "admin", 1), "kept": token("kept", "reader", 2)})
    before.tokens["other"] = token("other", "reader", 3)
    after = State(tokens={"kept": before.tokens["kept"], "other": token("other", "reader", 4)})
    after.tokens["new"] = TokenRecord(
        name="new", role="operator", sha256="5ec4e7", created_ns=5, created_by="root", expires_ns=9
    )
    found = list(difference(before, after))
    assert found == [
        Difference(
            change="removed",
            what="token",
            name="gone",
            was={"role": "admin", "created_ns": "1", "created_by": "root"},
        ),
        Difference(
            change="added",
            what="token",
            name="new",
            now={"role": "operator", "created_ns": "5", "created_by": "root", "expires_ns": "9"},
        ),
        Difference(
            change="changed",
            what="token",
            name="other",
            was={"created_ns": "3"},
            now={"created_ns": "4"},
        ),
    ]
    assert "5ec4e7" not in repr(found)


def test_aliases_sources_and_hidden_images_are_told() -> None:
    image = ImageRecord(id="deb12", status="complete")
    before = State(images={"deb12": image}, aliases={"stable": "deb11"})
    after = State(
        images={"deb12": image},
        aliases={"stable": "deb12", "new": "deb12"},
        sources={"deb13": SourceRecord(address="https://x/deb13")},
        retired={"deb12": "op"},
    )
    assert list(difference(before, after)) == [
        Difference(change="changed", what="image", name="deb12", now={"hidden": "until its last clone goes"}),
        Difference(change="added", what="alias", name="new", now={"image": "deb12"}),
        Difference(
            change="changed", what="alias", name="stable", was={"image": "deb11"}, now={"image": "deb12"}
        ),
        Difference(change="added", what="source", name="deb13", now={"address": "https://x/deb13"}),
    ]


def test_operations_are_told_that_were_under_way_at_one_of_the_two() -> None:
    record = OperationRecord(
        id="op",
        method="DeleteDataset",
        subject="a",
        intent=DestroyIntent(datasets=()),
        principal="",
        seq=1,
        started_ns=1,
    )
    under_way = {"status": "under way", "method": "DeleteDataset", "subject": "a"}
    begun = State(operations={"op": record})
    assert list(difference(State(), begun)) == [
        Difference(change="added", what="operation", name="op", now=under_way)
    ]
    assert list(difference(begun, State())) == [
        Difference(change="removed", what="operation", name="op", was=under_way, now={"status": "ended"})
    ]
    assert list(difference(begun, begun)) == []
