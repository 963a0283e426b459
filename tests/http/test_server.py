"""The server on real sockets: health, limits, keep-alive, and the end."""

import errno
import socket

import pytest
import trio
import trio.testing

from imagestore.errors import ConfigError
from imagestore.http import connection as connection_module
from imagestore.http.listeners import open_listener
from imagestore.http.server import serve_http
from imagestore.http.settings import HttpSettings
from imagestore.service import Readiness
from tests.http.conftest import Start
from tests.http.gated_store import GatedStore
from tests.http.memory_store import MemoryStore
from tests.http.wire import RPC_PATH, Wire, request_bytes

JSON = {"Content-Type": "application/json"}
LIST = b'{"method":"ListImages","params":[{}],"id":1}'
LISTED = b'{"result":{"images":[]},"error":null,"id":1}\n'
GET_IMAGE = b'{"method":"GetImage","params":[{"id":"x"}],"id":1}'
Address = tuple[str, int]


# --- health and unknown paths


async def test_health_is_200_while_the_process_lives(store: MemoryStore, address: Address) -> None:
    store.ready = Readiness(ready=False, reason="replaying the journal")
    async with await Wire.open(address) as wire:
        reply = await wire.ask("GET", "/healthz")
    assert (reply.status, reply.body) == (200, b"ok\n")


async def test_readiness_is_200_when_ready(address: Address) -> None:
    async with await Wire.open(address) as wire:
        reply = await wire.ask("GET", "/readyz")
    assert (reply.status, reply.body) == (200, b"ready\n")


@pytest.mark.parametrize(
    ("readiness", "title"),
    [
        (Readiness(ready=False, reason="replaying\nthe journal"), "not ready"),
        (Readiness(ready=True, read_only=True, reason="replaying the journal"), "store is read-only"),
    ],
)
async def test_readiness_is_503_with_a_line_that_says_why(
    readiness: Readiness, title: str, store: MemoryStore, address: Address
) -> None:
    store.ready = readiness
    async with await Wire.open(address) as wire:
        reply = await wire.ask("GET", "/readyz")
    assert reply.status == 503
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.body.decode() == (
        f'{{"type":"about:blank","title":"{title}","status":503,"detail":"replaying the journal"}}'
    )


@pytest.mark.parametrize(
    "path",
    [
        "/ui/",
        "/ui/../app.py",
        "/nowhere",
        RPC_PATH + "/",
        RPC_PATH + "x",
        "/_MISTIFY_RPC_",
        "/snapshots/download/",
        "//",
    ],
)
async def test_other_paths_are_404(path: str, address: Address) -> None:
    async with await Wire.open(address) as wire:
        reply = await wire.ask("POST", path, JSON, LIST)
    assert (reply.status, reply.body) == (404, b"404 page not found\n")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"


async def test_a_wrong_verb_on_a_new_endpoint_is_a_problem_that_names_the_right_ones(
    address: Address,
) -> None:
    async with await Wire.open(address) as wire:
        reply = await wire.ask("POST", "/healthz")
    assert reply.status == 405
    assert reply.headers["content-type"] == "application/problem+json"
    assert {verb.strip() for verb in reply.headers["allow"].split(",")} == {"GET", "HEAD", "OPTIONS"}


async def test_a_defect_in_a_new_endpoint_is_a_problem_with_an_incident(start: Start) -> None:
    class Broken(MemoryStore):
        def readiness(self) -> Readiness:
            raise ZeroDivisionError("secret")

    async with await Wire.open((await start(Broken())).address) as wire:
        reply = await wire.ask("GET", "/readyz")
    assert reply.status == 500
    assert b"incident " in reply.body
    assert b"secret" not in reply.body


async def test_a_whole_url_as_target_finds_its_path(address: Address) -> None:
    async with await Wire.open(address) as wire:
        reply = await wire.ask("POST", f"http://test{RPC_PATH}", JSON, LIST)
    assert reply.body == LISTED


async def test_the_principal_is_the_peers_address_without_its_port(
    store: MemoryStore, address: Address
) -> None:
    async with await Wire.open(address) as wire:
        await wire.ask("POST", RPC_PATH, JSON, LIST)
    assert [caller.principal for caller in store.callers] == ["127.0.0.1"]


async def test_a_websocket_is_refused(address: Address) -> None:
    async with await Wire.open(address) as wire:
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        reply = await wire.ask("GET", "/healthz", headers)
    assert reply.status == 403


# --- connections


async def test_a_connection_is_kept_alive(address: Address) -> None:
    async with await Wire.open(address) as wire:
        for _ in range(50):
            assert (await wire.ask("POST", RPC_PATH, JSON, LIST)).body == LISTED


async def test_pipelined_requests_are_answered_in_order(address: Address) -> None:
    async with await Wire.open(address) as wire:
        bodies = [LIST.replace(b'"id":1', b'"id":%d' % number) for number in range(20)]
        await wire.send(b"".join(request_bytes("POST", RPC_PATH, JSON, body) for body in bodies))
        replies = [await wire.reply() for _ in bodies]
    assert [reply.body for reply in replies] == [
        LISTED.replace(b'"id":1', b'"id":%d' % number) for number in range(20)
    ]


@pytest.mark.parametrize(
    "asked",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0",
    ],
    ids=["upgrade", "prior knowledge"],
)
async def test_who_asks_for_http_2_is_answered_in_http_1(asked: bytes, address: Address) -> None:
    async with await Wire.open(address) as wire:
        await wire.send(asked)
        answer = await wire.rest()
    assert answer.startswith(b"HTTP/1.1 200" if asked.startswith(b"GET") else b"HTTP/1.1 4")


