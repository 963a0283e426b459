"""Spans for OpenTelemetry: one of each call and each operation, sent to a collector if there is one.

Owns how they hang together.  A trace's id is its operation's id, so that the
trace of an operation is found by it, over restarts too; the call that began the
operation is the span above it, and calls that joined it stand in the same
trace.  What was asked by the store itself has no call.

Promises: nothing waits for the collector; when it is away or slow, spans are
dropped, and a start or a stop of the store takes no longer than
``STOP_SECONDS``.  A span tells method, dataset, who and outcome, as the journal
does, and no text of an error.

The library is an extra (``imagestore[traces]``), imported when it is needed.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from imagestore import __version__
from imagestore.errors import ConfigError
from imagestore.events.catalogue import Envelope, OperationFinished, OperationStarted
from imagestore.events.state import OperationRecord
from imagestore.timings import Called

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

STOP_SECONDS = 3.0
"""What is not sent by then is dropped when the store stops."""

SEND_SECONDS = 5.0
"""How long the collector may take to answer."""

REMEMBERED_CALLS = 4096
"""Of so many operations it is known that the call above them was told."""

OWN = "imagestore"
"""Who asks for what the store does by itself."""


class Spans:
    """Makes spans of what it is told, and hands each to ``export``, which must not wait.

    ``under_way`` are the operations that an earlier life of the store began.
    """

    def __init__(
        self, export: Callable[["ReadableSpan"], None], *, under_way: Iterable[OperationRecord] = ()
    ) -> None:
        from opentelemetry.sdk.resources import Resource

        self._export = export
        self._resource = Resource.create({"service.name": "imagestore", "service.version": __version__})
        self._began = {each.id: (each.method, each.subject, each.started_ns) for each in under_way}
        self._called: dict[str, None] = {}

    def observe(self, envelopes: Sequence[Envelope]) -> None:
        """Events have been applied; called by the journal, in their order."""
        for envelope in envelopes:
            event = envelope.event
            if isinstance(event, OperationStarted):
                self._began[envelope.operation] = (event.method, event.subject, envelope.time_ns)
            elif isinstance(event, OperationFinished):
                began = self._began.pop(envelope.operation, None)
                if began is not None:
                    self._operation(envelope, event, *began)

    def _operation(
        self, envelope: Envelope, event: OperationFinished, method: str, subject: str, began_ns: int
    ) -> None:
        operation = envelope.operation
        self._tell(
            f"operation {method}",
            (trace_of(operation), span_of(operation, "operation")),
            above=0 if envelope.principal == OWN else span_of(operation, "call"),
            times=(began_ns, envelope.time_ns),
            attributes={
                "imagestore.operation": operation,
                "imagestore.method": method,
                "imagestore.subject": subject,
                "imagestore.outcome": event.outcome,
                "enduser.id": envelope.principal,
                **({"error.type": event.error_type} if event.error_type else {}),
            },
        )

    def call(self, called: Called) -> None:
        """A call has been answered."""
        ids = secrets.randbits(127) + 1, secrets.randbits(63) + 1
        if called.operation:
            is_first = called.operation not in self._called
            self._called[called.operation] = None
            if len(self._called) > REMEMBERED_CALLS:
                del self._called[next(iter(self._called))]
            own = span_of(called.operation, "call") if is_first else ids[1]
            ids = trace_of(called.operation), own
        self._tell(
            called.method,
            ids,
            above=0,
            times=(called.began_ns, called.ended_ns),
            attributes={
                "rpc.system": "jsonrpc",
                "rpc.service": "ImageStore",
                "rpc.method": called.method,
                "imagestore.outcome": called.outcome,
                "enduser.id": called.principal,
                **({"imagestore.operation": called.operation} if called.operation else {}),
                **({"error.type": called.error_type} if called.error_type else {}),
            },
        )

    def _tell(
        self,
        name: str,
        ids: tuple[int, int],
        *,
        above: int,
        times: tuple[int, int],
        attributes: dict[str, str],
    ) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(span: int) -> SpanContext:
            return SpanContext(ids[0], span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        bad = attributes["imagestore.outcome"] != "succeeded"
        self._export(
            ReadableSpan(
                name=name,
                context=context(ids[1]),
                parent=context(above) if above else None,
                resource=self._resource,
                attributes=attributes,
                kind=SpanKind.INTERNAL if name.startswith("operation ") else SpanKind.SERVER,
                status=Status(StatusCode.ERROR if bad else StatusCode.OK),
                start_time=times[0],
                end_time=times[1],
            )
        )


def trace_of(operation: str) -> int:
    """The trace of an operation: its id's 128 bits."""
    return int(operation.replace("-", ""), 16)


def span_of(operation: str, what: str) -> int:
    """The span of an operation, or of the call that began it: the same whoever asks."""
    return int.from_bytes(hashlib.sha256(f"{operation} {what}".encode()).digest()[:8], "big") | 1


async def export(
    address: str,
    under_way: Iterable[OperationRecord],
    *,
    scope: trio.CancelScope,
    task_status: trio.TaskStatus[Spans],
) -> None:
    """Send spans to the collector at ``address`` (OTLP over HTTP) until ``scope`` is cancelled.

    Raises ConfigError: the library is not there.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"traces = {address!r}: the library of OpenTelemetry is not there",
            detail="pip install 'imagestore[traces]', or leave the setting out",
        ) from error
    sender = OTLPSpanExporter(endpoint=f"{address.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
    batches = BatchSpanProcessor(sender)
    try:
        with scope:
            task_status.started(Spans(batches.on_end, under_way=under_way))
            await trio.sleep_forever()
    finally:
        with trio.move_on_after(STOP_SECONDS, shield=True):
            await trio.to_thread.run_sync(batches.shutdown, abandon_on_cancel=True)
