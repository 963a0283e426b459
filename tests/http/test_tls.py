"""TLS: the store's certificate, its clients' certificates, and the same bounds as without it."""

import json
import ssl
from pathlib import Path
from typing import cast

import pytest
import trio
import trustme

from imagestore.errors import ConfigError
from imagestore.http.listeners import tls_context
from imagestore.http.peers import common_name, peer_of_certificate
from imagestore.http.settings import AccessSettings, HttpSettings
from tests.http.conftest import RunningServer, Start
from tests.http.gated_store import EndlessStore, StreamingStore
from tests.http.memory_store import MemoryStore
from tests.http.piped_store import Piped
from tests.http.wire import RPC_PATH, Wire

JSON = {"Content-Type": "application/json"}
LIST = b'{"method":"ListImages","params":[{}],"id":1}'
ACCESS = AccessSettings(loopback_role=None, client_roles={"backup": "reader", "orchestrator": "operator"})


class Authority:
    """A certificate authority, and the files of a store that it has signed and whose clients it signs."""

    def __init__(self, place: Path) -> None:
        self.ca = trustme.CA()
        self._other = trustme.CA()
        self.client_ca = str(place / "ca.pem")
        self.certificate, self.key = str(place / "store.pem"), str(place / "store.key")
        self.ca.cert_pem.write_to_path(self.client_ca)
        signed = self.ca.issue_cert("127.0.0.1")
        for blob in signed.cert_chain_pems:
            blob.write_to_path(self.certificate, append=True)
        signed.private_key_pem.write_to_path(self.key)

    def context(self) -> ssl.SSLContext:
        return tls_context(self.certificate, self.key, self.client_ca)

    def client(self, name: str = "", *, forged: bool = False) -> ssl.SSLContext:
        """A client's side, with a certificate of that common name if one is given."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if name:
            authority = self._other if forged else self.ca
            authority.issue_cert("client.example", common_name=name).configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def server(start: Start, store: MemoryStore, authority: Authority) -> RunningServer:
    store.hand_out("secret", "ci", "admin")
    return await start(store, access=ACCESS, tls=authority.context())


async def connect(server: RunningServer, context: ssl.SSLContext) -> Wire:
    plain = await trio.open_tcp_stream(*server.address)
    stream = trio.SSLStream(plain, context, server_hostname="127.0.0.1", https_compatible=True)
    return Wire(cast("trio.SocketStream", stream))


@pytest.mark.parametrize(("name", "role"), [("backup", "reader"), ("orchestrator", "operator")])
async def test_a_certificate_says_who_asks(
    name: str, role: str, server: RunningServer, store: MemoryStore, authority: Authority
) -> None:
    async with await connect(server, authority.client(name)) as wire:
        for _ in range(3):  # the connection is kept
            assert (await wire.ask("POST", RPC_PATH, JSON, LIST)).status == 200
    assert (store.callers[-1].principal, store.callers[-1].role) == (f"cert:{name}", role)


@pytest.mark.parametrize("name", ["", "somebody"])
async def test_without_a_certificate_that_means_something_a_token_is_needed(
    name: str, server: RunningServer, store: MemoryStore, authority: Authority
) -> None:
    async with await connect(server, authority.client(name)) as wire:
        assert (await wire.ask("POST", RPC_PATH, JSON, LIST)).status == 401
    async with await connect(server, authority.client(name)) as wire:
        headers = JSON | {"Authorization": "Bearer secret"}
        assert (await wire.ask("POST", RPC_PATH, headers, LIST)).status == 200
    assert store.callers[-1].principal == "token:ci"


async def test_a_token_counts_more_than_a_certificate(
    server: RunningServer, store: MemoryStore, authority: Authority
) -> None:
    async with await connect(server, authority.client("backup")) as wire:
        headers = JSON | {"Authorization": "Bearer secret"}
        assert (await wire.ask("POST", RPC_PATH, headers, LIST)).status == 200
    assert (store.callers[-1].principal, store.callers[-1].role) == ("token:ci", "admin")


async def test_a_certificate_of_another_authority_ends_the_connection(
    server: RunningServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with await connect(server, authority.client("backup", forged=True)) as wire:
        with pytest.raises(trio.BrokenResourceError):
            await wire.stream.receive_some(1)  # with TLS 1.3 a client learns of it when it reads
    async with await connect(server, authority.client()) as wire:
        assert (await wire.ask("GET", "/healthz")).status == 200
    assert "refused 127.0.0.1: a certificate that is not good" in caplog.text


async def test_who_does_not_speak_tls_is_let_go(server: RunningServer) -> None:
    async with await Wire.open(server.address) as wire:
        await wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in await wire.rest()


async def test_who_says_nothing_is_let_go(start: Start, store: MemoryStore, authority: Authority) -> None:
    settings = HttpSettings(handshake_seconds=0.05)
    server = await start(store, settings, tls=authority.context())
    async with await Wire.open(server.address) as wire:
        assert await wire.rest() == b""


async def test_a_stream_comes_whole_and_an_upload_arrives_whole(
    server: RunningServer, store: MemoryStore, authority: Authority
) -> None:
    content = bytes(range(256)) * 20_000
    store.snapshots["v@s"] = content
    token = {"Authorization": "Bearer secret"}
    async with await connect(server, authority.client()) as wire:
        reply = await wire.ask("GET", "/snapshots/download?id=v@s", token)
        assert reply.whole
        assert reply.raw_body == content
        assert (await wire.ask("POST", "/volumes/receive?id=w", token, content)).status == 200
    assert store.received["w"] == content


async def test_a_refused_body_is_answered(server: RunningServer, authority: Authority) -> None:
    async with await connect(server, authority.client()) as wire:
        reply = await wire.ask("POST", "/volumes/receive?id=w", {}, bytes(1 << 20))
    assert reply.status == 401
    assert json.loads(reply.body)["error"] == "Unauthenticated"


async def test_a_stream_does_not_go_past_encryption(start: Start, authority: Authority) -> None:
    store = Piped(StreamingStore(bytes(1 << 20)))
    server = await start(store, tls=authority.context())
    async with await connect(server, authority.client()) as wire:
        reply = await wire.ask("GET", "/snapshots/download?id=v@s")
    assert (reply.status, reply.body) == (200, bytes(1 << 20))
    assert not store.went_through_pipe


async def test_a_client_that_stops_reading_is_cut_off(start: Start, authority: Authority) -> None:
    store = EndlessStore(bytes(1 << 20))
    server = await start(store, HttpSettings(stall_seconds=0.1), tls=authority.context())
    async with await connect(server, authority.client()) as wire:
        await wire.send(b"GET /snapshots/download?id=v@s HTTP/1.1\r\nHost: x\r\n\r\n")
        await store.closed.wait()


async def test_stopping_cuts_off_what_is_under_way(start: Start, authority: Authority) -> None:
    store = EndlessStore(bytes(1 << 20))
    server = await start(store, HttpSettings(grace_seconds=0.05), tls=authority.context())
    async with await connect(server, authority.client()) as wire:
        await wire.send(b"GET /snapshots/download?id=v@s HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await wire.stream.receive_some(1)
        server.shutdown.set()
        await server.ended.wait()
    await store.closed.wait()


# --- what a certificate says -------------------------------------------------------


def subject(*names: str) -> dict[str, object]:
    return {"subject": (*((("commonName", name),) for name in names), (("organizationName", "o"),))}


@pytest.mark.parametrize(
    "certificate", [{}, subject(), subject("a", "b"), subject("a\nb"), subject("x" * 129), subject("")]
)
def test_a_certificate_without_one_plain_name_is_nobodys(certificate: dict[str, object]) -> None:
    access = AccessSettings(client_roles={"*": "admin"})
    assert common_name(certificate) == ""
    peer = peer_of_certificate("192.0.2.1", certificate, access)
    assert (peer.principal, peer.role) == ("192.0.2.1", None)


def test_a_star_is_everybody_else() -> None:
    access = AccessSettings(client_roles={"a": "admin", "*": "reader"})
    assert peer_of_certificate("192.0.2.1", subject("a"), access).role == "admin"
    assert peer_of_certificate("192.0.2.1", subject("b"), access).role == "reader"


# --- files that cannot be used -----------------------------------------------------


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    missing, junk = str(tmp_path / "none.pem"), tmp_path / "junk.pem"
    junk.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"tls_certificate .*none\.pem.*no such file"):
        tls_context(missing, authority.key, "")
    with pytest.raises(ConfigError, match="tls_certificate"):
        tls_context(str(junk), authority.key, "")
    with pytest.raises(ConfigError, match=r"tls_client_ca .*junk\.pem"):
        tls_context(authority.certificate, authority.key, str(junk))


def test_a_key_with_a_passphrase_is_refused_and_asks_nobody(authority: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(authority.key).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    with pytest.raises(ConfigError, match="tls_certificate"):
        tls_context(authority.certificate, str(locked), "")
