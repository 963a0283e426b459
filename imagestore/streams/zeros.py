"""Finds zeros: blocks that need not be written, because a hole reads the same.

Most blocks differ from zero in one of a few words, so those are looked at
first and only blocks that pass are read whole.
"""

import numpy as np
import numpy.typing as npt

Blocks = npt.NDArray[np.uint8]

_SAMPLES = 4


def is_zero(block: memoryview) -> bool:
    """Whether all bytes of ``block`` are zero; its length is a multiple of 8."""
    words = np.frombuffer(block, dtype=np.uint64)
    return not words[:: max(len(words) // _SAMPLES, 1)].any() and not words.max()


def zero_rows(blocks: Blocks) -> npt.NDArray[np.bool_]:
    """Which rows of ``blocks`` (count, bytes; bytes a multiple of 512) are all zero."""
    words = blocks.view(np.uint64)
    result: npt.NDArray[np.bool_] = np.count_nonzero(words[:, :: words.shape[1] // _SAMPLES], axis=1) == 0
    suspects = np.flatnonzero(result)
    if len(suspects) == len(words):
        result = words.max(axis=1) == 0
    else:
        for row in suspects:
            result[row] = not words[row].max()
    return result


def stretches(
    offsets: npt.NDArray[np.uint64], block_bytes: int, is_hole: npt.NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Index ranges (first, last + 1) of blocks that are no holes and adjoin each other."""
    count = len(offsets)
    kept = np.flatnonzero(~is_hole)
    if not len(kept):
        return []
    breaks = np.flatnonzero(
        (kept[1:] != kept[:-1] + 1) | (offsets[kept[1:]] != offsets[kept[:-1]] + np.uint64(block_bytes))
    )
    if not len(breaks) and len(kept) == count:
        return [(0, count)]
    firsts = [0, *(breaks + 1).tolist()]
    lasts = [*breaks.tolist(), len(kept) - 1]
    return [(int(kept[first]), int(kept[last]) + 1) for first, last in zip(firsts, lasts, strict=True)]
