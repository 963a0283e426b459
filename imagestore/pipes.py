"""Bytes that are in a kernel pipe and can go on from there without being copied into this process."""

import os


class InPipe:
    """The next bytes of a stream, which are in a pipe still.  ``len()`` tells how many.

    Who gets it takes them out, all of them, before asking for what comes next.
    """

    def __init__(self, descriptor: int, count: int) -> None:
        self._descriptor = descriptor
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __bytes__(self) -> bytes:
        """Take them out after all."""
        taken = b""
        while self._count:
            piece = os.read(self._descriptor, self._count)
            self._count -= len(piece)
            taken += piece
        return taken

    def move_to(self, descriptor: int) -> None:
        """Move as many as ``descriptor``, a socket that does not block, takes at once (splice(2)).

        Raises OSError; BlockingIOError when it takes none.
        """
        self._count -= os.splice(self._descriptor, descriptor, self._count, flags=os.SPLICE_F_NONBLOCK)
