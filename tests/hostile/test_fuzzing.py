"""Whatever is sent is answered or cut off: requests made of the method table, headers made of bytes."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagestore.http.rpc import PATH
from imagestore.http.shapes import REQUESTS, Flag, Kind, ListOf, MapOf, Object, Text, Whole
from imagestore.service import METHODS, Method
from tests.hostile.conftest import Target

SECONDS = 30.0
"""Within which whatever comes is answered or cut off."""

NAMES = (
    *("", ".", "..", "../x", "a/../b", "/etc/passwd", "a//b", "a/", "-rf", "--help", "a b", "a@b", "a@b@c"),
    *("a#b", "a%2fb", "a\0b", "ä", "\U0001f600", "x" * 300, "a/" * 200, "images", "guests", "pool"),
    *("pool/a", "guests/vm", "guests/vm/disk-0", "guests/vm/disk-0@s", "images/i", "data", "data@s"),
    *("data/x", "images/.staging-x", ".imagestore", "$(reboot)", "`id`", "a;b", "a\nb", "\r\nX: x", "{}"),
)

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def values(kind: Kind) -> st.SearchStrategy[object]:
    """Mostly what a field takes, sometimes anything."""
    fitting: st.SearchStrategy[object]
    match kind:
        case Text():
            fitting = st.sampled_from(NAMES) | st.text(max_size=40)
        case Flag():
            fitting = st.booleans()
        case Whole():
            edges = st.sampled_from(
                [0, 1, 2, 64, kind.highest, kind.highest + 1, kind.lowest, kind.lowest - 1]
            )
            fitting = st.integers(1, 64) | edges
        case ListOf():
            fitting = st.lists(values(kind.element), max_size=3)
        case MapOf():
            fitting = st.dictionaries(st.text(max_size=8), values(kind.element), max_size=3)
        case Object():
            members = {name: values(member) for name, member in kind.fields.items()}
            fitting = st.fixed_dictionaries({}, optional=members)
    return st.one_of(fitting, fitting, fitting, fitting, fitting, JUNK)


def requests(method: Method) -> st.SearchStrategy[tuple[str, object]]:
    return st.tuples(st.just(method.name), values(REQUESTS[method.request]))


CALLS = st.one_of([requests(method) for method in METHODS])
VERSIONS = st.sampled_from(["1.0", "2.0"])


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One store for all examples: what one leaves, the next may run into."""
    with Target(tmp_path_factory.mktemp("store")) as store:
        store.begin()
        yield store
        store.check()
        outside = [path for path in Path(store.directory).iterdir() if path.name not in EXPECTED]
        assert outside == []
        assert store.stop() == 0


EXPECTED = {"pool", "journal", "journal.cache", "store.log"}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(call=CALLS, version=VERSIONS, identity=st.none() | st.integers() | st.text(max_size=8))
def test_whatever_is_asked_is_answered_in_the_frame_of_its_version(
    call: tuple[str, object], version: str, identity: int | str | None, fuzzed: Target
) -> None:
    name, params = call
    asked: dict[str, object] = {"method": name, "params": [params], "id": identity}
    if version == "2.0":
        asked["jsonrpc"] = version
    with closing(http.client.HTTPConnection(*fuzzed.address, timeout=SECONDS)) as connection:
        connection.request("POST", PATH, json.dumps(asked), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
    if version == "2.0":
        said = json.loads(body)
        assert answer.status == 200
        assert said["jsonrpc"] == "2.0"
        assert said["id"] == identity
        if "error" in said:
            assert said["error"]["code"] != -32603
            assert_is_one_line(said["error"]["message"])
    elif answer.status == 400:
        assert_is_one_line(body.decode())
    else:
        assert answer.status == 200
        if identity is None:
            assert body == b""
            return
        said = json.loads(body)
        assert list(said) == ["result", "error", "id"]
        assert said["id"] == identity
        assert (said["result"] is None) == (said["error"] is not None)
        if said["error"] is not None:
            assert_is_one_line(said["error"])


def assert_is_one_line(text: str) -> None:
    assert text
    assert "\n" not in text
    assert text != "internal error"


TOKENS = st.sampled_from(
    (
        *(b"GET", b"POST", b"PUT", b"PRI", b" ", b"/", PATH.encode(), b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"),
        *(b"\r\n", b"\n", b"\r\n\r\n", b":", b"Host", b"Content-Length", b"Transfer-Encoding", b"chunked"),
        *(b"Expect", b"100-continue", b"Upgrade", b"h2c", b"websocket", b"Connection", b"close", b"Range"),
        *(b"bytes=0-", b"0", b"-1", b"99999999999999999999", b"If-Range", b'"', b"Accept-Encoding", b"*"),
        *(b"gzip;q=x", b"{}", b"\0", b"/snapshots/download?id=", b"/volumes/receive?id=", b"/events", b"%00"),
        *(b"%2e%2e", b"Last-Event-ID", b"Idempotency-Key", b"/images/", b"/images/upload?id="),
    )
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=st.lists(TOKENS | st.binary(max_size=12), max_size=30))
def test_whatever_bytes_come_are_answered_or_cut_off(pieces: list[bytes], fuzzed: Target) -> None:
    with closing(socket.create_connection(fuzzed.address, timeout=SECONDS)) as connection:
        connection.sendall(b"".join(pieces))
        connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
    with closing(http.client.HTTPConnection(*fuzzed.address, timeout=SECONDS)) as healthy:
        healthy.request("GET", "/healthz")
        assert healthy.getresponse().status == 200
