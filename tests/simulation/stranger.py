"""Somebody else, who works on the pool while no store runs: takes datasets away, and their names."""

import random

from imagestore.pools.base import Identity, Tags
from tests.simulation.book import Book
from tests.simulation.calls import SHARED
from tests.simulation.poolground import NOTHING, PoolGround


def visit(
    ground: PoolGround, book: Book, foreign: set[Identity], chance: random.Random, *, wanted: set[str]
) -> bool:
    """Whether something of the store's was taken. What the stranger made is added to ``foreign``.

    ``wanted`` are names that were being worked on at the crash: there most harm can be done.
    """
    took = False
    for name in [f"{SHARED}/v{number}" for number in range(3)]:
        entry = ground.find(name)
        eagerness = 0.8 if name in wanted else 0.35
        if entry is not None and chance.random() < eagerness:
            for each in ground.subtree(name):
                foreign.discard(each.dataset.identity)
                ground.remove(each)
            book.stranger_took(name)
            took = True
            entry = None
        if entry is None and ground.find(SHARED) is not None and chance.random() < eagerness:
            made = ground.add(name, "volume", Tags(), 0, volsize=1 << 20, blocks=NOTHING, block_size=16384)
            foreign.add(made.identity)
            book.stranger_made(name)
    return took
