"""Seeded random histories that use every event type in ways that follow from one another."""

import random
from collections.abc import Iterator
from typing import Literal

from msgspec.structs import replace

from imagestore.events.catalogue import (
    Adoptee,
    AdoptIntent,
    AliasRemoved,
    AliasSet,
    CreateIntent,
    DatasetAdopted,
    DatasetCreated,
    DatasetDestroyed,
    DatasetId,
    DatasetLost,
    DatasetReceived,
    DatasetReleased,
    DatasetRenamed,
    DatasetResized,
    DatasetRolledBack,
    DestroyIntent,
    Envelope,
    Event,
    FetchIntent,
    ImageCompleted,
    ImageDeleted,
    ImageFailed,
    ImagePublished,
    ImageReleased,
    ImageRequested,
    ImageRetired,
    ImageRevived,
    Intent,
    JournalCut,
    NewBlank,
    NewClone,
    NewParent,
    NoteIntent,
    OperationFinished,
    OperationResumed,
    OperationStarted,
    PoolAttached,
    PublishIntent,
    ReceiveIntent,
    ReleaseIntent,
    ResizeIntent,
    RollbackIntent,
    SegmentsArchived,
    Shown,
    SnapshotIntent,
    SourceRegistered,
    SourceRemoved,
    TokenCreated,
    TokenRevoked,
)
from imagestore.events.journal import Entry
from imagestore.events.state import State, apply

OUTCOMES: list[Literal["succeeded", "failed", "cancelled"]] = ["succeeded", "failed", "cancelled"]
NAMES = [f"guests/g{guest}/disk-{disk}" for guest in range(3) for disk in range(3)] + ["guests/g1", "vol"]
SHOWN = Shown(name="vol@monday", kind="snapshot", size_bytes=1 << 30, written_bytes=4096)
IMAGES = ["alpine", "debian", "zürich-✓"]


