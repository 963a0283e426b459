"""systemd's protocols: what is told, what is handed over, and that nothing happens without it."""

import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from imagestore.supervisor import Supervisor, handed_over


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(tmp_path / "notify"))
    listening.settimeout(5)
    return listening


def test_lines_are_told_in_one_datagram(manager: socket.socket) -> None:
    with manager:
        Supervisor({"NOTIFY_SOCKET": manager.getsockname()}).tell("READY=1", "STATUS=serving")
        assert manager.recv(100) == b"READY=1\nSTATUS=serving"


def test_an_abstract_socket_is_found() -> None:
    name = f"imagestore-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(5)
        Supervisor({"NOTIFY_SOCKET": "@" + name}).tell("STOPPING=1")
        assert listening.recv(100) == b"STOPPING=1"


def test_without_a_manager_nothing_happens() -> None:
    Supervisor({}).tell("READY=1")
    Supervisor({"NOTIFY_SOCKET": "/nowhere/notify"}).tell("READY=1")
    assert Supervisor({}).watchdog_seconds is None
    assert Supervisor({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_seconds is None
    assert handed_over({"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == []
    assert handed_over({}) == []


async def test_the_watchdog_is_told_twice_in_each_period(
    manager: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000000"})
    assert supervisor.watchdog_seconds == 30
    with manager:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.keep_watchdog)
            await trio.sleep(3 * 15 - 1)
            nursery.cancel_scope.cancel()
        assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
