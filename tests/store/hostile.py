"""Servers that mean harm, or are broken, and what a store makes of each.

``python -m tests.store.hostile`` prints it as a table.  Each behaviour is met
by a real store over a real socket: one request while the server behaves so, a
look at what that left, and one request after the server has come to its senses.
"""

import bz2
import gzip
import lzma
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import trio
from msgspec import Struct

from imagestore.config import Config
from imagestore.errors import ImageStoreError
from imagestore.model import ImageRequest
from imagestore.store import Store
from tests.imageservice import (
    ImageService,
    Ranged,
    Script,
    answer,
    chunked,
    endless,
    head,
    redirect,
    sends,
    stalls,
    truncated,
)
from tests.store.conftest import running
from tests.streams.samples import load

MIB = 1 << 20
LIMIT = 4 * MIB
RAW = random.Random(3).randbytes(2 * MIB)
GZIPPED = gzip.compress(RAW, 1)
STREAM = load("empty-a")
ERROR_TEXT = b"read /var/lib/images/a: input/output error\n"
WANTED = "ab" * 32

Serve = Callable[[ImageService], Script]


class Behaviour(Struct, frozen=True, kw_only=True):
    """``reason`` is a pattern of what the caller gets; "" if the image comes all the same.

    ``size`` is what the service's metadata say; 0: there are none.
    """

    name: str
    serve: Serve
    reason: str
    sha256: str = ""
    size: int = 0
    tries: int = 1
    stall_seconds: float = 60.0


class Meeting(Struct, frozen=True, kw_only=True):
    """What came of it.  ``left`` names what stayed behind; ``after`` is the next try's status."""

    got: str
    left: str
    after: str


def flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def just(script: Script) -> Serve:
    return lambda _: script


def changed(second: bytes, *, tag: str = '"one"') -> Serve:
    """The beginning of one body, never more, and what is left of another one."""

    def serve(service: ImageService) -> Script:
        beginning = Ranged(service, GZIPPED, cuts=[MIB] * 20)
        rest = Ranged(service, second, tag=tag, forgets_tag=True)

        async def script(stream: trio.SocketStream) -> None:
            asks_for_rest = "\r\nrange: " in service.heads[-1].lower()
            await (rest if asks_for_rest else beginning)(stream)

        return script

    return serve


async def drips(stream: trio.SocketStream) -> None:
    await stream.send_all(head(Content_Length=len(RAW)))
    for at in range(len(RAW)):
        await stream.send_all(RAW[at : at + 1])
        await trio.sleep(0.02)


def bomb(pack: Callable[[bytes], bytes]) -> Serve:
    return just(answer(pack(bytes(64 * MIB))))


