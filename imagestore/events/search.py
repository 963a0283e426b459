"""Finding events in a journal that may be huge, with its index where that helps.

A journal of some size, or one that has an index already, is searched with it
and read only where something was found; what the index does not know yet is
read.  Any other is read whole.  What is found is the same either way.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain

from msgspec import structs

from imagestore.events import reader
from imagestore.events.catalogue import Envelope, PoolAttached
from imagestore.events.index import MEMORY, Index, IndexLost, open_index
from imagestore.events.selection import Filter, Selector, select

INDEXED_BYTES = 32 << 20
"""A journal of this size takes over a second to read: an index is made."""


def search(directory: str, wanted: Filter, *, last: int | None = None, cache: str = "") -> Iterator[Envelope]:
    """The events of the journal in ``directory`` that ``wanted`` asks for, in order; the ``last`` of them.

    ``cache`` is the directory of the index, by default ``<directory>.cache``.

    Raises, while iterated:
        JournalError: there is no journal, it is damaged, or too new.
    """
    cache = cache or f"{directory}.cache"
    if (last is not None or not wanted.takes_all) and _is_worth_it(directory, cache):
        with closing(open_index(directory, cache)) as index:
            if index.path != MEMORY:
                try:
                    yield from list(_indexed(index, wanted, last))
                    return
                except IndexLost:
                    index.rebuild()
    begin = 1 if wanted.has_subject else wanted.from_seq
    found: Iterable[Envelope] = select(reader.read(directory, begin), wanted)
    yield from found if last is None else deque(found, maxlen=last)


def _is_worth_it(directory: str, cache: str) -> bool:
    if os.path.isdir(cache):
        return True
    with os.scandir(directory) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file()) >= INDEXED_BYTES


def _indexed(index: Index, wanted: Filter, last: int | None) -> Iterable[Envelope]:
    """What the index finds, and what of the journal's end it does not know yet."""
    known = index.catch_up()
    pool = _pool(index)
    asked = wanted
    if wanted.dataset is not None:
        asked = structs.replace(wanted, dataset=wanted.dataset.removeprefix(f"{pool}/"))
    selector = Selector(asked, pool=pool)
    for envelope in index.read(index.under_way(known)):
        selector.takes(envelope)  # so that the rest of what it is about is found behind the index's end
    found = index.read(index.search(asked, last=last))
    everything = chain(found, filter(selector.takes, reader.read(index.directory, known + 1)))
    return everything if last is None else deque(everything, maxlen=last)


def _pool(index: Index) -> str:
    """The name of the pool that the journal was attached to last."""
    for envelope in index.read(index.search(Filter(types=("pool-attached",)), last=1)):
        if isinstance(envelope.event, PoolAttached):
            return envelope.event.pool.rstrip("/").rpartition("/")[2]
    return ""
