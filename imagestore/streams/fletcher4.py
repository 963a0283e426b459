"""Fletcher-4, the running checksum of send streams, by numpy.

Four sums over little-endian 32-bit words, modulo 2^64: ``a += w; b += a;
c += b; d += c``.  The sums of a block of n words, taken on their own, combine
with any earlier state in closed form, so whole rows of 64 words become one
matrix product.  Its float64 arithmetic is exact: with weights of at most
C(66, 3) a row sums to less than 2^52.

Importing this module imports numpy (some 30 MB); the edges of
``imagestore.streams`` import it only when a stream is at hand.
"""

import os
from typing import Final

# BLAS threads fight over two cores for products this small; must stand before the first import of numpy
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

State = tuple[int, int, int, int]
Words = npt.NDArray[np.uint32]
U64s = npt.NDArray[np.uint64]

ZERO: Final[State] = (0, 0, 0, 0)
WORD_BYTES: Final = 4

_ROW: Final = 64
_CHUNK: Final = 65536
"""Words turned into float64 at a time: 512 KiB stay in the second-level cache."""


def _combinations(n: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.float64]:
    """C(n, k) for k of 0 to 3, exactly."""
    result = np.ones_like(n)
    for i in range(k):
        result = result * (n - i) // (i + 1)
    return result.astype(np.float64)


_INDEX = np.arange(_ROW, dtype=np.int64)
# Word i of a row counts C(64 - i + j - 1, j) times in sum j.
_ROW_WEIGHTS = np.stack([_combinations(_ROW - _INDEX + j - 1, j) for j in range(4)], axis=1)
# Moments of a row's first m words, from which the sums for any m follow.
_MOMENT_WEIGHTS = np.stack([_combinations(_INDEX + j - 1, j) for j in range(4)], axis=1)
_MOMENT_WEIGHTS[:, 0] = 1.0

_T1, _T2, _T3 = np.uint64(64), np.uint64(2080), np.uint64(45760)


class Fletcher4:
    """Computes states; keeps only scratch space, so one object serves one thread."""

    def __init__(self) -> None:
        self._scratch = np.empty((_CHUNK // _ROW, _ROW), dtype=np.float64)

    def advance(self, state: State, words: Words) -> State:
        """The state after all of ``words``."""
        return _as_state(self.states_at(state, words, np.array([len(words)]))[0])

    def states_at(self, state: State, words: Words, positions: npt.NDArray[np.int64]) -> U64s:
        """The state before word ``p`` for each p of ``positions``, as an array (len, 4).

        ``positions`` lie within 0 to ``len(words)``; words behind the last one
        are not looked at.
        """
        rows = int(positions.max()) // _ROW
        prefixes = _prefixes(state, self._row_sums(words, rows))
        row, inside = np.divmod(positions, _ROW)
        return _append(prefixes[:, row], _partial_sums(words, row, inside), inside).T

    def _row_sums(self, words: Words, rows: int) -> U64s:
        """The four sums of each of the first ``rows`` rows on its own, (4, rows)."""
        sums = np.empty((4, rows), dtype=np.uint64)
        per_chunk = len(self._scratch)
        table = words[: rows * _ROW].reshape(rows, _ROW)
        for first in range(0, rows, per_chunk):
            chunk = table[first : first + per_chunk]
            scratch = self._scratch[: len(chunk)]
            np.copyto(scratch, chunk)
            sums[:, first : first + per_chunk] = (scratch @ _ROW_WEIGHTS).T
        return sums


def _prefixes(state: State, sums: U64s) -> U64s:
    """The state before each row and after the last, (4, rows + 1)."""
    result = np.empty((4, sums.shape[1] + 1), dtype=np.uint64)
    a, b, c, d = result
    before_a, before_b, before_c = a[:-1], b[:-1], c[:-1]
    steps = sums[0]
    _accumulate(a, state[0], steps)
    steps = sums[1] + _T1 * before_a
    _accumulate(b, state[1], steps)
    steps = sums[2] + _T1 * before_b + _T2 * before_a
    _accumulate(c, state[2], steps)
    steps = sums[3] + _T1 * before_c + _T2 * before_b + _T3 * before_a
    _accumulate(d, state[3], steps)
    return result


def _accumulate(column: U64s, start: int, steps: U64s) -> None:
    column[0] = start
    np.cumsum(steps, out=column[1:])
    column[1:] += np.uint64(start)


def _partial_sums(words: Words, row: npt.NDArray[np.int64], inside: npt.NDArray[np.int64]) -> U64s:
    """The four sums of the first ``inside`` words of each row named, (4, len)."""
    if not len(words):
        return np.zeros((4, len(row)), dtype=np.uint64)
    index = np.minimum(row[:, None] * _ROW + _INDEX, len(words) - 1)
    kept = words[index] * (inside[:, None] > _INDEX)
    m0, m1, m2, m3 = (kept.astype(np.float64) @ _MOMENT_WEIGHTS).T.astype(np.uint64)
    m = inside.astype(np.uint64)
    one, two, six = np.uint64(1), np.uint64(2), np.uint64(6)
    m_plus_1, m_plus_2 = m + one, m + two
    return np.stack(
        [
            m0,
            m * m0 - m1,
            m_plus_1 * m // two * m0 - m_plus_1 * m1 + m2,
            m_plus_2 * m_plus_1 * m // six * m0 - m_plus_2 * m_plus_1 // two * m1 + m_plus_2 * m2 - m3,
        ]
    )


def _append(states: U64s, sums: U64s, counts: npt.NDArray[np.int64]) -> U64s:
    """Each state after ``counts`` more words whose own sums are ``sums``; all (4, len)."""
    n = counts.astype(np.uint64)
    t2 = n * (n + np.uint64(1)) // np.uint64(2)
    t3 = n * (n + np.uint64(1)) * (n + np.uint64(2)) // np.uint64(6)
    a, b, c, d = states
    return np.stack(
        [
            a + sums[0],
            b + n * a + sums[1],
            c + n * b + t2 * a + sums[2],
            d + n * c + t2 * b + t3 * a + sums[3],
        ]
    )


def _as_state(row: U64s) -> State:
    a, b, c, d = row.tolist()
    return a, b, c, d
