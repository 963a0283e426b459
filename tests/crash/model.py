"""What a client's part of the pool must look like: a model, changed by pure functions.

One function a method: it returns the model afterwards, or raises the error
with which the store must refuse.  A killed call leaves the model before it or
the one after it; there is nothing between.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from imagestore import names
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    HasClones,
    NewerSnapshots,
    NotFound,
    NotValid,
    NotVolume,
)
from tests.crash.content import IMAGES, Content


class Snapshot(Struct, frozen=True):
    """``taken`` counts the client's changes: of two snapshots the newer has the greater."""

    name: str
    taken: int
    content: Content | None


class Dataset(Struct, frozen=True, kw_only=True):
    """A file system (no content) or a volume, with its snapshots, oldest first.

    ``released``: it is there, and nobody's.  An image was ``published`` from a snapshot, and is
    ``retired`` when it is to go with its last clone.
    """

    content: Content | None = None
    origin: str = ""
    snapshots: tuple[Snapshot, ...] = ()
    released: bool = False
    published: str = ""
    retired: bool = False

    @property
    def kind(self) -> Literal["filesystem", "volume"]:
        return "filesystem" if self.content is None else "volume"

    def snapshot(self, name: str) -> Snapshot | None:
        return next((snapshot for snapshot in self.snapshots if snapshot.name == name), None)


Model = Mapping[str, Dataset]

FILESYSTEM = Dataset()


class Disk(Struct, frozen=True):
    """A disk as a guest asks for it: a clone of ``image``, or ``size`` bytes."""

    image: str = ""
    size: int = 0


def under(model: Model, name: str) -> list[str]:
    return [other for other in model if names.is_within(other, name)]


def is_guest(name: str) -> bool:
    return names.parent(name) == names.GUESTS


def _with_parents(model: Model, name: str) -> dict[str, Dataset]:
    made = dict(model)
    for above in names.ancestors(name):
        if above == names.GUESTS:
            continue
        if made.setdefault(above, FILESYSTEM).kind != "filesystem":
            raise NotValid
    return made


def _new_volume(origin: str, size: int) -> Dataset:
    if origin:
        return Dataset(content=Content(len(IMAGES[origin].raw), origin), origin=origin)
    return Dataset(content=Content(size))


def _check_same(there: Dataset, wanted: Dataset) -> None:
    """A disk that is there may have been written to; size and origin are what counts."""
    assert wanted.content is not None
    same_size = there.content is not None and there.content.size == wanted.content.size
    if there.origin != wanted.origin or not (same_size or (wanted.origin and there.content is not None)):
        raise AlreadyExists


def create_volume(model: Model, name: str, *, size: int = 0, image: str = "") -> Model:
    """Blank, or a clone of ``image``."""
    wanted = _new_volume(image, size)
    if name in model:
        _check_same(model[name], wanted)
        return model
    return {**_with_parents(model, name), name: wanted}


def create_guest(model: Model, guest: str, disks: Sequence[Disk]) -> Model:
    made = model
    for number, disk in enumerate(disks):
        made = create_volume(made, names.disk(guest, number), size=disk.size, image=disk.image)
    return made


def _require(model: Model, name: str) -> Dataset:
    if name not in model:
        raise NotFound
    return model[name]


def create_snapshot(model: Model, name: str, snapshot: str, *, recursive: bool, taken: int) -> Model:
    _require(model, name)
    targets = under(model, name) if recursive or is_guest(name) else [name]
    made = dict(model)
    for target in targets:
        dataset = model[target]
        if dataset.snapshot(snapshot) is not None:
            raise AlreadyExists
        new = Snapshot(snapshot, taken, dataset.content)
        made[target] = replace(dataset, snapshots=(*dataset.snapshots, new))
    return made


def _require_snapshot(model: Model, name: str, snapshot: str) -> Snapshot:
    found = model[name].snapshot(snapshot) if name in model else None
    if found is None:
        raise NotFound
    return found


