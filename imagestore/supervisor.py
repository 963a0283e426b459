"""What the process tells systemd, and what it is handed by it.

Owns ``NOTIFY_SOCKET`` (READY, STOPPING, WATCHDOG, STATUS), ``WATCHDOG_USEC``
and ``LISTEN_FDS``.  Without systemd nothing of this does anything.
Protocols: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).
"""

import contextlib
import os
import socket
from collections.abc import Mapping

import trio

FIRST_DESCRIPTOR = 3
"""Where handed-over sockets begin."""


class Supervisor:
    """The service manager that started this process, if one did."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = _watchdog_seconds(environment)

    def tell(self, *lines: str) -> None:
        """Send ``lines`` such as ``READY=1``. A manager that does not listen is no error."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)

    async def keep_watchdog(self) -> None:
        """Tell the manager, twice in each of its periods, that the event loop turns; until cancelled.

        A store that is read-only, or whose disk hangs, still turns: a restart would mend neither.
        """
        while self.watchdog_seconds is not None:
            self.tell("WATCHDOG=1")
            await trio.sleep(self.watchdog_seconds / 2)


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """The watchdog's period, None without one, or if it is meant for another process."""
    period, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not period.isdigit() or (process and process != str(os.getpid())):
        return None
    return int(period) / 1e6 or None


def handed_over(environment: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets that the manager opened for us, in the order of its unit."""
    count = environment.get("LISTEN_FDS", "")
    if not count.isdigit() or environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    sockets = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
        os.set_inheritable(descriptor, False)
        sockets.append(socket.socket(fileno=descriptor))
    return sockets
