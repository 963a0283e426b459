"""Children that run a store, do one thing to it, and kill themselves at a named point.

``python -m tests.crash.child`` reads cases from its standard input, one JSON
line each, forks a child for each, and answers with the child's exit status (-9:
killed at the point; 0: the point was never reached).  So a child costs a fork
and not the start of an interpreter.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self
from unittest.mock import patch

import msgspec
import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore import store as store_module
from imagestore.events.files import SystemFiles
from imagestore.pools.directory.driver import open_directory_pool
from imagestore.store import Store, Surroundings
from tests.crash.process import ROOT, Place
from tests.crash.scene import ACTIONS, config_of, prepare

ANSWERED = "answered"
"""The point at which the caller has its answer."""

DRIVER = "driver: "
"""What the names of points inside the driver begin with."""

JOURNAL = "journal: "
"""Followed by a number N: before the N-th system call by which the journal changes its files.
The journal is then of tiny segments, with a checkpoint after every event."""


class Case(Struct, frozen=True, kw_only=True):
    """``point`` is one of ``Store``'s trace, of the driver's (after ``DRIVER``), ANSWERED, or "" for none.

    With the action ``settle`` the points of recovery count, else those after the store is ready.
    """

    directory: str
    image_service: str
    action: str
    point: str = ""


class DeadlyFiles(SystemFiles):
    """The journal's way to the disk; ``count`` is called before every system call that changes a file."""

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        self._count()
        return super().write(descriptor, data, offset)

    def allocate(self, descriptor: int, offset: int, length: int) -> None:
        self._count()
        super().allocate(descriptor, offset, length)

    def truncate(self, descriptor: int, length: int) -> None:
        self._count()
        super().truncate(descriptor, length)

    def sync(self, descriptor: int) -> None:
        self._count()
        super().sync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        self._count()
        super().sync_data(descriptor)

    def sync_directory(self, directory: str) -> None:
        self._count()
        super().sync_directory(directory)

    def rename(self, source: str, target: str) -> None:
        self._count()
        super().rename(source, target)

    def remove(self, path: str) -> None:
        self._count()
        super().remove(path)


class Children:
    """The process that forks, from the outside.  Not for two threads at once."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def run(self, case: Case) -> int:
        """The exit status of a child; negative is the signal that killed it.  Blocks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(case) + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


async def act(case: Case) -> None:
    place = Place(Path(case.directory))
    recovering = case.action == "settle"
    armed = False
    journal_calls = 0

    def reach(point: str) -> None:
        if armed and point == case.point:
            os.kill(os.getpid(), signal.SIGKILL)

    def count_call() -> None:
        nonlocal journal_calls
        journal_calls += armed
        reach(f"{JOURNAL}{journal_calls}")

    def trace(step: str) -> None:
        nonlocal armed
        armed = armed or (recovering and step == "recovery-staging-destroyed")
        reach(step)

    deadly_pool = partial(open_directory_pool, checkpoint=lambda point: reach(DRIVER + point))
    deadly_disk = Surroundings(files=DeadlyFiles(count_call))
    config = config_of(place, case.image_service)
    if case.point.startswith(JOURNAL):
        config = replace(config, journal_segment_bytes=4096, checkpoint_events=1)
    store = Store(config, trace=trace, surroundings=deadly_disk)
    with patch.object(store_module, "open_directory_pool", deadly_pool):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            armed = not recovering
            if case.action == "prepare":
                await prepare(store, place)
            else:
                await ACTIONS[case.action](store)
            reach(ANSWERED)
            await store.destroy()


def main() -> None:
    for line in sys.stdin:
        case = msgspec.json.decode(line, type=Case)
        child = os.fork()
        if child == 0:
            try:
                trio.run(act, case)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
