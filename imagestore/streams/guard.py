"""Stands between a stranger's stream and ``zfs receive``.

Malformed streams can panic a kernel that receives them, so no byte reaches a
real pool unparsed: :class:`ReceiveGuard` passes bytes on only when they were
verified, and holds back the END of each snapshot until what follows it was
verified too; the last one until the owner says that the body, with whatever
trailer and digest it has, was right.

Packages are unwrapped: what comes out are plain streams one behind the other,
one ``zfs receive`` each.  The properties that a package would set on the
receiver never reach it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from imagestore.streams.records import HEADER_BYTES
from imagestore.streams.snapshot import SnapshotInfo

if TYPE_CHECKING:
    from imagestore.streams.checker import Verified


class Passed(Struct, frozen=True, gc=False):
    """Bytes to pass on; ``snapshot`` is set when with them its plain stream has ended.

    A view is valid until the next is asked for.
    """

    data: memoryview
    snapshot: SnapshotInfo | None = None


class ReceiveGuard:
    """Verified bytes of one stream, for real pools.

    ``base`` is the snapshot that an incremental stream must be from, with its
    block size; without it only a full stream passes.
    """

    def __init__(self, *, base: SnapshotInfo | None = None) -> None:
        from imagestore.streams.checker import Checker

        self._checker = Checker(base=base, for_receiver=True, unpack=True)
        self._withheld: Passed | None = None

    @property
    def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """The snapshots whose END was verified so far."""
        return tuple(self._checker.snapshots)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Passed]:
        """Take the next bytes, in any cut; give what may be passed on. Exhaust it before feeding again.

        Raises:
            StreamError: one line saying what is wrong; nothing more may be passed on.
        """
        for verified in self._checker.feed(data):
            yield from self._pass(verified)

    def finish(self) -> Iterator[Passed]:
        """Tell that all is right with the body; give the rest, the last END with it.

        Raises StreamError as :meth:`feed`, or because the stream is cut.
        """
        for verified in self._checker.finish():
            yield from self._pass(verified)
        if self._withheld is not None:
            yield self._withheld
            self._withheld = None

    def _pass(self, verified: "Verified") -> Iterator[Passed]:
        if verified.is_wrapping:
            return
        if self._withheld is not None:
            yield self._withheld
            self._withheld = None
        if verified.snapshot is None:
            yield Passed(verified.raw)
            return
        if len(verified.raw) > HEADER_BYTES:
            yield Passed(verified.raw[:-HEADER_BYTES])
        self._withheld = Passed(memoryview(bytes(verified.raw[-HEADER_BYTES:])), verified.snapshot)
