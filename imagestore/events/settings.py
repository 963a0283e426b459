"""What can be set about a journal, and what it tells about itself."""

from msgspec import Struct


class JournalSettings(Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds.

    ``queue_limit`` bounds the appends that wait for their turn; ``append_seconds``
    is how long an append waits unless told otherwise; ``idle_seconds`` how long
    after the last group an empty one proves it; ``close_seconds`` bounds closing.
    With ``threads`` off every system call runs on trio's thread: for simulations
    on a virtual clock only.
    """

    segment_bytes: int = 64 << 20
    checkpoint_events: int = 20_000
    queue_limit: int = 1024
    append_seconds: float = 30.0
    idle_seconds: float = 0.5
    close_seconds: float = 5.0
    allow_unsafe_filesystem: bool = False
    threads: bool = True


DEFAULT_SETTINGS = JournalSettings()


class Failure(Struct, frozen=True, kw_only=True):
    """Why the journal can no longer be written, and the seq of the last durable event."""

    reason: str
    seq: int


class JournalStatistics(Struct, frozen=True, kw_only=True):
    """Counters since opening.  ``last_flush_seconds`` is of the last group, hop included."""

    seq: int
    appends: int
    groups: int
    queued: int
    last_flush_seconds: float
    flush_under_way_seconds: float
    checkpoints: int
    cuts: int
