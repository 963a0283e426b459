"""Opening the journal, and the names that others use of it.

Owns the order of opening and closing: lock, recovery, the new epoch; then
whatever the caller does; then the last group, the proof, the checkpoint, the
lock.  What a journal does in between is :mod:`imagestore.events.writer`'s.
"""

import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from imagestore import __version__
from imagestore.errors import JournalError
from imagestore.events import recovery
from imagestore.events.catalogue import JournalOpened
from imagestore.events.commitgroup import Entry, Stamp
from imagestore.events.files import SYSTEM_FILES, Files
from imagestore.events.filesystem import refuse_unsafe
from imagestore.events.settings import DEFAULT_SETTINGS, Failure, JournalSettings, JournalStatistics
from imagestore.events.tail import Tail, reserve_size
from imagestore.events.writer import Journal, away
from imagestore.identifiers import uuid7_maker

__all__ = [
    "Entry",
    "Failure",
    "Journal",
    "JournalSettings",
    "JournalStatistics",
    "open_journal",
]

logger = logging.getLogger("imagestore.journal")


@asynccontextmanager
async def open_journal(
    directory: str,
    *,
    now_ns: Callable[[], int] = time.time_ns,
    new_id: Callable[[], str] | None = None,
    files: Files = SYSTEM_FILES,
    settings: JournalSettings = DEFAULT_SETTINGS,
    version: str = __version__,
    host: str | None = None,
    admit: Callable[[Journal], None] = lambda journal: None,
) -> AsyncIterator[Journal]:
    """Open the journal in ``directory`` for writing, recovered and with its opening journaled.

    An empty or missing directory becomes a new journal.  ``now_ns`` is the wall
    clock in nanoseconds since 1970, ``new_id`` makes event ids (UUIDv7).
    ``admit`` sees the recovered journal before its opening is journaled, and
    may refuse it by raising: then its epoch does not grow.

    Raises:
        JournalLocked: another process has it open.
        JournalTooNew: a newer imagestore wrote it.
        Corrupt: it is damaged; file, offset, seq and what to run are named.
        Rejected: the disk is full.
        JournalError: the directory cannot be used.
    """
    stamp = Stamp(now_ns=now_ns, new_id=new_id if new_id is not None else uuid7_maker(now_ns))
    pid = os.getpid()
    lock = await away(partial(recovery.take_lock, files, directory, pid), settings)
    may_unlock = True
    error: BaseException | None = None
    try:
        recovered, tail = await away(partial(_recover, directory, files, settings, stamp.new_id()), settings)
        journal = Journal(directory, recovered, tail, stamp, files, settings)
        try:
            admit(journal)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.run)
                try:
                    await journal.journal_opening(
                        JournalOpened(
                            epoch=journal.epoch + 1,
                            version=version,
                            pid=pid,
                            host=host if host is not None else socket.gethostname(),
                        )
                    )
                    yield journal
                except BaseException as raised:
                    error = raised  # raised again below, outside the nursery, so that it stays itself
                nursery.cancel_scope.cancel()
        finally:
            may_unlock = await journal.close()
    finally:
        if may_unlock:  # a write that is still under way must not meet a second writer
            files.close(lock)
    if error is not None:
        raise error


def _recover(
    directory: str, files: Files, settings: JournalSettings, new_journal: str
) -> tuple[recovery.Recovered, Tail]:
    """Everything that blocks before the first append."""
    refuse_unsafe(directory, allow=settings.allow_unsafe_filesystem)
    try:
        recovered = recovery.recover(files, directory, uuid.UUID(new_journal).bytes)
        tail = Tail(files, directory, reserve_bytes=reserve_size(settings.segment_bytes))
        if recovered.number:
            tail.open(recovered.number)
            tail.grow(settings.segment_bytes)
        tail.prepare_reserve()
    except OSError as error:
        raise JournalError(
            f"journal {directory} cannot be opened: {error.strerror or error}",
            detail="mend the disk, then start again",
        ) from error
    for warning in recovered.warnings:
        logger.warning("journal %s: %s", directory, warning)
    return recovered, tail
