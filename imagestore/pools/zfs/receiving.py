"""Runs ``zfs receive`` for what comes: send streams and raw disk images.

No byte of a stranger's stream reaches ``zfs receive`` before it was verified
(``streams.guard``), and no END of a snapshot that must not be seen yet.  A
package comes out of the guard as plain streams, one reception each.  Raw
images are made into a stream on the way (``raw``).

Where it goes, and when it may be seen, is ``arriving``'s to say.  Every
method blocks; they are called in worker threads, one at a time.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from imagestore import names
from imagestore.errors import ImageStoreError, PoolError, PoolStuck, StreamError
from imagestore.pools.zfs.commands import Commands
from imagestore.pools.zfs.failures import failure
from imagestore.streams.guard import ReceiveGuard
from imagestore.streams.snapshot import SnapshotInfo

if TYPE_CHECKING:
    from imagestore.pools.zfs.raw import RawStream

END_SECONDS = 300.0
"""How long a child may take to end after the last byte."""

_PASS_BYTES = 1 << 20

_IN_MEMORY_BYTES = 8 << 20
"""More than that is held back in a temporary file."""


class Part(Struct, frozen=True, gc=False):
    """Bytes for the running ``zfs receive``; ``snapshot`` and ``guid`` are set when they end its stream."""

    data: memoryview
    snapshot: str | None = None
    guid: int = 0


class Source(Protocol):
    """Makes plain streams of what comes."""

    def feed(self, data: memoryview) -> Iterator[Part]: ...

    def finish(self) -> Iterator[Part]: ...


class StreamSource:
    """A stranger's send stream; ``base`` is what an incremental one must be from."""

    def __init__(self, base: SnapshotInfo | None = None) -> None:
        self._guard = ReceiveGuard(base=base)
        self._snapshots: set[str] = set()

    def feed(self, data: memoryview) -> Iterator[Part]:
        for passed in self._guard.feed(data):
            yield self._part(passed.data, passed.snapshot)

    def finish(self) -> Iterator[Part]:
        for passed in self._guard.finish():
            yield self._part(passed.data, passed.snapshot)

    def _part(self, data: memoryview, ended: SnapshotInfo | None) -> Part:
        if ended is None:
            return Part(data)
        name = ended.snapshot
        try:
            names.check_snapshot_dest(name)
        except ImageStoreError as error:
            raise StreamError(f"the stream's snapshot cannot be stored: {error.detail}") from error
        if name in self._snapshots:
            raise StreamError(f"the stream has two snapshots named {name}")
        self._snapshots.add(name)
        return Part(data, name, ended.guid)


class RawSource:
    """A raw disk image."""

    def __init__(self, stream: "RawStream", snapshot: str) -> None:
        self._stream = stream
        self._snapshot = snapshot

    def feed(self, data: memoryview) -> Iterator[Part]:
        return map(Part, self._stream.feed(data))

    def finish(self) -> Iterator[Part]:
        before: Part | None = None
        for piece in self._stream.finish():
            if before is not None:
                yield before
            before = Part(memoryview(bytes(piece)))
        assert before is not None
        yield Part(before.data, self._snapshot)


class Reception:
    """``zfs receive`` into ``dataset``, for each plain stream of a source.

    ``options`` are those of the first.  With ``hold_snapshots`` nothing that
    would make a snapshot visible is passed on before :meth:`release`: the END
    of the first and all that follows it is held back.
    """

    def __init__(
        self,
        commands: Commands,
        dataset: str,
        source: Source,
        *,
        options: Sequence[str],
        hold_snapshots: bool,
    ) -> None:
        self._commands = commands
        self._dataset = dataset
        self._source = source
        self._options = tuple(options)
        self._hold_snapshots = hold_snapshots
        self._held: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._held_parts: list[tuple[int, str | None, int]] = []
        self._child: subprocess.Popen[bytes] | None = None
        self.snapshots: list[str] = []
        """Those that are in the pool."""

    @property
    def held_guids(self) -> list[int]:
        """Of the snapshots that will be in the pool after :meth:`release` and are not yet."""
        return [guid for _, snapshot, guid in self._held_parts if snapshot is not None]

    def feed(self, data: memoryview) -> None:
        """Raises StreamError, and what a failure of ``zfs receive`` means."""
        for part in self._source.feed(data):
            if self._held is not None or (self._hold_snapshots and part.snapshot is not None):
                self._hold(part)
            else:
                self._pass(part)

    def finish(self) -> None:
        """Verify the end, and hold back what is left."""
        for part in self._source.finish():
            self._hold(part)

    def release(self) -> None:
        """Pass on what was held back."""
        if self._held is None:
            return
        self._held.seek(0)
        for length, snapshot, _ in self._held_parts:
            left = length
            while left > _PASS_BYTES:
                self._pass(Part(memoryview(self._held.read(_PASS_BYTES))))
                left -= _PASS_BYTES
            self._pass(Part(memoryview(self._held.read(left)), snapshot))
        self._drop_held()

    def stop(self) -> None:
        """End the child, whose part the kernel throws away, and forget what is held back."""
        self._drop_held()
        child, self._child = self._child, None
        if child is None:
            return
        with suppress(OSError):
            child.kill()
        self._close_input(child)
        with suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=END_SECONDS)

    def _hold(self, part: Part) -> None:
        if self._held is None:
            self._held = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (closed by _drop_held)
                max_size=_IN_MEMORY_BYTES
            )
        self._held.write(part.data)
        self._held_parts.append((len(part.data), part.snapshot, part.guid))

    def _drop_held(self) -> None:
        if self._held is not None:
            self._held.close()
        self._held = None
        self._held_parts.clear()

    def _pass(self, part: Part) -> None:
        child = self._child
        if child is None:
            child = self._child = self._start()
        assert child.stdin is not None
        try:
            _write_all(child.stdin.fileno(), part.data)
        except BrokenPipeError:
            self._end(child)
            raise PoolError("zfs receive ended before the stream did, and did not say why") from None
        if part.snapshot is not None:
            self._end(child)
            self.snapshots.append(part.snapshot)

    def _start(self) -> subprocess.Popen[bytes]:
        self._commands.check_alive()
        given = self._options if not self.snapshots else ()
        return self._commands.start(
            ("zfs", "receive", "-u", *given, self._dataset), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        """Close its input and wait. Raises what its text means."""
        self._close_input(child)
        try:
            _, complaint = child.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            raise PoolStuck(
                f"zfs receive has not ended after {END_SECONDS:.0f} seconds; "
                f"pool {self._commands.pool} is {self._commands.health() or 'stuck'}"
            ) from None
        self._child = None
        if child.returncode:
            raise failure(("zfs", "receive"), complaint.decode(errors="replace"), self._commands.pool)

    @staticmethod
    def _close_input(child: subprocess.Popen[bytes]) -> None:
        if child.stdin is not None:
            with suppress(OSError):
                child.stdin.close()
        child.stdin = None


def _write_all(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]
