"""The image service and the way to it: bodies in memory, at their own pace, with what networks do."""

import gzip
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from imagestore.actors import download
from imagestore.actors.imageservice import CannotReach, MayPass
from tests.simulation.machine import Machine
from tests.simulation.poolground import BLOCK_BYTES

TOKEN_BYTES = 32
"""A content is told by its first bytes."""


def token_of(text: str) -> bytes:
    """What stands at the beginning of a disk that has the content ``text``."""
    return text.encode().ljust(TOKEN_BYTES, b"\0")


class ServedImage(msgspec.Struct, frozen=True):
    """``body`` is what is sent of ``raw``, b"" if there is nothing."""

    id: str
    raw: bytes
    body: bytes

    @property
    def token(self) -> bytes:
        return self.raw[:TOKEN_BYTES]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


def _image(number: int) -> ServedImage:
    raw = (f"image-{number} ".encode() * BLOCK_BYTES)[: (2 + number) * BLOCK_BYTES]
    return ServedImage(f"i{number}", raw, gzip.compress(raw, 1, mtime=0) if number % 2 else raw)


IMAGES = {image.id: image for image in map(_image, range(3))}
MISSING = "i9"
"""The service does not have it."""


class Network:
    """Stands in for ``download.opened``. ``trouble`` is the part of answers that go wrong."""

    def __init__(self, machine: Machine, chance: random.Random, *, trouble: float) -> None:
        self._machine = machine
        self._chance = chance
        self._trouble = trouble

    @asynccontextmanager
    async def opened(self, url: str, *args: object, **settings: Any) -> AsyncIterator[download.Response]:
        self._machine.step(f"get {url}")
        await trio.sleep(self._chance.random() * 0.02)
        path = url.partition("/images/")[2]
        image = IMAGES.get(path.removesuffix("/download"))
        if self._chance.random() < self._trouble:
            if self._chance.random() < 0.5:
                raise CannotReach("service cannot be reached: Connection refused")
            yield self._answer(503, b"")
        elif image is None:
            yield self._answer(404, b"")
        elif path.endswith("/download"):
            yield self._answer(200, image.body, cut=self._chance.random() < self._trouble)
        else:
            document = {"id": image.id, "type": "kvm", "status": "complete", "size": len(image.body)}
            yield self._answer(200, msgspec.json.encode(document))

    def _answer(self, status: int, body: bytes, *, cut: bool = False) -> download.Response:
        return download.Response(
            host="service", status=status, content_length=len(body), body=self._body(body, cut)
        )

    async def _body(self, body: bytes, cut: bool) -> AsyncIterator[bytes]:
        end = self._chance.randrange(len(body)) if cut else len(body)
        at = 0
        while at < end:
            piece = body[at : min(end, at + self._chance.choice((512, BLOCK_BYTES, 1 << 20)))]
            await trio.sleep(self._chance.random() * 0.05)
            self._machine.step("body")
            yield piece
            at += len(piece)
        if cut:
            raise MayPass("service broke off: the body is truncated")
