"""How long things took, and how often they ended how: in memory, cheap enough for every call.

Owns the histograms that ``/metrics`` tells.  One object belongs to one life of
a store; everybody who measures is handed it.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable

from msgspec import Struct

BOUNDS_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Upper bounds of the buckets; the last bucket has none."""


class Histogram:
    """How many took at most so long: ``counts`` by bucket, ``total_seconds`` of all."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.total_seconds += seconds

    def quantile(self, share: float) -> float | None:
        """What ``share`` of them took at most, in seconds; the last bound, beyond it. None of none."""
        wanted, seen = share * sum(self.counts), 0
        if not wanted:
            return None
        for bound, count in zip(BOUNDS_SECONDS, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return BOUNDS_SECONDS[-1]


class Called(Struct, frozen=True, kw_only=True):
    """A call that was answered.  Times in nanoseconds since 1970; ``outcome`` as of :attr:`Timings.calls`;
    ``operation`` is "" of a call that had none."""

    method: str
    principal: str
    operation: str
    outcome: str
    error_type: str
    began_ns: int
    ended_ns: int


class Timings:
    """See the module."""

    def __init__(self) -> None:
        self.flush = Histogram()
        """Of a commit group: handed to the journal's thread, durable, and back."""
        self.append = Histogram()
        """Of an operation's intent or outcome, the wait for its group included."""
        self.commands: defaultdict[str, Histogram] = defaultdict(Histogram)
        """Of the pool, by what was done."""
        self.calls: defaultdict[tuple[str, ...], Histogram] = defaultdict(Histogram)
        """By method and outcome: succeeded, refused, failed."""
        self.ended: Counter[str] = Counter()
        """Operations, by outcome."""
        self.tell_call: Callable[[Called], None] | None = None
        """Told of each call, if somebody wants to know."""
