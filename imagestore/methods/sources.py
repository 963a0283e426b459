"""Where images come from: sources registered, listed and removed, requests resolved to an origin.

A list of sums is read here, before a fetch is accepted: what the journal holds
of it is the digest, so that a fetch that goes on in another life needs neither
list nor keyring.
"""

import base64
import binascii

from msgspec.structs import replace

from imagestore import names
from imagestore.actors.commands import RegisterSource, RemoveSource
from imagestore.actors.imagedecisions import check_free_id
from imagestore.actors.listedsums import SumsReader
from imagestore.actors.origin import SERVICE, Origin
from imagestore.actors.plans import complete_image
from imagestore.actors.sources import check_reachable, checked
from imagestore.errors import AlreadyExists, InvalidArgument, NotFound
from imagestore.events.state import SourceRecord
from imagestore.guard import AddressGuard
from imagestore.methods.addressing import Addressing
from imagestore.model import (
    ImageRequest,
    Source,
    SourceRequest,
    SourceResponse,
)
from imagestore.service import LOCAL, Caller
from imagestore.streams.openpgp import MOST_KEYRING_BYTES
from imagestore.streams.sums import check_sha256


class SourceMethods(Addressing):
    """See the module."""

    _sums = SumsReader(check_address=AddressGuard().check)
    """How lists of sums are fetched; a store replaces it by what its settings say."""

    async def list_sources(self, request: SourceRequest, caller: Caller = LOCAL) -> SourceResponse:
        """Where images come from that do not come from the image service; all, or that of ``id``."""
        known = self._running().operations.state.sources
        if request.id and request.id not in known:
            raise NotFound(detail=f"image {request.id} has no source of its own")
        wanted = [request.id] if request.id else list(known)
        return SourceResponse(sources=tuple(_source(image, known[image]) for image in wanted))

    async def register_source(self, request: SourceRequest, caller: Caller = LOCAL) -> SourceResponse:
        """Say where an image is to come from; another source of it is to be removed first."""
        if not request.id:
            raise InvalidArgument("need id")
        names.check_image_id(request.id)
        check_free_id(request.id, self._running().operations.state)
        source = checked(request.source, request.sha256, request.sums)
        check_reachable(source.address, self._sums.check_address)
        await self._register(request.id, source, caller, may_replace=False)
        return await self.list_sources(SourceRequest(id=request.id), caller)

    async def remove_source(self, request: SourceRequest, caller: Caller = LOCAL) -> SourceResponse:
        """Forget where an image comes from; the image stays."""
        answer = await self.list_sources(SourceRequest(id=request.id or "."), caller)
        await self._perform(names.image(request.id), RemoveSource(image=request.id), caller)
        return answer

    async def _register(self, image: str, source: SourceRecord, caller: Caller, *, may_replace: bool) -> None:
        command = RegisterSource(
            image=image, address=source.address, sha256=source.sha256, sums=source.sums, replace=may_replace
        )
        # What is asked for is another operation: neither its key nor its receipt is this one's.
        of_itself = replace(caller, binding=None, receipt=None)
        await self._perform(names.image(image), command, of_itself)

    def _given(self, request: ImageRequest) -> SourceRecord | None:
        """The source that a request names. Raises InvalidArgument."""
        if not request.source:
            return None
        given = checked(request.source, request.sha256, request.sums)
        check_reachable(given.address, self._sums.check_address)
        return given

    # -- requests -----------------------------------------------------------------------

    async def _origin(self, image: str, request: ImageRequest, caller: Caller) -> Origin:
        """Where an image that was asked for comes from, and what its body must be.

        A source in the request is registered, in place of the one before; else
        the registered one is taken, or the image service.

        Raises:
            InvalidArgument: an address, digest or keyring that is none, or must not be journaled.
            AlreadyExists: the image is here, from somewhere else.
            FetchFailed, ConfigError: its list of sums cannot be had, or not be trusted.
        """
        actors = self._running()
        state = actors.operations.state
        keyring = _keyring(request.keyring)
        given = self._given(request)
        if given is None and request.sums:
            raise InvalidArgument("a sums file is of a source, and none is given")
        is_here = complete_image(image, state, actors.zpool.view) is not None
        if given is not None and is_here and state.images[image].source != given.address:
            raise AlreadyExists(
                f"image already exists: {image}",
                detail="it came from elsewhere; remove it, or take another id",
            )
        source = given or state.sources.get(image)
        if request.sha256 and given is None:
            return Origin(source=source.address if source else "", sha256=check_sha256(request.sha256))
        if source is None or (is_here and given is None):
            return SERVICE
        origin = Origin(source=source.address, sha256=await self._sums.digest(source, keyring))
        if given is not None:
            await self._register(image, given, caller, may_replace=True)
        return origin


def _source(image: str, record: SourceRecord) -> Source:
    return Source(id=image, source=record.address, sha256=record.sha256, sums=record.sums)


def _keyring(text: str) -> bytes | None:
    """The keyring of a request, which is base64. Raises InvalidArgument."""
    if not text:
        return None
    try:
        keyring = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InvalidArgument("the keyring is not base64") from error
    if len(keyring) > MOST_KEYRING_BYTES:
        raise InvalidArgument(f"the keyring has over {MOST_KEYRING_BYTES} bytes")
    return keyring
