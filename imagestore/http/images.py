"""``/images``: the store as an image service, so that one host can feed another.

``GET /images`` and ``GET /images/<id>`` are metadata in the form of the image
services that the store itself fetches from; ``GET /images/<id>/download`` is
the image's send stream, with a strong ETag and parts of it (``Range``), since
the same snapshot gives the same bytes.  An id may be an alias.  What is not
complete is not found, as at any image service.

How long a stream is, is known once it was measured or sent whole; metadata of
one image waits for that, within :data:`MEASURE_SECONDS`, and says 0 and -1
(unknown) otherwise.  Knows nothing of pools or journals.
"""

import msgspec
import trio
from msgspec import UNSET, Struct, UnsetType

from imagestore.errors import ImageStoreError, NotFound
from imagestore.http.answer import JSON_TYPE, NOSNIFF, Answer
from imagestore.http.downloads import send_stream
from imagestore.http.exchange import Exchange
from imagestore.http.incidents import report_incident
from imagestore.http.uploads import problem
from imagestore.model import Image, ImageRequest, SnapshotRequest
from imagestore.service import Service

MEASURE_SECONDS = 2.0
"""Fetching stores wait five seconds for metadata."""

NEVER = "0001-01-01T00:00:00Z"
"""How the service writes a time that has not come: Go's zero time."""

_STATUS = {"importing": "downloading"}
"""Ours, in the service's words."""


class Path(Struct, frozen=True):
    """What a path asks for; ``image`` "" is all of them."""

    image: str
    download: bool = False


class Metadata(Struct, frozen=True, kw_only=True):
    """An image in the service's own form; sizes in bytes, of the body that is served."""

    id: str
    source: str
    type: str
    comment: str
    status: str
    size: int
    expected_size: int
    download_start: str
    download_end: str


def read_path(path: str) -> Path | None:
    """What ``path``, unquoted, asks for here; None if it belongs to somebody else."""
    match path.split("/"):
        case ["", "images"] | ["", "images", ""]:
            return Path("")
        case ["", "images", image]:
            return Path(image)
        case ["", "images", image, "download"] if image:
            return Path(image, download=True)
        case _:
            return None


def metadata_of(image: Image, stream_bytes: int | None) -> Metadata:
    """``stream_bytes`` is how long the stream of a complete image is, None if nobody knows yet."""
    size, expected = stream_bytes or 0, stream_bytes or -1
    if image.progress is not UNSET:
        size, expected = image.progress.done_bytes, image.progress.total_bytes or -1
    status = _text(image.status)
    return Metadata(
        id=image.id,
        source=_text(image.source),
        type=image.type or "kvm",
        comment="",
        status=_STATUS.get(status, status),
        size=size,
        expected_size=expected,
        download_start=_text(image.requested) or NEVER,
        download_end=_text(image.completed) or NEVER,
    )


def _text(value: str | UnsetType) -> str:
    return "" if value is UNSET else value


async def serve_images(service: Service, exchange: Exchange, path: Path) -> None:
    """Answer with metadata, or send the stream."""
    with exchange.stream.cancelled_by_hangup():
        answer = await _answer(service, exchange, path)
        if answer is not None:
            await exchange.answer(answer)


async def _answer(service: Service, exchange: Exchange, path: Path) -> Answer | None:
    """The answer; None when a stream was sent in place of one."""
    if exchange.method != "GET":
        refused = problem(405, "GET method required")
        return msgspec.structs.replace(refused, headers=(*refused.headers, (b"allow", b"GET")))
    try:
        images = await _visible(service, exchange, path)
        if not path.download:
            return await _metadata(service, exchange, path, images)
        if images[0].status != "complete" or images[0].snapshot is UNSET:
            raise NotFound(detail=f"image {path.image} is {_text(images[0].status)}")
        request = SnapshotRequest(id=images[0].snapshot)
    except ImageStoreError as error:
        return problem(error.http_status, str(error), detail=error.detail, error=type(error).__name__)
    except Exception:
        incident = report_incident(f"serving image {path.image!r} failed unexpectedly")
        return problem(500, "internal error", detail=f"incident {incident}")
    return await send_stream(service, exchange, request)


async def _visible(service: Service, exchange: Exchange, path: Path) -> tuple[Image, ...]:
    """The images asked for, without those that are only there until their last clone goes."""
    answer = await service.describe_images(ImageRequest(id=path.image), exchange.caller)
    images = tuple(image for image in answer.images if image.retired is not True)
    if path.image and not images:
        raise NotFound(detail=f"image {path.image}")
    return images


async def _metadata(service: Service, exchange: Exchange, path: Path, images: tuple[Image, ...]) -> Answer:
    """Only a single image is waited for."""
    told = []
    for image in images:
        size: int | None = None
        if image.snapshot is not UNSET:
            request = SnapshotRequest(id=image.snapshot)
            with trio.move_on_after(MEASURE_SECONDS):
                size = await service.download_bytes(request, exchange.caller, measure=bool(path.image))
        told.append(metadata_of(image, size))
    body = msgspec.json.encode(told[0] if path.image else told)
    return Answer(status=200, headers=(JSON_TYPE, NOSNIFF), body=body)
