"""The journal's head in the system's log, at intervals: where who edits the journal may not reach it.

``imagestore journal verify --head SEQ:HASH`` checks a line of it later.
"""

import syslog
from collections.abc import Callable
from typing import Protocol

import trio


class Headed(Protocol):
    """What is needed of a journal."""

    @property
    def uuid(self) -> str: ...

    @property
    def head(self) -> tuple[int, str]:
        """Seq of the last durable event, and the last frame's hash in hex."""


def send_to_syslog(line: str) -> None:
    """Facility auth, as what is done to a machine belongs there. Nobody listening is no error."""
    syslog.openlog("imagestore", syslog.LOG_PID, syslog.LOG_AUTH)
    syslog.syslog(syslog.LOG_NOTICE, line)


async def log_heads(journal: Headed, seconds: float, *, send: Callable[[str], None] = send_to_syslog) -> None:
    """Send the head now and every ``seconds``, if it has moved; until cancelled.

    A system's log that does not answer holds up nothing else.
    """
    sent = -1
    while True:
        seq, digest = journal.head
        if seq != sent:
            line = f"journal {journal.uuid} head {seq}:{digest}"
            await trio.to_thread.run_sync(send, line, abandon_on_cancel=True)
            sent = seq
        await trio.sleep(seconds)