def delete_snapshot(model: Model, name: str, snapshot: str, *, recursive: bool) -> Model:
    _require_snapshot(model, name, snapshot)
    targets = under(model, name) if recursive or is_guest(name) else [name]
    return {**model, **{target: _without(model[target], [snapshot]) for target in targets}}


def _without(dataset: Dataset, snapshots: Iterable[str]) -> Dataset:
    gone = set(snapshots)
    return replace(dataset, snapshots=tuple(s for s in dataset.snapshots if s.name not in gone))


def rolled_back(model: Model, name: str) -> list[str]:
    """The datasets that a rollback of ``name`` sets back."""
    return [n for n in under(model, name) if model[n].kind == "volume"] if is_guest(name) else [name]


def rollback(model: Model, name: str, snapshot: str, *, destroy_more_recent: bool) -> Model:
    _require_snapshot(model, name, snapshot)
    targets = rolled_back(model, name)
    if any(model[target].snapshot(snapshot) is None for target in targets):
        raise Blocked("snapshot does not cover all disks")
    made = dict(model)
    for target in {*targets, name}:
        dataset = model[target]
        back = dataset.snapshot(snapshot)
        assert back is not None
        newer = [s.name for s in dataset.snapshots if s.taken > back.taken]
        if newer and not destroy_more_recent:
            raise NewerSnapshots("newer snapshots exist")
        content = back.content if target in targets else dataset.content
        made[target] = replace(_without(dataset, newer), content=content)
    return made


def delete_dataset(model: Model, name: str) -> Model:
    _require(model, name)
    gone = set(under(model, name))
    return {other: dataset for other, dataset in model.items() if other not in gone}


def delete_guest(model: Model, guest: str) -> Model:
    name = names.guest(guest)
    return delete_dataset(model, name) if name in model else model


# --- images that the client publishes ---------------------------------------------------


def is_image(name: str) -> bool:
    return names.parent(name) == names.IMAGES


def clones_of(model: Model, image: str) -> list[str]:
    return [name for name, dataset in model.items() if dataset.origin == image]


def is_due(model: Model, name: str) -> bool:
    """Whether the store takes the image ``name`` away by itself, now or when it starts."""
    return model[name].retired and not clones_of(model, name.removeprefix(f"{names.IMAGES}/"))


def settled(model: Model) -> Model:
    """The model once the store has taken away what is due."""
    return {name: dataset for name, dataset in model.items() if not is_due(model, name)}


def publish_image(model: Model, name: str, snapshot: str, image: str) -> Model:
    source = _require_snapshot(model, name, snapshot)
    if source.content is None:
        raise NotVolume
    published, there = f"{name}@{source.taken}", model.get(names.image(image))
    if there is not None:
        if there.published == published and not there.retired:
            return model
        raise AlreadyExists
    made = Dataset(content=source.content, snapshots=(source,), published=published)
    return {**model, names.image(image): made}


def clone_published(model: Model, image: str, name: str) -> Model:
    source = _require(model, names.image(image))
    if name in model:
        if model[name].origin != image:
            raise AlreadyExists
        return model
    if source.retired:
        raise NotFound
    return {**_with_parents(model, name), name: Dataset(content=source.content, origin=image)}


def delete_image(model: Model, image: str, *, when_unused: bool) -> Model:
    name = names.image(image)
    there = _require(model, name)
    if there.retired:
        raise NotFound  # it is hidden
    if not clones_of(model, image):
        return {other: dataset for other, dataset in model.items() if other != name}
    if not when_unused:
        raise HasClones("image has clones")
    return {**model, name: replace(there, retired=True)}


def revive_image(model: Model, image: str) -> Model:
    name = names.image(image)
    return {**model, name: replace(_require(model, name), retired=False)}


# --- volumes that are let go, and taken over again ----------------------------------------


def release(model: Model, name: str) -> Model:
    if _require(model, name).released:
        raise Blocked("it is nobody's")
    return {**model, name: replace(model[name], released=True)}


def adopt(model: Model, name: str) -> Model:
    if not _require(model, name).released:
        raise Blocked("it is the store's")
    return {**model, name: replace(model[name], released=False)}
