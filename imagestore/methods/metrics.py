"""What the store tells a monitoring system: the metrics, in the text format of Prometheus.

Names and units follow its conventions (base units, ``_total`` for counters).
No id is a label, but for a bounded number of guests on the time of the last
snapshot.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from imagestore import __version__, names
from imagestore.events.settings import JournalStatistics
from imagestore.methods.addressing import Actors
from imagestore.pools.base import Dataset, Space
from imagestore.service import Readiness
from imagestore.timings import BOUNDS_SECONDS, Histogram

MOST_GUESTS = 1000
"""So many guests, the first by name, are told apart."""


def exposition(
    actors: Actors | None, readiness: Readiness, statistics: JournalStatistics | None, space: Space | None
) -> bytes:
    """All metrics; of a store that does not run those that there are."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Told(list(_metrics(actors, readiness, statistics, space))))
    return generate_latest(registry)


class _Told(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _metrics(
    actors: Actors | None, readiness: Readiness, statistics: JournalStatistics | None, space: Space | None
) -> Iterator[Metric]:
    yield _gauge("info", "The version that runs.", {(__version__,): 1}, "version")
    yield _gauge("ready", "1 if changes are taken.", {(): readiness.ready})
    yield _gauge("read_only", "1 if the journal failed: nothing changes.", {(): readiness.read_only})
    if statistics is not None:
        yield from _journal(statistics)
    if actors is None:
        return
    timings = actors.operations.timings
    yield _histogram("journal_flush", "Of a commit group, until it is durable.", {(): timings.flush})
    yield _histogram("journal_append", "Of an intent or outcome, until it is durable.", {(): timings.append})
    yield _histogram(
        "pool_command",
        "What the pool was told to do.",
        {(command,): each for command, each in timings.commands.items()},
        "command",
    )
    yield _histogram("rpc", "Calls of methods.", timings.calls, "method", "outcome")
    yield _counter("operations", "Operations that have ended.", timings.ended, "outcome")
    yield from _state(actors)
    if space is not None:
        yield from _space(actors, space)


def _journal(statistics: JournalStatistics) -> Iterator[Metric]:
    yield _gauge("journal_seq", "The last durable event.", {(): statistics.seq})
    yield _gauge("journal_queue_depth", "Appends that wait for their group.", {(): statistics.queued})
    yield _gauge(
        "journal_flush_under_way_seconds",
        "How long the disk has not answered so far.",
        {(): statistics.flush_under_way_seconds},
    )
    for name, text, count in (
        ("journal_appends", "Batches of events.", statistics.appends),
        ("journal_groups", "Commit groups.", statistics.groups),
        ("journal_checkpoints", "Checkpoints written.", statistics.checkpoints),
        ("journal_cuts", "Torn tails cut off at the start.", statistics.cuts),
    ):
        yield _counter(name, text, {"": count})


def _state(actors: Actors) -> Iterator[Metric]:
    state, view = actors.operations.state, actors.zpool.view
    roles = _count(record.role for record in state.datasets.values())
    yield _gauge("datasets", "Datasets of the store's, by what they are.", roles, "role")
    images = _count(record.status for record in state.images.values())
    yield _gauge("images", "Images, by status.", images, "status")
    running = _count(record.method for record in state.operations.values())
    yield _gauge("operations_running", "Operations under way.", running, "method")
    snapshots = _last_snapshots(row for row in view.under(names.GUESTS) if row.kind == "snapshot")
    yield _gauge(
        "guest_last_snapshot_timestamp_seconds",
        f"When the last snapshot of a guest was taken; of the first {MOST_GUESTS} guests by name.",
        {(guest,): snapshots[guest] for guest in sorted(snapshots)[:MOST_GUESTS]},
        "guest",
    )


def _count(words: Iterable[str]) -> Mapping[tuple[str, ...], float]:
    return {(word,): number for word, number in Counter(words).items()}


def _last_snapshots(rows: Iterator[Dataset]) -> dict[str, int]:
    last: dict[str, int] = {}
    for row in rows:
        guest = row.name.split("/")[1].partition("@")[0]
        last[guest] = max(last.get(guest, 0), row.creation)
    return last


def _space(actors: Actors, space: Space) -> Iterator[Metric]:
    promised, reserved = actors.zpool.view.promised_bytes, actors.zpool.ledger.reserved_bytes
    for name, text, value in (
        ("pool_size_bytes", "The whole pool.", space.total),
        ("pool_available_bytes", "What can still be written.", space.available),
        ("pool_promised_bytes", "What sparse volumes and clones may still write.", promised),
        ("pool_reserved_bytes", "What operations under way have set aside.", reserved),
        ("pool_free_bytes", "What may be promised to new volumes.", space.available - promised - reserved),
    ):
        yield _gauge(name, text, {(): value})


def _gauge(name: str, text: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    metric = GaugeMetricFamily(f"imagestore_{name}", text, labels=labels)
    for key, value in values.items():
        metric.add_metric(key, value)
    return metric


def _counter(name: str, text: str, values: Mapping[str, float], *labels: str) -> Metric:
    metric = CounterMetricFamily(f"imagestore_{name}", text, labels=labels)
    for key, value in values.items():
        metric.add_metric([key] if labels else [], value)
    return metric


def _histogram(name: str, text: str, values: Mapping[tuple[str, ...], Histogram], *labels: str) -> Metric:
    metric = HistogramMetricFamily(f"imagestore_{name}_seconds", text, labels=labels)
    bounds = [*map(str, BOUNDS_SECONDS), "+Inf"]
    for key, histogram in values.items():
        counted = accumulate(histogram.counts)
        metric.add_metric(key, list(zip(bounds, counted, strict=True)), histogram.total_seconds)
    return metric
