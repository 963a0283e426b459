"""``GET /events``: the event feed as server-sent events (WHATWG HTML, 9.2).

Owns the reading of the request: ``Last-Event-ID`` (or ``?after=``) is the last
event that the client has, ``?from=`` the first that it wants, none of them
means from now on; ``?last=`` begins with so many of those that are there;
``?until=`` is the last that it wants, after which the answer
ends; ``operation``, ``dataset`` (with what lies below), ``guest``,
``image``, ``who``, ``type`` (several by commas), ``since`` and ``latest``
(times) are filters.  An event's
``id`` is its seq, ``event`` its type, ``data`` its envelope as the journal has
it.  When nothing came for a while a comment is sent, and with it the place
that was looked at meanwhile, so that a client with a filter does not begin
from afar.

A client that does not take what is sent is cut off, and can go on where it
was.  When the store stops, feeds end as a whole answer ends; so does that of
a token that is revoked, at once, or expires, before anything else is told.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

import trio

from imagestore.errors import ImageStoreError, InvalidArgument, TemporarilyUnavailable
from imagestore.http.answer import NOSNIFF
from imagestore.http.exchange import Exchange
from imagestore.http.incidents import one_line, report_incident
from imagestore.http.uploads import problem
from imagestore.model import U64_MAX, EventsRequest
from imagestore.service import Events, Service, Told

PATH = "/events"

COMMENT_SECONDS = 15.0
"""After so long without an event a comment is sent."""

SLOW_SECONDS = 30.0
"""A client that takes nothing for so long is cut off."""

MOST_READERS = 256

RECONNECT_MS = 2000
"""What clients are told to wait before they come back."""

PIECE_BYTES = 64 << 10

_FILTERS = ("operation", "dataset", "guest", "image", "who", "type", "since", "latest")
_PLACES = ("after", "from", "last", "until")


def read_events_request(query: str, headers: Mapping[str, str]) -> EventsRequest:
    """The request of a feed.

    Raises:
        InvalidArgument: a place that is no number, or a filter that is none.
    """
    named = parse_qs(query, keep_blank_values=True)
    unknown = sorted(set(named) - {*_FILTERS, *_PLACES})
    if unknown:
        raise InvalidArgument(
            f"unknown filter: {unknown[0][:50]}",
            detail=f"there are: {', '.join((*_PLACES, *_FILTERS))}",
        )
    given = {name: values[-1] for name, values in named.items()}
    after: int | None = None
    if "from" in given:
        after = max(0, _number(given["from"], "from") - 1)
    if "after" in given:
        after = _number(given["after"], "after")
    last = _number(given["last"], "last", "how many events") if "last" in given else None
    if headers.get("last-event-id"):  # a client that comes back knows better than its address
        after, last = _number(headers["last-event-id"], "Last-Event-ID"), None
    types = tuple(part.strip() for part in given.get("type", "").split(",") if part.strip())
    return EventsRequest(
        after=after,
        until=_number(given["until"], "until") if "until" in given else None,
        last=last,
        operation=given.get("operation", ""),
        dataset=given.get("dataset", ""),
        guest=given.get("guest", ""),
        image=given.get("image", ""),
        who=given.get("who", ""),
        types=types,
        since=given.get("since", ""),
        latest=given.get("latest", ""),
    )


def _number(text: str, name: str, what: str = "the seq of an event") -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= U64_MAX):
        raise InvalidArgument(f"{name} is {what}, not {text[:30]!r}")
    return int(text)


class _Unwelcome(Exception):
    """The client's token is not good any more."""


class Feeds:
    """The feeds that are being sent."""

    def __init__(self, service: Service, *, comment_seconds: float = COMMENT_SECONDS) -> None:
        self._service = service
        self._comment_seconds = comment_seconds
        self._readers = 0

    async def serve(self, exchange: Exchange) -> None:
        """Send the feed that is asked for, until one of both ends."""
        if exchange.method != "GET":
            await exchange.answer(problem(405, "GET method required"))
            return
        try:
            request = read_events_request(exchange.query, exchange.headers)
            if self._readers >= MOST_READERS:
                raise TemporarilyUnavailable(detail=f"{MOST_READERS} feeds are being read")
            events = await self._service.events(request, exchange.caller)
        except ImageStoreError as error:
            await exchange.answer(
                problem(error.http_status, str(error), detail=error.detail, error=type(error).__name__)
            )
            return
        self._readers += 1
        try:
            with exchange.stream.cancelled_by_hangup():
                await self._send(exchange, events, request.until)
        finally:
            self._readers -= 1

    async def _send(self, exchange: Exchange, events: Events, until: int | None) -> None:
        exchange.stream.cut_off_after(SLOW_SECONDS)
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            NOSNIFF,
        ]
        await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
        last = b"retry: %d\n: after seq %d\n\n" % (RECONNECT_MS, events.position)
        try:
            await self._piece(exchange, last)
            end = U64_MAX if until is None else max(until, events.position)
            is_all = await self._follow(exchange, events, end)
            last = b": after seq %d\n\n" % end if is_all else b": the store is stopping\n\n"
        except _Unwelcome:
            last = b": the token is not good any more\n\n"
        except ImageStoreError as error:
            last = b": error: %b\n\n" % one_line(str(error)).encode()
        except Exception:
            report_incident("an event feed failed unexpectedly")
            return  # Hypercorn closes a connection whose answer was not ended
        await exchange.send({"type": "http.response.body", "body": last, "more_body": False})

    async def _follow(self, exchange: Exchange, events: Events, until: int) -> bool:
        """Tell events up to ``until``. Returns whether it came so far, and not the store's end first."""
        said = events.position
        while events.position < until:
            page: Sequence[Told] | None = ()
            with trio.move_on_after(self._comment_seconds) as scope:
                while not page and page is not None and events.position < until:
                    page = await events.next()
                    if page is not None:  # a revocation is an event, wanted or not
                        self._check_welcome(exchange)
            if page is None:
                return False
            page = [told for told in page if told.seq <= until]
            if page:
                for piece in pieces(page):
                    await self._piece(exchange, piece)
                said = page[-1].seq
            elif scope.cancelled_caught:
                self._check_welcome(exchange)
                place = b"id: %d\n" % events.position if events.position != said else b""
                said = events.position
                await self._piece(exchange, b": nothing new\n%b\n" % place)
        return True

    def _check_welcome(self, exchange: Exchange) -> None:
        """Raises _Unwelcome when the token that let the client in would do so no more."""
        if exchange.token_sha256:
            grant = self._service.grant(exchange.token_sha256)
            if grant is None or grant.expired:
                raise _Unwelcome

    async def _piece(self, exchange: Exchange, body: bytes) -> None:
        await exchange.send({"type": "http.response.body", "body": body, "more_body": True})


def pieces(page: Sequence[Told]) -> list[bytes]:
    """The events as they are sent, about PIECE_BYTES at a time."""
    found: list[bytes] = []
    gathered: list[bytes] = []
    size = 0
    for event in page:
        text = b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, event.type.encode(), event.data)
        gathered.append(text)
        size += len(text)
        if size >= PIECE_BYTES:
            found.append(b"".join(gathered))
            gathered, size = [], 0
    return [*found, b"".join(gathered)] if gathered else found
