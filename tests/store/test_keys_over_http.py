"""Keys, receipts and not waiting, as clients in any language say and see them."""

import json
from typing import Any

import pytest

from tests.http.wire import RPC_PATH, Reply, Wire
from tests.imageservice import ImageService, answer
from tests.store.conftest import Run, raw_image
from tests.store.test_feed import served
from tests.store.test_fetch import Gate


async def ask(wire: Wire, method: str, request: Any, *, version: str = "1.0", **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    call: dict[str, Any] = {"method": f"ImageStore.{method}", "params": [request], "id": 7}
    if version == "2.0":
        call["jsonrpc"] = "2.0"
    return await wire.ask(
        "POST", RPC_PATH, {"Content-Type": "application/json", **named}, json.dumps(call).encode()
    )


async def test_a_change_tells_its_operation_and_a_read_none(run: Run) -> None:
    async with served(run) as (_, address), await Wire.open(address) as wire:
        made = await ask(wire, "CreateVolume", {"id": "a", "size": 1})
        operation = made.headers["imagestore-operation"]
        shown = json.loads((await ask(wire, "GetOperation", {"id": operation})).body)["result"]
        assert shown["operations"][0]["status"] == "succeeded"
        assert "imagestore-operation" not in (await ask(wire, "ListVolumes", {})).headers


async def test_the_same_key_gets_the_same_bytes(run: Run) -> None:
    guest = {"guest": {"id": "vm1", "b": 1, "a": {"x": None}, "disks": [{"size": 1}]}}
    again = {"guest": {"disks": [{"size": 1}], "a": {"x": None}, "id": "vm1", "b": 1}}
    async with served(run) as (_, address), await Wire.open(address) as wire:
        first = await ask(wire, "CreateGuestDisks", guest, Idempotency_Key="k")
        second = await ask(wire, "CreateGuestDisks", guest, Idempotency_Key="k")
        assert first.body == second.body
        assert first.headers["imagestore-operation"] == second.headers["imagestore-operation"]
        reordered = await ask(wire, "CreateGuestDisks", again, Idempotency_Key="k")
        assert json.loads(reordered.body) == json.loads(first.body), (
            "the order of members is no other request"
        )
    async with served(run) as (_, address), await Wire.open(address) as wire:
        assert (await ask(wire, "CreateGuestDisks", guest, Idempotency_Key="k")).body == first.body


@pytest.mark.parametrize("key", ["", "x" * 256, "x" * 10_000, "a\x01b"])
async def test_a_key_that_is_none_is_refused(run: Run, key: str) -> None:
    async with served(run) as (_, address), await Wire.open(address) as wire:
        reply = await ask(wire, "CreateVolume", {"id": "a", "size": 1}, Idempotency_Key=key)
        assert reply.status == 400
    async with served(run) as (_, address), await Wire.open(address) as wire:
        assert json.loads((await ask(wire, "ListVolumes", {})).body)["result"] == {"volumes": []}


async def test_whoever_does_not_wait_gets_the_operation(run: Run, service: ImageService) -> None:
    gate = Gate(raw_image())
    service.download("golden", gate, answer(raw_image()))
    async with served(run, image_service=service.address) as (_, address), await Wire.open(address) as wire:
        reply = await ask(wire, "RequestImage", {"id": "golden"}, Prefer="wait=5, respond-async")
        assert reply.headers["preference-applied"] == "respond-async"
        (operation,) = json.loads(reply.body)["result"]["operations"]
        assert operation["id"] == reply.headers["imagestore-operation"]
        assert operation["status"] == "running"
        gate.open.set()
        ended = json.loads((await ask(wire, "WaitOperation", {"id": operation["id"]})).body)["result"]
        assert ended["operations"][0]["status"] == "succeeded"
        refused = await ask(wire, "CreateVolume", {"id": "", "size": 1}, Prefer="respond-async")
        assert json.loads(refused.body)["error"] == "need an id"
        assert "preference-applied" not in refused.headers


async def test_an_error_of_version_2_names_its_operation(run: Run, service: ImageService) -> None:
    async with served(run, image_service=service.address) as (_, address), await Wire.open(address) as wire:
        reply = await ask(wire, "RequestImage", {"id": "absent"}, version="2.0", Idempotency_Key="k")
        error = json.loads(reply.body)["error"]
        assert error["data"]["operation"] == reply.headers["imagestore-operation"]
        other = await ask(wire, "RequestImage", {"id": "other"}, version="2.0", Idempotency_Key="k")
        assert json.loads(other.body)["error"]["code"] == -32008
        refused = await ask(wire, "GetVolume", {"id": "none"}, version="2.0")
        assert "operation" not in json.loads(refused.body)["error"]["data"]


async def send_stream(address: tuple[str, int], path: str, body: bytes, key: str) -> Reply:
    """On a connection of its own: a body that is refused ends it."""
    async with await Wire.open(address) as wire:
        return await wire.ask("POST", path, {"Idempotency-Key": key}, body)


async def test_an_upload_is_taken_in_once(run: Run) -> None:
    async with served(run) as (_, address), await Wire.open(address) as wire:
        await ask(wire, "CreateVolume", {"id": "a", "size": 1})
        await ask(wire, "CreateSnapshot", {"id": "a", "dest": "monday"})
        stream = (await wire.ask("GET", "/snapshots/download?id=a@monday")).body
        first = await send_stream(address, "/volumes/receive?id=b", stream, "k")
        assert first.status == 200
        again = await send_stream(address, "/volumes/receive?id=b", stream, "k")
        assert (again.status, again.body) == (200, first.body)
        assert again.headers["imagestore-operation"] == first.headers["imagestore-operation"]
        other = await send_stream(address, "/volumes/receive?id=c", stream, "k")
        assert (other.status, json.loads(other.body)["error"]) == (422, "KeyReused")
        twice = await send_stream(address, "/volumes/receive?id=b", stream, "other")
        assert twice.status == 409, "without the key it is another upload, onto what is there"
    async with served(run) as (_, address), await Wire.open(address) as wire:
        assert (await send_stream(address, "/volumes/receive?id=b", stream, "k")).body == first.body


async def test_an_upload_that_failed_frees_its_key(run: Run) -> None:
    async with served(run) as (_, address), await Wire.open(address) as wire:
        body = raw_image()
        failed = await send_stream(address, f"/images/upload?id=golden&sha256={'0' * 64}", body, "k")
        assert failed.status == 422
        again = await send_stream(address, f"/images/upload?id=golden&sha256={'0' * 64}", body, "k")
        assert again.status == 422
        assert again.headers["imagestore-operation"] != failed.headers["imagestore-operation"]
        right = await send_stream(address, "/images/upload?id=golden", body, "l")
        assert right.status == 200
        assert (await send_stream(address, "/images/upload?id=golden", body, "l")).body == right.body
        operation = right.headers["imagestore-operation"]
        shown = json.loads((await ask(wire, "GetOperation", {"id": operation})).body)["result"]
        assert shown["operations"][0]["status"] == "succeeded"
