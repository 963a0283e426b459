"""A measured row, and the table that is printed of many.

A row compares ours with something else measured in the same run (a ratio), or
with a bound in its own unit.  Nothing here measures, and nothing fails: a row
that falls short says ``short``, and its note says what bounds it.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct


class Row(Struct, frozen=True, kw_only=True):
    """One line of the table.

    ``ours`` and ``against`` are in ``unit`` (``1/s``, ``MB/s``, ``ms``, ``s``,
    ``MB``).  With ``against``, ``target`` is a bound on ours / against, else on
    ours.  ``higher`` means at least ``target``, ``lower`` at most.  ``ours``
    None means: not measured here, ``note`` says why.
    """

    name: str
    ours: float | None
    unit: str
    target: float
    against: float | None = None
    against_name: str = ""
    better: Literal["higher", "lower"] = "higher"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        if self.ours is None or not self.against:
            return None
        return self.ours / self.against

    @property
    def verdict(self) -> Literal["ok", "short", "not measured"]:
        measured = self.ratio if self.against is not None else self.ours
        if measured is None:
            return "not measured"
        met = measured >= self.target if self.better == "higher" else measured <= self.target
        return "ok" if met else "short"


HEADINGS = ("row", "ours", "against", "ratio", "target", "")


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text; notes stand below, by the row's name."""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = []
    for line in lines:
        first, *numbers, verdict = (
            cell.ljust(width) if column in (0, len(HEADINGS) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        text.append("  ".join([first, *numbers, verdict]).rstrip())
    text.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"{row.name}: {row.note}" for row in rows if row.note]
    return "\n".join([*text, *(["", *notes] if notes else [])])


def _cells(row: Row) -> tuple[str, ...]:
    ours = "-" if row.ours is None else f"{number(row.ours)} {row.unit}"
    against = "-" if row.against is None else f"{number(row.against)} {row.unit}"
    if row.against_name:
        against = f"{against} ({row.against_name})"
    sign = "≥" if row.better == "higher" else "≤"
    unit = "x" if row.against is not None or row.against_name else f" {row.unit}"
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    return row.name, ours, against, ratio, f"{sign} {row.target:g}{unit}", row.verdict


def number(value: float) -> str:
    """Three digits that mean something: 12,345, 123, 12.3, 1.23, 0.012."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
