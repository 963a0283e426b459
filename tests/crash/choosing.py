"""What a client may ask for next, by chance and by its model; makes no call."""

import random
from collections.abc import Callable

from msgspec import Struct

from imagestore import names
from imagestore.client import Client
from imagestore.model import AdoptRequest
from tests.crash import model as models
from tests.crash.content import IMAGES, MIB
from tests.crash.model import Disk, Model

SNAPSHOTS = ("s0", "s1", "s2", "s3")
GOOD_IMAGES = tuple(image.id for image in IMAGES.values() if image.is_good)


class Call(Struct, frozen=True, kw_only=True):
    """``perform`` asks the store; ``after`` is the model once it is done, or raises the refusal due.

    ``touches`` are volumes that a process may not have open meanwhile, unless ``force``.
    """

    method: str
    perform: Callable[[Client], object]
    after: Callable[[Model], Model]
    text: str
    leans_on: tuple[str, ...] = ()
    touches: Callable[[Model], list[str]] = lambda model: []
    force: bool = False


class Territory(Struct, frozen=True):
    """The names that are one client's alone."""

    root: str
    guests: tuple[str, ...]
    published: tuple[str, ...]
    loose: tuple[str, ...]

    def owns(self, name: str) -> bool:
        parts = name.partition("@")[0].split("/")
        below = {names.GUESTS: self.guests, names.IMAGES: self.published}.get(parts[0], ())
        return parts[0] in (self.root, *self.loose) or (parts[1:2] != [] and parts[1] in below)


def territory_of(number: int) -> Territory:
    """That of the client of this number."""
    return Territory(
        root=f"c{number}",
        guests=tuple(f"c{number}-g{guest}" for guest in range(3)),
        published=tuple(f"c{number}-p{image}" for image in range(2)),
        loose=tuple(f"c{number}-a{volume}" for volume in range(2)),
    )


