"""A typed RPC client for programs that do one thing and end, such as the command line.

Owns the wire from the client's side: one connection a call, so that nothing
stale is ever reused.  Every failure is one of ``imagestore.errors``: what the
store said becomes the error it was there, a store that is not there is
``Unreachable``.  Knows nothing of terminals.  Only the standard library and
msgspec are imported: a command must start in no time.
"""

import http.client
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from imagestore import errors
from imagestore.model import (
    AdoptRequest,
    AdoptResponse,
    AliasRequest,
    CollectRequest,
    Drifted,
    DriftRequest,
    DriftResponse,
    Guest,
    GuestRequest,
    GuestResponse,
    Image,
    ImageRequest,
    ImageResponse,
    PublishRequest,
    ReceiveResponse,
    ReleaseRequest,
    ReleaseResponse,
    Snapshot,
    SnapshotRequest,
    SnapshotResponse,
    Source,
    SourceRequest,
    SourceResponse,
    UploadRequest,
    Volume,
    VolumeRequest,
    VolumeResponse,
)
from imagestore.wiretexts import error_of

DEFAULT_SERVER = "http://127.0.0.1:19999"
RPC_PATH = "/_mistify_RPC_"
DOWNLOAD_PATH = "/snapshots/download"
RECEIVE_PATH = "/volumes/receive"
UPLOAD_PATH = "/images/upload"

PIECE_BYTES = 1 << 20
"""Most bytes of a download that are held at once."""

CONNECT_SECONDS = 10.0
"""A store on the same machine takes a connection at once or not at all."""

_JSON: Mapping[str, str] = {"Content-Type": "application/json"}
_PLACE = re.compile(r"bytes (?:([0-9]+)-[0-9]+|\*)/([0-9]+)\Z")

_Answer = TypeVar("_Answer", bound=Struct)


class _Problem(Struct, frozen=True):
    title: str
    detail: str = ""
    error: str = ""


