"""The RPC answer as one function of verb, headers and body.

Owns the transport table of the contract: the order of its checks, its exact
texts, and the frame of every answer (``result``, ``error``, ``id``).  Promises
that whatever arrives is answered: a refusal of the transport with its status,
anything the store says with 200, a defect of ours as ``internal error`` with
an incident id in the log.  Past verb and content type, what says that it is
JSON-RPC 2.0 goes to :mod:`imagestore.http.rpc2`.

Knows nothing of sockets, ASGI, Quart or Hypercorn, so that any front can call
it; nor of the store beyond :mod:`imagestore.service`.
"""

from collections.abc import Mapping

import msgspec
import trio
from msgspec import Raw, Struct

from imagestore.errors import ImageStoreError
from imagestore.http import rpc2
from imagestore.http.answer import JSON_TYPE, NOSNIFF, TEXT_TYPE, Answer, choose_coding, coded, text_answer
from imagestore.http.exchange import RPC_PATH
from imagestore.http.incidents import one_line, report_incident
from imagestore.http.json_text import MalformedJson, document_of, elements, kind_of, members, value
from imagestore.http.permission import check_call
from imagestore.http.shapes import WrongType, describe, read_request
from imagestore.service import METHODS_BY_NAME, SERVICE_NAME, Caller, Method, Receipt, Service

PATH = RPC_PATH

THREAD_BYTES = 256 << 10
"""Bodies larger than this are compressed in a thread, so that nobody waits for them."""

MAX_KEY_CHARACTERS = 255
"""Of an idempotency key."""

_encode = msgspec.json.Encoder().encode


