"""What one look has found. Plain data."""

from typing import Literal

from msgspec import Struct

Verdict = Literal["ok", "note", "problem"]
"""A note is what the store works without."""


class Finding(Struct, frozen=True, kw_only=True):
    """``what`` was looked at, ``found`` in words, ``mend``: the command that mends it, "" if all is well."""

    what: str
    verdict: Verdict
    found: str
    mend: str = ""


def fine(what: str, found: str) -> Finding:
    return Finding(what=what, verdict="ok", found=found)


def note(what: str, found: str, mend: str) -> Finding:
    return Finding(what=what, verdict="note", found=found, mend=mend)


def problem(what: str, found: str, mend: str) -> Finding:
    return Finding(what=what, verdict="problem", found=found, mend=mend)
