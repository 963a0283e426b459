"""Who is let in, and what each role may: a real server on real sockets.

``loopback_role=None`` makes this machine a stranger to it, as other machines are.
"""

import getpass
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import trio

from imagestore import errors
from imagestore.access import AccessRole, allows
from imagestore.http.attempts import FREE
from imagestore.http.settings import AccessSettings
from imagestore.model import Image
from imagestore.service import METHODS, Caller, Grant
from tests.http.conftest import Start
from tests.http.gated_store import HeldStore
from tests.http.memory_store import MemoryStore
from tests.http.wire import RPC_PATH, Reply, Wire, request_bytes

Address = tuple[str, int]
JSON = {"Content-Type": "application/json"}
STRANGERS = AccessSettings(loopback_role=None)


@pytest.fixture
async def strange(start: Start, store: MemoryStore) -> Address:
    """A server that trusts no address; it knows the tokens reader, operator, admin and old."""
    for role in ("reader", "operator", "admin"):
        store.hand_out(role, f"the-{role}", role)
    store.hand_out("old", "the-old", "admin", expired=True)
    return (await start(store, access=STRANGERS)).address


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def ask(
    address: Address,
    path: str,
    *,
    token: str = "",
    method: str = "GET",
    headers: dict[str, str] | None = None,
) -> Reply:
    async with await Wire.open(address) as wire:
        return await wire.ask(method, path, (headers or {}) | bearing(token))


async def call(address: Address, method: str, params: dict[str, Any], *, token: str = "") -> Reply:
    body = json.dumps({"method": f"ImageStore.{method}", "params": [params], "id": 1}).encode()
    async with await Wire.open(address) as wire:
        return await wire.ask("POST", RPC_PATH, JSON | bearing(token), body)


async def call2(address: Address, method: str, params: dict[str, Any], *, token: str = "") -> Any:
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()
    async with await Wire.open(address) as wire:
        reply = await wire.ask("POST", RPC_PATH, JSON | bearing(token), body)
    assert reply.status == 200
    return json.loads(reply.body)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/metrics", "GET"),
        ("/events", "GET"),
        ("/images", "GET"),
        ("/images/debian/download", "GET"),
        ("/snapshots/download?id=v@s", "GET"),
        ("/volumes/receive?id=v", "POST"),
        ("/images/upload?id=x", "POST"),
        ("/nothing", "GET"),
        (RPC_PATH, "POST"),
    ],
)
async def test_without_a_token_nobody_from_elsewhere_is_let_in(
    path: str, method: str, strange: Address
) -> None:
    reply = await ask(strange, path, method=method)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == 'Bearer realm="imagestore"'
    assert reply.headers["content-type"] == "application/problem+json"
    said = json.loads(reply.body)
    assert (said["error"], said["status"]) == ("Unauthenticated", 401)
    assert "imagestore token create" in said["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_anybody_may_ask_whether_it_lives(path: str, strange: Address) -> None:
    assert (await ask(strange, path)).status == 200


@pytest.mark.parametrize("token", ["", "unknown", "old", "READER", "x" * 10_000])
async def test_a_body_is_not_waited_for_before_the_refusal(token: str, strange: Address) -> None:
    async with await Wire.open(strange) as wire:
        announced = JSON | bearing(token) | {"Content-Length": "1000000"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in announced.items())
        await wire.send(f"POST {RPC_PATH} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        assert (await wire.reply()).status == 401


async def test_a_token_of_this_machine_that_is_not_good_is_refused_too(
    start: Start, store: MemoryStore
) -> None:
    address = (await start(store)).address
    assert (await ask(address, "/metrics", token="wrong")).status == 401
    assert (await ask(address, "/metrics")).status == 200
    assert (await ask(address, "/metrics", headers={"Authorization": "Basic eDp5"})).status == 200


@pytest.mark.parametrize("role", ["reader", "operator", "admin"])
async def test_each_method_is_open_to_its_role_and_those_above(
    role: AccessRole, strange: Address, store: MemoryStore
) -> None:
    for method in METHODS:
        said = json.loads((await call(strange, method.name, {}, token=role)).body)
        refused = str(said["error"]).startswith("permission denied: ")
        assert refused != allows(role, method.needs), method.name


def test_readers_change_nothing_and_what_is_the_admins_is_on_this_list() -> None:
    assert {method.name for method in METHODS if method.needs == "admin"} == {
        "AdoptDataset",
        "AdoptOriginal",
        "ReleaseDataset",
        "CreateToken",
        "ListTokens",
        "RevokeToken",
    }
    assert not [method.name for method in METHODS if method.mutates and method.needs == "reader"]
    beyond = [method.name for method in METHODS if not method.mutates and method.needs == "operator"]
    assert beyond == ["CancelOperation"]


async def test_a_role_that_is_not_enough_is_named_on_both_wires(strange: Address) -> None:
    text = "permission denied: CreateVolume needs the role operator, token:the-reader is reader"
    reply = await call(strange, "CreateVolume", {"id": "v", "size": 8}, token="reader")
    assert (reply.status, json.loads(reply.body)) == (200, {"result": None, "error": text, "id": 1})
    error = (await call2(strange, "ImageStore.CreateVolume", {"id": "v", "size": 8}, token="reader"))["error"]
    assert (error["code"], error["message"]) == (-32051, text)
    assert (error["data"]["status"], error["data"]["error"]) == (403, "Forbidden")
    assert (await call2(strange, "rpc.discover", {}, token="reader"))["result"]["openrpc"]


async def test_force_is_the_admins(strange: Address, store: MemoryStore) -> None:
    store.volumes["v"] = 8
    asked = {"id": "v", "force": True}
    said = json.loads((await call(strange, "DeleteDataset", asked, token="operator")).body)
    assert said["error"] == (
        "permission denied: DeleteDataset with force needs the role admin, token:the-operator is operator"
    )
    assert "v" in store.volumes
    assert json.loads((await call(strange, "DeleteDataset", asked, token="admin")).body)["error"] is None


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        ("reader", "/volumes/receive?id=v", 403),
        ("operator", "/volumes/receive?id=v", 200),
        ("operator", "/volumes/receive?id=v&force=true", 403),
        ("admin", "/volumes/receive?id=v&force=true", 200),
        ("reader", "/images/upload?id=x", 403),
        ("operator", "/images/upload?id=x", 200),
    ],
)
async def test_uploads_are_the_operators(token: str, path: str, status: int, strange: Address) -> None:
    async with await Wire.open(strange) as wire:
        reply = await wire.ask("POST", path, bearing(token), b"stream")
    assert reply.status == status
    if status == 403:
        assert json.loads(reply.body)["error"] == "Forbidden"


