"""A body from wherever its origin says, from its first byte or from where an earlier try ended.

Owns what is asked of a source and what its answer means: which bytes come,
how many there are, and whether they are still of the same body as before.
A body is gone on with only by its strong entity tag, which the server is
given with ``If-Range``: of a server that gives none, or forgets it, the whole
body comes again, and what was there before is not trusted.

Knows nothing of tries, decoding or the pool.
"""

import hashlib
import os
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import trio
from msgspec import Struct

from imagestore.actors.imageservice import (
    NO_METADATA,
    CannotReach,
    MayPass,
    Metadata,
    download_url,
    locate,
    metadata_url,
    parse_metadata,
)
from imagestore.actors.origin import CheckAddress, Origin, UploadedBody
from imagestore.errors import ContentRefused, FetchFailed, FetchUnreachable
from imagestore.serviceaddress import ServiceAddress, parse_service
from imagestore.streams.content import Piece
from imagestore.tokens import MOST_CHARACTERS

if TYPE_CHECKING:
    from imagestore.actors.download import Response

METADATA_BYTES = 64 << 10
"""Longer metadata is not the service's own form."""

FILE_PIECE_BYTES = 512 << 10

NOTHING: Mapping[str, str] = MappingProxyType({})

_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"\Z')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")


class Changed(MayPass):
    """What comes now is not of the body that came before: it has to come anew, from its beginning."""


class Start(Struct, frozen=True, kw_only=True):
    """What is there of a body already, and what it was of.  ``source`` as in :class:`Body`."""

    length: int
    source: str
    validator: str
    total_bytes: int | None


class Body(Struct, frozen=True, kw_only=True):
    """A body that comes.

    It comes from byte ``start`` on.  ``host`` is who sends it, for texts;
    ``source`` a fingerprint of the address; ``validator`` its strong entity
    tag or ""; ``total_bytes`` its whole length or None; ``content_length``
    what the answer announced; ``type`` the metadata's.
    """

    host: str
    source: str
    pieces: AsyncIterator[Piece]
    start: int = 0
    validator: str = ""
    total_bytes: int | None = None
    content_length: int | None = None
    type: str = ""


class Asking(Struct, frozen=True, kw_only=True):
    """How to ask.  Times in seconds; ``check_address`` is not asked of the image service, which alone is
    shown the token in ``service_token_file``; ``service_ca_file`` has its authority, "" the system's."""

    connect_seconds: float
    metadata_seconds: float
    stall_seconds: float
    max_bytes: int | None
    check_address: CheckAddress | None
    service_token_file: str = ""
    service_ca_file: str = ""


@asynccontextmanager
async def open_body(
    image: str,
    origin: Origin,
    *,
    service: str,
    start: Start | None,
    asking: Asking,
    upload: UploadedBody | None = None,
) -> AsyncIterator[Body]:
    """Ask for the body of ``image``, from behind ``start`` if that can be.

    ``service`` is the setting ``image_service``.

    Raises:
        MayPass: broken, busy, or not to be reached; Changed: ``start`` is of another body.
        FetchUnreachable: the service is not ready with it.
        FetchFailed: it is not to be had.
        ContentRefused: it is over the limit.
    """
    if origin.is_upload:
        yield _uploaded(upload, asking)
    elif origin.source.startswith("file:"):
        async with _file(origin.source, start, asking) as body:
            yield body
    else:
        # Importing the HTTP library takes tens of milliseconds: not on the event loop.
        await trio.to_thread.run_sync(_load_client)
        opening = (
            _from_service(image, service, start, asking)
            if origin.is_service
            else _from_address(image, origin.source, start, asking)
        )
        async with opening as body:
            yield body


# --- over HTTP ---------------------------------------------------------------------


@asynccontextmanager
async def _from_service(image: str, service: str, start: Start | None, asking: Asking) -> AsyncIterator[Body]:
    address = await locate(parse_service(service))
    shown = await _authorization(asking.service_token_file)
    metadata = await _ask_metadata(image, address, asking, shown)
    if metadata.status == "error":
        raise FetchFailed(f"image {image} is in error at the image service {address}")
    url = download_url(address, image)
    async with _over_http(url, start, asking, None, shown, asking.service_ca_file) as (response, source):
        admit(image, f"the image service {response.host}", response.status, metadata)
        yield _body(response, source, start, metadata, asking.max_bytes)