async def test_a_client_that_is_gone_before_it_is_served_is_no_incident(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(connection_module, "parse_socket_addr", gone)
    async with await Wire.open(address) as wire:
        assert await wire.rest() == b""


@pytest.mark.parametrize("path", [RPC_PATH, "/healthz", "/nowhere"])
async def test_connection_close_is_honoured(path: str, address: Address) -> None:
    async with await Wire.open(address) as wire:
        await wire.send(request_bytes("POST", path, JSON | {"Connection": "close"}, LIST))
        received = await wire.rest()
    assert received.startswith(b"HTTP/1.1 ")


async def test_an_answer_is_sent_in_one_packet_with_its_headers(address: Address) -> None:
    async with await Wire.open(address) as wire:
        await wire.send(request_bytes("POST", RPC_PATH, JSON, LIST))
        received = await wire.stream.receive_some(1 << 16)
    assert received.endswith(LISTED)


async def test_an_idle_connection_is_closed(start: Start, store: MemoryStore) -> None:
    server = await start(store, HttpSettings(keep_alive_seconds=0.05))
    async with await Wire.open(server.address) as wire:
        assert (await wire.ask("GET", "/healthz")).status == 200
        assert await wire.rest() == b""


async def test_a_request_whose_headers_never_end_is_cut_off(start: Start, store: MemoryStore) -> None:
    server = await start(store, HttpSettings(keep_alive_seconds=0.05))
    async with await Wire.open(server.address) as wire:
        await wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert await wire.rest() == b""


async def test_headers_over_the_limit_are_refused(start: Start, store: MemoryStore) -> None:
    server = await start(store, HttpSettings(max_header_bytes=1000))
    async with await Wire.open(server.address) as wire:
        await wire.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 2000)
        assert (await wire.reply("GET")).status == 431


async def test_what_is_not_http_is_refused(address: Address) -> None:
    async with await Wire.open(address) as wire:
        await wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")
        assert (await wire.rest()).startswith(b"HTTP/1.1 400")


async def test_over_the_limit_the_longest_idle_connection_is_closed(start: Start, store: MemoryStore) -> None:
    server = await start(store, HttpSettings(max_connections=2))
    async with await Wire.open(server.address) as first, await Wire.open(server.address) as second:
        assert (await second.ask("GET", "/healthz")).status == 200
        assert (await first.ask("GET", "/healthz")).status == 200
        async with await Wire.open(server.address) as third:
            assert (await third.ask("GET", "/healthz")).status == 200
            assert await second.rest() == b""
            assert (await first.ask("GET", "/healthz")).status == 200


async def test_over_the_limit_with_none_idle_a_connection_is_turned_away(start: Start) -> None:
    store = GatedStore()
    server = await start(store, HttpSettings(max_connections=1))
    async with await Wire.open(server.address) as first:
        await first.send(request_bytes("POST", RPC_PATH, JSON, GET_IMAGE))
        await store.entered.wait()
        async with await Wire.open(server.address) as second:
            assert (await second.reply("GET")).status == 503
    await store.left.wait()


async def test_a_caller_that_hangs_up_is_no_longer_waited_for(start: Start) -> None:
    store = GatedStore()
    server = await start(store)
    async with await Wire.open(server.address) as wire:
        await wire.send(request_bytes("POST", RPC_PATH, JSON, GET_IMAGE))
        await store.entered.wait()
    await store.left.wait()
    assert store.was_cancelled


# --- the listening socket


async def test_a_port_in_use_is_one_line_that_says_what_to_do(store: MemoryStore, address: Address) -> None:
    with pytest.raises(ConfigError) as caught:
        await serve_http(store, host="127.0.0.1", port=address[1], shutdown=trio.Event())
    assert str(caught.value) == (
        f"port {address[1]} is in use: stop what listens on 127.0.0.1:{address[1]}, or choose another"
        " with --port (0 takes a free one)"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "host.invalid."])
async def test_an_address_that_is_not_ours_is_one_line(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^cannot listen on [^\n]+$"):
        await open_listener(host, 0)


async def test_an_ipv6_address_can_be_listened_on(nursery: trio.Nursery) -> None:
    listener = await open_listener("::1", 0)
    async with listener:
        assert listener.socket.family == socket.AF_INET6


# --- the end


async def test_stopping_accepts_no_more_and_closes_what_is_idle(start: Start, store: MemoryStore) -> None:
    server = await start(store)
    async with await Wire.open(server.address) as idle:
        assert (await idle.ask("GET", "/healthz")).status == 200
        server.shutdown.set()
        assert await idle.rest() == b""
        await server.ended.wait()
    with pytest.raises(OSError, match="all attempts to connect"):
        await Wire.open(server.address)


async def test_a_request_under_way_is_answered_before_the_server_ends(start: Start) -> None:
    store = GatedStore()
    server = await start(store)
    async with await Wire.open(server.address) as wire:
        await wire.send(request_bytes("POST", RPC_PATH, JSON, GET_IMAGE))
        await store.entered.wait()
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not server.ended.is_set()
        store.gate.set()
        reply = await wire.reply()
        assert reply.body == b'{"result":null,"error":"not found","id":1}\n'
        assert await wire.rest() == b""
    await server.ended.wait()


async def test_a_request_that_outlasts_the_grace_is_cut(start: Start) -> None:
    store = GatedStore()
    server = await start(store, HttpSettings(grace_seconds=0.05))
    async with await Wire.open(server.address) as wire:
        await wire.send(request_bytes("POST", RPC_PATH, JSON, GET_IMAGE))
        await store.entered.wait()
        server.shutdown.set()
        await server.ended.wait()
        assert not (await wire.reply()).whole
    assert store.was_cancelled
