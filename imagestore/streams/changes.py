"""Finds what a stream must carry: a volume's blocks, or those that differ from its base.

Reads block by block, hole by hole, and says for each whether it is data, a
hole, or as in the base.  Zeros are holes whether the file stores them or not,
so the same content gives the same answer from any file.  Knows no records.
"""

import heapq
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from imagestore.streams import files
from imagestore.streams.zeros import zero_rows

Blocks = npt.NDArray[np.uint8]

SAME: Final = 0
DATA: Final = 1
HOLE: Final = 2


class Side(Struct, frozen=True, gc=False):
    """A volume's content: an open file of ``size`` bytes; what lies beyond is zero."""

    fd: int
    size: int

    def read(self, offset: int, blocks: Blocks) -> None:
        """Fill the rows of ``blocks``, which need not adjoin each other, from ``offset``."""
        width = blocks.shape[1]
        rows = min(len(blocks), max(-(-(self.size - offset) // width), 0))
        if blocks.flags.c_contiguous:
            vector = [blocks[:rows].reshape(-1).data] if rows else []
        else:
            vector = [row.data for row in blocks[:rows]]
        files.read_full(self.fd, offset, vector)
        blocks[rows:] = 0
        inside = self.size - (offset + (rows - 1) * width)
        if rows and inside < width:
            blocks[rows - 1, inside:] = 0


def regions(sides: list[Side], size: int, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Where any of ``sides`` may hold data below ``size``: (start, end) of whole blocks, ascending, apart."""
    extents = heapq.merge(*(files.data_extents(side.fd, 0, min(side.size, size)) for side in sides))
    start = end = 0
    for extent_start, extent_end in extents:
        first = extent_start // block_bytes * block_bytes
        last = -(-extent_end // block_bytes) * block_bytes
        if first > end:
            if end > start:
                yield start, end
            start = first
        end = max(end, last)
    if end > start:
        yield start, end


def classify(blocks: Blocks, before: Blocks | None) -> npt.NDArray[np.uint8]:
    """SAME, DATA or HOLE for each row; ``before`` is the base's, None for a full stream."""
    zero = zero_rows(blocks)
    kinds = np.where(zero, np.uint8(HOLE), np.uint8(DATA))
    if before is not None:
        differs = np.count_nonzero(blocks.view(np.uint64) != before.view(np.uint64), axis=1)
        kinds[differs == 0] = SAME
    return kinds


def runs(kinds: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
    """Maximal (kind, first, last + 1) of equal neighbours."""
    breaks = [*(np.flatnonzero(kinds[1:] != kinds[:-1]) + 1).tolist(), len(kinds)]
    first = 0
    for last in breaks:
        yield int(kinds[first]), first, last
        first = last
