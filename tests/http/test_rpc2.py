"""JSON-RPC 2.0: the specification's own examples, the store's errors, and what stays version 1.0."""

import json
from typing import Any

import pytest

from imagestore import errors
from imagestore.http import rpc, rpc2
from imagestore.model import ImageRequest, ImageResponse
from imagestore.service import METHODS, Caller
from tests.http.memory_store import MemoryStore

JSON = {"content-type": "application/json"}


async def ask(store: MemoryStore, body: object) -> tuple[int, Any]:
    """Status and decoded body; None for an empty one."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await rpc.answer(store, Caller(principal="test"), "POST", JSON, data)
    return answer.status, json.loads(answer.body) if answer.body else None


def request(method: object = "ListImages", **more: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "method": method, **more}


INVALID = {"jsonrpc": "2.0", "error": {"code": -32600}, "id": None}


def without_messages(answer: Any) -> Any:
    """An answer whose errors are their codes only."""
    if isinstance(answer, list):
        return [without_messages(each) for each in answer]
    if isinstance(answer, dict) and "error" in answer:
        return answer | {"error": {"code": answer["error"]["code"]}}
    return answer


@pytest.mark.parametrize("identity", [1, "one", None, 2**70, 1.50])
async def test_a_request_is_answered_with_its_id(store: MemoryStore, identity: object) -> None:
    status, said = await ask(store, request(id=identity))
    assert status == 200
    assert said == {"jsonrpc": "2.0", "result": {"images": []}, "id": identity}


@pytest.mark.parametrize("params", [{"id": "x", "size": 1}, [{"id": "x", "size": 1}]])
async def test_parameters_are_named_or_in_an_array(store: MemoryStore, params: object) -> None:
    _, said = await ask(store, request("ImageStore.CreateVolume", params=params, id=1))
    assert said["result"]["volumes"][0]["id"] == "mem/x"


@pytest.mark.parametrize("more", [{}, {"params": {}}, {"params": []}])
async def test_parameters_may_be_left_out(store: MemoryStore, more: dict[str, object]) -> None:
    assert (await ask(store, request(id=1) | more))[1]["result"] == {"images": []}


async def test_a_notification_is_never_answered(store: MemoryStore) -> None:
    assert await ask(store, request()) == (204, None)
    assert await ask(store, request("Nope")) == (204, None)
    assert await ask(store, request("GetImage", params={"id": 5})) == (204, None)
    assert await ask(store, [request(), request("Nope")]) == (204, None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', -32700),
        (b'[{"jsonrpc": "2.0", "method"', -32700),
        (request(id=1, method=1), -32600),
        ({"jsonrpc": "2.0", "id": 1}, -32600),
        (request(params="bar", id=1), -32600),
        (request(id=[1]), -32600),
        ([request(id=number) for number in range(rpc2.MAX_BATCH + 1)], -32600),
    ],
)
async def test_what_is_no_request_gets_one_error_with_the_id_null(
    store: MemoryStore, body: object, code: int
) -> None:
    status, said = await ask(store, body)
    assert (status, said["error"]["code"], said["id"]) == (200, code, None)


async def test_a_method_or_parameter_that_is_none_is_named(store: MemoryStore) -> None:
    _, said = await ask(store, request("Nope", id=1))
    assert said["error"] == {"code": -32601, "message": "there is no method 'Nope'; see rpc.discover"}
    _, said = await ask(store, request("GetImage", params={"id": 5}, id=1))
    assert said["error"]["code"] == -32602
    assert "ImageRequest.id of type string" in said["error"]["message"]
    _, said = await ask(store, request(params=[{}, {}], id=1))
    assert said["error"]["code"] == -32602


async def test_a_batch_answers_what_asks_in_order(store: MemoryStore) -> None:
    status, said = await ask(
        store,
        [
            request(id="1"),
            request(),
            request("Nope", id="2"),
            1,
            {"foo": "boo"},
            request("rpc.discover", id="9"),
        ],
    )
    assert status == 200
    assert [each["id"] for each in said] == ["1", "2", None, None, "9"]
    assert without_messages(said[1:4]) == [
        {"jsonrpc": "2.0", "error": {"code": -32601}, "id": "2"},
        INVALID,
        INVALID,
    ]


async def test_errors_of_the_store_are_problems(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def in_use(request: ImageRequest, caller: Caller) -> ImageResponse:
        raise errors.InUse.by("guests/x/disk-0", ["pid 4242 qemu"])

    async def busy(request: ImageRequest, caller: Caller) -> ImageResponse:
        raise errors.TemporarilyUnavailable

    async def broken(request: ImageRequest, caller: Caller) -> ImageResponse:
        raise RuntimeError("secret")

    monkeypatch.setattr(store, "delete_image", in_use)
    _, said = await ask(store, request("DeleteImage", params={"id": "x"}, id=1))
    assert said["error"] == {
        "code": -32003,
        "message": "dataset is in use: guests/x/disk-0 (pid 4242 qemu)",
        "data": {
            "type": "about:blank",
            "title": "dataset is in use: guests/x/disk-0 (pid 4242 qemu)",
            "status": 409,
            "retryable": False,
            "error": "InUse",
            "detail": 'stop the process, or set "force": true in the request',
            "blockers": ["pid 4242 qemu"],
        },
    }
    monkeypatch.setattr(store, "delete_image", busy)
    _, said = await ask(store, request("DeleteImage", params={"id": "x"}, id=1))
    assert (said["error"]["code"], said["error"]["data"]["retryable"]) == (-32000, True)
    monkeypatch.setattr(store, "delete_image", broken)
    _, said = await ask(store, request("DeleteImage", params={"id": "x"}, id=1))
    assert said["error"]["code"] == -32603
    assert "secret" not in json.dumps(said)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (b"[1]", 400),
        (b'{"method":"ListImages","params":[{"id":"\\"jsonrpc\\":\\"2.0\\""}],"id":1}', 200),
        (b'{"method":"ListImages","params":[{"jsonrpc":"2.0"}],"id":1}', 200),
        (b'{"jsonrpc":"1.0","method":"ListImages","params":[{}],"id":1}', 200),
    ],
)
async def test_what_does_not_say_so_stays_version_1(store: MemoryStore, body: bytes, status: int) -> None:
    answer = await rpc.answer(store, Caller(principal="test"), "POST", JSON, body)
    assert answer.status == status
    assert b"jsonrpc" not in answer.body


async def test_the_document_describes_every_method(store: MemoryStore) -> None:
    _, said = await ask(store, request("rpc.discover", id=1))
    document = said["result"]
    assert document["openrpc"] == "1.3.2"
    described = {method["name"]: method for method in document["methods"]}
    assert sorted(described) == sorted(f"ImageStore.{method.name}" for method in METHODS)
    for method in document["methods"]:
        name = method["result"]["schema"]["$ref"].rpartition("/")[2]
        assert document["components"]["schemas"][name]["type"] == "object"
    size = {each["name"]: each["schema"] for each in described["ImageStore.CreateVolume"]["params"]}["size"]
    assert size == {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}
    assert document["components"]["errors"]["NoSpace"]["code"] == -32004