@pytest.mark.parametrize("path", ["/metrics", "/images", "/snapshots/download?id=v@s"])
async def test_a_reader_may_read(path: str, strange: Address, store: MemoryStore) -> None:
    store.snapshots["v@s"] = b"stream"
    assert (await ask(strange, path, token="reader")).status == 200


async def test_images_are_open_if_the_settings_say_so_and_nothing_else_is(
    start: Start, store: MemoryStore
) -> None:
    store.images["debian"] = Image(id="debian", snapshot="i@s", status="complete")
    store.snapshots["i@s"] = b"stream"
    access = AccessSettings(loopback_role=None, open_images=True)
    address = (await start(store, access=access)).address
    assert (await ask(address, "/images")).status == 200
    assert (await ask(address, "/images/debian")).status == 200
    assert (await ask(address, "/images/debian/download")).raw_body == b"stream"
    assert (await ask(address, "/images/upload?id=x", method="POST")).status == 401
    assert (await ask(address, "/snapshots/download?id=i@s")).status == 401
    assert (await ask(address, "/images", token="wrong")).status == 401


async def test_the_principal_is_who_was_let_in(strange: Address, store: MemoryStore, start: Start) -> None:
    assert (await call(strange, "ListImages", {}, token="operator")).status == 200
    trusting = (await start(store)).address
    assert (await call(trusting, "ListImages", {})).status == 200
    assert (await call(trusting, "ListImages", {}, token="reader")).status == 200
    assert store.callers[-3:] == [
        Caller(principal="token:the-operator", role="operator", receipt=store.callers[-3].receipt),
        Caller(principal="127.0.0.1", role="admin", receipt=store.callers[-2].receipt),
        Caller(principal="token:the-reader", role="reader", receipt=store.callers[-1].receipt),
    ]


async def test_a_guarded_network_and_a_lesser_loopback_are_settings(start: Start, store: MemoryStore) -> None:
    lesser = (await start(store, access=AccessSettings(loopback_role="reader"))).address
    said = json.loads((await call(lesser, "CreateVolume", {"id": "v", "size": 8})).body)
    assert said["error"].startswith("permission denied: ")
    assert (await ask(lesser, "/metrics")).status == 200