class _Reply(Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None


class Client:
    """The methods of a store at ``server``, as calls.

    Parameters:
        server: ``http://HOST:PORT`` (``HOST:PORT`` will do).
        timeout: seconds to wait for each piece of an answer; None waits for ever.
            The store goes on with what it accepted.

    Raises (every method): the store's errors, ``Unreachable``, ``AnswerTimeout``, ``BrokenOff``.
    """

    def __init__(self, server: str = DEFAULT_SERVER, *, timeout: float | None = None) -> None:
        self.server = server if "://" in server else f"http://{server}"
        parts = urlsplit(self.server)
        try:
            self._host, self._port = parts.hostname, parts.port or 80
        except ValueError:
            self._host, self._port = None, 0
        if parts.scheme != "http" or not self._host or parts.path not in ("", "/"):
            raise errors.ConfigError(
                f"server {server!r} is not http://HOST:PORT", detail=f"for example {DEFAULT_SERVER}"
            )
        self.timeout = timeout

    # -- images -------------------------------------------------------------

    def list_images(self) -> tuple[Image, ...]:
        return self.call("ListImages", ImageRequest(), ImageResponse).images

    def get_image(self, image: str) -> Image:
        return _only(self.call("GetImage", ImageRequest(id=image), ImageResponse).images)

    def request_image(
        self,
        image: str,
        *,
        type: str = "",  # noqa: A002 (the wire's)
        source: str = "",
        sha256: str = "",
        sums: str = "",
        keyring: str = "",
    ) -> Image:
        """Have an image fetched; returns when it is usable. See ``model.ImageRequest``."""
        request = ImageRequest(id=image, type=type, source=source, sha256=sha256, sums=sums, keyring=keyring)
        try:
            return _only(self.call("RequestImage", request, ImageResponse).images)
        except errors.ImageStoreError as problem:
            if problem.__class__ is errors.ImageStoreError:  # no text of the contract: why the fetch failed
                raise errors.FetchFailed(str(problem)) from problem
            raise

    def upload_image(self, request: UploadRequest, pieces: Iterable[bytes], size: int | None = None) -> Image:
        """Have what ``pieces`` make, ``size`` bytes if that is known, taken in as an image."""
        query = urlencode({"id": request.id, "type": request.type, "sha256": request.sha256})
        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        with self._request("POST", f"{UPLOAD_PATH}?{query}", pieces, headers) as response:
            return _only(msgspec.json.decode(response.read(), type=ImageResponse).images)

    def list_sources(self, image: str = "") -> tuple[Source, ...]:
        return self.call("ListSources", SourceRequest(id=image), SourceResponse).sources

    def register_source(self, request: SourceRequest) -> Source:
        return _only(self.call("RegisterSource", request, SourceResponse).sources)

    def remove_source(self, image: str) -> Source:
        return _only(self.call("RemoveSource", SourceRequest(id=image), SourceResponse).sources)

    def delete_image(self, image: str, *, when_unused: bool = False) -> Image:
        """With ``when_unused`` one that has clones is hidden, and goes with the last of them."""
        request = ImageRequest(id=image, whenUnused=when_unused)
        return _only(self.call("DeleteImage", request, ImageResponse).images)

    def describe_images(self, image: str = "") -> tuple[Image, ...]:
        """One image or all, hidden ones too, with all that is known of each."""
        return self.call("DescribeImages", ImageRequest(id=image), ImageResponse).images

    def set_image_alias(self, alias: str, image: str) -> Image:
        request = AliasRequest(alias=alias, id=image)
        return _only(self.call("SetImageAlias", request, ImageResponse).images)

    def remove_image_alias(self, alias: str) -> tuple[Image, ...]:
        """Returns the image that it named, if that is there."""
        return self.call("RemoveImageAlias", AliasRequest(alias=alias), ImageResponse).images

    def publish_image(self, snapshot: str, image: str, *, type: str = "") -> Image:  # noqa: A002
        request = PublishRequest(id=image, snapshot=snapshot, type=type)
        return _only(self.call("PublishImage", request, ImageResponse).images)

    def collect_images(self, *, unused_seconds: int, dry_run: bool) -> tuple[Image, ...]:
        request = CollectRequest(unusedSeconds=unused_seconds, dryRun=dry_run)
        return self.call("CollectImages", request, ImageResponse).images

    def clone_image(self, image: str, dest: str) -> Volume:
        return _only(self.call("CloneImage", ImageRequest(id=image, dest=dest), VolumeResponse).volumes)

    # -- volumes --------------------------------------------------------------

    def list_volumes(self) -> tuple[Volume, ...]:
        return self.call("ListVolumes", VolumeRequest(), VolumeResponse).volumes

    def create_volume(self, volume: str, *, size_mib: int, thick: bool = False) -> Volume:
        request = VolumeRequest(id=volume, size=size_mib, thick=thick)
        return _only(self.call("CreateVolume", request, VolumeResponse).volumes)

    def get_volume(self, volume: str) -> Volume:
        return _only(self.call("GetVolume", VolumeRequest(id=volume), VolumeResponse).volumes)

    def delete_dataset(self, dataset: str, *, force: bool = False) -> tuple[Volume, ...]:
        request = VolumeRequest(id=dataset, force=force)
        return self.call("DeleteDataset", request, VolumeResponse).volumes

    # -- what others made -----------------------------------------------------

    def get_drift(self) -> tuple[Drifted, ...]:
        return self.call("GetDrift", DriftRequest(), DriftResponse).datasets

    def adopt(self, request: AdoptRequest) -> AdoptResponse:
        """Take over a volume where it stands; with its ``dryRun`` only say what would be done."""
        return self.call("AdoptDataset", request, AdoptResponse)

    def adopt_original(self, *, dry_run: bool = False, force: bool = False) -> AdoptResponse:
        """Take over what the original program left in the pool."""
        return self.call("AdoptOriginal", AdoptRequest(dryRun=dry_run, force=force), AdoptResponse)

    def release(self, dataset: str, *, dry_run: bool = False) -> ReleaseResponse:
        """Let go of a volume or an image; its data stay."""
        return self.call("ReleaseDataset", ReleaseRequest(id=dataset, dryRun=dry_run), ReleaseResponse)

    # -- snapshots ------------------------------------------------------------

    def create_snapshot(self, dataset: str, dest: str, *, recursive: bool = False) -> tuple[Snapshot, ...]:
        request = SnapshotRequest(id=dataset, dest=dest, recursive=recursive)
        return self.call("CreateSnapshot", request, SnapshotResponse).snapshots

    def get_snapshot(self, snapshot: str) -> Snapshot:
        return _only(self.call("GetSnapshot", SnapshotRequest(id=snapshot), SnapshotResponse).snapshots)

    def list_snapshots(self, dataset: str = "") -> tuple[Snapshot, ...]:
        return self.call("ListSnapshots", SnapshotRequest(id=dataset), SnapshotResponse).snapshots

    def delete_snapshot(
        self, snapshot: str, *, recursive: bool = False, force: bool = False
    ) -> tuple[Snapshot, ...]:
        request = SnapshotRequest(id=snapshot, recursive=recursive, force=force)
        return self.call("DeleteSnapshot", request, SnapshotResponse).snapshots

    def rollback_snapshot(
        self, snapshot: str, *, destroy_more_recent: bool = False, force: bool = False
    ) -> Snapshot:
        request = SnapshotRequest(id=snapshot, destroyMoreRecent=destroy_more_recent, force=force)
        return _only(self.call("RollbackSnapshot", request, SnapshotResponse).snapshots)

    # -- guests -----------------------------------------------------------------

    def verify_disks(self, guest: Guest) -> Guest:
        return self.call("VerifyDisks", GuestRequest(guest=guest), GuestResponse).guest

    def create_guest_disks(self, guest: Guest) -> Guest:
        return self.call("CreateGuestDisks", GuestRequest(guest=guest), GuestResponse).guest

    def delete_guests_disks(self, guest: Guest, *, force: bool = False) -> Guest:
        return self.call("DeleteGuestsDisks", GuestRequest(guest=guest, force=force), GuestResponse).guest

    # -- the wire ---------------------------------------------------------------

    def call(self, method: str, request: Struct, answer: type[_Answer]) -> _Answer:
        """Call ``ImageStore.<method>`` and decode its answer."""
        body = msgspec.json.encode({"method": f"ImageStore.{method}", "params": [request], "id": 1})
        with self._request("POST", RPC_PATH, body) as response:
            data = response.read()
        try:
            reply = msgspec.json.decode(data, type=_Reply)
            if reply.error is None:
                return msgspec.json.decode(reply.result, type=answer)
        except msgspec.DecodeError as problem:
            raise errors.Unreachable(
                f"what answers at {self.server} is no image store", detail=str(problem)
            ) from problem
        raise error_of(reply.error if isinstance(reply.error, str) else str(reply.error))

    def ready(self) -> bool:
        """Whether the store says that it serves."""
        try:
            with self._request("GET", "/readyz", None):
                return True
        except errors.ImageStoreError:
            return False

    @contextmanager
    def download(
        self, snapshot: str, *, base: str = "", offset: int = 0, etag: str = ""
    ) -> Iterator["Stream"]:
        """The stream of a snapshot, incremental from ``base`` if that is named.

        With ``offset`` and the ``etag`` of an earlier, broken download only
        what is missing comes; all of it when the store has something else by
        now: see ``Stream.first``.
        """
        body = msgspec.json.encode(SnapshotRequest(id=snapshot, base=base))
        headers = {"Content-Type": "application/json"}
        if offset and etag:
            headers |= {"Range": f"bytes={offset}-", "If-Range": etag}
        with self._request("POST", DOWNLOAD_PATH, body, headers) as response:
            yield Stream(response, offset)

    def receive(self, volume: str, pieces: Iterable[bytes], *, force: bool = False) -> ReceiveResponse:
        """Have the stream that ``pieces`` make received as ``volume``, or onto it.

        ``force`` discards what was written to it since the stream's base.
        """
        query = urlencode({"id": volume, "force": "true" if force else "false"})
        headers = {"Content-Type": "application/octet-stream"}
        with self._request("POST", f"{RECEIVE_PATH}?{query}", pieces, headers) as response:
            return msgspec.json.decode(response.read(), type=ReceiveResponse)

    @contextmanager
    def _request(
        self, verb: str, path: str, body: bytes | Iterable[bytes] | None, headers: Mapping[str, str] = _JSON
    ) -> Iterator["_Response"]:
        """One exchange; an error status is raised as the error that the answer names."""
        connection = http.client.HTTPConnection(self._host or "", self._port, timeout=CONNECT_SECONDS)
        try:
            try:
                connection.connect()
            except OSError as problem:
                raise errors.Unreachable(
                    f"no store answers at {self.server}: {_reason(problem)}",
                    detail="start one with: imagestore serve; or name another with --server",
                ) from problem
            connection.sock.settimeout(self.timeout)
            with self._failures():
                # A store that refuses a body answers before it is whole, and hangs up.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(verb, path, body, headers if body else {})
                response = connection.getresponse()
                if response.status not in (200, 206, 416):
                    raise _refusal(response)
            yield _Response(response, self._failures)
        finally:
            connection.close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """What the socket and http.client raise, as errors of ours."""
        try:
            yield
        except TimeoutError as problem:
            raise errors.AnswerTimeout(
                f"no answer within {self.timeout:g} s",
                detail="what the store accepted goes on there; ask again, or give a longer --timeout",
            ) from problem
        except (http.client.HTTPException, ConnectionError) as problem:
            raise errors.BrokenOff(
                f"the connection to {self.server} broke off: {_reason(problem)}",
                detail="the store may have stopped; ask again when it is back",
            ) from problem


class _Response:
    """An answer whose reading raises errors of ours; what its reader does raises as it is."""

    def __init__(
        self, response: http.client.HTTPResponse, failures: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._response = response
        self._failures = failures

    @property
    def status(self) -> int:
        return self._response.status

    def header(self, name: str) -> str:
        return self._response.getheader(name, "")

    def read(self) -> bytes:
        with self._failures():
            return self._response.read()

    def pieces(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(PIECE_BYTES))
        while True:
            failure: Exception | None = None
            try:
                count = self._response.readinto(buffer)
                if count == 0 and self._response.length:
                    failure = http.client.IncompleteRead(b"", self._response.length)
            except http.client.IncompleteRead as broken:
                count, failure = len(broken.partial), broken
                buffer[:count] = broken.partial
            except (OSError, http.client.HTTPException) as broken:
                count, failure = 0, broken
            if count:
                yield buffer[:count]
            if failure is not None:
                with self._failures():
                    raise failure
            if not count:
                return


class Stream:
    """A download: an iterable of pieces, each valid until the next is asked for.

    ``first`` is where its first byte stands in the whole stream, ``size`` how
    long that is (None: unknown), ``etag`` what it is called, "" if it cannot be
    gone on with.  The pieces raise ``BrokenOff`` or ``AnswerTimeout`` when the
    stream ends before its end.
    """

    def __init__(self, response: _Response, offset: int) -> None:
        self._response = response
        self.etag = response.header("ETag")
        self.first = 0
        self.size: int | None = None
        place = _PLACE.match(response.header("Content-Range"))
        if response.status == 200:
            return
        if place is None:
            raise errors.Unreachable("the store's answer does not say which part of the stream it is")
        self.size = int(place[2])
        if response.status == 416 and self.size != offset:
            raise errors.InvalidArgument(f"the stream has {self.size} bytes, not {offset} and more")
        self.first = offset if response.status == 416 else int(place[1] or 0)

    def __iter__(self) -> Iterator[memoryview]:
        return iter(()) if self._response.status == 416 else self._response.pieces()


def _refusal(response: http.client.HTTPResponse) -> errors.ImageStoreError:
    """The error that the store answered with: a problem of its own type, or a line of text."""
    text = response.read(1 << 16)
    if response.getheader("Content-Type", "").startswith("application/problem+json"):
        with suppress(msgspec.DecodeError):
            problem = msgspec.json.decode(text, type=_Problem)
            return _by_name(problem.error)(problem.title, detail=problem.detail)
    return error_of(text.decode("utf-8", "replace").strip())


def _by_name(name: str) -> type[errors.ImageStoreError]:
    """The error type of that name; the base of all for one that a newer store has."""
    kind = getattr(errors, name, None)
    return (
        kind
        if isinstance(kind, type) and issubclass(kind, errors.ImageStoreError)
        else errors.ImageStoreError
    )


def _only(answer: tuple[_Answer, ...]) -> _Answer:
    if len(answer) != 1:
        raise errors.Unreachable(f"the store answered {len(answer)} objects where one was due")
    return answer[0]


def _reason(problem: Exception) -> str:
    if isinstance(problem, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    if isinstance(problem, http.client.IncompleteRead):
        return "the answer is not complete"
    return str(problem) or type(problem).__name__