BEHAVIOURS = (
    Behaviour(
        name="body cut, whole length announced",
        serve=just(truncated(RAW[:MIB], len(RAW))),
        reason="truncated",
    ),
    Behaviour(
        name="body cut, length as if that were all",
        serve=just(answer(RAW[:MIB])),
        size=len(RAW),
        reason="truncated or stale",
    ),
    Behaviour(
        name="gzip cut at a plausible length", serve=just(answer(GZIPPED[:MIB])), reason="gzip.* is cut"
    ),
    Behaviour(
        name="xz cut at a plausible length",
        serve=just(answer(lzma.compress(RAW, preset=0)[:-40])),
        reason="xz.* is cut",
    ),
    Behaviour(
        name="chunked body cut before its last chunk",
        serve=just(chunked(RAW[:MIB], end=False)),
        reason="broke off",
    ),
    Behaviour(
        name="error text after half of a 200",
        serve=just(sends(head(Content_Length=len(RAW)), RAW[:MIB] + ERROR_TEXT)),
        reason="truncated",
    ),
    Behaviour(
        name="error text after half of a 200 without length",
        serve=just(sends(head(), RAW[:MIB] + ERROR_TEXT)),
        reason="multiple of 512",
    ),
    Behaviour(
        name="error text behind a whole gzip",
        serve=just(sends(head(), GZIPPED + ERROR_TEXT)),
        reason="follow gzip's trailer",
    ),
    Behaviour(
        name="a page instead of an image",
        serve=just(answer(b"<html><body>Sign in to the network</body></html>")),
        reason="HTML",
    ),
    Behaviour(
        name="bit flipped in a gzip",
        serve=just(answer(flipped(GZIPPED, MIB))),
        reason="gzip content is damaged",
    ),
    Behaviour(
        name="bit flipped in a bzip2",
        serve=just(answer(flipped(bz2.compress(RAW[:MIB]), MIB // 2))),
        reason="bzip2 content is damaged",
    ),
    Behaviour(
        name="bit flipped in a send stream",
        serve=just(answer(flipped(STREAM, len(STREAM) // 2))),
        reason="checksum|stream",
    ),
    Behaviour(
        name="bit flipped in a raw disk, sha256 given",
        serve=just(answer(flipped(RAW, MIB))),
        sha256=WANTED,
        reason="has sha256 [0-9a-f]{64}, wanted is",
    ),
    Behaviour(
        name="changed between two ranges, new tag told",
        serve=changed(flipped(GZIPPED, MIB + 999), tag='"two"'),
        reason="another image now",
    ),
    Behaviour(
        name="changed between two ranges, under the same tag",
        serve=changed(flipped(GZIPPED, MIB + 999)),
        tries=2,
        reason="put together of several answers is wrong: gzip",
    ),
    Behaviour(
        name="changed between two ranges, another length",
        serve=changed(GZIPPED + bytes(512)),
        reason="bytes now, before it had",
    ),
    Behaviour(
        name="a part nobody asked for",
        serve=just(sends(head(206, Content_Length=512, Content_Range="bytes 512-1023/4096"), bytes(512))),
        reason="206",
    ),
    Behaviour(name="endless body", serve=just(endless(RAW[: 64 << 10])), reason="over the limit"),
    Behaviour(
        name="body announced over --max-image-bytes",
        serve=just(answer(bytes(LIMIT + 512))),
        reason="over the limit",
    ),
    Behaviour(name="gzip bomb", serve=bomb(lambda data: gzip.compress(data, 1)), reason="over the limit"),
    Behaviour(
        name="xz bomb", serve=bomb(lambda data: lzma.compress(data, preset=0)), reason="over the limit"
    ),
    Behaviour(name="bzip2 bomb", serve=bomb(bz2.compress), reason="over the limit"),
    Behaviour(
        name="stalls midway", serve=just(stalls(RAW[:MIB], len(RAW))), reason="stalled", stall_seconds=0.5
    ),
    Behaviour(name="a byte now and then", serve=just(drips), reason="stalled", stall_seconds=0.5),
    Behaviour(name="answers with nothing", serve=just(sends()), reason="did not answer|broke off"),
    Behaviour(
        name="answers with garbage", serve=just(sends(b"\0\1\2 garbage\r\n\r\n")), reason="HTTP server"
    ),
    Behaviour(
        name="redirects to itself for ever",
        serve=just(redirect("/images/a/download")),
        reason="more than 10 redirects",
    ),
    Behaviour(name="redirects to a file", serve=just(redirect("file:///etc/passwd")), reason="not HTTP"),
    Behaviour(name="is out of order", serve=just(answer(b"busy", 503)), reason="status 503"),
    Behaviour(name="does not have it", serve=just(answer(b"no", 404)), reason="not found"),
)


def config_of(directory: Path, service: ImageService, behaviour: Behaviour) -> Config:
    return Config(
        pool=f"dir:{directory}/pool",
        journal=f"{directory}/journal",
        image_service=service.address,
        fetch_tries=behaviour.tries,
        fetch_wait_seconds=0.001,
        fetch_stall_seconds=behaviour.stall_seconds,
        max_image_bytes=LIMIT,
        journal_segment_bytes=1 << 20,
    )


async def meet(behaviour: Behaviour, directory: Path, service: ImageService) -> Meeting:
    """One request while the server behaves so, and one after that."""
    if behaviour.size:
        service.metadata("a", size=behaviour.size, status="complete")
    service.download("a", behaviour.serve(service))
    config = config_of(directory, service, behaviour)
    async with running(config) as store:
        got = await _ask(store, behaviour.sha256)
        left = _left(store, config)
        service.metadata("a", answer(b"{}"))
        service.download("a", answer(RAW))
        after = await _ask(store, "")
        if after == "complete" and (directory / "pool/images/a").read_bytes() != RAW:
            after = "another content"
        return Meeting(got=got, left=left, after=after)


async def _ask(store: Store, sha256: str) -> str:
    try:
        (image,) = (await store.request_image(ImageRequest(id="a", sha256=sha256))).images
    except ImageStoreError as error:
        failure = error
    else:
        return str(image.status)
    (shown,) = (await store.get_image(ImageRequest(id="a"))).images
    assert (shown.status, shown.reason) == ("error", str(failure))
    return f"error: {failure}"


def _left(store: Store, config: Config) -> str:
    """Everything that there is beside a pool that was never asked for anything."""
    private = Path(config.pool.removeprefix("dir:")) / ".imagestore"
    names = [name for part in ("data", "spool", "links") for name in os.listdir(private / part)]
    names += [row.name for row in store._running().zpool.view.under("images") if row.name != "images"]
    reserved = store._running().zpool.ledger.reserved_bytes
    return ", ".join([*names, *([f"{reserved} bytes reserved"] if reserved else [])]) or "nothing"


async def _print_all() -> None:
    rows = [("behaviour", "caller got", "what was left", "next try")]
    async with trio.open_nursery() as nursery:
        for behaviour in BEHAVIOURS:
            service = ImageService()
            await nursery.start(service.run)
            with tempfile.TemporaryDirectory() as directory:
                met = await meet(behaviour, Path(directory), service)
            rows.append((behaviour.name, met.got.replace(service.address, "SERVER"), met.left, met.after))
        nursery.cancel_scope.cancel()
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    trio.run(_print_all)
