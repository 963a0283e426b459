"""Parts of a download: what ``Range`` and ``If-Range`` ask for (RFC 9110, 13 and 14).

One range of bytes with a first position is honoured, open-ended or not.  What
is anything else (several ranges, the last N bytes, another unit, malformed)
is as if it were not there: the whole is sent.  Pure.
"""

import re

from msgspec import Struct

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{1,18})\s*-\s*([0-9]{1,18})?\s*\Z", re.IGNORECASE)


class Range(Struct, frozen=True, kw_only=True):
    """Bytes ``first`` to ``last``, both included; to the end when ``last`` is None."""

    first: int
    last: int | None = None

    def bytes_of(self, size: int) -> int:
        """How many bytes this is of a body of ``size``; 0 or less if it begins behind its end."""
        last = size - 1 if self.last is None else min(self.last, size - 1)
        return last - self.first + 1


def read_range(header: str) -> Range | None:
    """The range asked for, None for all."""
    match = _ONE_RANGE.match(header)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2]) if match[2] is not None else None
    return None if last is not None and last < first else Range(first=first, last=last)


def is_current(etag: str, if_range: str) -> bool:
    """Whether a range may be sent: the body is what ``if_range`` says it was.

    ``etag`` is without quotes, "" if there is none.  A weak ETag or a date
    proves nothing about bytes.
    """
    return bool(etag) and (not if_range or if_range.strip() == f'"{etag}"')


def content_range(wanted: Range, size: int) -> str:
    """The value of Content-Range for a part that is not empty."""
    return f"bytes {wanted.first}-{wanted.first + wanted.bytes_of(size) - 1}/{size}"