async def test_a_page_of_another_site_cannot_use_who_sits_before_it(start: Start, store: MemoryStore) -> None:
    address = (await start(store)).address
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        async with await Wire.open(address) as wire:
            headers = {"Sec-Fetch-Site": site}
            reply = await wire.ask("POST", f"/volumes/receive?id={site}", headers, b"stream")
        assert reply.status == status, site
        assert (await ask(address, "/metrics", headers=headers)).status == 200, "reading is harmless"


async def test_wrong_tokens_are_logged_without_themselves_and_then_not_looked_at(
    strange: Address, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for number in range(FREE):
            assert (await ask(strange, "/metrics", token=f"secret-{number}")).status == 401
        reply = await ask(strange, "/metrics", token="reader")
    assert reply.status == 429, "a good one is not looked at either"
    assert int(reply.headers["retry-after"]) >= 1
    assert json.loads(reply.body)["error"] == "TooManyAttempts"
    assert (await ask(strange, "/metrics")).status == 401, "no token is no attempt"
    assert (await ask(strange, "/healthz")).status == 200
    told = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert told == [
        f"refused 127.0.0.1: a token that is not known; {count} of late" for count in range(1, FREE + 1)
    ]
    assert "secret-" not in caplog.text


async def test_an_expired_token_is_told_apart_in_the_log(
    strange: Address, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await ask(strange, "/metrics", token="old")
    assert json.loads(reply.body)["title"] == "the token has expired"
    assert "token:the-old has expired" in caplog.text


async def test_on_a_unix_socket_the_user_is_known(start: Start, store: MemoryStore, tmp_path: Path) -> None:
    path = str(tmp_path / "run" / "imagestore.sock")
    server = await start(store, access=STRANGERS, socket=path)
    body = b'{"method":"ListImages","params":[{}],"id":1}'
    async with Wire(await trio.open_unix_socket(path)) as wire:
        for _ in range(2):
            assert (await wire.ask("POST", RPC_PATH, JSON, body)).status == 200
    assert (store.callers[-1].principal, store.callers[-1].role) == (f"unix:{getpass.getuser()}", "admin")
    assert (await ask(server.address, "/metrics")).status == 401, "the TCP port beside it trusts nobody"
    server.shutdown.set()
    await server.ended.wait()
    assert not Path(path).exists()


async def test_a_store_that_is_still_starting_does_not_call_a_token_wrong(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    class Starting(MemoryStore):
        def grant(self, sha256: str) -> Grant | None:
            raise errors.TemporarilyUnavailable("store is starting")

    address = (await start(Starting(), access=STRANGERS)).address
    for _ in range(FREE + 1):
        reply = await ask(address, "/metrics", token="reader")
        assert (reply.status, json.loads(reply.body)["title"]) == (503, "store is starting")
    assert "refused" not in caplog.text


async def test_what_cannot_be_a_token_at_all_is_no_defect_of_ours(strange: Address) -> None:
    for header in ("Bearer", "Bearer  ", "bearer \xff\xfe", "Bearer a b c", "BEARER " + "x" * 5000):
        async with await Wire.open(strange) as wire:
            await wire.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: ")
            await wire.send(header.encode("latin-1") + b"\r\n\r\n")
            assert (await wire.reply("GET")).status == 401, header


@pytest.mark.parametrize("is_revoked", [True, False], ids=["revoked", "expired"])
async def test_a_download_is_judged_at_its_start_and_ends_whole(start: Start, is_revoked: bool) -> None:
    store = HeldStore(b"half")
    store.hand_out("secret", "ci", "reader")
    address = (await start(store, access=STRANGERS)).address
    request = request_bytes("GET", "/snapshots/download?id=v@s", bearing("secret"), b"")
    async with await Wire.open(address) as wire:
        await wire.send(request)
        await store.held.wait()
        if is_revoked:
            store.grants.clear()
        else:
            store.hand_out("secret", "ci", "reader", expired=True)
        store.gate.set()
        begun = await wire.reply("GET")
        assert (begun.status, begun.body, begun.whole) == (200, b"halfhalf", True)
        await wire.send(request)
        assert (await wire.reply("GET")).status == 401
