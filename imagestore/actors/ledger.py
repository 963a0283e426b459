"""The space ledger: what may still be promised.

    free = available (the driver's word, read at each admission)
         - promises   (what sparse volumes and clones may still write)
         - reservations (of operations under way)

Owns the reservations.  Counts bytes.  Pure bookkeeping: the zpool actor reads
the driver and holds the two together in one step.
"""

from imagestore.errors import NoSpace


class Ledger:
    """Reservations by operation."""

    def __init__(self) -> None:
        self._reserved: dict[str, int] = {}

    @property
    def reserved_bytes(self) -> int:
        return sum(self._reserved.values())

    def free_bytes(self, available: int, promised: int) -> int:
        """What a new operation may take; never negative."""
        return max(0, available - promised - self.reserved_bytes)

    def reserve(self, operation: str, size: int, *, available: int, promised: int) -> None:
        """Set the operation's reservation to ``size`` bytes in all.

        Raises:
            NoSpace: there is no room for what it adds; the reservation stays as it was.
        """
        more = size - self._reserved.get(operation, 0)
        free = self.free_bytes(available, promised)
        if more > free:
            raise NoSpace(detail=f"{more} bytes are asked for, {free} are free and not promised")
        self.set(operation, size)

    def set(self, operation: str, size: int) -> None:
        """Set the reservation without asking: bytes that have arrived need none any more."""
        if size > 0:
            self._reserved[operation] = size
        else:
            self._reserved.pop(operation, None)

    def hand_over(self, operation: str, promised: int) -> None:
        """What the operation made now stands among the promises, with ``promised`` bytes: count them once."""
        if operation in self._reserved:
            self.set(operation, self._reserved[operation] - promised)

    def release(self, operation: str) -> None:
        """Forget the operation; harmless when it has none."""
        self._reserved.pop(operation, None)
