"""Brings a file that is being written to the disk while it still grows.

A disk with a cache of its own takes as long for the last fsync as for all that
came before; syncing in steps beside the writing hides most of that, and keeps
that one long flush from standing in the way of everybody else's fsync.

A sync runs in a thread of its own, one at a time; writing never waits for it.
The final fsync is the owner's, after :meth:`SyncAhead.finish`.
"""

import os
import threading
from typing import Final

STEP_BYTES: Final = 32 << 20
"""After so many bytes written the next sync begins, unless one is still running."""


class SyncAhead:
    """Syncs ``fd``, a regular file, in steps.  ``step_bytes`` as STEP_BYTES."""

    def __init__(self, fd: int, *, step_bytes: int = STEP_BYTES) -> None:
        self._fd = fd
        self._step_bytes = step_bytes
        self._unsynced_bytes = 0
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None

    def wrote(self, count: int) -> None:
        """Tell that ``count`` more bytes were written.

        Raises:
            OSError: an earlier sync failed; what was written may be lost.
        """
        self._raise_failure()
        self._unsynced_bytes += count
        if self._unsynced_bytes < self._step_bytes or (self._thread and self._thread.is_alive()):
            return
        self._unsynced_bytes = 0
        # Of its own, so that an owner who closes the file early does not hand the thread another one
        fd = os.dup(self._fd)
        self._thread = threading.Thread(target=self._sync, args=(fd,), name="sync ahead", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the sync under way. Raises OSError as :meth:`wrote`.

        A failed sync must not be forgotten: the kernel reports each write
        error once, so the owner's own fsync would then succeed.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise_failure()

    def _sync(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError as error:
            self._failure = error
        finally:
            os.close(fd)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
