"""What decisions are made of: plans, and the reading of state and view that every judgement shares.

Pure.  :mod:`imagestore.actors.decisions` judges with it, and
:mod:`imagestore.actors.imagedecisions` what concerns the life of images.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from imagestore import names
from imagestore.actors.view import View
from imagestore.errors import HasClones, NotFound, NotValid
from imagestore.events.catalogue import AdoptIntent, DatasetId, Intent, NewParent
from imagestore.events.state import State
from imagestore.pools.base import Dataset


class Settled(Struct, frozen=True, kw_only=True):
    """The pool is as the command wants it. ``rows`` answer it."""

    rows: tuple[Dataset, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """What to do.  ``subject`` is the dataset it is about; ``reserve_bytes`` what it may
    come to write; ``answer`` names the datasets whose rows answer it; ``gone`` are rows
    that the answer shows although they will be gone; ``cause`` is the operation that led to it, "" if a
    request did."""

    method: str
    subject: str
    intent: Intent
    reserve_bytes: int = 0
    force: bool = False
    answer: tuple[str, ...] = ()
    gone: tuple[Dataset, ...] = ()
    cause: str = ""


class ImageRows(Struct, frozen=True, kw_only=True):
    volume: Dataset
    snapshot: Dataset


def is_visible(row: Dataset, state: State) -> bool:
    """Datasets of unfinished operations, and staging, are not listed."""
    if row.name.startswith(f"{names.IMAGES}/{names.STAGING_PREFIX}"):
        return False
    operation = state.operations.get(row.tags.op)
    if operation is None or isinstance(operation.intent, AdoptIntent):  # what is adopted was listed before
        return True
    return state.owned(row.name, row.guid, row.createtxg) is not None


def complete_image(image: str, state: State, view: View) -> ImageRows | None:
    """The rows of an image that is whole; None if it is not, or its dataset is gone."""
    record = state.images.get(image)
    if record is None or record.volume is None or record.snapshot is None:
        return None
    volume = view.get(record.volume.name)
    snapshot = view.get(record.snapshot.name)
    if volume is None or snapshot is None:
        return None
    if dataset_id(volume) != record.volume or dataset_id(snapshot) != record.snapshot:
        return None
    return ImageRows(volume=volume, snapshot=snapshot)


def is_guest(row: Dataset) -> bool:
    """Whether the row is the file system that holds one guest's disks."""
    return row.kind == "filesystem" and names.parent(row.name) == names.GUESTS


def dataset_id(row: Dataset) -> DatasetId:
    """A row of the pool as intents and facts name it."""
    return DatasetId(name=row.name, guid=row.guid, createtxg=row.createtxg)


def ids(rows: Iterable[Dataset]) -> tuple[DatasetId, ...]:
    return tuple(dataset_id(row) for row in rows)


def existing(name: str, state: State, view: View) -> Dataset:
    row = view.get(name)
    if row is None or not is_visible(row, state):
        raise NotFound(detail=name)
    return row


def check_no_clones(doomed: Sequence[Dataset], view: View, what: str = "snapshot") -> None:
    """Raises HasClones when a clone of a doomed snapshot would be left."""
    gone = {row.name for row in doomed}
    clones = sorted({c for row in doomed for c in view.clones(row.name)} - gone)
    if clones:
        raise HasClones.of(what, clones)


def outermost_missing(name: str, view: View) -> str:
    """The subtree that making ``name`` brings into being: its first ancestor that is not there."""
    return next((above for above in names.ancestors(name) if above not in view), name)


def guest_of(name: str) -> str:
    """The guest that a dataset belongs to by its name, "" if to none."""
    parts = name.split("/")
    return parts[1] if parts[0] == names.GUESTS and len(parts) > 1 else ""


def missing_parents(name: str, view: View) -> list[NewParent]:
    """Parents to be made, outermost first. Raises NotValid when one is no file system."""
    missing: list[NewParent] = []
    for above in names.ancestors(name):
        row = view.get(above)
        if row is None:
            missing.append(NewParent(name=above, guest=guest_of(above)))
        elif row.kind != "filesystem":
            raise NotValid(detail=f"{above} is a {row.kind}; nothing can be made below it")
    return missing


def what_is_there(row: Dataset) -> str:
    """For the detail of a refusal."""
    origin = f", a clone of {row.origin}" if row.origin else ""
    return (
        f"it is a {row.kind} of {row.volsize} bytes{origin}" if row.kind != "filesystem" else "a file system"
    )
