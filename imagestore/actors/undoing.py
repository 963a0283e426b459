"""Undoing what a change that failed has made, when that fails as well.

Owns one rule: what resists stays in the pool and is logged, and does not hide why it
was to go.  Whoever undoes tells the journal of what stays under a visible name; what
stands under a staging name goes at the next start.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imagestore.errors import ImageStoreError, PoolStuck
from imagestore.pools.base import Dataset

_log = logging.getLogger(__name__)


@contextmanager
def resisting(rows: Sequence[Dataset]) -> Iterator[None]:
    """Around the destruction of ``rows``. Raises PoolStuck: nobody knows what is there."""
    try:
        yield
    except PoolStuck:
        raise
    except ImageStoreError as error:
        _log.error("what a change that failed had made stays: %s: %s", rows[0].name, error)