class RandomHistory:
    """Iterate for batches of entries; each follows from those before it."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._keys = random.Random(seed)
        self._model = State()
        self._counter = 0

    def batches(self, count: int) -> Iterator[list[Entry]]:
        for _ in range(count):
            yield [self._entry() for _ in range(self._chance.choice([1, 1, 2, 3]))]

    def _entry(self) -> Entry:
        operation, event = self._event()
        self._counter += 1
        entry = Entry(
            operation=operation,
            cause=self._chance.choice(["", "cause"]),
            principal=self._chance.choice(["", "local", "token:ops"]),
            event=event,
        )
        apply(
            self._model,
            Envelope(id="", seq=self._model.seq + 1, time_ns=0, operation=operation, event=event),
        )
        return entry

    def _event(self) -> tuple[str, Event]:
        chance = self._chance
        under_way = list(self._model.operations)
        images = list(self._model.images)
        while True:
            kind = chance.randrange(15)
            operation = chance.choice(under_way) if under_way else ""
            if kind in (0, 1) and len(under_way) < 6:
                return f"op-{self._counter}", self._start()
            if kind == 2 and under_way:
                return operation, OperationResumed(attempt=chance.randrange(1, 4))
            if kind == 3 and under_way:
                outcome = chance.choice(OUTCOMES)
                left = (self._id("left"),) if outcome == "failed" else ()
                return operation, OperationFinished(
                    outcome=outcome,
                    error="no space" if left else "",
                    error_type="NoSpace" if left else "",
                    left_behind=left,
                    answer=(SHOWN,) if self._model.operations[operation].answer else (),
                )
            if kind in (4, 5):
                return operation, self._created()
            if kind in (6, 7, 8) and self._model.datasets:
                return operation, self._about_a_dataset(kind)
            if kind in (9, 10):
                return operation, ImageRequested(
                    image=chance.choice(IMAGES), type=chance.choice(["", "kvm"]), source="https://x/y"
                )
            if kind in (11, 12) and images:
                return operation, self._about_an_image(chance.choice(images))
            if kind == 13:
                about_itself: list[Event] = [
                    PoolAttached(driver="directory", pool="tank"),
                    JournalCut(segment="segment-0000000009", offset=96, length=3, saved_as="cut"),
                    SegmentsArchived(first=1, last=2, last_seq=9, hash="ab" * 32, place="/mnt/cold"),
                ]
                return "", chance.choice(about_itself)
            if kind == 14:
                about_access: list[Event] = [
                    TokenCreated(name="ops", role="operator", sha256="cd" * 32, expires_ns=1 << 60),
                    TokenCreated(name=f"ci-{self._counter}", role="reader", sha256="ef" * 32),
                    TokenRevoked(name="ops"),
                ]
                return operation, chance.choice(about_access)

    def _start(self) -> OperationStarted:
        chance = self._chance
        name = chance.choice(NAMES)
        ids = tuple(self._id(name) for _ in range(chance.randrange(1, 4)))
        intents: list[Intent] = [
            CreateIntent(
                datasets=(
                    NewParent(name="guests/g", guest="g"),
                    NewBlank(
                        name=name, size_bytes=chance.randrange(1 << 40), disk="0", thick=chance.random() < 0.2
                    ),
                    NewClone(name=name, origin=self._id("images/a@i"), size_bytes=512, image="a"),
                )
            ),
            SnapshotIntent(datasets=ids, snapshot="monday", guest="g"),
            DestroyIntent(datasets=ids, image=chance.choice(["", "alpine"])),
            RollbackIntent(snapshots=ids, volumes=ids, newer=ids),
            ResizeIntent(volume=ids[0], size_bytes=1 << 30),
            FetchIntent(image="alpine", staging="images/.staging-1", source="", type="kvm"),
            FetchIntent(
                image="alpine",
                staging="images/.staging-1",
                source="https://cloud.example/alpine.qcow2",
                sha256="cd" * 32,
                size_bytes=1 << 20,
            ),
            ReceiveIntent(
                name=name,
                staging="images/.staging-2",
                volume=chance.choice([None, ids[0]]),
                base=chance.choice([None, ids[-1]]),
                parents=(NewParent(name="guests/g", guest="g"),),
                image="alpine",
                guest="g",
                disk="0",
            ),
            PublishIntent(image="gold", snapshot=ids[0], type="kvm"),
            NoteIntent(fact=AliasSet(alias="deb", image="alpine")),
            AdoptIntent(
                datasets=(
                    Adoptee(name="old/root", guid=1, createtxg=2, role="disk", guest="g", disk="0"),
                    Adoptee(name="images/a", guid=3, createtxg=4, role="image", image="a"),
                ),
                parents=(NewParent(name="guests/g", guest="g"),),
                image=chance.choice(["", "a"]),
                type="kvm",
                snapshot=chance.choice([None, ids[0]]),
            ),
            ReleaseIntent(datasets=ids, image=chance.choice(["", "alpine"])),
            NoteIntent(fact=SourceRegistered(image="alpine", address="https://x/y", sha256="ab" * 32)),
            NoteIntent(fact=TokenRevoked(name="ops")),
        ]
        started = OperationStarted(
            method="Method",
            subject=name,
            intent=chance.choice(intents),
            reserved_bytes=chance.randrange(1 << 50),
            force=chance.random() < 0.2,
        )
        if self._keys.random() < 0.7:
            return started
        return replace(
            started,
            key="0f" * 16,
            request="f0" * 16,
            answer=(name, f"{name}@monday"),
            gone=(SHOWN,),
            shown='{"images":[]}',
        )

    def _id(self, name: str) -> DatasetId:
        return DatasetId(name=name, guid=self._chance.randrange(1 << 64), createtxg=self._counter)

    def _created(self) -> DatasetCreated | DatasetAdopted:
        chance = self._chance
        kinds: list[type[DatasetCreated | DatasetAdopted]] = [DatasetCreated, DatasetCreated, DatasetAdopted]
        return chance.choice(kinds)(
            name=chance.choice(NAMES) + chance.choice(["", "@monday"]),
            kind=chance.choice(["filesystem", "volume", "snapshot"]),
            role=chance.choice(["image", "disk", "volume", "parent", "snapshot", "staging"]),
            guid=chance.randrange(1 << 64),
            createtxg=self._counter,
            size_bytes=chance.randrange(1 << 40),
            origin=chance.choice([None, self._id("images/alpine@image")]),
            guest=chance.choice(["", "g1"]),
        )

    def _about_a_dataset(self, kind: int) -> Event:
        chance = self._chance
        record = chance.choice(list(self._model.datasets.values()))
        if kind == 6:
            guid = record.guid if chance.random() < 0.7 else 1
            ends: list[type[DatasetLost | DatasetDestroyed | DatasetReleased]] = [
                DatasetLost,
                DatasetDestroyed,
                DatasetReleased,
            ]
            return chance.choice(ends)(name=record.name, guid=guid, createtxg=record.createtxg)
        if kind == 7:
            return DatasetRenamed(
                name=record.name,
                new_name=f"moved-{self._counter}",
                guid=record.guid,
                createtxg=record.createtxg,
            )
        if chance.random() < 0.2:
            return DatasetResized(
                name=record.name,
                guid=record.guid,
                createtxg=record.createtxg,
                size_bytes=chance.randrange(1 << 40),
            )
        kinds: list[type[DatasetRolledBack | DatasetReceived]] = [DatasetRolledBack, DatasetReceived]
        return chance.choice(kinds)(
            name=record.name,
            guid=record.guid,
            createtxg=record.createtxg,
            snapshot=self._id(f"{record.name}@monday"),
            size_bytes=chance.randrange(1 << 40),
        )

    def _about_an_image(self, image: str) -> Event:
        what = self._chance.randrange(5)
        if what == 0:
            gone: list[Event] = [ImageDeleted(image=image), ImageReleased(image=image)]
            return self._chance.choice(gone)
        if what == 3:
            about_its_end: list[Event] = [ImageRetired(image=image), ImageRevived(image=image)]
            return self._chance.choice(about_its_end)
        if what == 4:
            about_names: list[Event] = [
                ImagePublished(image=image, snapshot=self._id("vol@monday"), type="kvm"),
                AliasSet(alias="deb", image=image),
                AliasRemoved(alias="deb"),
                SourceRegistered(image=image, address="https://x/y", sums="https://x/SHA256SUMS"),
                SourceRemoved(image=image),
            ]
            return self._chance.choice(about_names)
        if what == 1:
            return ImageFailed(image=image, reason="404 Not Found")
        return ImageCompleted(
            image=image,
            volume=self._id(f"images/{image}"),
            snapshot=self._id(f"images/{image}@image"),
            size_bytes=1 << 30,
            sha256="ab" * 32,
        )
