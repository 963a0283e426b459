"""The digest that a publisher lists for an image: the list fetched, its signature checked.

The list is asked for from where the guard allows, within a bound of bytes and
of time, and read by :mod:`imagestore.streams.sums`.  With a keyring it counts
only if one of its keys signed it: clearsigned, or by a detached signature
beside it.  Nothing is kept.
"""

from urllib.parse import urlsplit, urlunsplit

import trio
from msgspec import Struct

from imagestore.actors.imageservice import MayPass
from imagestore.actors.origin import CheckAddress
from imagestore.actors.sources import last_component
from imagestore.errors import ConfigError, FetchFailed, FetchUnreachable
from imagestore.events.state import SourceRecord
from imagestore.streams import openpgp, sums

SIGNATURE_BYTES = 256 << 10

SECONDS = 60.0
"""How long list and signature may take together."""


class SumsReader(Struct, frozen=True, kw_only=True):
    """How lists are fetched and whom they are believed.  Times in seconds.

    ``keyring`` is the path of the keyring of the settings, "" if there is none.
    """

    check_address: CheckAddress | None
    keyring: str = ""
    connect_seconds: float = 5.0
    stall_seconds: float = 30.0

    async def digest(self, source: SourceRecord, keyring: bytes | None = None) -> str:
        """The sha256 that a source's body must have; "" if nothing is said of it.

        ``keyring`` (its content) is used in place of the one of the settings.

        Raises:
            FetchFailed: the list cannot be had or does not list it; FetchUnreachable: a later try may do.
            ContentRefused: it is not signed by a key of the keyring.
            ConfigError: the keyring is none, or cannot be read; gpgv is not installed.
        """
        if not source.sums:
            return source.sha256
        if keyring is None and self.keyring:
            keyring = await trio.to_thread.run_sync(_read_keyring, self.keyring)
        try:
            with trio.fail_after(SECONDS):
                listed = await self._signed(source.sums, keyring)
        except trio.TooSlowError as error:
            raise FetchUnreachable("the sums file did not come in time") from error
        return sums.digest_of(listed, last_component(source.address))

    async def _signed(self, address: str, keyring: bytes | None) -> bytes:
        """The list, as far as it is signed if it has to be."""
        listed = await self._fetch(address, sums.MOST_BYTES)
        if listed is None:
            raise FetchFailed(f"the sums file was not found at {urlsplit(address).hostname}")
        if keyring is None:
            return listed
        if openpgp.is_clearsigned(listed):
            return await trio.to_thread.run_sync(openpgp.verified, listed, None, keyring)
        for suffix in openpgp.SIGNATURE_SUFFIXES:
            signature = await self._fetch(_beside(address, suffix), SIGNATURE_BYTES)
            if signature is not None:
                return await trio.to_thread.run_sync(openpgp.verified, listed, signature, keyring)
        names = ", ".join(last_component(address) + suffix for suffix in openpgp.SIGNATURE_SUFFIXES)
        raise FetchFailed(f"the sums file is not signed: no signature in it, and none of {names} is there")

    async def _fetch(self, address: str, most_bytes: int) -> bytes | None:
        """The body at an address; None if the server says that it has none."""
        await trio.to_thread.run_sync(_load_client)
        from imagestore.actors.download import Timeouts, opened

        timeouts = Timeouts(connect=self.connect_seconds, stall=self.stall_seconds)
        body = bytearray()
        try:
            async with opened(address, timeouts, check_address=self.check_address) as response:
                if response.status in {404, 410}:
                    return None
                if response.status != 200:
                    raise FetchFailed(
                        f"{response.host} answered with status {response.status} for the sums file"
                    )
                async for piece in response.body:
                    body += piece
                    if len(body) > most_bytes:
                        raise FetchFailed(f"the sums file at {response.host} has over {most_bytes} bytes")
        except MayPass as error:
            raise FetchUnreachable(f"the sums file cannot be had: {error}") from error
        return bytes(body)


def _beside(address: str, suffix: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=parts.path + suffix))


def _read_keyring(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(openpgp.MOST_KEYRING_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the keyring {path} cannot be read: {error.strerror}") from error


def _load_client() -> None:
    import imagestore.actors.download  # noqa: F401
