"""Failed attempts to be let in, counted by where they come from.

Owns the table: bounded, the source that was quiet for longest is forgotten
first.  After :data:`FREE` failures each further one doubles the time in which
nothing from that source is looked at.  Knows nothing of tokens or HTTP; the
clock is handed in.
"""

from collections import OrderedDict
from collections.abc import Callable

FREE = 5
"""Failures that cost nothing: somebody mistypes, a token has just been revoked."""

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0

FORGET_SECONDS = 900.0
"""A source that was quiet for so long begins anew."""

MOST_SOURCES = 4096


class _Record:
    def __init__(self) -> None:
        self.failures = 0
        self.last = 0.0


class Attempts:
    """See the module.  ``now`` gives seconds of a clock that does not jump."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def wait_seconds(self, source: str) -> float:
        """How long nothing from ``source`` is to be looked at; 0.0 if it may try."""
        record = self._records.get(source)
        if record is None or record.failures < FREE:
            return 0.0
        # The exponent is bounded before it is used: a record can have failed very often.
        doublings = min(record.failures - FREE, 16)
        wait = min(FIRST_WAIT_SECONDS * (1 << doublings), LONGEST_WAIT_SECONDS)
        return max(0.0, record.last + wait - self._now())

    def failed(self, source: str) -> int:
        """Note a failure; returns how many there were of late."""
        now = self._now()
        record = self._records.setdefault(source, _Record())
        if now - record.last > FORGET_SECONDS:
            record.failures = 0
        record.failures += 1
        record.last = now
        self._records.move_to_end(source)
        while len(self._records) > MOST_SOURCES:
            self._records.popitem(last=False)
        return record.failures

    def succeeded(self, source: str) -> None:
        """Whoever is there has shown that it is known."""
        self._records.pop(source, None)
