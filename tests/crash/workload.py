"""A client of the store: chooses calls at random, makes them over HTTP, and knows what must come of each.

Owns one client's part of the pool: nobody else touches its guests and volumes,
so its model is exact.  Images are everybody's (:mod:`tests.crash.imagebook`).
"""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from functools import partial

import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore import names
from imagestore.client import Client
from imagestore.errors import (
    Blocked,
    HasClones,
    ImageStoreError,
    InUse,
    NotFound,
    TemporarilyUnavailable,
    Unreachable,
)
from imagestore.model import AdoptRequest
from tests.crash import model as models
from tests.crash.content import BLOCK_BYTES, IMAGES, MIB, block_bytes
from tests.crash.imagebook import ImageBook, ImageCall, ImageState, Kind
from tests.crash.model import Disk, Model

ANSWER_SECONDS = 60.0
"""A store that has not answered by then hangs."""

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


class WrongAnswer(AssertionError):
    """The store answered what the model cannot explain."""


class Statistics:
    """What all clients have seen."""

    def __init__(self) -> None:
        self.calls = 0
        self.acknowledged = 0
        self.refused = 0


class Write(Struct, frozen=True):
    """A block that a client writes: ``token`` says which bytes."""

    volume: str
    block: int
    token: int


class Worker:
    """One client.  ``after_cut`` is the other model that is possible, after a call that was cut off.

    What it is about to do stands in ``pending`` (the call's text, and the model
    if it happens) and ``writing``; ``watch`` is called whenever either changes,
    so that somebody can keep it where no crash reaches.
    """

    def __init__(
        self,
        number: int,
        seed: int,
        disks: str,
        images: ImageBook,
        statistics: Statistics,
        *,
        watch: Callable[[], None] | None = None,
        flushes: bool = False,
        force_overrides: bool = True,
    ) -> None:
        self.pending: tuple[str, Model] | None = None
        self.writing: Write | None = None
        self._watch = watch
        self._flushes = flushes or watch is not None
        self._force_overrides = force_overrides
        self.root = f"c{number}"
        self.guests = tuple(f"c{number}-g{guest}" for guest in range(3))
        self.published = tuple(f"c{number}-p{image}" for image in range(2))
        self.loose = tuple(f"c{number}-a{volume}" for volume in range(2))
        self.model: Model = {}
        self.after_cut: Model | None = None
        self.cut_off: str = ""
        self.under_way = ""
        self.history: set[str] = set()
        self._chance = random.Random(seed)
        self._disks = disks
        self._images = images
        self._statistics = statistics
        self.taken = 0
        self.token = number << 32

    def owns(self, name: str) -> bool:
        parts = name.partition("@")[0].split("/")
        below = {names.GUESTS: self.guests, names.IMAGES: self.published}.get(parts[0], ())
        return parts[0] in (self.root, *self.loose) or (parts[1:2] != [] and parts[1] in below)

    # -- a life ------------------------------------------------------------------

    async def work(self, client: Client) -> None:
        """Call upon call, until the store is gone.  Raises WrongAnswer."""
        while True:
            for _ in range(self._chance.randrange(3)):
                self._write_somewhere()
            try:
                if self._chance.random() < 0.2:
                    await self._image_call(client)
                else:
                    await self.call(client, self._choose())
            except Unreachable:
                return

    async def call(self, client: Client, call: Call) -> None:
        due: ImageStoreError | None = None
        after = self.model
        try:
            after = call.after(self.model)
        except ImageStoreError as error:
            due = error
        leaning = [self._images.begin(image, "lean") for image in call.leans_on]
        with self._held_open(call, due) as held:
            if held and not (call.force and self._force_overrides):
                due = InUse("held open by the client")
            self._intend((call.text, after if due is None else self.model))
            answer = await self._ask(client, call.method, call.perform, call.text)
        if isinstance(answer, Unreachable):
            self._cut(call, after if due is None else self.model)
            for lean in leaning:
                self._images.cut_off(lean)
            raise answer
        for lean in leaning:
            self._images.end(lean, None)
        self._judge(call, answer, due, after, leaning)
        self._intend(None)

    def _intend(self, pending: tuple[str, Model] | None) -> None:
        self.pending = pending
        self._tell()

    def _tell(self) -> None:
        if self._watch is not None:
            self._watch()

    def _cut(self, call: Call, after: Model) -> None:
        self.cut_off = call.text
        self.after_cut = after
        self.history |= set(after)

    def _judge(
        self,
        call: Call,
        answer: ImageStoreError | None,
        due: ImageStoreError | None,
        after: Model,
        leaning: list[ImageCall],
    ) -> None:
        if answer is None:
            if due is not None:
                raise WrongAnswer(f"{call.text} succeeded, due was: {due!r}")
            if any(lean.at_first == {"absent"} and not lean.kinds for lean in leaning):
                raise WrongAnswer(f"{call.text} succeeded without its image")
            self.model = after
            self.history |= set(after)
            return
        image_may_be_missing = any(
            lean.at_first != {"complete"} or "delete" in lean.kinds for lean in leaning
        )
        if isinstance(answer, TemporarilyUnavailable) or (
            isinstance(answer, NotFound) and image_may_be_missing
        ):
            return
        told_as_such = type(due) is Blocked and type(answer) is ImageStoreError
        is_due = due is not None and (isinstance(answer, type(due)) or told_as_such)
        if not is_due or str(answer) == "internal error":
            raise WrongAnswer(f"{call.text} was refused with {answer!r}, due was: {due!r}")

    async def _ask(
        self, client: Client, method: str, perform: Callable[[Client], object], text: str
    ) -> ImageStoreError | None:
        """None: acknowledged.  Else the refusal, or Unreachable: nobody knows."""
        self._statistics.calls += 1
        self.under_way = method
        try:
            await trio.to_thread.run_sync(perform, client)
        except Unreachable as error:
            return error
        except ImageStoreError as error:
            self._statistics.refused += 1
            self.under_way = ""
            return error
        self._statistics.acknowledged += 1
        self.under_way = ""
        return None

    # -- images ------------------------------------------------------------------

    async def _image_call(self, client: Client) -> None:
        image = self._chance.choice(tuple(IMAGES))
        deletes = self._chance.random() < 0.35
        kind: Kind = "delete" if deletes else "request"
        method = "DeleteImage" if deletes else "RequestImage"
        call = self._images.begin(image, kind)
        self._tell()
        ask = (
            partial(Client.delete_image, image=image)
            if deletes
            else partial(Client.request_image, image=image)
        )
        answer = await self._ask(client, method, ask, f"{method} {image}")
        if isinstance(answer, Unreachable):
            self._images.cut_off(call)
            raise answer
        self._images.end(call, self._image_afterwards(call, answer))
        self._tell()

    def _image_afterwards(self, call: ImageCall, answer: ImageStoreError | None) -> ImageState | None:
        """What the image is now. Raises WrongAnswer."""
        good = IMAGES[call.image].is_good
        text = f"{call.kind} {call.image}"
        if answer is None:
            if call.kind == "request" and not good:
                raise WrongAnswer(f"{text} succeeded, the image is {call.image}")
            if call.kind == "delete" and call.at_first == {"absent"} and not call.is_disputed:
                raise WrongAnswer(f"{text} succeeded, and there was none")
            return "complete" if call.kind == "request" else "absent"
        if isinstance(answer, TemporarilyUnavailable):
            return None
        if call.kind == "request":
            if good or str(answer) == "internal error":
                raise WrongAnswer(f"{text} failed: {answer!r}")
            return "error"
        expected = isinstance(answer, NotFound | HasClones | Blocked) or "image is being fetched" in str(
            answer
        )
        if not expected:
            raise WrongAnswer(f"{text} was refused with {answer!r}")
        if (
            isinstance(answer, NotFound)
            and "absent" not in call.at_first
            and not call.kinds & {"delete", "request"}
        ):
            raise WrongAnswer(f"{text}: not found, and it was there")
        return None

    # -- bytes -------------------------------------------------------------------

    def path(self, name: str) -> str:
        return os.path.join(self._disks, name)

    def _write_somewhere(self) -> None:
        """As a guest would, through the link in the pool."""
        volumes = [
            name
            for name, dataset in self.model.items()
            if dataset.content is not None and not models.is_image(name)
        ]
        if not volumes:
            return
        name = self._chance.choice(volumes)
        dataset = self.model[name]
        assert dataset.content is not None
        block = self._chance.randrange(dataset.content.blocks)
        self.token += 1
        self.write(Write(name, block, self.token))

    def write(self, wanted: Write) -> None:
        """Write a block, flushed if somebody watches: what is not, a crash of the system takes away.

        (A ZFS pool takes its snapshots of what was flushed.)
        """
        dataset = self.model[wanted.volume]
        assert dataset.content is not None
        self.writing = wanted
        self._tell()
        file = os.open(self.path(wanted.volume), os.O_WRONLY)
        try:
            os.pwrite(file, block_bytes(wanted.token), wanted.block * BLOCK_BYTES)
            if self._flushes:
                os.fsync(file)
        finally:
            os.close(file)
        content = dataset.content.written(wanted.block, wanted.token)
        self.model = {**self.model, wanted.volume: replace(dataset, content=content)}
        self.writing = None

    @contextlib.contextmanager
    def _held_open(self, call: Call, due: ImageStoreError | None) -> Iterator[bool]:
        """Now and then a process has one of the disks open while it is to be pulled away."""
        volumes = call.touches(self.model) if due is None else []
        if not volumes or self._chance.random() > 0.15:
            yield False
            return
        file = os.open(self.path(self._chance.choice(volumes)), os.O_RDWR)
        try:
            yield True
        finally:
            os.close(file)

    # -- choosing ----------------------------------------------------------------

    def _choose(self) -> Call:
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
        guest = self._chance.choice(self.guests)
        return self._chance.choice(
            (
                f"{self.root}/v0",
                f"{self.root}/v1",
                f"{self.root}/d/v2",
                f"{self.root}/d/v3",
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
            for name, dataset in self.model.items()
            if not dataset.released and not models.is_image(name)
        }

    def _create_guest(self) -> Call:
        guest = self._chance.choice(self.guests)
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
        guest = names.guest(self._chance.choice(self.guests))
        return guest if guest in self.model and self._chance.random() < 0.5 else self._any_name()

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
        guest, force = self._chance.choice(self.guests), self._chance.random() < 0.2
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
        due = {name for name in self.model if models.is_due(self.model, name)}
        images = [image for image in self.published if names.image(image) not in due]
        wanted = [image for image in images if (names.image(image) in self.model) == there]
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
        if names.image(image) not in self.model:
            return self._publish_image()
        return Call(
            method="ReviveImage",
            perform=lambda client: client.request_image(image),
            after=lambda model: models.revive_image(model, image),
            text=f"RequestImage {image}",
        )

    # -- volumes that are now ours and now nobody's ---------------------------------

    def _let_go_or_take_over(self) -> Call:
        name = self._chance.choice(self.loose)
        if name not in self.model:
            return self._new_volume(name)
        if self.model[name].released != (self._chance.random() < 0.1):
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
