"""The methods of operations: shown, listed, waited for, cancelled.

What is not remembered any more, from this life of the store or those before
it, comes out of the journal.
"""

import trio
from msgspec import UNSET, structs

from imagestore import names
from imagestore.actors.fetch import Fetch
from imagestore.actors.history import Entry, entry_of, too_late
from imagestore.errors import InvalidArgument, NotFound
from imagestore.events.catalogue import Envelope
from imagestore.events.indexqueries import Wanted
from imagestore.methods.addressing import Addressing
from imagestore.model import Effect, Operation, OperationRequest, OperationResponse, Progress
from imagestore.service import LOCAL, Caller
from imagestore.times import read_time, show_time

PAGE = 100
LARGEST_PAGE = 1000
"""Operations of one listing, unless a limit is given, and at most."""

LONGEST_WAIT_SECONDS = 300
"""A waiting client is answered after so long at the latest, and asks again."""

_STATUSES = ("", "queued", "running", "succeeded", "failed", "cancelled", "refused")


class OperationMethods(Addressing):
    """See the module."""

    async def get_operation(self, request: OperationRequest, caller: Caller = LOCAL) -> OperationResponse:
        """One operation, and what it caused."""
        return OperationResponse(operations=(self._operation(await self._entry(request.id), whole=True),))

    async def list_operations(self, request: OperationRequest, caller: Caller = LOCAL) -> OperationResponse:
        """A page of the operations, the newest first, of all lives of the store."""
        if request.status not in _STATUSES:
            raise InvalidArgument(detail=f"status: one of {', '.join(_STATUSES[1:])}")
        limit = min(request.limit or PAGE, LARGEST_PAGE)
        wanted = Wanted(
            method=request.of,
            who=request.who,
            outcome=request.status,
            dataset=self._relative(request.dataset),
            since_ns=read_time(request.since),
            before=request.before,
            limit=limit,
        )
        history = self._running().operations.history
        entries: list[Entry] = []
        if not request.before:
            queued = [entry for entry in history.under_way() if not entry.first_seq]
            entries = [entry for entry in (*reversed(queued), *history.unjournaled()) if _is(entry, wanted)]
        left = limit - len(entries)
        found: list[tuple[str, list[Envelope]]] = []
        if left > 0 and request.status not in ("queued", "refused"):
            found = await self._running().archive.operations(structs.replace(wanted, limit=left))
        for operation, events in found:
            entry = history.find(operation) or entry_of(events)
            if entry is not None:
                entries.append(entry)
        more = len(found) == left and found
        return OperationResponse(
            operations=tuple(self._operation(entry) for entry in entries[:limit]),
            next=found[-1][1][0].seq if more else 0,
        )

    async def wait_operation(self, request: OperationRequest, caller: Caller = LOCAL) -> OperationResponse:
        """One operation when it has ended, or as it is after ``timeout`` seconds."""
        entry = await self._entry(request.id)
        seconds = min(request.timeout or LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        with trio.move_on_after(seconds):
            await self._running().operations.history.wait_ended(entry)
        return OperationResponse(operations=(self._operation(entry, whole=True),))

    async def cancel_operation(self, request: OperationRequest, caller: Caller = LOCAL) -> OperationResponse:
        """Cancel what is queued, or a fetch or copy that runs; answered when it has ended."""
        entry = await self._entry(request.id)
        actors = self._running()
        if entry.status == "cancelled":
            return OperationResponse(operations=(self._operation(entry, whole=True),))
        if entry.status == "queued":
            actors.operations.history.cancel(entry)
        elif (copying := actors.zpool.copying(entry.id)) is not None:
            copying.scope.cancel(reason="the operation was cancelled")
        elif entry.has_ended or not actors.fetcher.cancel(entry.id, caller.principal):
            raise too_late(entry)
        await actors.operations.history.wait_ended(entry)
        ended = await self._entry(entry.id)
        if ended.status != "cancelled":
            raise too_late(ended)
        return OperationResponse(operations=(self._operation(entry, whole=True),))

    # -- what there is ------------------------------------------------------------------

    async def _entry(self, operation: str) -> Entry:
        """The operation, remembered or out of the journal. Raises NotFound."""
        if not operation:
            raise InvalidArgument("need an id")
        actors = self._running()
        entry = actors.operations.history.find(operation)
        if entry is None:
            entry = entry_of(await actors.archive.story(operation))
        if entry is None:
            raise NotFound(detail=f"operation {operation[:100]}")
        return entry

    def _fetch(self, entry: Entry) -> Fetch | None:
        """The fetch that the operation is, while it is under way."""
        if entry.has_ended or not entry.subject.startswith(f"{names.IMAGES}/"):
            return None
        fetch = self._running().fetcher.under_way(entry.subject.removeprefix(f"{names.IMAGES}/"))
        return fetch if fetch is not None and fetch.operation == entry.id else None

    def _operation(self, entry: Entry, *, whole: bool = False) -> Operation:
        fetch = self._fetch(entry)
        progress = fetch.progress if fetch is not None else None
        copying = self._running().zpool.copying(entry.id)
        if copying is not None:
            progress = Progress(done_bytes=copying.done_bytes)
        operation = Operation(
            id=entry.id,
            method=entry.method,
            subject=self._full(entry.subject) if entry.subject else "",
            who=entry.principal,
            status=entry.status,
            phase=fetch.status if fetch is not None else "copying" if copying is not None else "",
            progress=UNSET if progress is None else progress,
            rate=UNSET if progress is None else self._rate(entry, progress),
            cancellable=entry.is_waiting
            or copying is not None
            or (fetch is not None and not fetch.is_publishing),
            queued=show_time(entry.queued_ns),
            started=show_time(entry.started_ns),
            finished=show_time(entry.finished_ns),
            seq=entry.first_seq,
            lastSeq=entry.last_seq,
            attempts=entry.attempts,
            cause=entry.cause or UNSET,
            error=entry.error or UNSET,
            errorType=entry.error_type or UNSET,
            leftBehind=tuple(map(self._full, entry.left_behind)) or UNSET,
        )
        if not whole:
            return operation
        effects = [Effect(seq=e.seq, event=e.event, subject=e.subject) for e in entry.effects]
        return structs.replace(operation, effects=tuple(effects), effectsTotal=entry.effects_total)

    def _rate(self, entry: Entry, progress: Progress) -> int:
        operations = self._running().operations
        seconds = (operations.now_ns() - max(entry.started_ns, operations.began_ns)) / 1e9
        return int(progress.done_bytes / seconds) if seconds > 0 else 0


def _is(entry: Entry, wanted: Wanted) -> bool:
    """Whether an entry that the index does not have is one of those wanted."""
    subject = entry.subject
    return (
        wanted.method in ("", entry.method)
        and wanted.who in ("", entry.principal)
        and wanted.outcome in ("", entry.status)
        and (not wanted.dataset or names.is_within(subject, wanted.dataset))
        and entry.queued_ns >= wanted.since_ns
    )
