"""What strace has seen a store do: system calls, exchanges with clients, and whether flushes came first.

Pure functions of strace's text (``strace -f -yy``, strings whole).  The order of
the lines is the order of things: a call that was interrupted by others has a
line where it began and one where it ended.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

SENDING = ("sendto", "write")
SEEN = ("recvfrom", *SENDING, "pwrite64", "fdatasync")
"""What has to be traced."""

_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<rest>.*)")
_CALL = re.compile(
    r"(?P<name>\w+)\(\d+<(?P<file>[A-Z0-9]+:\[[^\]]*\]|[^>]*)>"
    r'(?:, (?:"(?P<data>(?:[^"\\]|\\.)*)"(?P<cut>\.\.\.)?)?.*)?\) += (?P<result>-?\d+)'
)
_OPERATION = re.compile(rb"\r\nimagestore-operation: (\S+)\r\n")
_BATCH = '[{"id":'


class Call(Struct, frozen=True, kw_only=True):
    """A system call on ``file``: a path, or a connection's two ends. ``began`` and ``ended`` are lines."""

    name: str
    file: str
    data: bytes
    result: int
    began: int
    ended: int


class Exchange(Struct, frozen=True):
    """One request on a connection, and the first bytes of the reply to it."""

    request: Call
    reply: Call

    @property
    def operation(self) -> str:
        """What the reply says that the request was; "" if it changed nothing."""
        found = _OPERATION.search(self.reply.data)
        return found[1].decode() if found else ""


def calls(text: str) -> Iterator[Call]:
    """Those of ``SEEN``, in the order in which they ended. Raises ValueError: strace cut a string short."""
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(text.splitlines()):
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        thread, rest = found["thread"], found["rest"]
        if rest.endswith(_UNFINISHED):
            begun[thread] = number, rest.removesuffix(_UNFINISHED)
            continue
        began = number
        if resumed := _RESUMED.fullmatch(rest):
            began, start = begun.pop(thread)
            rest = start + resumed["rest"]
        call = _CALL.match(rest)
        if call is None or call["name"] not in SEEN:
            continue
        if call["cut"]:
            raise ValueError(f"line {number + 1}: strace left out a part of what was written")
        yield Call(
            name=call["name"],
            file=call["file"],
            data=ast.literal_eval(f'b"{call["data"] or ""}"'),
            result=int(call["result"]),
            began=began,
            ended=number,
        )


def exchanges(seen: Iterable[Call]) -> Iterator[Exchange]:
    """Every POST with its reply; a connection has one request at a time."""
    asked: dict[str, Call] = {}
    for call in seen:
        if call.name == "recvfrom" and call.data.startswith(b"POST "):
            asked[call.file] = call
        elif call.name in SENDING and call.file in asked:
            yield Exchange(asked.pop(call.file), call)


def written(call: Call) -> Iterator[tuple[str, str]]:
    """The events in what was written to a journal: each one's operation and alias."""
    text = call.data.decode("latin-1")
    place = text.find(_BATCH)
    while place >= 0:
        batch: Sequence[dict[str, Any]]
        batch, end = json.JSONDecoder().raw_decode(text, place)
        for envelope in batch:
            yield envelope.get("operation", ""), envelope["event"]["event"]
        place = text.find(_BATCH, end)


def judge(exchange: Exchange, seen: Sequence[Call], journal: str) -> list[str]:
    """What is wrong with a change's exchange: its intent and its outcome were written and flushed before
    the reply, in that order.  ``journal`` is the journal's directory."""
    within = [c for c in seen if c.began > exchange.request.ended and c.file.startswith(f"{journal}/")]
    wrong = []
    earliest = exchange.request.ended
    for alias in ("operation-started", "operation-finished"):
        writes = [
            call
            for call in within
            if call.name == "pwrite64"
            and call.began > earliest
            and call.ended < exchange.reply.began
            and (exchange.operation, alias) in written(call)
        ]
        if not writes:
            wrong.append(
                f"{exchange.operation}: {alias} was not written between what it follows and the reply"
            )
            continue
        flushed = next((c for c in within if _flushes(c, writes[0])), None)
        if flushed is None or flushed.ended > exchange.reply.began:
            wrong.append(f"{exchange.operation}: {alias} was not flushed before the reply")
        else:
            earliest = flushed.ended
    return wrong


def _flushes(call: Call, write: Call) -> bool:
    """Whether the call made durable what was written: begun when all of it was, and without an error."""
    is_flush = call.name == "fdatasync" and call.result == 0
    return is_flush and call.file == write.file and call.began > write.ended
