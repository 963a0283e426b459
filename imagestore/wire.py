"""The wire from the client's side: one exchange with a store, and how often it is tried.

Owns the connection: one a call, so that nothing stale is ever reused.  Every
failure is one of ``imagestore.errors``: what the store said becomes the error
it was there, a store that is not there is ``Unreachable``.  Knows no method.
"""

import http.client
import re
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from imagestore import errors
from imagestore.endpoint import DEFAULT_SERVER, NO_CREDENTIALS, Credentials, Endpoint
from imagestore.model import PlanResponse
from imagestore.wiretexts import error_of

RPC_PATH = "/_mistify_RPC_"

PIECE_BYTES = 1 << 20
"""Most bytes of a download that are held at once."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
"""Between two tries: each pause is twice the one before, up to this."""

LOOKING = ("Cancel", "Describe", "Explain", "Get", "List", "Plan", "Search", "Verify", "Wait")
"""How the names of the methods begin that make no change of the pool or the journal by themselves."""

_JSON: Mapping[str, str] = {"Content-Type": "application/json"}
_PLACE = re.compile(r"bytes (?:([0-9]+)-[0-9]+|\*)/([0-9]+)\Z")

_Answer = TypeVar("_Answer", bound=Struct)
_Result = TypeVar("_Result")


class _Problem(Struct, frozen=True):
    title: str
    detail: str = ""
    error: str = ""


class _Reply(Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None


class Changing(Struct, frozen=True, kw_only=True):
    """How a client asks for changes.

    ``key`` is the idempotency key of its one change; ``retry_seconds`` how long
    a call that broke off, or found the store busy or away, is tried again, with
    a key of its own unless one is given, so that it is done once; ``no_wait``
    has :class:`Accepted` raised once a change is accepted; ``dry_run`` has what a
    change would do raised as :class:`Foreseen`, instead of it being done.
    """

    key: str = ""
    retry_seconds: float = 0.0
    no_wait: bool = False
    dry_run: bool = False


_STOPPED = "the store may have stopped; ask again when it is back"


class Accepted(Exception):
    """The change goes on as operation ``operation``; it was not to be waited for."""

    def __init__(self, operation: str) -> None:
        super().__init__(operation)
        self.operation = operation


class Foreseen(Exception):
    """A dry run's answer."""

    def __init__(self, plan: PlanResponse) -> None:
        super().__init__(plan.method)
        self.plan = plan


