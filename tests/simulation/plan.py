"""What is to happen in a history: the clients' calls, the crashes, the faults.  All data, all from a seed."""

import random

from msgspec import Struct

from tests.simulation.calls import Call
from tests.simulation.script import make_script

CLIENTS = 3
KILLS = 0.35
"""The part of crashes that take the store only."""


class CrashPoint(Struct, frozen=True):
    """The machine dies ``steps`` after so many ``calls`` were answered in this life.

    ``kill``: only the store does; what it wrote and did not flush is still in the page cache.
    """

    calls: int
    steps: int
    kill: bool = False


class Plan(Struct, frozen=True, kw_only=True):
    """A history. ``scripts``: the calls of each client, in order."""

    seed: int
    scripts: tuple[tuple[Call, ...], ...]
    crashes: tuple[CrashPoint, ...]
    pool_trouble: float = 0.0
    network_trouble: float = 0.0
    disk_fault: str = ""
    disk_fault_at: int = 0
    strangers: bool = False
    """Between two lives somebody else works on the pool."""

    @property
    def calls(self) -> int:
        return sum(map(len, self.scripts))


def make_plan(seed: int, *, calls: int = 48) -> Plan:
    """At least three clients, 40 calls and two crashes."""
    chance = random.Random(f"plan {seed}")
    clients = CLIENTS + (chance.random() < 0.3)
    each = -(-calls // clients)
    faulty = chance.random()
    return Plan(
        seed=seed,
        scripts=tuple(make_script(chance, client, each) for client in range(clients)),
        crashes=_crashes(chance, calls),
        pool_trouble=0.05 if faulty < 0.3 else 0.0,
        network_trouble=chance.choice((0.0, 0.1, 0.3)),
        disk_fault=chance.choice(("write", "sync", "sync_data")) if faulty > 0.8 else "",
        disk_fault_at=chance.randrange(120),
        strangers=chance.random() < 0.3,
    )


def _crashes(chance: random.Random, calls: int) -> tuple[CrashPoint, ...]:
    points = [
        CrashPoint(chance.randrange(1, calls // 2), chance.randrange(150), chance.random() < KILLS)
        for _ in range(chance.choice((2, 2, 2, 3, 4)))
    ]
    for _ in range(chance.choice((0, 0, 1, 2))):
        # In the start and in recovery, or soon after.
        points.insert(
            chance.randrange(len(points)) + 1, CrashPoint(0, chance.randrange(400), chance.random() < KILLS)
        )
    return tuple(points)
