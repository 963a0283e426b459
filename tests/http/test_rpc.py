"""The RPC answer as a function: the transport table line by line, and what the store says."""

import logging

import msgspec
import pytest

from imagestore import errors
from imagestore.http import rpc
from imagestore.http.answer import Answer
from imagestore.model import ImageRequest, ImageResponse, VolumeRequest, VolumeResponse
from imagestore.service import LOCAL, METHODS, Caller
from tests.http.memory_store import MemoryStore

JSON = {"content-type": "application/json"}


async def ask(store: MemoryStore, body: str | bytes, verb: str = "POST", **headers: str) -> Answer:
    data = body.encode() if isinstance(body, str) else body
    sent = JSON | {name.replace("_", "-"): text for name, text in headers.items()}
    return await rpc.answer(store, Caller(principal="test"), verb, sent, data)


async def call(store: MemoryStore, method: str, params: str = "[{}]", identity: str = "7") -> Answer:
    return await ask(store, f'{{"method":"{method}","params":{params},"id":{identity}}}')


# --- the table


@pytest.mark.parametrize(
    ("verb", "content_type", "body", "status", "text"),
    [
        ("PUT", "text/plain", b"x", 405, "rpc: POST method required, received PUT"),
        ("DELETE", "application/json", b"", 405, "rpc: POST method required, received DELETE"),
        ("post", "application/json", b"{}", 405, "rpc: POST method required, received post"),
        ("GET", "application/json", b"", 405, "rpc: POST method required, received GET"),
        ("PUT", "application/json", None, 405, "rpc: POST method required, received PUT"),
        ("POST", "", b"{}", 415, "rpc: unrecognized Content-Type: "),
        ("POST", "application/json ;x", b"{}", 415, "rpc: unrecognized Content-Type: application/json "),
        ("POST", "Text/Plain;a=b", b"x", 415, "rpc: unrecognized Content-Type: Text/Plain"),
        ("POST", "text/plain", None, 415, "rpc: unrecognized Content-Type: text/plain"),
        ("POST", "application/json", None, 413, "request body too large"),
        ("POST", "application/json", b"", 400, "EOF"),
        ("GET", "application/json", b"x", 400, "invalid character 'x' looking for beginning of value"),
        (
            "POST",
            "application/json",
            b"5",
            400,
            "json: cannot unmarshal number into Go value of type json.serverRequest",
        ),
        ("POST", "application/json", b"null", 400, 'rpc: service/method request ill-formed: ""'),
        ("POST", "application/json", b"{}", 400, 'rpc: service/method request ill-formed: ""'),
        (
            "POST",
            "application/json",
            b'{"method":null}',
            400,
            'rpc: service/method request ill-formed: ""',
        ),
        (
            "POST",
            "application/json",
            b'{"method":"a.b.c"}',
            400,
            'rpc: service/method request ill-formed: "a.b.c"',
        ),
        (
            "POST",
            "application/json",
            b'{"method":"a\\"\\n\\u0000\\u200b.b"}',
            400,
            'rpc: can\'t find service "a\\"\\n\\x00\\u200b.b"',
        ),
        (
            "POST",
            "application/json",
            b'{"method":"ImageStore.Nope","params":5}',
            400,
            'rpc: can\'t find method "ImageStore.Nope"',
        ),
        (
            "POST",
            "application/json",
            b'{"method":"ListImages","params":null}',
            400,
            "rpc: method request ill-formed: missing params field",
        ),
        (
            "POST",
            "application/json",
            b'{"method":"ListImages","params":5}',
            400,
            "json: cannot unmarshal number into Go value of type [1]interface {}",
        ),
        (
            "POST",
            "application/json",
            b'{"method":"ListImages","params":[[]]}',
            400,
            "json: cannot unmarshal array into Go value of type rpc.ImageRequest",
        ),
        (
            "POST",
            "application/json",
            b'{"method":"ListImages","params":[{"id":' + b"1" * 5000 + b"}]}",
            400,
            "json: Integer value out of range - at `$[...]`",
        ),
    ],
)
async def test_the_first_failing_check_of_the_table_answers(
    verb: str, content_type: str, body: bytes | None, status: int, text: str, store: MemoryStore
) -> None:
    answer = await rpc.answer(store, LOCAL, verb, {"content-type": content_type}, body)
    assert (answer.status, answer.body.decode()) == (status, text)
    assert answer.headers == ((b"content-type", b"text/plain; charset=utf-8"),)


@pytest.mark.parametrize(
    "name", [name for method in METHODS for name in (method.name, *method.also)], ids=str
)
async def test_every_method_is_callable_with_and_without_its_service(name: str, store: MemoryStore) -> None:
    bare = await call(store, name)
    assert bare.status == 200
    assert await call(store, f"ImageStore.{name}") == bare


async def test_get_with_a_body_is_accepted(store: MemoryStore) -> None:
    answer = await ask(store, '{"method":"ListImages","params":[],"id":1}', verb="GET")
    assert answer.body == b'{"result":{"images":[]},"error":null,"id":1}\n'


# --- ids


