"""Rows of a pool, and a small pool's view and state, made by hand."""

from imagestore.actors.view import View
from imagestore.events.catalogue import DatasetId
from imagestore.events.state import DatasetRecord, ImageRecord, State
from imagestore.pools.base import Dataset, Kind, Tags

MIB = 1 << 20


def row(
    name: str,
    kind: Kind | None = None,
    *,
    guid: int = 0,
    createtxg: int = 0,
    volsize: int = 0,
    written: int = 0,
    origin: str = "",
    sparse: bool = True,
    tags: Tags | None = None,
) -> Dataset:
    """A row whose identity follows from its name unless it is given."""
    if kind is None:
        kind = "snapshot" if "@" in name else "volume" if volsize else "filesystem"
    number = guid or sum(ord(c) * 31**i for i, c in enumerate(name)) % (1 << 63) or 1
    return Dataset(
        name=name,
        kind=kind,
        guid=number,
        createtxg=createtxg or number % 1_000_003,
        volsize=volsize,
        written=written,
        referenced=written,
        origin=origin,
        sparse=sparse,
        tags=tags if tags is not None else Tags(),
    )


def view_of(*rows: Dataset) -> View:
    view = View()
    view.put([row(""), row("images"), row("guests"), *rows])
    return view


def dataset_id(dataset: Dataset) -> DatasetId:
    return DatasetId(name=dataset.name, guid=dataset.guid, createtxg=dataset.createtxg)


def record_of(dataset: Dataset) -> DatasetRecord:
    return DatasetRecord(
        name=dataset.name,
        kind=dataset.kind,
        role="volume",
        guid=dataset.guid,
        createtxg=dataset.createtxg,
        size_bytes=dataset.volsize,
    )


def image_rows(image: str, size: int = 64 * MIB) -> tuple[Dataset, Dataset]:
    tags = Tags(kind="image", image=image)
    volume = row(f"images/{image}", volsize=size, tags=tags, createtxg=10)
    snapshot = row(
        f"images/{image}@base", volsize=size, tags=Tags(kind="snapshot", image=image), createtxg=11
    )
    return volume, snapshot


def state_with_image(image: str, rows: tuple[Dataset, Dataset]) -> State:
    state = State(pool="mistify")
    state.images[image] = ImageRecord(
        id=image,
        status="complete",
        volume=dataset_id(rows[0]),
        snapshot=dataset_id(rows[1]),
        size_bytes=rows[0].volsize,
    )
    return state