class Choices:
    """``taken`` counts the snapshots that were asked for: each one's number tells which of a name it is."""

    def __init__(self, territory: Territory, chance: random.Random) -> None:
        self.taken = 0
        self._territory = territory
        self._chance = chance
        self._model: Model = {}

    def choose(self, model: Model) -> Call:
        """The next call of a client to which the pool is ``model``."""
        self._model = model
        choices = (
            (4, self._create_guest),
            (3, self._create_volume),
            (2, self._clone_image),
            (6, self._create_snapshot),
            (3, self._rollback),
            (2, self._delete_snapshot),
            (2, self._delete_dataset),
            (1, self._delete_guest),
            (3, self._publish_image),
            (3, self._clone_published),
            (2, self._delete_published),
            (1, self._revive_image),
            (3, self._let_go_or_take_over),
        )
        (make,) = self._chance.choices([make for _, make in choices], [weight for weight, _ in choices])
        return make()

    def _volume_name(self) -> str:
        guest = self._chance.choice(self._territory.guests)
        return self._chance.choice(
            (
                f"{self._territory.root}/v0",
                f"{self._territory.root}/v1",
                f"{self._territory.root}/d/v2",
                f"{self._territory.root}/d/v3",
                names.disk(guest, 5),
            )
        )

    def _any_name(self) -> str:
        """Mostly a dataset that is there."""
        there = list(self._ordinary())
        if there and self._chance.random() < 0.9:
            return self._chance.choice(there)
        return self._volume_name()

    def _ordinary(self) -> Model:
        """What is ours, but for images: what any call may be about."""
        return {
            name: dataset
            for name, dataset in self._model.items()
            if not dataset.released and not models.is_image(name)
        }

    def _create_guest(self) -> Call:
        guest = self._chance.choice(self._territory.guests)
        disks = [
            Disk(image=self._chance.choice(GOOD_IMAGES)) if self._chance.random() < 0.6 else Disk(size=MIB)
            for _ in range(self._chance.randrange(1, 4))
        ]
        wire = {
            "id": guest,
            "disks": [{"image": d.image} if d.image else {"size": d.size // MIB} for d in disks],
        }
        return Call(
            method="CreateGuestDisks",
            perform=lambda client: client.create_guest_disks(wire),
            after=lambda model: models.create_guest(model, guest, disks),
            leans_on=tuple({disk.image for disk in disks if disk.image}),
            text=f"CreateGuestDisks {wire}",
        )

    def _create_volume(self) -> Call:
        return self._new_volume(self._volume_name())

    def _new_volume(self, name: str) -> Call:
        size = self._chance.choice((1, 1, 1, 2))
        return Call(
            method="CreateVolume",
            perform=lambda client: client.create_volume(name, size_mib=size),
            after=lambda model: models.create_volume(model, name, size=size * MIB),
            text=f"CreateVolume {name} {size} MiB",
        )

    def _clone_image(self) -> Call:
        name, image = self._volume_name(), self._chance.choice(GOOD_IMAGES)
        return Call(
            method="CloneImage",
            perform=lambda client: client.clone_image(image, name),
            after=lambda model: models.create_volume(model, name, image=image),
            leans_on=(image,),
            text=f"CloneImage {image} {name}",
        )

    def _guest_or_any(self) -> str:
        guest = names.guest(self._chance.choice(self._territory.guests))
        return guest if guest in self._model and self._chance.random() < 0.5 else self._any_name()

    def _create_snapshot(self) -> Call:
        name, snapshot = self._guest_or_any(), self._chance.choice(SNAPSHOTS)
        recursive = self._chance.random() < 0.3
        self.taken += 1
        taken = self.taken
        return Call(
            method="CreateSnapshot",
            perform=lambda client: client.create_snapshot(name, snapshot, recursive=recursive),
            after=lambda model: models.create_snapshot(
                model, name, snapshot, recursive=recursive, taken=taken
            ),
            text=f"CreateSnapshot {name}@{snapshot}{' recursive' if recursive else ''}",
        )

    def _snapshot_name(self) -> tuple[str, str]:
        there = [(name, s.name) for name, dataset in self._ordinary().items() for s in dataset.snapshots]
        guests = [(name, snapshot) for name, snapshot in there if models.is_guest(name)]
        if guests and self._chance.random() < 0.4:
            return self._chance.choice(guests)
        if there and self._chance.random() < 0.95:
            return self._chance.choice(there)
        return self._any_name(), "s9"

    def _delete_snapshot(self) -> Call:
        name, snapshot = self._snapshot_name()
        recursive = self._chance.random() < 0.3
        return Call(
            method="DeleteSnapshot",
            perform=lambda client: client.delete_snapshot(f"{name}@{snapshot}", recursive=recursive),
            after=lambda model: models.delete_snapshot(model, name, snapshot, recursive=recursive),
            text=f"DeleteSnapshot {name}@{snapshot}{' recursive' if recursive else ''}",
        )

    def _rollback(self) -> Call:
        name, snapshot = self._snapshot_name()
        destroy = self._chance.random() < 0.7
        force = self._chance.random() < 0.2
        return Call(
            method="RollbackSnapshot",
            perform=lambda client: client.rollback_snapshot(
                f"{name}@{snapshot}", destroy_more_recent=destroy, force=force
            ),
            after=lambda model: models.rollback(model, name, snapshot, destroy_more_recent=destroy),
            touches=lambda model: [n for n in models.rolled_back(model, name) if model[n].kind == "volume"],
            force=force,
            text=f"RollbackSnapshot {name}@{snapshot} destroyMoreRecent={destroy}",
        )

    def _delete_dataset(self) -> Call:
        name, force = self._any_name(), self._chance.random() < 0.2
        return Call(
            method="DeleteDataset",
            perform=lambda client: client.delete_dataset(name, force=force),
            after=lambda model: models.delete_dataset(model, name),
            touches=lambda model: [n for n in models.under(model, name) if model[n].kind == "volume"],
            force=force,
            text=f"DeleteDataset {name}",
        )

    def _delete_guest(self) -> Call:
        guest, force = self._chance.choice(self._territory.guests), self._chance.random() < 0.2
        name = names.guest(guest)
        return Call(
            method="DeleteGuestsDisks",
            perform=lambda client: client.delete_guests_disks({"id": guest}, force=force),
            after=lambda model: models.delete_guest(model, guest),
            touches=lambda model: [n for n in models.under(model, name) if model[n].kind == "volume"],
            force=force,
            text=f"DeleteGuestsDisks {guest}",
        )

    # -- images of its own ---------------------------------------------------------

    def _image(self, *, there: bool) -> str:
        """One that the store does not take away at this very moment, mostly one that is there, or is not."""
        due = {name for name in self._model if models.is_due(self._model, name)}
        images = [image for image in self._territory.published if names.image(image) not in due]
        wanted = [image for image in images if (names.image(image) in self._model) == there]
        return self._chance.choice(wanted if wanted and self._chance.random() < 0.9 else images or [""])

    def _publish_image(self) -> Call:
        image = self._image(there=False)
        if not image:
            return self._create_snapshot()
        there = [
            (name, s.name)
            for name, dataset in self._ordinary().items()
            for s in dataset.snapshots
            if s.content is not None
        ]
        is_sensible = there and self._chance.random() < 0.8
        name, snapshot = self._chance.choice(there) if is_sensible else self._snapshot_name()
        return Call(
            method="PublishImage",
            perform=lambda client: client.publish_image(f"{name}@{snapshot}", image),
            after=lambda model: models.publish_image(model, name, snapshot, image),
            text=f"PublishImage {name}@{snapshot} {image}",
        )

    def _clone_published(self) -> Call:
        image, name = self._image(there=True), self._volume_name()
        if not image:
            return self._clone_image()
        return Call(
            method="CloneImage",
            perform=lambda client: client.clone_image(image, name),
            after=lambda model: models.clone_published(model, image, name),
            text=f"CloneImage {image} {name}",
        )

    def _delete_published(self) -> Call:
        image, when_unused = self._image(there=True), self._chance.random() < 0.7
        if not image:
            return self._delete_dataset()
        return Call(
            method="RetireImage" if when_unused else "DeleteImage",
            perform=lambda client: client.delete_image(image, when_unused=when_unused),
            after=lambda model: models.delete_image(model, image, when_unused=when_unused),
            text=f"DeleteImage {image} whenUnused={when_unused}",
        )

    def _revive_image(self) -> Call:
        image = self._image(there=True)
        if names.image(image) not in self._model:
            return self._publish_image()
        return Call(
            method="ReviveImage",
            perform=lambda client: client.request_image(image),
            after=lambda model: models.revive_image(model, image),
            text=f"RequestImage {image}",
        )

    # -- volumes that are now ours and now nobody's ---------------------------------

    def _let_go_or_take_over(self) -> Call:
        name = self._chance.choice(self._territory.loose)
        if name not in self._model:
            return self._new_volume(name)
        if self._model[name].released != (self._chance.random() < 0.1):
            return Call(
                method="AdoptDataset",
                perform=lambda client: client.adopt(AdoptRequest(id=name)),
                after=lambda model: models.adopt(model, name),
                touches=lambda model: [name],
                text=f"AdoptDataset {name}",
            )
        return Call(
            method="ReleaseDataset",
            perform=lambda client: client.release(name),
            after=lambda model: models.release(model, name),
            text=f"ReleaseDataset {name}",
        )