@pytest.mark.parametrize(
    "identity",
    [
        "0",
        "-1",
        "1.50",
        "1e400",
        "9223372036854775808",
        "1" * 5000,
        '"a<b>&\\u0041"',
        "{ }",
        "[1, 2]",
        "false",
    ],
    ids=lambda text: text[:12],
)
async def test_an_id_is_echoed_byte_for_byte(identity: str, store: MemoryStore) -> None:
    answer = await call(store, "ListImages", identity=identity)
    assert answer.body == b'{"result":{"images":[]},"error":null,"id":%b}\n' % identity.encode()
    failed = await call(store, "GetImage", identity=identity)
    assert failed.body == b'{"result":null,"error":"not found","id":%b}\n' % identity.encode()


@pytest.mark.parametrize(
    "body",
    [
        '{"method":"RequestImage","params":[{"id":"debian"}]}',
        '{"method":"RequestImage","params":[{"id":"debian"}],"id":null}',
    ],
)
async def test_without_an_id_the_method_runs_and_the_answer_is_empty(body: str, store: MemoryStore) -> None:
    answer = await ask(store, body)
    assert answer == Answer(status=200, headers=((b"x-content-type-options", b"nosniff"),))
    assert "debian" in store.images


# --- what the store says


async def test_an_answer_carries_its_type_and_forbids_sniffing(store: MemoryStore) -> None:
    assert (await call(store, "ListImages")).headers == (
        (b"content-type", b"application/json; charset=utf-8"),
        (b"x-content-type-options", b"nosniff"),
    )


async def test_unset_members_are_left_out(store: MemoryStore) -> None:
    answer = await call(store, "RequestImage", '[{"id":"debian"}]')
    assert answer.body == (
        b'{"result":{"images":[{"id":"debian","type":"kvm","volume":"mem/images/debian","size":8,'
        b'"status":"complete"}]},"error":null,"id":7}\n'
    )


async def test_an_error_of_the_store_is_one_line(store: MemoryStore) -> None:
    answer = await call(store, "RequestImage", '[{"id":"x<y"}]')
    assert answer.body == b'{"result":null,"error":"x<y: the source answered 404","id":7}\n'


async def test_a_full_mailbox_is_an_error_string(store: MemoryStore) -> None:
    class Full(MemoryStore):
        async def get_image(self, request: ImageRequest, caller: Caller = LOCAL) -> ImageResponse:
            raise errors.TemporarilyUnavailable

    answer = await call(Full(), "GetImage")
    assert answer.status == 200
    assert answer.body == b'{"result":null,"error":"resource temporarily unavailable","id":7}\n'


async def test_a_defect_is_an_internal_error_with_an_incident_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(MemoryStore):
        async def get_volume(self, request: VolumeRequest, caller: Caller = LOCAL) -> VolumeResponse:
            raise ZeroDivisionError("secret")

    with caplog.at_level(logging.ERROR):
        answer = await call(Broken(), "GetVolume")
    assert answer.body == b'{"result":null,"error":"internal error","id":7}\n'
    (record,) = caplog.records
    assert record.getMessage().startswith("incident ")
    assert record.exc_info


async def test_the_store_is_told_who_asks(store: MemoryStore) -> None:
    await call(store, "ListImages")
    assert [caller.principal for caller in store.callers] == ["test"]


async def test_elements_after_the_first_and_unknown_fields_are_ignored(store: MemoryStore) -> None:
    answer = await call(
        store, "CreateVolume", '[{"ID":"v","Size":5,"colour":1e999},"junk",1%s]' % ("0" * 5000)
    )
    assert b'"error":null' in answer.body
    assert store.volumes == {"v": 5}


async def test_keys_of_the_frame_match_without_regard_to_case_and_the_last_wins(store: MemoryStore) -> None:
    answer = await ask(store, '{"method":"GetImage","METHOD":"ListImages","Params":[],"ID":3,"iD":4}')
    assert answer.body == b'{"result":{"images":[]},"error":null,"id":4}\n'


async def test_a_guest_with_a_hundred_disks_keeps_every_member(store: MemoryStore) -> None:
    disks = ",".join(f'{{"size":{n + 1},"x":{n}.50}}' for n in range(100))
    params = f'[{{"guest":{{"id":"g","own":1.50,"disks":[{disks}]}}}}]'
    answer = await call(store, "CreateGuestDisks", params)
    guest = msgspec.json.decode(answer.body)["result"]["guest"]
    assert b'"own":1.50' in answer.body
    assert [disk["volume"] for disk in guest["disks"]] == [f"mem/guests/g/disk-{n}" for n in range(100)]
    assert all(b'"x":%d.50' % n in answer.body for n in range(100))


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "a/../b", "a\\u0000b", "a b", "-o", "a/-o", "x" * 300, "other@a/b", "a#b", "é"]
)
async def test_a_name_that_could_leave_the_pool_is_refused(name: str, store: MemoryStore) -> None:
    answer = await call(store, "CreateVolume", f'[{{"id":"{name}","size":1}}]')
    assert answer.body == b'{"result":null,"error":"not a valid dataset","id":7}\n'
    assert store.volumes == {}


async def test_a_large_answer_is_compressed_whole(store: MemoryStore) -> None:
    store.volumes = {f"volume-{n:06}": n for n in range(5000)}
    plain = await call(store, "ListVolumes")
    coded = await ask(store, '{"method":"ListVolumes","params":[],"id":7}', accept_encoding="gzip")
    assert len(plain.body) > rpc.THREAD_BYTES
    assert coded.body.startswith(b"\x1f\x8b")
    assert len(coded.body) < len(plain.body) / 2
