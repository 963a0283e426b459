"""JSON-RPC 2.0 on the RPC path: requests that say ``"jsonrpc":"2.0"``, and batches of them.

Owns what the specification (jsonrpc.org/specification) says of such a body:
error objects, notifications, named parameters, batches.  The methods, their
parameters and their results are the same as of version 1.0, which
:mod:`imagestore.http.rpc` serves.

``params`` is the request object itself (named), or an array that holds it.  A
failure of the store carries an RFC 9457 problem in ``error.data``, with
``retryable``, ``blockers`` and ``operation`` where there is one.  A batch may
run concurrently; its answers come in the order of its requests.
"""

import re
from collections.abc import Sequence

import msgspec
import trio
from msgspec import Raw, Struct, structs

from imagestore.errors import ImageStoreError
from imagestore.http.answer import JSON_TYPE, NOSNIFF, Answer
from imagestore.http.incidents import one_line, report_incident
from imagestore.http.json_text import MalformedJson, document_of, elements, kind_of, members, value
from imagestore.http.openrpc import DISCOVER, document
from imagestore.http.permission import check_call
from imagestore.http.problems import problem_of
from imagestore.http.shapes import WrongType, read_request
from imagestore.service import METHODS_BY_NAME, SERVICE_NAME, Caller, Service

VERSION = "2.0"

MAX_BATCH = 100
"""Most requests of one batch."""

CONCURRENT = 16
"""So many requests of a batch run at a time."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

_MARK = re.compile(rb'"jsonrpc"\s*:\s*"2\.0"')
_NULL = Raw(b"null")

_encode = msgspec.json.Encoder().encode


class _Failure(Exception):
    """A request ends with this error object."""

    def __init__(self, code: int, message: str, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class _Request(Struct, frozen=True, kw_only=True):
    """A request, read.  ``id`` is None for a notification."""

    method: str
    params: Raw | None
    id: Raw | None


def is_meant(body: bytes) -> bool:
    """Whether ``body`` is JSON-RPC 2.0: a request or an array with one, or broken JSON that speaks of it."""
    if _MARK.search(body) is None:
        return False
    try:
        text = document_of(body)
        sent = elements(Raw(text)) if kind_of(text) == "array" else [Raw(text)]
        return any(_says_version(request) for request in sent)
    except MalformedJson:
        return True


def _says_version(request: Raw) -> bool:
    if kind_of(request) != "object":
        return False
    version = members(bytes(request)).get("jsonrpc")
    return version is not None and value(version) == VERSION


async def answer(service: Service, caller: Caller, body: bytes) -> Answer:
    """The answer to a body for which :func:`is_meant` holds: 200, or 204 if nothing is to be said."""
    try:
        text = document_of(body)
    except MalformedJson as error:
        return _framed(_error(PARSE_ERROR, str(error), _NULL))
    if kind_of(text) != "array":
        said = await _one(service, caller, Raw(text))
        return _framed(said) if said is not None else Answer(status=204)
    requests = elements(Raw(text))
    if len(requests) > MAX_BATCH:
        return _framed(_error(INVALID_REQUEST, f"a batch has at most {MAX_BATCH} requests", _NULL))
    caller = structs.replace(caller, receipt=None)  # one header cannot name the operations of all
    said_of_all = [each for each in await _all(service, caller, requests) if each is not None]
    return _framed(b"[%b]" % b",".join(said_of_all)) if said_of_all else Answer(status=204)


async def _all(service: Service, caller: Caller, requests: Sequence[Raw]) -> list[bytes | None]:
    said: list[bytes | None] = [None] * len(requests)
    room = trio.CapacityLimiter(CONCURRENT)

    async def run(index: int, request: Raw) -> None:
        async with room:
            said[index] = await _one(service, caller, request)

    async with trio.open_nursery() as nursery:
        for index, request in enumerate(requests):
            nursery.start_soon(run, index, request)
    return said


async def _one(service: Service, caller: Caller, sent: Raw) -> bytes | None:
    """What is said to one request; None to a notification."""
    identity: Raw | None = _NULL
    try:
        request = _read(sent)
        identity = request.id
        result = await _perform(service, caller, request)
    except _Failure as failure:
        return _error(failure.code, str(failure), identity, failure.data) if identity is not None else None
    return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (result, identity) if identity is not None else None


def _read(sent: Raw) -> _Request:
    """Raises _Failure: it is no request."""
    if kind_of(sent) != "object":
        raise _Failure(INVALID_REQUEST, f"a request is an object, this is {kind_of(sent)}")
    try:
        found = members(bytes(sent))
        version, name = (value(found[key]) if key in found else None for key in ("jsonrpc", "method"))
    except MalformedJson as error:
        raise _Failure(INVALID_REQUEST, str(error)) from None
    identity, params = found.get("id"), found.get("params")
    if version != VERSION:
        raise _Failure(INVALID_REQUEST, '"jsonrpc" must be "2.0"')
    if not isinstance(name, str):
        raise _Failure(INVALID_REQUEST, '"method" must be a string')
    if identity is not None and kind_of(identity) not in ("string", "number", "null"):
        raise _Failure(INVALID_REQUEST, '"id" must be a string, a number or null')
    if params is not None and kind_of(params) not in ("object", "array"):
        raise _Failure(INVALID_REQUEST, '"params" must be an object or an array')
    return _Request(method=name, params=params, id=identity)


async def _perform(service: Service, caller: Caller, request: _Request) -> bytes:
    """The result, encoded. Raises _Failure."""
    if request.method == DISCOVER:
        return _encode(document(type(service)))
    method = METHODS_BY_NAME.get(request.method.removeprefix(f"{SERVICE_NAME}."))
    if method is None:
        raise _Failure(METHOD_NOT_FOUND, f"there is no method {request.method[:100]!r}; see {DISCOVER}")
    try:
        parameter = read_request(_parameter(request.params), method.request)
    except (MalformedJson, WrongType) as error:
        raise _Failure(INVALID_PARAMS, str(error)) from None
    try:
        check_call(caller, method, parameter)
        return _encode(await service.call(method, parameter, caller))
    except ImageStoreError as error:
        raise _Failure(error.code, one_line(str(error)), problem_of(error)) from error
    except Exception:
        incident = report_incident(f"{method.name} failed unexpectedly")
        raise _Failure(INTERNAL_ERROR, "internal error", {"incident": incident}) from None


def _parameter(params: Raw | None) -> object:
    """The request object: ``params`` itself, or the one element of an array."""
    if params is None:
        return None
    if kind_of(params) == "object":
        return value(params)
    sent = elements(params)
    if len(sent) > 1:
        raise WrongType(f"params holds {len(sent)} elements; a method takes one object")
    return value(sent[0]) if sent else None


def _error(code: int, message: str, identity: Raw, data: dict[str, object] | None = None) -> bytes:
    error: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return b'{"jsonrpc":"2.0","error":%b,"id":%b}' % (_encode(error), identity)


def _framed(said: bytes) -> Answer:
    return Answer(status=200, headers=(JSON_TYPE, NOSNIFF), body=said + b"\n")
