"""Times on the wire: RFC 3339 in UTC, to the microsecond, and nanoseconds since 1970. Pure."""

import datetime as dt

from imagestore.errors import InvalidArgument

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def read_time(text: str, what: str = "since") -> int:
    """Nanoseconds since 1970; 0 of "". Raises InvalidArgument."""
    if not text:
        return 0
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidArgument(detail=f"{what}: a time of RFC 3339 with its zone, not {text[:50]!r}")
    return (moment - _EPOCH) // dt.timedelta(microseconds=1) * 1000


def show_time(time_ns: int) -> str | None:
    """None of 0."""
    if not time_ns:
        return None
    moment = dt.datetime.fromtimestamp(time_ns // 1_000_000_000, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns // 1000 % 1_000_000:06d}Z"