class Refusal(Exception):
    """The transport refuses the request; ``str()`` is the text of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Call(Struct, frozen=True, kw_only=True):
    """One request, read: the method, its parameters as they were sent, the id to echo."""

    method: Method
    params: Raw
    id: Raw | None


async def answer(
    service: Service, caller: Caller, verb: str, headers: Mapping[str, str], body: bytes | None
) -> Answer:
    """The answer to one RPC request.

    Args:
        service: the store that is asked.
        caller: on whose behalf.
        verb: as sent.
        headers: names in lower case; of a repeated header the first.
        body: None when it is over the limit and was not read.
    """
    try:
        check_verb(verb, body)
        check_content_type(headers.get("content-type", ""))
        if body is None:
            raise Refusal(413, "request body too large")
        caller = asking(caller, headers)
        if rpc2.is_meant(body):
            plain = await rpc2.answer(service, caller, body)
        else:
            plain = await perform(service, caller, read_call(body))
    except Refusal as refusal:
        plain = text_answer(refusal.status, str(refusal))
    if caller.receipt is not None and caller.receipt.operation:
        plain = with_receipt(plain, caller.receipt)
    coding = choose_coding(headers.get("accept-encoding", ""))
    if not coding:
        return plain
    # Go sniffs no type for a body that is already coded, so only JSON keeps its own.
    plain = msgspec.structs.replace(
        plain, headers=tuple(header for header in plain.headers if header != TEXT_TYPE)
    )
    if len(plain.body) > THREAD_BYTES:
        return await trio.to_thread.run_sync(coded, plain, coding)
    return coded(plain, coding)


# --- the transport table, line by line ---------------------------------------------


def check_verb(verb: str, body: bytes | None) -> None:
    """POST, or GET with a body as the documentation says."""
    if verb != "POST" and not (verb == "GET" and body != b""):
        raise Refusal(405, f"rpc: POST method required, received {verb}")


def check_content_type(content_type: str) -> None:
    before = content_type.partition(";")[0]
    if before.lower() != "application/json":
        raise Refusal(415, f"rpc: unrecognized Content-Type: {before}")


def asking(caller: Caller, headers: Mapping[str, str]) -> Caller:
    """``caller`` with what the headers say of key and waiting.

    Raises:
        Refusal: 400, the key is empty, too long, or not printable.
    """
    key = headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARACTERS and key.isprintable()):
        raise Refusal(400, f"Idempotency-Key must have 1 to {MAX_KEY_CHARACTERS} printable characters")
    preferences = [part.partition(";")[0].strip() for part in headers.get("prefer", "").lower().split(",")]
    return msgspec.structs.replace(
        caller, key=key or "", no_wait="respond-async" in preferences, receipt=Receipt()
    )


def with_receipt(answer: Answer, receipt: Receipt) -> Answer:
    """``answer`` with the id of the operation that it is about."""
    headers = [*answer.headers, (b"imagestore-operation", receipt.operation.encode())]
    if receipt.early:
        headers.append((b"preference-applied", b"respond-async"))
    return msgspec.structs.replace(answer, headers=tuple(headers))


def read_call(body: bytes) -> Call:
    """The request in ``body``.

    Raises:
        Refusal: 400, with the first thing that is wrong.
    """
    try:
        sent = _read_frame(document_of(body))
        method = _read_method(sent.get("method"))
    except (MalformedJson, WrongType) as error:
        raise Refusal(400, str(error)) from None
    params = sent.get("params")
    if params is None or kind_of(params) == "null":
        raise Refusal(400, "rpc: method request ill-formed: missing params field")
    identity = sent.get("id")
    if identity is not None and kind_of(identity) == "null":
        identity = None
    return Call(method=method, params=params, id=identity)


def _read_frame(document: bytes) -> dict[str, Raw]:
    """The members of the request by their names in lower case; of equal ones the last."""
    kind = kind_of(document)
    if kind == "null":
        return {}
    if kind != "object":
        raise WrongType(f"json: cannot unmarshal {kind} into Go value of type json.serverRequest")
    return {key.casefold(): member for key, member in members(document).items()}


def _read_method(sent: Raw | None) -> Method:
    name = "" if sent is None else value(sent)
    if name is None:
        name = ""
    if not isinstance(name, str):
        raise WrongType(
            f"json: cannot unmarshal {describe(name)} into Go struct field serverRequest.method"
            " of type string"
        )
    method = METHODS_BY_NAME.get(name)
    if method is not None:
        return method
    service, *rest = name.split(".")
    if len(rest) != 1:
        raise Refusal(400, f"rpc: service/method request ill-formed: {_quoted(name)}")
    if service != SERVICE_NAME:
        raise Refusal(400, f"rpc: can't find service {_quoted(name)}")
    method = METHODS_BY_NAME.get(rest[0])
    if method is None:
        raise Refusal(400, f"rpc: can't find method {_quoted(name)}")
    return method


def _read_parameter(params: Raw) -> object:
    """The first element of ``params``; None where there is none."""
    kind = kind_of(params)
    if kind != "array":
        raise WrongType(f"json: cannot unmarshal {kind} into Go value of type [1]interface {{}}")
    sent = elements(params)
    return value(sent[0]) if sent else None


# --- what the store says -----------------------------------------------------------


async def perform(service: Service, caller: Caller, call: Call) -> Answer:
    """Run the method and frame what it returned or raised.

    Raises:
        Refusal: 400, the parameters are not what the method takes.
    """
    try:
        request = read_request(_read_parameter(call.params), call.method.request)
    except (MalformedJson, WrongType) as error:
        raise Refusal(400, str(error)) from None
    result, error_text = b"null", b"null"
    try:
        check_call(caller, call.method, request)
        result = _encode(await service.call(call.method, request, caller))
    except ImageStoreError as error:
        error_text = _encode(one_line(str(error)))
    except Exception:
        report_incident(f"{call.method.name} failed unexpectedly")
        error_text = _encode("internal error")
    if call.id is None:
        return Answer(status=200, headers=(NOSNIFF,))
    body = b'{"result":%b,"error":%b,"id":%b}\n' % (result, error_text, bytes(call.id))
    return Answer(status=200, headers=(JSON_TYPE, NOSNIFF), body=body)


def _quoted(text: str) -> str:
    """``text`` as Go's ``%q`` shows it."""
    named = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a"}
    named |= {"\b": "\\b", "\f": "\\f", "\v": "\\v"}
    shown = []
    for character in text:
        code = ord(character)
        if character in named:
            shown.append(named[character])
        elif character.isprintable():
            shown.append(character)
        elif code < 0x80:
            shown.append(f"\\x{code:02x}")
        else:
            shown.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(shown)}"'
