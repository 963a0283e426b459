"""Lists of sums fetched from a real server, and what is believed of them."""

from pathlib import Path

import pytest
import trio

from imagestore.actors.listedsums import SumsReader
from imagestore.errors import ConfigError, ContentRefused, FetchFailed, FetchUnreachable
from imagestore.events.state import SourceRecord
from imagestore.guard import AddressGuard, parse_allowed
from imagestore.streams.sums import MOST_BYTES
from tests.imageservice import ImageService, Script, answer, endless, redirect, resets, status
from tests.streams.test_openpgp import Signer

DIGEST = "ab" * 32
SUMS = f"{DIGEST}  debian.qcow2\n".encode()
LOOPBACK = parse_allowed("127.0.0.0/8")


@pytest.fixture
async def server(nursery: trio.Nursery) -> ImageService:
    server = ImageService()
    await nursery.start(server.run)
    return server


def source(server: ImageService, sums: str = "/SHA256SUMS") -> SourceRecord:
    here = f"http://{server.address}"
    return SourceRecord(address=f"{here}/images/debian.qcow2?arch=amd64", sums=f"{here}{sums}")


def reader(guard: AddressGuard = LOOPBACK, keyring: str = "") -> SumsReader:
    return SumsReader(check_address=guard.check, keyring=keyring)


async def test_the_digest_of_the_last_component_is_found(server: ImageService) -> None:
    server.on("/SHA256SUMS", redirect("/moved"))
    server.on("/moved", answer(SUMS))
    assert await reader().digest(source(server)) == DIGEST


async def test_a_source_without_sums_is_asked_nothing(server: ImageService) -> None:
    given = SourceRecord(address=f"http://{server.address}/x", sha256=DIGEST)
    assert await reader().digest(given) == DIGEST
    assert await reader().digest(SourceRecord(address=given.address)) == ""
    assert server.requests == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (status(404), "was not found"),
        (status(403), "status 403"),
        (answer(b"<html>"), "lists no sha256"),
        (endless(bytes(64 << 10)), f"over {MOST_BYTES} bytes"),
        (redirect("http://user:secret@127.0.0.1/x"), "credentials"),
    ],
)
async def test_a_list_that_cannot_be_had_is_a_clear_error(
    server: ImageService, script: Script, reason: str
) -> None:
    server.on("/SHA256SUMS", script)
    with pytest.raises(FetchFailed, match=reason) as raised:
        await reader().digest(source(server))
    assert "secret" not in str(raised.value)


async def test_a_list_that_breaks_off_may_be_had_later(server: ImageService) -> None:
    server.on("/SHA256SUMS", resets(SUMS, 1000))
    with pytest.raises(FetchUnreachable, match="sums file cannot be had"):
        await reader().digest(source(server))


async def test_the_guard_is_asked_before_anything_is_sent(server: ImageService) -> None:
    server.on("/SHA256SUMS", answer(SUMS))
    with pytest.raises(FetchFailed, match="private network"):
        await reader(AddressGuard()).digest(source(server))
    assert server.requests == []


async def test_the_guard_is_asked_at_every_redirect(server: ImageService) -> None:
    server.on("/SHA256SUMS", redirect(f"http://127.0.0.2:{server.port}/SHA256SUMS"))
    with pytest.raises(FetchFailed, match=r"127\.0\.0\.2.* private network"):
        await reader(parse_allowed("127.0.0.1")).digest(source(server))
    assert server.requests == ["/SHA256SUMS"]


async def test_a_keyring_that_is_not_there_is_named(server: ImageService) -> None:
    with pytest.raises(ConfigError, match=r"keyring /no/such/keyring cannot be read"):
        await reader(keyring="/no/such/keyring").digest(source(server))


async def test_with_a_keyring_a_list_that_nobody_signed_does_not_count(server: ImageService) -> None:
    server.on("/SHA256SUMS", answer(SUMS))
    with pytest.raises(FetchFailed, match=r"not signed: .* SHA256SUMS\.gpg, SHA256SUMS\.sign"):
        await reader().digest(source(server), b"\x98")


@pytest.mark.system
async def test_a_signature_in_the_list_or_beside_it_counts(server: ImageService, tmp_path: Path) -> None:
    signer = await trio.to_thread.run_sync(Signer, tmp_path / "g")
    try:
        (tmp_path / "keys.gpg").write_bytes(signer.gpg("--export"))
        server.on("/SHA256SUMS", answer(SUMS))
        server.on("/SHA256SUMS.sign", answer(signer.gpg("--detach-sign", text=SUMS)))
        server.on("/CHECKSUM", answer(signer.gpg("--clearsign", text=SUMS)))
        trusting = reader(keyring=str(tmp_path / "keys.gpg"))
        assert await trusting.digest(source(server)) == DIGEST
        assert await trusting.digest(source(server, "/CHECKSUM")) == DIGEST
        server.on("/SHA256SUMS", answer(SUMS.replace(b"ab", b"cd")))
        with pytest.raises(ContentRefused, match="does not fit its text"):
            await trusting.digest(source(server))
    finally:
        await trio.to_thread.run_sync(signer.stop)
