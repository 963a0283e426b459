"""Rounds of: load, SIGKILL at a random moment, restart (perhaps killed again), judgement.

Everything random comes from one seed, but for how the machine schedules it.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import trio
from msgspec import Struct, field

from imagestore.client import Client
from tests.crash.content import provide
from tests.crash.imagebook import ImageBook
from tests.crash.judge import Finding, Judge
from tests.crash.process import Place, StoreProcess
from tests.crash.workload import ANSWER_SECONDS, Statistics, Worker
from tests.imageservice import ImageService

CLIENTS = 5
FETCH_PAUSE_SECONDS = 0.03


@contextmanager
def directory_place(directory: Path) -> Iterator[Place]:
    """A place with a directory pool, in the new ``directory``."""
    yield Place(directory)


class Course(Struct, frozen=True, kw_only=True):
    """Where and how long stores are loaded: a place for each life, made for its length.

    After so many rounds pool and journal are begun afresh: so first starts are killed, too.
    """

    place: Callable[[Path], AbstractContextManager[Place]] = directory_place
    rounds_a_life: int = 20
    longest_load_seconds: float = 1.2
    answer_seconds: float = ANSWER_SECONDS


COURSE = Course()


class Summary(Struct, kw_only=True):
    """What came of it all.  ``cut_off`` counts the calls that were under way at a kill, by method."""

    seed: int
    rounds: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    kills_while_starting: int = 0
    cut_off: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def line(self) -> str:
        seen = self.statistics
        faults = Counter(finding.fault for finding in self.findings)
        cut_off = ", ".join(f"{method} {number}" for method, number in self.cut_off.most_common())
        told = ", ".join(f"{fault} {faults[fault]}" for fault in ("lost", "back", "half", "stray", "other"))
        return (
            f"crash: seed {self.seed}: {self.rounds} rounds, {seen.calls} calls "
            f"({seen.acknowledged} acknowledged, {seen.refused} refused), "
            f"{self.rounds} kills under load, {self.kills_while_starting} while starting; "
            f"cut off: {cut_off}; {told}"
        )


class Failed(AssertionError):
    """The first thing that is wrong; says the seed."""


async def run(
    directory: Path,
    *,
    seed: int,
    rounds: int,
    course: Course = COURSE,
    say: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Crash stores in ``directory``.  Raises Failed with the summary at the first fault."""
    summary = Summary(seed=seed)
    chance = random.Random(seed)
    service = ImageService()
    provide(service, pause_seconds=FETCH_PAUSE_SECONDS)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            while summary.rounds < rounds:
                number = summary.rounds
                home = directory / f"life-{number}"
                home.mkdir()
                with course.place(home) as place:
                    life = Life(place, course, service.address, chance, summary, say)
                    try:
                        await life.run(min(course.rounds_a_life, rounds - number))
                    finally:
                        await life.store.kill()
            nursery.cancel_scope.cancel()
    except* AssertionError as group:
        reasons = "\n".join(_reasons(group))
        raise Failed(
            f"{summary.line}\n{reasons}\nrepeat with --seed {seed}; files are in {directory}"
        ) from group
    return summary


def _reasons(group: BaseExceptionGroup[AssertionError]) -> list[str]:
    told = []
    for error in group.exceptions:
        told += (
            _reasons(error) if isinstance(error, BaseExceptionGroup) else [f"{type(error).__name__}: {error}"]
        )
    return told


class Life:
    """The rounds of one pool and journal."""

    def __init__(
        self,
        place: Place,
        course: Course,
        image_service: str,
        chance: random.Random,
        summary: Summary,
        say: Callable[[str], None],
    ) -> None:
        self.store = StoreProcess(place, image_service)
        self._course = course
        self._chance = chance
        self._summary = summary
        self._say = say
        self._images = ImageBook()
        self._judge = Judge(place, random.Random(chance.random()))
        self._start_seconds = 1.0
        self._workers = [
            Worker(
                number,
                chance.randrange(1 << 32),
                place.disks,
                self._images,
                summary.statistics,
                flushes=place.flushes,
                force_overrides=place.force_overrides,
            )
            for number in range(CLIENTS)
        ]

    async def run(self, rounds: int) -> None:
        await self._crash_while_starting(self._chance.choice((0, 0, 1, 2)))
        client = await self._start()
        for number in range(rounds):
            await self._load_and_kill(client)
            await self._crash_while_starting(self._chance.choice((0, 0, 0, 1, 1, 2, 4)))
            client = await self._start()
            found = await self._judge.judge(
                client, self._workers, self._images, complete=number == rounds - 1
            )
            self._summary.rounds += 1
            if found:
                self._summary.findings += found
                raise Failed("\n".join(f"{finding.fault}: {finding.text}" for finding in found))
            self._say(self._summary.line)
        await self.store.kill()

    async def _start(self) -> Client:
        began = trio.current_time()
        await self.store.spawn()
        address = await self.store.until_ready()
        self._start_seconds = trio.current_time() - began
        return Client(address, timeout=self._course.answer_seconds)

    async def _crash_while_starting(self, times: int) -> None:
        """Mostly late in the start, where pool and journal are opened and recovery works."""
        for _ in range(times):
            await self.store.spawn()
            with trio.move_on_after(self._start_seconds * self._chance.triangular(0.3, 1.1, 0.95)):
                await self.store.until_ready()
            await self.store.kill()
            self._summary.kills_while_starting += 1

    async def _load_and_kill(self, client: Client) -> None:
        async with trio.open_nursery() as nursery:
            for worker in self._workers:
                nursery.start_soon(worker.work, client)
            await trio.sleep(self._chance.uniform(0.01, self._course.longest_load_seconds))
            self.store.check_alive()
            under_way = [worker.under_way for worker in self._workers if worker.under_way]
            await self.store.kill()
            self._summary.cut_off.update(under_way or ["nothing"])
        for worker in self._workers:
            worker.under_way = ""
