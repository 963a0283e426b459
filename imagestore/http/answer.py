"""An answer of the server, ready to be sent, and its content coding.

Owns the choice between gzip, deflate and neither.  ``deflate`` is the raw
format, without zlib's frame, because that is what the original sent and what
its clients undo.  Knows nothing of the server that sends it.
"""

import gzip
import zlib

from msgspec import Struct, structs

Header = tuple[bytes, bytes]

TEXT_TYPE: Header = (b"content-type", b"text/plain; charset=utf-8")
JSON_TYPE: Header = (b"content-type", b"application/json; charset=utf-8")
NOSNIFF: Header = (b"x-content-type-options", b"nosniff")

_LEVEL = 5
"""Compression level: answers are small and the client waits."""


class Answer(Struct, frozen=True, kw_only=True):
    """Status, headers (names in lower case) and body; the length is added by :meth:`all_headers`."""

    status: int
    headers: tuple[Header, ...] = ()
    body: bytes = b""

    def all_headers(self) -> list[Header]:
        return [*self.headers, (b"content-length", b"%d" % len(self.body))]


def text_answer(status: int, text: str, *headers: Header) -> Answer:
    """An answer in plain text."""
    return Answer(status=status, headers=(TEXT_TYPE, *headers), body=text.encode("utf-8", "replace"))


def choose_coding(accept_encoding: str) -> str:
    """``gzip``, ``deflate`` or "" (neither): the highest q-value, the first of equals.

    A bare ``*`` asks for nothing in particular and gets no coding, as from the original.
    """
    best, best_quality = "", 0.0
    for part in accept_encoding.split(","):
        name, _, parameters = part.partition(";")
        coding = name.strip().lower()
        if coding in ("gzip", "deflate") and (quality := _quality(parameters)) > best_quality:
            best, best_quality = coding, quality
    return best


def coded(answer: Answer, coding: str) -> Answer:
    """``answer`` with its body compressed; unchanged when ``coding`` is ""."""
    if not coding:
        return answer
    if coding == "gzip":
        body = gzip.compress(answer.body, _LEVEL, mtime=0)
    else:
        compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = compressor.compress(answer.body) + compressor.flush()
    headers = (
        *answer.headers,
        (b"content-encoding", coding.encode()),
        (b"vary", b"Accept-Encoding"),
    )
    return structs.replace(answer, headers=headers, body=body)


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, number = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return min(float(number), 1.0)
            except ValueError:
                return 0.0
    return 1.0