class Wire:
    """The way to the store at ``server``.

    Parameters:
        server: ``http://HOST:PORT`` (``HOST:PORT`` will do), ``https://HOST:PORT`` or ``unix:PATH``.
        timeout: seconds to wait for each piece of an answer; None waits for ever.
            The store goes on with what it accepted.
        changing: with a key, or retries, or without waiting.
        credentials: a token or certificate, and whom to trust.

    Raises (every method): the store's errors, ``Unreachable``, ``AnswerTimeout``, ``BrokenOff``.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        timeout: float | None = None,
        changing: Changing = Changing(),  # noqa: B008 (it is frozen)
        credentials: Credentials = NO_CREDENTIALS,
    ) -> None:
        self._endpoint = Endpoint(server, credentials)
        self.server = self._endpoint.shown
        self.timeout = timeout
        self.changing = changing

    def call(self, method: str, request: Struct, answer: type[_Answer]) -> _Answer:
        """Call ``ImageStore.<method>`` and decode its answer. See :class:`Changing` for what it is tried."""
        if self.changing.dry_run and not method.startswith(LOOKING):
            raise Foreseen(self._planned(method, request))
        body = msgspec.json.encode({"method": f"ImageStore.{method}", "params": [request], "id": 1})
        headers = dict(_JSON)
        if self.changing.no_wait:
            headers["Prefer"] = "respond-async"
        key = self.changing.key or (str(uuid.uuid4()) if self.changing.retry_seconds else "")
        if key:
            headers["Idempotency-Key"] = key
        return patiently(lambda: self.once(body, headers, answer), self.changing.retry_seconds)

    def _planned(self, method: str, request: Struct) -> PlanResponse:
        """What the change would do.  By a method of its own: a store that does not know it refuses."""
        plan = {"method": method, "request": request}
        body = msgspec.json.encode({"method": "ImageStore.PlanChange", "params": [plan], "id": 1})
        return self.once(body, dict(_JSON), PlanResponse)

    def once(self, body: bytes, headers: Mapping[str, str], answer: type[_Answer]) -> _Answer:
        """One call, as it is encoded. Raises :class:`Accepted` if it was not to be waited for."""
        with self.exchange("POST", RPC_PATH, body, headers) as response:
            data = response.read()
            if response.header("Preference-Applied"):
                raise Accepted(response.header("Imagestore-Operation"))
        try:
            reply = msgspec.json.decode(data, type=_Reply)
            if reply.error is None:
                return msgspec.json.decode(reply.result, type=answer)
        except msgspec.DecodeError as problem:
            raise errors.Unreachable(
                f"what answers at {self.server} is no image store", detail=str(problem)
            ) from problem
        raise error_of(reply.error if isinstance(reply.error, str) else str(reply.error))

    @contextmanager
    def exchange(
        self, verb: str, path: str, body: bytes | Iterable[bytes] | None, headers: Mapping[str, str] = _JSON
    ) -> Iterator["Response"]:
        """One exchange; an error status is raised as the error that the answer names."""
        connection = self._endpoint.connection()
        try:
            try:
                connection.connect()
            except OSError as problem:
                raise errors.Unreachable(
                    f"no store answers at {self.server}: {_reason(problem)}",
                    detail=self._endpoint.advice(problem),
                ) from problem
            connection.sock.settimeout(self.timeout)
            self.connected(connection.sock)
            with self._failures(self._unanswered()):
                # A store that refuses a body answers before it is whole, and hangs up.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(
                        verb, path, body, {**self._endpoint.headers, **(headers if body else {})}
                    )
                response = connection.getresponse()
                if response.status not in (200, 206, 416):
                    raise _refusal(response)
            yield Response(response, self._failures)
        finally:
            connection.close()

    def connected(self, connection: socket.socket) -> None:
        """Told of every connection before anything is sent; for those who must be able to break it off."""

    def _unanswered(self) -> str:
        """What may be the matter with a store that takes a connection and hangs up."""
        if not self.server.startswith("http:"):
            return _STOPPED
        return f"{_STOPPED}, or name it as https{self.server.removeprefix('http')} if it speaks TLS"

    @contextmanager
    def _failures(self, detail: str = _STOPPED) -> Iterator[None]:
        """What the socket and http.client raise, as errors of ours."""
        try:
            yield
        except TimeoutError as problem:
            raise errors.AnswerTimeout(
                f"no answer within {self.timeout:g} s",
                detail="what the store accepted goes on there; ask again, or give a longer --timeout",
            ) from problem
        except (http.client.HTTPException, ConnectionError, ssl.SSLError) as problem:
            raise errors.BrokenOff(
                f"the connection to {self.server} broke off: {_reason(problem)}",
                detail=detail,
            ) from problem


def patiently(attempt: Callable[[], _Result], seconds: float) -> _Result:
    """What ``attempt`` returns; it is made again for ``seconds`` while the store is away or busy."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return attempt()
        except (errors.Unreachable, errors.TemporarilyUnavailable, errors.Stopping) as problem:
            if isinstance(problem, errors.AnswerTimeout) or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class Response:
    """An answer whose reading raises errors of ours; what its reader does raises as it is."""

    def __init__(
        self, response: http.client.HTTPResponse, failures: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._response = response
        self._failures = failures

    @property
    def status(self) -> int:
        return self._response.status

    def header(self, name: str) -> str:
        return self._response.getheader(name, "")

    def read(self) -> bytes:
        with self._failures():
            return self._response.read()

    def lines(self) -> Iterator[bytes]:
        """The lines of a text that goes on for as long as it likes, without their ends."""
        while True:
            with self._failures():
                line = self._response.readline()
            if not line:
                return
            yield line.rstrip(b"\r\n")

    def pieces(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(PIECE_BYTES))
        while True:
            failure: Exception | None = None
            try:
                count = self._response.readinto(buffer)
                if count == 0 and self._response.length:
                    failure = http.client.IncompleteRead(b"", self._response.length)
            except http.client.IncompleteRead as broken:
                count, failure = len(broken.partial), broken
                buffer[:count] = broken.partial
            except (OSError, http.client.HTTPException) as broken:
                count, failure = 0, broken
            if count:
                yield buffer[:count]
            if failure is not None:
                with self._failures():
                    raise failure
            if not count:
                return


class Stream:
    """A download: an iterable of pieces, each valid until the next is asked for.

    ``first`` is where its first byte stands in the whole stream, ``size`` how
    long that is (None: unknown), ``etag`` what it is called, "" if it cannot be
    gone on with.  The pieces raise ``BrokenOff`` or ``AnswerTimeout`` when the
    stream ends before its end.
    """

    def __init__(self, response: Response, offset: int) -> None:
        self._response = response
        self.etag = response.header("ETag")
        self.first = 0
        self.size: int | None = None
        place = _PLACE.match(response.header("Content-Range"))
        if response.status == 200:
            return
        if place is None:
            raise errors.Unreachable("the store's answer does not say which part of the stream it is")
        self.size = int(place[2])
        if response.status == 416 and self.size != offset:
            raise errors.InvalidArgument(f"the stream has {self.size} bytes, not {offset} and more")
        self.first = offset if response.status == 416 else int(place[1] or 0)

    def __iter__(self) -> Iterator[memoryview]:
        return iter(()) if self._response.status == 416 else self._response.pieces()


def _refusal(response: http.client.HTTPResponse) -> errors.ImageStoreError:
    """The error that the store answered with: a problem of its own type, or a line of text."""
    text = response.read(1 << 16)
    if response.getheader("Content-Type", "").startswith("application/problem+json"):
        with suppress(msgspec.DecodeError):
            problem = msgspec.json.decode(text, type=_Problem)
            return _by_name(problem.error)(problem.title, detail=problem.detail)
    return error_of(text.decode("utf-8", "replace").strip())


def _by_name(name: str) -> type[errors.ImageStoreError]:
    """The error type of that name; the base of all for one that a newer store has."""
    kind = getattr(errors, name, None)
    return (
        kind
        if isinstance(kind, type) and issubclass(kind, errors.ImageStoreError)
        else errors.ImageStoreError
    )


def _reason(problem: Exception) -> str:
    if isinstance(problem, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError) and problem.reason:
        return problem.reason.lower().replace("_", " ")
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    if isinstance(problem, http.client.IncompleteRead):
        return "the answer is not complete"
    return str(problem) or type(problem).__name__
