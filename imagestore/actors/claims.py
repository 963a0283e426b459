"""Claims: who may touch which part of the pool.

Owns the table that settles what crosses owners: cloning an image that is being
deleted, a recursive snapshot of ``guests`` while a guest's disks are made.  An
operation is granted all its claims at once; requests are granted in the order
in which they came, except that those which touch nothing of an earlier,
waiting one need not wait for it.  So nothing deadlocks and nobody starves.

Pure bookkeeping: no clock, no I/O, no trio.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from imagestore import names

Holder = TypeVar("Holder")


class Claim(Struct, frozen=True, kw_only=True):
    """``exclusive`` names whole subtrees, ``shared`` single datasets that must stay as they are."""

    exclusive: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


def conflict(one: Claim, other: Claim) -> bool:
    """Whether the two may not be held at the same time."""
    return (
        any(_overlap(a, b) for a in one.exclusive for b in other.exclusive)
        or any(names.is_within(b, a) for a in one.exclusive for b in other.shared)
        or any(names.is_within(b, a) for a in other.exclusive for b in one.shared)
    )


def _overlap(one: str, other: str) -> bool:
    return names.is_within(one, other) or names.is_within(other, one)


class ClaimTable(Generic[Holder]):
    """Granted and waiting claims, by holder."""

    def __init__(self) -> None:
        self._granted: dict[Holder, Claim] = {}
        self._waiting: dict[Holder, Claim] = {}

    def __len__(self) -> int:
        return len(self._granted) + len(self._waiting)

    def request(self, holder: Holder, claim: Claim) -> bool:
        """Ask for ``claim``. True: granted at once; False: it waits for :meth:`release`."""
        if self._stands_free(claim, before=None):
            self._granted[holder] = claim
            return True
        self._waiting[holder] = claim
        return False

    def release(self, holder: Holder) -> Sequence[Holder]:
        """Give up a claim, granted or waiting. Returns the holders that are granted theirs by this."""
        self._granted.pop(holder, None)
        self._waiting.pop(holder, None)
        served: list[Holder] = []
        for waiter, claim in list(self._waiting.items()):
            if self._stands_free(claim, before=waiter):
                del self._waiting[waiter]
                self._granted[waiter] = claim
                served.append(waiter)
        return served

    def _stands_free(self, claim: Claim, before: Holder | None) -> bool:
        """Whether ``claim`` conflicts with none granted and none that waits before it."""
        if any(conflict(claim, other) for other in self._granted.values()):
            return False
        for waiter, other in self._waiting.items():
            if waiter == before:
                return True
            if conflict(claim, other):
                return False
        return True
