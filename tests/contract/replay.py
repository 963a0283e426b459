"""The recorded answers of the original, and how a server's answers are judged by them.

Every function takes a server's address, so that the same examples run against
the small store in memory and against a real ``imagestore serve``.
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tests.http.wire import Reply, Wire

Address = tuple[str, int]

EXAMPLES_FILE = Path(__file__).with_name("examples.jsonl")


class Example(Struct, frozen=True, kw_only=True):
    """One recorded request and its answer."""

    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    expected: dict[str, Any]


EXAMPLES: dict[str, Example] = {
    example.name: example
    for example in msgspec.json.Decoder(Example).decode_lines(EXAMPLES_FILE.read_bytes())
}

_EMPTY_LIST = "empty lists are [], never null (contract, done better 9)"

EXCEPTIONS: dict[str, str] = {
    "http-method.post-lower-case": "a verb in lower case arrives in upper case: Hypercorn does that",
    "http-method.GET-with-body": "GET with a body is accepted, as the documentation says",
    "method.bare": "the bare method name is callable too",
    "method.doc-spelling-ListSnapshot": "the documentation's spelling is callable too",
    "id.string-html": "ids come back as they were sent, HTML characters not escaped",
    "coding.pprof-gzip": "a page of Go's profiler; there is no such thing here",
    "body.jsonrpc-2": "a request that says so is answered in JSON-RPC 2.0 (contract, done better 11)",
    **{
        name: _EMPTY_LIST
        for name, example in EXAMPLES.items()
        if '"images":null' in example.expected.get("raw", "")
        and name not in ("id.string-html", "body.jsonrpc-2")
    },
}
"""Examples that do not hold, on purpose, each with its reason."""


async def ask(address: Address, example: Example) -> Reply:
    async with await Wire.open(address) as wire:
        return await wire.ask(
            example.method,
            example.path,
            example.headers,
            (example.body or "").encode(),
            chunked=example.name == "body.chunked",
        )


def differences(example: Example, reply: Reply) -> list[str]:
    """What about ``reply`` is not as recorded; empty when all is."""
    expected = example.expected
    found: list[str] = []

    def compare(what: str, wanted: object, got: object) -> None:
        if wanted != got:
            found.append(f"{what}: recorded {wanted!r}, got {got!r}")

    compare("status", expected["status"], reply.status)
    compare("content type", expected["content_type"], reply.headers.get("content-type"))
    for name, wanted in expected["headers"].items():
        got = reply.headers.get(name)
        compare(name, wanted, "present" if wanted == "present" and got is not None else got)
    if "content-encoding" not in expected["headers"]:
        compare("content-encoding", None, reply.headers.get("content-encoding"))
    match expected["body_kind"]:
        case "json":
            compare("body", expected["raw"].encode(), reply.body)
        case "text":
            compare("body", expected["body"].encode(), reply.body)
        case "empty" if expected.get("coded_bytes_on_wire"):
            compare("body", b"", reply.body)
        case "empty":
            compare("body", b"", reply.raw_body)
        case "data":
            compare("body", True, bool(reply.body))
    return found


def with_empty_lists(example: Example) -> Example:
    """The example as it holds here when ``null`` for an empty list is all that differs."""
    raw = example.expected["raw"].replace('{"images":null}', '{"images":[]}')
    return msgspec.structs.replace(example, expected=example.expected | {"raw": raw})
