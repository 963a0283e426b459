"""The client's side of operations and of the event feed: waiting and following that outlast a restart.

Owns the patience: a store that stops or goes away is asked again, from the
place where it was left, until the time that was given is up.
"""

import time
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from imagestore import errors
from imagestore.client import Client
from imagestore.model import Operation, OperationRequest, OperationResponse
from imagestore.screen import (
    EventLine,
    ExplainRequest,
    ExplainResponse,
    GuestsRequest,
    GuestsResponse,
    GuestStatus,
    SearchRequest,
    SearchResponse,
    Status,
    StatusRequest,
    StatusResponse,
)
from imagestore.wire import FIRST_PAUSE_SECONDS, patiently

EVENTS_PATH = "/events"

ERROR = b": error: "
"""How a feed says why it ends, if it must."""

FOR_EVER_SECONDS = 1e9

ROUND_SECONDS = 60
"""One question of a wait is answered after so long, and asked again."""


class FeedEvent(Struct, frozen=True, kw_only=True):
    """One event of the feed: its seq, its type, its envelope as JSON."""

    seq: int
    type: str
    data: bytes


class OperationClient(Client):
    """A client that also knows operations, events, and how the store is."""

    def get_status(self) -> Status:
        """How the store is."""
        return self.call("GetStatus", StatusRequest(), StatusResponse).status

    def describe_guests(self, *, after: str = "", limit: int = 0) -> GuestsResponse:
        """One page, by id."""
        return self.call("DescribeGuests", GuestsRequest(after=after, limit=limit), GuestsResponse)

    def describe_guest(self, guest: str) -> GuestStatus:
        """One guest, with its disks and their snapshots. Raises NotFound."""
        (found,) = self.call("DescribeGuests", GuestsRequest(id=guest), GuestsResponse).guests
        return found

    def search_events(self, text: str = "", *, limit: int = 0) -> tuple[EventLine, ...]:
        """The newest events, with all words of ``text`` in them."""
        return self.call("SearchEvents", SearchRequest(text=text, limit=limit), SearchResponse).events

    def explain_dataset(self, dataset: str) -> ExplainResponse:
        """What ever had that name, and where the last of it came from. Raises NotFound."""
        return self.call("ExplainDataset", ExplainRequest(id=dataset), ExplainResponse)

    def get_operation(self, operation: str) -> Operation:
        request = OperationRequest(id=operation)
        return _one(self.call("GetOperation", request, OperationResponse))

    def list_operations(self, request: OperationRequest) -> OperationResponse:
        """One page, the newest first."""
        return self.call("ListOperations", request, OperationResponse)

    def cancel_operation(self, operation: str) -> Operation:
        request = OperationRequest(id=operation)
        return _one(self.call("CancelOperation", request, OperationResponse))

    def wait_operation(self, operation: str, *, seconds: float | None = None) -> Operation:
        """The operation once it has ended, or as it is after ``seconds`` (None: however long it takes).

        Raises Unreachable when the store is away at the end of that time.
        """
        deadline = time.monotonic() + (FOR_EVER_SECONDS if seconds is None else seconds)
        while True:
            left = deadline - time.monotonic()
            request = OperationRequest(id=operation, timeout=max(1, min(ROUND_SECONDS, int(left))))
            found = patiently(lambda: _one(self._wait(request)), left)  # noqa: B023 (called here)
            if found.finished is not None or time.monotonic() >= deadline:
                return found

    def _wait(self, request: OperationRequest) -> OperationResponse:
        body = msgspec.json.encode({"method": "ImageStore.WaitOperation", "params": [request], "id": 1})
        return self.once(body, {"Content-Type": "application/json"}, OperationResponse)

    def events(
        self,
        filters: Mapping[str, str],
        *,
        after: int | None = None,
        until: int | None = None,
        last: int | None = None,
        retry_seconds: float = FOR_EVER_SECONDS,
    ) -> Iterator[FeedEvent]:
        """Events after ``after`` (None: those to come), up to ``until`` (None: for ever), each once.

        The ``last`` so many of those that are there, and what follows.  ``filters`` as of the
        endpoint: operation, dataset, guest, image, who, type, since, latest.  When the store
        is away for ``retry_seconds``, its error is raised; one that was never there raises at once.
        """
        place = after
        patience = 0.0
        while until is None or place is None or place < until:
            places = {"after": place, "until": until, "last": last}
            query = dict(filters) | {name: str(seq) for name, seq in places.items() if seq is not None}
            feed = patiently(lambda: _Feed(self, query), patience)  # noqa: B023 (called here)
            patience = retry_seconds
            try:
                yield from feed
            except errors.Unreachable:
                pass
            finally:
                feed.close()
            if feed.place is not None:
                place, last = feed.place, None
            time.sleep(FIRST_PAUSE_SECONDS)


class _Feed:
    """One connection to the feed.  ``place`` is the last event that was seen, wanted or not."""

    def __init__(self, client: OperationClient, query: Mapping[str, str]) -> None:
        self.place: int | None = None
        self._context = client.exchange("GET", f"{EVENTS_PATH}?{urlencode(query)}", None)
        self._response = self._context.__enter__()

    def close(self) -> None:
        self._context.__exit__(None, None, None)

    def __iter__(self) -> Iterator[FeedEvent]:
        seq, kind, data = 0, "", b""
        for line in self._response.lines():
            name, _, text = line.partition(b": ")
            if name == b"id":
                seq = int(text)
            elif name == b"event":
                kind = text.decode()
            elif name == b"data":
                data = text
            elif line.startswith(b": after seq "):
                seq = int(line.rpartition(b" ")[2])
            elif line.startswith(ERROR):
                raise errors.JournalError(line.removeprefix(ERROR).decode())
            elif not line:
                self.place = seq or self.place
                if data:
                    yield FeedEvent(seq=seq, type=kind, data=data)
                seq, kind, data = 0, "", b""


def _one(response: OperationResponse) -> Operation:
    (operation,) = response.operations
    return operation
