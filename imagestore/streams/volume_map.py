"""A picture of a volume: where a stream brings data, where holes, where nothing.

Counts bytes in a bounded number of equal buckets, whatever the volume's size:
when an offset lies beyond the last bucket, buckets are joined in pairs.
"""

from itertools import accumulate
from typing import Final

from msgspec import Struct

BUCKETS: Final = 4096
_SHADES: Final = "░▒▓█"
_ASCII_SHADES: Final = ".:+#"


class VolumeMap(Struct, frozen=True, kw_only=True):
    """Bytes of data and of holes in each bucket of ``bucket_bytes``, from the volume's start."""

    bucket_bytes: int
    data: tuple[int, ...]
    holes: tuple[int, ...]


class _Counts:
    """Bytes in each bucket; a range costs the same however many buckets it covers."""

    def __init__(self) -> None:
        self._partial = [0] * BUCKETS
        self._full_steps = [0] * (BUCKETS + 1)

    def add(self, start: int, end: int, bucket_bytes: int) -> None:
        first, last = start // bucket_bytes, end // bucket_bytes
        if first == last:
            self._partial[first] += end - start
            return
        self._partial[first] += (first + 1) * bucket_bytes - start
        if end % bucket_bytes:
            self._partial[last] += end % bucket_bytes
        self._full_steps[first + 1] += 1
        self._full_steps[last] -= 1

    def totals(self, bucket_bytes: int) -> list[int]:
        full = accumulate(self._full_steps[:BUCKETS])
        return [part + count * bucket_bytes for part, count in zip(self._partial, full, strict=True)]

    def join(self, bucket_bytes: int) -> None:
        """Buckets become twice as large."""
        totals = self.totals(bucket_bytes)
        self._partial = [a + b for a, b in zip(totals[::2], totals[1::2], strict=True)] + [0] * (BUCKETS // 2)
        self._full_steps = [0] * (BUCKETS + 1)


class MapBuilder:
    """Collects what a stream brings."""

    def __init__(self) -> None:
        self._bucket_bytes = 512
        self._data = _Counts()
        self._holes = _Counts()

    def add_data(self, start: int, end: int) -> None:
        """Bytes ``start`` to ``end - 1`` of the volume come as data."""
        self._reach(end)
        self._data.add(start, end, self._bucket_bytes)

    def add_hole(self, start: int, end: int) -> None:
        """They come as a hole."""
        self._reach(end)
        self._holes.add(start, end, self._bucket_bytes)

    def _reach(self, end: int) -> None:
        while end >= self._bucket_bytes * BUCKETS:
            self._data.join(self._bucket_bytes)
            self._holes.join(self._bucket_bytes)
            self._bucket_bytes *= 2

    def build(self, volsize: int) -> VolumeMap:
        """The map of a volume of ``volsize`` bytes (0: unknown, as far as the stream reaches)."""
        self._reach(volsize)
        data, holes = self._data.totals(self._bucket_bytes), self._holes.totals(self._bucket_bytes)
        last = max((i + 1 for i in range(BUCKETS) if data[i] or holes[i]), default=0)
        if volsize:
            last = -(-volsize // self._bucket_bytes)
        return VolumeMap(bucket_bytes=self._bucket_bytes, data=tuple(data[:last]), holes=tuple(holes[:last]))


def draw(picture: VolumeMap, width: int, *, lines: int = 8, ascii_only: bool = False) -> str:
    """The map as at most ``lines`` lines of ``width`` characters.

    The darker a cell the more of it comes as data; ``-`` is a hole, a blank
    is not in the stream (as in the base, or never written).
    """
    count = len(picture.data)
    cells = max(min(width * lines, count), 1)
    text = "".join(
        _cell(picture, i * count // cells, (i + 1) * count // cells, ascii_only) for i in range(cells)
    )
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


def _cell(picture: VolumeMap, first: int, last: int, ascii_only: bool) -> str:
    data = sum(picture.data[first:last])
    if data:
        share = min(data / (picture.bucket_bytes * (last - first)), 1.0)
        shades = _ASCII_SHADES if ascii_only else _SHADES
        return shades[min(int(share * len(shades)), len(shades) - 1)]
    return "-" if sum(picture.holes[first:last]) else " "
