"""Traces: what a collector gets of a real store over OTLP, how it hangs together, and what is not in it."""

import builtins
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from msgspec import Struct, structs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from imagestore import errors
from imagestore.config import Config, load
from imagestore.events.catalogue import DestroyIntent, Envelope, OperationFinished
from imagestore.events.state import OperationRecord
from imagestore.model import ImageRequest, OperationRequest, TokenRequest, VolumeRequest
from imagestore.service import METHODS_BY_NAME, Caller
from imagestore.store import Store
from imagestore.traces import OWN, Spans, span_of, trace_of
from tests.store.conftest import running

OPERATION = "01a20e70-487d-7000-8123-456789abcdef"
ALICE = Caller(principal="unix:alice", role="admin")


class Collector:
    """Takes in what is sent to ``/v1/traces``."""

    def __init__(self) -> None:
        collector = self
        self.bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


async def call(store: Store, method: str, request: Struct, *, key: str = "") -> Any:
    return await store.call(METHODS_BY_NAME[method], request, structs.replace(ALICE, key=key))


def attributes(span: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


def ids(span: Any) -> tuple[int, int, int]:
    """Of the trace, of the span, of the span above it."""
    return number(span.trace_id), number(span.span_id), number(span.parent_span_id)


def number(found: bytes) -> int:
    return int.from_bytes(found, "big")


async def test_a_call_is_a_span_with_its_operation_below(config: Config, collector: Collector) -> None:
    async with running(structs.replace(config, traces=collector.address)) as store:
        await call(store, "CreateVolume", VolumeRequest(id="a", size=1))
        (done, _) = (await store.list_operations(OperationRequest())).operations
        await call(store, "ListVolumes", VolumeRequest())
    by_name = {span.name: span for span in collector.spans}
    assert set(by_name) == {"operation Start", "CreateVolume", "operation CreateVolume", "ListVolumes"}
    assert ids(by_name["operation Start"])[2] == 0  # the store's own
    above, below = by_name["CreateVolume"], by_name["operation CreateVolume"]
    assert ids(above) == (trace_of(done.id), span_of(done.id, "call"), 0)
    assert ids(below) == (trace_of(done.id), span_of(done.id, "operation"), span_of(done.id, "call"))
    assert above.start_time_unix_nano <= above.end_time_unix_nano
    assert attributes(below) == {
        "imagestore.operation": done.id,
        "imagestore.method": "CreateVolume",
        "imagestore.subject": "a",
        "imagestore.outcome": "succeeded",
        "enduser.id": "unix:alice",
    }
    assert attributes(by_name["ListVolumes"])["rpc.method"] == "ListVolumes"
    assert ids(by_name["ListVolumes"])[0] != trace_of(done.id)


async def test_calls_of_one_operation_stand_in_one_trace(config: Config, collector: Collector) -> None:
    async with running(structs.replace(config, traces=collector.address)) as store:
        for _ in range(3):
            await call(store, "CreateVolume", VolumeRequest(id="a", size=1), key="k")
    calls = [ids(span) for span in collector.spans if span.name == "CreateVolume"]
    assert len({trace for trace, _, _ in calls}) == 1
    assert len({span for _, span, _ in calls}) == 3


async def test_a_failure_is_told_without_its_text_and_no_secret_leaves(
    config: Config, collector: Collector
) -> None:
    async with running(structs.replace(config, traces=collector.address)) as store:
        secret = (await call(store, "CreateToken", TokenRequest(name="ci", role="reader"))).secret
        request = ImageRequest(id="deb", source="https://mirror.test/private-path/deb.img")
        for method, asked in (("RequestImage", request), ("GetVolume", VolumeRequest(id="none"))):
            with pytest.raises(errors.ImageStoreError):
                await call(store, method, asked, key="the key" if method == "RequestImage" else "")
    told = {span.name: attributes(span) for span in collector.spans}
    assert told["GetVolume"]["error.type"] == "NotFound"
    assert told["operation RequestImage"]["imagestore.outcome"] == "failed"
    assert told["operation RequestImage"]["error.type"].startswith("Fetch")
    sent = b"".join(collector.bodies)
    for hidden in (secret.encode(), b"private-path", b"the key", b"resolved"):
        assert hidden not in sent


def test_an_operation_that_an_earlier_life_began_is_told_when_it_ends() -> None:
    told: list[Any] = []
    record = OperationRecord(
        id=OPERATION,
        method="DeleteDataset",
        subject="a",
        intent=DestroyIntent(datasets=()),
        principal="token:ci",
        seq=7,
        started_ns=1_000,
    )
    spans = Spans(told.append, under_way=[record])
    finished = Envelope(
        id=OPERATION,
        seq=9,
        time_ns=5_000,
        operation=OPERATION,
        principal=OWN,
        event=OperationFinished(outcome="failed", error="https://x/secret", error_type="PoolError"),
    )
    spans.observe([finished, finished])
    (span,) = told
    assert (span.name, span.start_time, span.end_time) == ("operation DeleteDataset", 1_000, 5_000)
    assert span.parent is None
    assert span.attributes["error.type"] == "PoolError"
    assert "secret" not in str(dict(span.attributes))


async def test_a_collector_that_is_away_is_in_nobodys_way(config: Config) -> None:
    async with running(structs.replace(config, traces="http://127.0.0.1:1")) as store:
        await call(store, "CreateVolume", VolumeRequest(id="a", size=1))
        assert (await store.list_volumes(VolumeRequest())).volumes


async def test_without_the_library_the_start_says_what_to_install(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.RaisesGroup(errors.ConfigError, allow_unwrapped=True, flatten_subgroups=True) as caught:
        async with running(structs.replace(config, traces="http://127.0.0.1:1")):
            raise AssertionError("it began")
    assert "not there" in str(leaf(caught.value))
    assert "imagestore[traces]" in leaf(caught.value).detail


def leaf(error: BaseException) -> errors.ConfigError:
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, errors.ConfigError)
    return error


@pytest.mark.parametrize("address", ["collector:4318", "ftp://x", "http://u:p@collector:4318", "http://"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(errors.ConfigError, match="is not http://HOST:PORT"):
        load({"traces": address}, environment={}, base="/x")
