"""What may be seen of the names that several clients work on at the same time.

Calls make names and take them away, with their beginnings and ends.  A name
that is there must have been made by a call that no later one undid; one that
is not there must have been taken away since, or never made.
"""

import math
from typing import Literal

from msgspec import Struct

from imagestore import names

Kind = Literal["made", "gone"]


class Change(Struct, eq=False):
    """What a call does to names: to ``subtree`` and all within, or to what ends in ``suffix`` there.

    ``exact``: to that one name only.  ``sure``: it happens to all of them if
    the call succeeds.  ``happened``: the call has succeeded.
    """

    kind: Kind
    subtree: str
    began: int
    exact: bool = False
    suffix: str = ""
    sure: bool = True
    happened: bool = False
    ended: float = math.inf

    def covers(self, name: str) -> bool:
        if self.exact:
            return name == self.subtree
        return names.is_within(name, self.subtree) and name.endswith(self.suffix)

    @property
    def certain(self) -> bool:
        return self.sure and self.happened


class Sightings:
    def __init__(self) -> None:
        self._changes: list[Change] = []

    def add(self, change: Change) -> None:
        self._changes.append(change)

    def drop(self, change: Change) -> None:
        """It did not happen."""
        self._changes.remove(change)

    def made_names(self) -> set[str]:
        """The names of which it is known that somebody wanted to make them."""
        return {change.subtree for change in self._changes if change.kind == "made" and change.exact}

    def fault(self, name: str, *, there: bool) -> str:
        """Why ``name`` may not be, or may not be missing; "" if it may."""
        about = [change for change in self._changes if change.covers(name)]
        made = [change for change in about if change.kind == "made"]
        gone = [change for change in about if change.kind == "gone"]
        if there:
            for change in made:
                if not any(later.certain and later.began > change.ended for later in gone):
                    return ""
            return f"{name} is there: {'it was taken away for good' if made else 'nobody made it'}"
        for change in made:
            if change.certain and not any(later.ended > change.began for later in gone):
                return f"{name} is not there: it was made, and nobody took it away"
        return ""

    def settle(self, seen: set[str], now: int, *, being_made: set[str]) -> None:
        """What is seen now holds, and nothing is under way any more but what makes ``being_made``."""
        self._changes = [
            change
            for change in self._changes
            if change.kind == "made" and change.ended == math.inf and change.subtree in being_made
        ]
        for name in sorted(seen):
            self.know(name, now)

    def know(self, name: str, now: int) -> None:
        """It is there."""
        self._changes.append(Change("made", name, now, exact=True, happened=True, ended=now))

    def know_gone(self, name: str, now: int) -> None:
        """Somebody took it away, and all below it."""
        self._changes.append(Change("gone", name, now, happened=True, ended=now))
