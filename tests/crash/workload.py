"""A client of the store: makes calls over HTTP, and knows what must come of each.

Owns one client's part of the pool: nobody else touches its guests and volumes,
so its model is exact.  Which call comes next is for :mod:`tests.crash.choosing`;
images are everybody's (:mod:`tests.crash.imagebook`).
"""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from functools import partial

import trio
from msgspec import Struct
from msgspec.structs import replace

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
from tests.crash import model as models
from tests.crash.choosing import Call, Choices, territory_of
from tests.crash.content import BLOCK_BYTES, IMAGES, block_bytes
from tests.crash.imagebook import ImageBook, ImageCall, ImageState, Kind
from tests.crash.model import Model

ANSWER_SECONDS = 60.0
"""A store that has not answered by then hangs."""


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
        self.model: Model = {}
        self.after_cut: Model | None = None
        self.cut_off: str = ""
        self.under_way = ""
        self.history: set[str] = set()
        self._chance = random.Random(seed)
        self.territory = territory_of(number)
        self.choices = Choices(self.territory, self._chance)
        self._disks = disks
        self._images = images
        self._statistics = statistics
        self.token = number << 32

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
                    await self.call(client, self.choices.choose(self.model))
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
