"""What differs between two states: by identity, field by field, in a fixed order."""

from imagestore.events.catalogue import DatasetId
from imagestore.events.difference import Difference, difference
from imagestore.events.state import DatasetRecord, ImageRecord, State


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
        Difference(change="added", what="dataset", name="b"),
        Difference(change="removed", what="dataset", name="b"),
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
        images=(ImageRecord(id="deb12", status="complete", snapshot=snapshot), ImageRecord(id="new"))
    )
    assert list(difference(before, after)) == [
        Difference(
            change="changed",
            what="image",
            name="deb12",
            was={"status": "pending", "snapshot": ""},
            now={"status": "complete", "snapshot": "images/deb12@made"},
        ),
        Difference(change="added", what="image", name="new"),
        Difference(change="removed", what="image", name="old"),
    ]
