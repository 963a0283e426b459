"""One machine from its boot to its end: a virtual clock, a seeded scheduler, and the step at which it dies.

Owns trio's loop, driven here instead of by ``trio.run``: time passes only when
nobody can run, and at the step at which the machine dies the loop is left as it
is.  What its tasks would do then, their ``finally`` blocks among it, touches
nothing any more: disk, pool and network ask :meth:`Machine.step` first, and that
raises :class:`Crash` from the moment of death on.
"""

import contextlib
import gc
import math
import random
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import trio
from trio._core import _run as runs

WALL_START_NS = 1_700_000_000 * 1_000_000_000

DEADLOCK_SECONDS = 3600.0
"""Nothing in a history waits so long: whoever does is never woken."""


class Crash(BaseException):
    """The machine has died. Not an Exception: nobody may take it for an answer."""


class Stuck(AssertionError):
    """Nobody can run, and nobody ever will."""


class Clock(trio.abc.Clock):
    """Stands still until it is told to go on."""

    def __init__(self, began: float) -> None:
        self.now = began

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.now


class Machine(trio.abc.Instrument):
    """Counts steps, and dies when :attr:`steps_left` have been made."""

    def __init__(self, chance: random.Random, *, began: float, trace: int = 0) -> None:
        self.clock = Clock(began)
        self.steps = 0
        self.steps_left = math.inf
        self.dead = False
        self.trace = trace
        """A checksum of everything that happened, in order."""
        self.log: list[str] | None = None
        self._chance = chance

    def now_ns(self) -> int:
        return WALL_START_NS + int(self.clock.now * 1e9)

    def step(self, what: str) -> None:
        """One step of disk, pool or network. Raises Crash at the machine's death and ever after."""
        self._count(what)
        if self.dead:
            raise Crash

    def die_after(self, steps: int) -> None:
        self.steps_left = min(self.steps_left, steps)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self.dead:
            self._count(task.name)

    def _count(self, what: str) -> None:
        if self.dead:
            return
        self.steps += 1
        self.steps_left -= 1
        self.trace = crc32(what.encode(), self.trace)
        if self.log is not None:
            self.log.append(f"{self.clock.now:10.4f} {what}")
        if self.steps_left < 0:
            self.dead = True

    def run(self, main: Callable[[], Awaitable[None]]) -> bool:
        """Run ``main`` until it returns or the machine dies (then True). Raises what it raises, Stuck."""
        runs._r = self._chance
        runner = runs.setup_runner(self.clock, [self], False, True)
        loop = runs.unrolled_run(runner, main, ())
        events: Any = None
        try:
            while True:
                timeout = loop.send(events)
                if self.dead:
                    return True
                events = runner.io_manager.get_events(0)
                if not events and timeout > 0:
                    if timeout > DEADLOCK_SECONDS:
                        raise Stuck("nothing runs and nothing is waited for")
                    self.clock.now += timeout
        except StopIteration:
            if self.dead:
                return True
            if runner.main_task_outcome is not None:
                runner.main_task_outcome.unwrap()
            return False
        finally:
            self.dead = True
            _bury(runner, loop)


def _bury(runner: runs.Runner, loop: Any) -> None:
    """Take a dead machine's tasks apart, so that they neither speak nor stay."""
    for task in list(runner.tasks):
        for _ in range(20):
            with contextlib.suppress(BaseException):
                task.coro.close()
            if getattr(task.coro, "cr_frame", None) is None:
                break
    with contextlib.suppress(BaseException):
        loop.close()


@contextmanager
def deterministic() -> Iterator[None]:
    """Trio's choices come from a seeded generator in here, and the remains of dead machines stay silent."""
    before = runs._r, runs._ALLOW_DETERMINISTIC_SCHEDULING, sys.unraisablehook
    runs._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # there is no public way
    sys.unraisablehook = lambda unraisable: None
    gc.collect()
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            yield
            gc.collect()
    finally:
        runs._r, runs._ALLOW_DETERMINISTIC_SCHEDULING, sys.unraisablehook = before  # type: ignore[misc]
        gc.unfreeze()