async def _authorization(token_file: str) -> Mapping[str, str]:
    """What the image service is shown. Raises FetchFailed: the file cannot be read, or holds no token."""
    if not token_file:
        return {}
    try:
        token = await trio.to_thread.run_sync(_first_line, token_file)
    except OSError as error:
        raise FetchFailed(
            f"the image service's token cannot be read: {token_file}: {error.strerror}"
        ) from error
    if not (token.isascii() and token.isprintable() and 0 < len(token) <= MOST_CHARACTERS):
        raise FetchFailed(f"{token_file} holds no token for the image service")
    return {"Authorization": f"Bearer {token}"}


def _first_line(file: str) -> str:
    with open(file, "rb") as opened_file:
        return opened_file.read(MOST_CHARACTERS + 2).strip().decode("ascii", "replace")


@asynccontextmanager
async def _from_address(image: str, url: str, start: Start | None, asking: Asking) -> AsyncIterator[Body]:
    async with _over_http(url, start, asking, asking.check_address) as (response, source):
        admit(image, response.host, response.status, NO_METADATA)
        yield _body(response, source, start, NO_METADATA, asking.max_bytes)


@asynccontextmanager
async def _over_http(
    url: str,
    start: Start | None,
    asking: Asking,
    check: CheckAddress | None,
    authorization: Mapping[str, str] = NOTHING,
    ca_file: str = "",
) -> AsyncIterator[tuple["Response", str]]:
    from imagestore.actors.download import Timeouts, opened

    timeouts = Timeouts(connect=asking.connect_seconds, stall=asking.stall_seconds)
    source = fingerprint(url)
    headers: Mapping[str, str] = {}
    if start is not None and start.validator and start.source == source:
        headers = {"Range": f"bytes={start.length}-", "If-Range": start.validator}
    async with opened(
        url, timeouts, check_address=check, headers=headers, authorization=authorization, ca_file=ca_file
    ) as response:
        yield response, source


async def _ask_metadata(
    image: str, service: ServiceAddress, asking: Asking, authorization: Mapping[str, str]
) -> Metadata:
    """What the service says of the image, NO_METADATA for whatever it fails to say properly."""
    from imagestore.actors.download import Timeouts, opened

    timeouts = Timeouts(connect=asking.connect_seconds, stall=asking.metadata_seconds)
    body = bytearray()
    with trio.move_on_after(asking.metadata_seconds):
        try:
            url = metadata_url(service, image)
            ca_file = asking.service_ca_file
            async with opened(url, timeouts, authorization=authorization, ca_file=ca_file) as response:
                if response.status != 200:
                    return NO_METADATA
                async for piece in response.body:
                    body += piece
                    if len(body) > METADATA_BYTES:
                        return NO_METADATA
                return parse_metadata(bytes(body))
        except CannotReach:
            raise
        except (MayPass, FetchFailed):
            return NO_METADATA
    return NO_METADATA


def admit(image: str, host: str, status: int, metadata: Metadata) -> None:
    """Decide by its status whether an answer's body is the image's.

    Raises:
        FetchUnreachable: the service is still fetching the image itself.
        FetchFailed: it does not have it, or refuses.
        MayPass: it is in trouble.
        Changed: it has not as much of it as we have.
    """
    if status in {200, 206}:
        return
    if status == 404 and metadata.status in {"pending", "downloading"}:
        raise FetchUnreachable(f"image {image} is not complete at {host} yet: it is {metadata.status} there")
    if status == 404:
        raise FetchFailed(f"image {image} was not found at {host}")
    if status == 416:
        raise Changed(f"{host} has less of the image than came before: it was changed")
    if status in {408, 425, 429} or 500 <= status < 600:
        raise MayPass(f"{host} answered with status {status}")
    detail = (
        "a reader's token of that store, in the file of image_service_token" if status in {401, 403} else ""
    )
    raise FetchFailed(f"image {image} cannot be had: {host} answered with status {status}", detail=detail)


