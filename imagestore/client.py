"""A typed RPC client for programs that do one thing and end, such as the command line.

Owns the methods, and what their answers become; :mod:`imagestore.wire` carries
them.  Every failure is one of ``imagestore.errors``.  Knows nothing of terminals.
Only the standard library and msgspec are imported: a command must start in no time.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Struct, structs

from imagestore import errors
from imagestore.endpoint import DEFAULT_SERVER, Credentials
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
    PlanResponse,
    PublishRequest,
    ReceivePlan,
    ReceiveResponse,
    ReleaseRequest,
    ReleaseResponse,
    Snapshot,
    SnapshotRequest,
    SnapshotResponse,
    Source,
    SourceRequest,
    SourceResponse,
    Token,
    TokenRequest,
    TokenResponse,
    UploadRequest,
    Volume,
    VolumeRequest,
    VolumeResponse,
)
from imagestore.wire import PIECE_BYTES, Accepted, Changing, Foreseen, Stream, Wire, patiently

__all__ = [
    "DEFAULT_SERVER",
    "PIECE_BYTES",
    "Accepted",
    "Changing",
    "Client",
    "Credentials",
    "Foreseen",
    "Stream",
    "patiently",
]

DOWNLOAD_PATH = "/snapshots/download"
RECEIVE_PATH = "/volumes/receive"
UPLOAD_PATH = "/images/upload"

_Answer = TypeVar("_Answer", bound=Struct)


class Client(Wire):
    """The methods of a store, as calls; made as a :class:`~imagestore.wire.Wire` is.

    Raises (every method): the store's errors, ``Unreachable``, ``AnswerTimeout``, ``BrokenOff``.
    """

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
        """Have what ``pieces`` make, ``size`` bytes if that is known, taken in as an image.

        A dry run sends none of it: it is judged as a fetch of that id would be, and what is in
        the bytes is not looked at.
        """
        if self.changing.dry_run:
            asked = ImageRequest(id=request.id, type=request.type, sha256=request.sha256)
            raise Foreseen(_sent_from_here(self._planned("RequestImage", asked)))
        query = urlencode({"id": request.id, "type": request.type, "sha256": request.sha256})
        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        with self.exchange("POST", f"{UPLOAD_PATH}?{query}", pieces, headers) as response:
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

    def resize_volume(self, volume: str, *, size_mib: int) -> Volume:
        """A larger size; a smaller one is refused."""
        request = VolumeRequest(id=volume, size=size_mib)
        return _only(self.call("ResizeVolume", request, VolumeResponse).volumes)

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

    # -- who may ask ------------------------------------------------------------

    def create_token(self, request: TokenRequest) -> TokenResponse:
        """The answer holds the token itself, and nobody will tell it again."""
        return self.call("CreateToken", request, TokenResponse)

    def list_tokens(self) -> tuple[Token, ...]:
        return self.call("ListTokens", TokenRequest(), TokenResponse).tokens

    def revoke_token(self, name: str) -> Token:
        return _only(self.call("RevokeToken", TokenRequest(name=name), TokenResponse).tokens)

    # -- streams, and how it is -----------------------------------------------------

    def ready(self) -> bool:
        """Whether the store says that it serves."""
        try:
            with self.exchange("GET", "/readyz", None):
                return True
        except errors.ImageStoreError:
            return False

    def metrics(self) -> str:
        """How the store fares, in the text format of Prometheus."""
        with self.exchange("GET", "/metrics", None) as response:
            return response.read().decode()

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
        with self.exchange("POST", DOWNLOAD_PATH, body, headers) as response:
            yield Stream(response, offset)

    def foresee_receive(self, request: ReceivePlan) -> PlanResponse:
        """What would come of a stream with this heading; nothing of it is sent."""
        return self._planned("ReceiveVolume", request)

    def receive(self, volume: str, pieces: Iterable[bytes], *, force: bool = False) -> ReceiveResponse:
        """Have the stream that ``pieces`` make received as ``volume``, or onto it.

        ``force`` discards what was written to it since the stream's base.
        """
        if self.changing.dry_run:
            raise errors.InvalidArgument(
                "a stream cannot be tried dry by sending it", detail="foresee_receive judges its heading"
            )
        query = urlencode({"id": volume, "force": "true" if force else "false"})
        headers = {"Content-Type": "application/octet-stream"}
        with self.exchange("POST", f"{RECEIVE_PATH}?{query}", pieces, headers) as response:
            return msgspec.json.decode(response.read(), type=ReceiveResponse)


def _sent_from_here(plan: PlanResponse) -> PlanResponse:
    """The plan of a fetch as that of an upload: the bytes come from here, the way is the same."""
    effects = tuple(structs.replace(effect, what="image, of what is sent") for effect in plan.effects)
    return structs.replace(plan, effects=effects)


def _only(answer: tuple[_Answer, ...]) -> _Answer:
    if len(answer) != 1:
        raise errors.Unreachable(f"the store answered {len(answer)} objects where one was due")
    return answer[0]
