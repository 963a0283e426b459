"""Contents of disks, and the images that the crash test's image service gives out.

A disk's content is described, never stored: an image (or nothing), and the
blocks that were written over it since.  So a test can say after a crash what
every byte of every disk has to be.
"""

import functools
import gzip
import hashlib
import random
import tempfile
from pathlib import Path

import trio
from msgspec import Struct

from imagestore.streams.make import make
from tests.imageservice import PIECE, ImageService, Script, answer, head, status

MIB = 1 << 20
BLOCK_BYTES = 64 << 10


class Content(Struct, frozen=True):
    """``size`` bytes: the image, or zeros; then ``(block, token)`` was written, in order of blocks."""

    size: int
    image: str = ""
    writes: tuple[tuple[int, int], ...] = ()

    def written(self, block: int, token: int) -> "Content":
        return Content(self.size, self.image, tuple(sorted({**dict(self.writes), block: token}.items())))

    @property
    def blocks(self) -> int:
        return self.size // BLOCK_BYTES


def block_bytes(token: int) -> bytes:
    """What a client writes as one block; no two tokens give the same."""
    return token.to_bytes(8, "little") * (BLOCK_BYTES // 8)


@functools.lru_cache(maxsize=4096)
def sha256_of(content: Content) -> str:
    image = IMAGES[content.image].raw if content.image else b""
    data = bytearray(image.ljust(content.size, b"\0"))
    for block, token in content.writes:
        data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = block_bytes(token)
    return hashlib.sha256(data).hexdigest()


class ServedImage(Struct, frozen=True):
    """An image of the service: its content, and the bytes in which it is sent ("" cannot be fetched)."""

    id: str
    raw: bytes
    body: bytes

    @property
    def is_good(self) -> bool:
        return bool(self.raw)


def _raw(seed: int, size: int) -> bytes:
    """Half random, half a hole, a little at the end."""
    chance = random.Random(seed)
    return (chance.randbytes(size // 2) + bytes(size // 2 - 512) + chance.randbytes(512))[:size]


def _stream(raw: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "raw"), Path(directory, "stream")
        source.write_bytes(raw)
        make(str(source), str(target), name="builder/image@v1", creation_seconds=1_700_000_000)
        return target.read_bytes()


def _made() -> dict[str, ServedImage]:
    plain, packed, sent, sent_packed, disk = (_raw(seed, (1 + seed % 2) * MIB) for seed in range(5))
    stream = _stream(sent)
    damaged = bytearray(stream)
    damaged[len(damaged) // 2] ^= 1
    made = [
        ServedImage("raw", plain, plain),
        ServedImage("gzip", packed, gzip.compress(packed, 1)),
        ServedImage("stream", sent, stream),
        ServedImage("stream-gzip", sent_packed, gzip.compress(_stream(sent_packed), 1)),
        ServedImage("disk", disk, disk),
        ServedImage("damaged", b"", bytes(damaged)),
        ServedImage("missing", b"", b""),
    ]
    return {image.id: image for image in made}


IMAGES = _made()


def provide(service: ImageService, *, pause_seconds: float) -> None:
    """Have ``service`` give out every image, with a pause between its pieces, as a network would."""
    for image in IMAGES.values():
        whole = _slowly(image.body, pause_seconds) if pause_seconds else answer(image.body)
        service.download(image.id, whole if image.body else status(404))


def _slowly(body: bytes, pause_seconds: float) -> Script:
    async def script(stream: trio.SocketStream) -> None:
        await stream.send_all(head(Content_Length=len(body)))
        for at in range(0, len(body), 4 * PIECE):
            await stream.send_all(body[at : at + 4 * PIECE])
            await trio.sleep(pause_seconds)

    return script