def _body(
    response: "Response", source: str, start: Start | None, metadata: Metadata, limit: int | None
) -> Body:
    first, total = 0, response.content_length
    if response.status == 206:
        if start is None:
            raise FetchFailed(f"{response.host} was asked for all of the image and answered with status 206")
        first, total = start.length, part_of(response, start)
    validator = response.etag if _STRONG_TAG.match(response.etag) else ""
    return Body(
        host=response.host,
        source=source,
        pieces=response.body,
        start=first,
        validator=validator or (start.validator if first and start is not None else ""),
        total_bytes=expected_bytes(response.host, total, metadata, limit),
        content_length=response.content_length,
        type=metadata.type,
    )


def part_of(response: "Response", start: Start) -> int:
    """The whole length of the body of which a 206 sends the rest.

    Raises:
        Changed: it is not the rest of what came before.
    """
    found = _CONTENT_RANGE.match(response.content_range)
    if found is None or found[3] == "*":
        raise Changed(f"{response.host} sent a part of the image and did not say which")
    first, last, total = int(found[1]), int(found[2]), int(found[3])
    if first != start.length or last != total - 1:
        raise Changed(f"{response.host} sent another part of the image than it was asked for")
    if start.total_bytes is not None and total != start.total_bytes:
        raise Changed(f"{response.host} has an image of {total} bytes now, before it had {start.total_bytes}")
    if response.etag and response.etag != start.validator:
        raise Changed(f"{response.host} has another image now than when the first part of it came")
    if response.content_length is not None and response.content_length != total - first:
        raise MayPass(f"{response.host} contradicts itself about the length of the image")
    return total


def expected_bytes(host: str, announced: int | None, metadata: Metadata, limit: int | None) -> int | None:
    """How long the body must be, from what was announced; None if nothing was.

    Raises:
        MayPass: the announcements contradict each other: one of them is stale.
        ContentRefused: it is over ``limit`` bytes.
    """
    known = metadata.body_bytes
    if announced is not None and known is not None and announced != known:
        raise MayPass(f"{host} announced {announced} bytes of an image of {known}: truncated or stale")
    total = announced if announced is not None else known
    if total is not None and limit is not None and total > limit:
        raise ContentRefused(f"image has {total} bytes, over the limit of {limit}")
    return total


def fingerprint(url: str) -> str:
    """Tells two addresses apart; does not tell what they are."""
    return hashlib.sha256(url.encode()).hexdigest()


def _load_client() -> None:
    import imagestore.actors.download  # noqa: F401


# --- from this machine -------------------------------------------------------------


def _uploaded(upload: UploadedBody | None, asking: Asking) -> Body:
    if upload is None:
        raise FetchFailed("the upload was broken off by a restart of the store; send it again")
    total = expected_bytes("the client", upload.content_length, NO_METADATA, asking.max_bytes)
    return Body(host="the client", source="", pieces=aiter(upload), total_bytes=total, content_length=total)


@asynccontextmanager
async def _file(url: str, start: Start | None, asking: Asking) -> AsyncIterator[Body]:
    """A regular file; its identity, size and time of change are its validator."""
    path = unquote(urlsplit(url).path)
    try:
        file = await trio.to_thread.run_sync(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise FetchFailed(f"file {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise FetchFailed(f"file {path} is not a regular file")
        total = expected_bytes(path, status.st_size, NO_METADATA, asking.max_bytes)
        source = fingerprint(url)
        validator = f'"{status.st_dev:x}-{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'
        goes_on = start is not None and (start.source, start.validator) == (source, validator)
        first = start.length if goes_on and start is not None else 0
        async with aclosing(_read_file(path, file, first, status.st_size)) as pieces:
            yield Body(
                host=path,
                source=source,
                pieces=pieces,
                start=first,
                validator=validator,
                total_bytes=total,
                content_length=status.st_size,
            )
    finally:
        os.close(file)


async def _read_file(path: str, file: int, first: int, last: int) -> AsyncGenerator[Piece, None]:
    limiter = trio.CapacityLimiter(1)
    for at in range(first, last, FILE_PIECE_BYTES):
        size = min(FILE_PIECE_BYTES, last - at)
        try:
            piece = await trio.to_thread.run_sync(os.pread, file, size, at, limiter=limiter)
        except OSError as error:
            raise FetchFailed(f"file {path} cannot be read: {error.strerror}") from error
        if len(piece) != size:
            raise MayPass(f"file {path} was changed while it was read")
        yield piece
