"""Writes the running checksums into headers: the writer's half of Fletcher-4.

Each header's checksum becomes part of what the next one covers, so the last
step goes record by record; everything that does not depend on checksums, the
sums of all bytes between two headers, is computed for a whole batch at once.
"""

import numpy as np
import numpy.typing as npt

from imagestore.streams import fletcher4
from imagestore.streams.fletcher4 import State
from imagestore.streams.records import CHECKSUM_AT, HEADER_BYTES, U64_MAX

_HALF = 1 << 32
_A0 = 1 - _HALF
_B0, _B1, _B2, _B3 = 7 - 8 * _HALF, 5 - 6 * _HALF, 3 - 4 * _HALF, 1 - 2 * _HALF
_C0, _C1, _C2, _C3 = 28 - 36 * _HALF, 15 - 21 * _HALF, 6 - 10 * _HALF, 1 - 3 * _HALF
_D0, _D1, _D2, _D3 = 84 - 120 * _HALF, 35 - 56 * _HALF, 10 - 20 * _HALF, 1 - 4 * _HALF
_FIELD_WORDS = 8
_FIELD = np.arange(_FIELD_WORDS, dtype=np.int64)

Segment = tuple[int, int, int, int, int, int, int]
"""Words, C(words + 1, 2), C(words + 2, 3), and their own four sums."""


class Sealer:
    """The state of one plain stream being written. ``state`` covers all that was sealed."""

    def __init__(self) -> None:
        self.state: State = fletcher4.ZERO
        self._hash = fletcher4.Fletcher4()

    def cover(self, data: npt.NDArray[np.uint8]) -> None:
        """Count in bytes that carry no checksum: BEGIN."""
        self.state = self._hash.advance(self.state, data.view(np.uint32))

    def seal(self, data: npt.NDArray[np.uint8], headers: npt.NDArray[np.int64]) -> None:
        """Fill in the checksum of each header of ``data``.

        ``data`` begins with a header and ends with a record; ``headers`` are
        the positions of all headers in bytes; their checksums are still zero.
        """
        words = data.view(np.uint32)
        fields = (headers + CHECKSUM_AT) // fletcher4.WORD_BYTES
        segments = self._segments(words, fields)
        checksums = np.array(self._run(segments[:-1]), dtype=np.uint64)
        words[fields[:, None] + _FIELD] = checksums.view(np.uint32).reshape(-1, _FIELD_WORDS)
        self.state = _append(self.state, segments[-1])

    def _segments(self, words: fletcher4.Words, fields: npt.NDArray[np.int64]) -> list[Segment]:
        """What lies before the first field, between each two, and behind the last."""
        ends = np.append(fields, len(words))
        begins = np.concatenate(([0], fields))
        states = self._hash.states_at(fletcher4.ZERO, words, np.concatenate(([0], ends)))
        a, b, c, d = states[:-1].T
        next_a, next_b, next_c, next_d = states[1:].T
        one, two, six = np.uint64(1), np.uint64(2), np.uint64(6)
        n = (ends - begins).astype(np.uint64)
        t2, t3 = n * (n + one) // two, n * (n + one) * (n + two) // six
        sums = (
            next_a - a,
            next_b - b - n * a,
            next_c - c - n * b - t2 * a,
            next_d - d - n * c - t2 * b - t3 * a,
        )
        # All but the first begin with a field, still zero here; those words are appended on their own
        m = n.copy()
        m[1:] -= np.uint64(_FIELD_WORDS)
        columns = (m, m * (m + one) // two, m * (m + one) * (m + two) // six, *sums)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def _run(self, segments: list[Segment]) -> list[int]:
        """The states at each field, flat; ``self.state`` is left behind the last field.

        A field's eight words are the low and high halves of the state, h being
        the high ones: what they add to a sum in which they weigh k and k' is
        k a + (k' - 2^32 k) h, so only the high halves have to be cut out.
        """
        a, b, c, d = self.state
        fields: list[int] = []
        for n, t2, t3, sum_a, sum_b, sum_c, sum_d in segments:
            d = (d + n * c + t2 * b + t3 * a + sum_d) & U64_MAX
            c = (c + n * b + t2 * a + sum_c) & U64_MAX
            b = (b + n * a + sum_b) & U64_MAX
            a = (a + sum_a) & U64_MAX
            fields += (a, b, c, d)
            p, q, r, s = a >> 32, b >> 32, c >> 32, d >> 32
            a, b, c, d = (
                2 * a + b + c + d + _A0 * (p + q + r + s),
                16 * a + 7 * b + 4 * c + 2 * d + _B0 * p + _B1 * q + _B2 * r + _B3 * s,
                72 * a + 29 * b + 11 * c + 3 * d + _C0 * p + _C1 * q + _C2 * r + _C3 * s,
                240 * a + 92 * b + 28 * c + 5 * d + _D0 * p + _D1 * q + _D2 * r + _D3 * s,
            )
        self.state = a & U64_MAX, b & U64_MAX, c & U64_MAX, d & U64_MAX
        return fields


def _append(state: State, segment: Segment) -> State:
    a, b, c, d = state
    n, t2, t3, sum_a, sum_b, sum_c, sum_d = segment
    return (
        (a + sum_a) & U64_MAX,
        (b + n * a + sum_b) & U64_MAX,
        (c + n * b + t2 * a + sum_c) & U64_MAX,
        (d + n * c + t2 * b + t3 * a + sum_d) & U64_MAX,
    )


class RecordBuffer:
    """Collects records, a batch at a time, and seals them.

    ``capacity`` bytes are kept; a caller takes no more :meth:`room` than that
    before it takes the batch.
    """

    def __init__(self, capacity: int, sealer: Sealer) -> None:
        self._bytes = np.zeros(capacity, dtype=np.uint8)
        self._used = 0
        self._headers: list[int] = []
        self._sealer = sealer

    @property
    def used_bytes(self) -> int:
        return self._used

    @property
    def free_bytes(self) -> int:
        return len(self._bytes) - self._used

    def append(self, header: bytes, payload: bytes | memoryview = b"") -> None:
        """One record; its checksum is still zero."""
        self._headers.append(self._used)
        for part in (header, payload):
            end = self._used + len(part)
            self._bytes.data[self._used : end] = part
            self._used = end

    def table(self, rows: int, payload_bytes: int) -> npt.NDArray[np.uint8]:
        """Room for ``rows`` records of one size behind what is there, as (rows, header + payload)."""
        stride = HEADER_BYTES + payload_bytes
        return self._bytes[self._used : self._used + rows * stride].reshape(rows, stride)

    def keep(self, rows: int, payload_bytes: int) -> None:
        """Tell that so many rows of :meth:`table` were filled."""
        stride = HEADER_BYTES + payload_bytes
        end = self._used + rows * stride
        self._headers.extend(range(self._used, end, stride))
        self._used = end

    def take(self) -> memoryview:
        """The sealed batch, valid until the next record is put in; may be empty."""
        batch = self._bytes[: self._used]
        if self._headers:
            self._sealer.seal(batch, np.array(self._headers, dtype=np.int64))
        self._used = 0
        self._headers.clear()
        return batch.data
