"""One history: lives of a store on one disk and one pool, each ended by a crash but the last."""

import random
import traceback

import trio
from msgspec import Struct

from imagestore.actors.zpool import ZpoolActor
from imagestore.config import Config
from imagestore.errors import JournalError, ReadOnly
from imagestore.events import reader
from imagestore.events.catalogue import Envelope
from imagestore.events.state import State
from imagestore.identifiers import uuid7_maker
from imagestore.pools.base import Identity
from imagestore.store import Store, Surroundings
from tests.events.disk import MemoryDisk
from tests.simulation import judge
from tests.simulation.book import Book, Wrong
from tests.simulation.clients import Client
from tests.simulation.disk import SimulatedDisk
from tests.simulation.machine import Machine
from tests.simulation.network import Network
from tests.simulation.plan import Plan
from tests.simulation.poolground import PoolGround
from tests.simulation.simulatedpool import Paces, SimulatedPool
from tests.simulation.stranger import visit
from tests.simulation.surroundings import STAGE

JOURNAL = "/journal"

CONFIG = Config(
    pool="dir:/tank",
    journal=JOURNAL,
    image_service="service:80",
    num_fetchers=2,
    fetch_wait_seconds=1.0,
    journal_segment_bytes=1 << 16,
    checkpoint_events=70,
    guest_idle_seconds=0.2,  # what clients pause: an idle actor ends just when a message comes
)

LONGEST_LIFE_SECONDS = 900.0
"""Whoever is not answered by then never is."""


class Result(Struct, frozen=True, kw_only=True):
    """What came of a history; ``failure`` is "" if all was well."""

    seed: int
    failure: str = ""
    lives: int = 0
    steps: int = 0
    crashes: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    events: int = 0
    trace: str = ""


def run(plan: Plan, *, log: list[str] | None = None) -> Result:
    """Run it, inside ``surroundings.simulated``."""
    return History(plan, log).run()


class History:
    def __init__(self, plan: Plan, log: list[str] | None) -> None:
        self.plan = plan
        self.log = log
        self.disk = SimulatedDisk(JOURNAL)
        self.ground = PoolGround("tank", self._chance("pool"), total_bytes=64 << 20)
        self.book = Book(len(plan.scripts), pool_trouble=plan.pool_trouble > 0)
        self.clients = [Client(self.book, number, script) for number, script in enumerate(plan.scripts)]
        self.acknowledged: dict[int, str] = {}
        """The ids of all events that the journal acknowledged, by seq."""
        self.foreign: set[Identity] = set()
        self.left: set[Identity] = set()
        """What an undo had to leave in the pool."""
        self.visited = False
        self._steps = self._trace = self._crashes = 0
        self._clock = 0.0

    def _chance(self, what: str) -> random.Random:
        return random.Random(f"{self.plan.seed} {what}")

    def run(self) -> Result:
        failure = ""
        life = 0
        while not failure:
            is_last = life >= len(self.plan.crashes)
            failure, crashed = Life(self, life).run()
            if not crashed:
                if not failure and not is_last:
                    failure = "a life ended before its crash"
                break
            life += 1
        return Result(
            seed=self.plan.seed,
            failure=failure,
            lives=life + 1,
            steps=self._steps,
            crashes=self._crashes,
            acknowledged=self.book.acknowledged,
            refused=self.book.refused,
            unknown=self.book.unknown,
            events=len(self.acknowledged),
            trace=judge.digest(self._trace, self.ground),
        )

    def begin_life(self, number: int) -> Machine:
        machine = Machine(self._chance(f"schedule {number}"), began=self._clock, trace=self._trace)
        machine.log = self.log
        self.disk.machine = machine
        return machine

    def end_life(self, machine: Machine, paces: Paces, *, number: int, crashed: bool, kill: bool) -> None:
        self._steps += machine.steps
        self._trace = machine.trace
        self._clock = machine.clock.now + 1.0
        if crashed:
            self._crashes += 1
            chance = self._chance(f"crash {number}")
            paces.outlive(chance)
            self.disk = self.disk.after_kill() if kill else self.disk.after_crash(chance)
            for client in self.clients:
                client.write_in_the_dark(self.ground)
            if self.plan.strangers:
                wanted = {client.call.name for client in self.clients if client.call is not None}
                self.visited |= visit(self.ground, self.book, self.foreign, chance, wanted=wanted)


class Life:
    """A store from its start to its crash, or to its end."""

    def __init__(self, history: History, number: int) -> None:
        self.history = history
        plan = history.plan
        self.number = number
        self.point = plan.crashes[number] if number < len(plan.crashes) else None
        self.machine = history.begin_life(number)
        self.paces = Paces(self.machine, history._chance(f"paces {number}"), trouble=plan.pool_trouble)
        self.pool = SimulatedPool(history.ground, self.paces, self.state)
        self.answered = 0
        STAGE.network = Network(
            self.machine, history._chance(f"network {number}"), trouble=plan.network_trouble
        )
        STAGE.applied = self._applied
        ids = uuid7_maker(self.machine.now_ns, history._chance(f"ids {number}"))
        self.store = Store(
            CONFIG,
            surroundings=Surroundings(
                now_ns=self.machine.now_ns,
                new_id=ids,
                files=history.disk,
                threads=False,
                open_pool=lambda config: self._opened_pool(),
            ),
        )

    def _opened_pool(self) -> "_Opened":
        return _Opened(self.pool)

    def state(self) -> State:
        journal = self.store._journal
        return journal.state if journal is not None else State()

    def _applied(self, envelope: Envelope) -> None:
        if self.machine.dead:
            return
        before = self.history.acknowledged.setdefault(envelope.seq, envelope.id)
        if before != envelope.id:
            self.pool.violations.append(f"event {envelope.seq} was acknowledged, and is another one now")

    def run(self) -> tuple[str, bool]:
        """What went wrong, "" if nothing did; and whether it ended in a crash."""
        failure = ""
        crashed = False
        if self.point is not None and self.point.calls == 0:
            self.machine.die_after(self.point.steps)
        plan = self.history.plan
        if plan.disk_fault and self.number == 0:
            self.history.disk.fails_at[plan.disk_fault] = plan.disk_fault_at
        try:
            crashed = self.machine.run(self._live)
        except BaseException as error:
            failure, crashed = self._judge_death(error)
        if self.pool.violations:
            failure = self.pool.violations[0]
        kill = self.point is not None and self.point.kill
        self.history.end_life(self.machine, self.paces, number=self.number, crashed=crashed, kill=kill)
        return failure, crashed and not failure

    def _judge_death(self, error: BaseException) -> tuple[str, bool]:
        """A store may end by itself only because its journal's disk has failed."""
        cause = _innermost(error)
        failed = any(left < 0 for left in self.history.disk.fails_at.values())
        if failed and isinstance(cause, JournalError | ReadOnly):
            return "", True
        return _told(cause), False

    async def _live(self) -> None:
        store, history = self.store, self.history
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            self._judge_start()
            self.paces.trouble = self.paces.serving_trouble
            with trio.move_on_after(LONGEST_LIFE_SECONDS) as limit:
                async with trio.open_nursery() as clients:
                    for client in history.clients:
                        clients.start_soon(client.work, self)
                await self._calm()
            if limit.cancelled_caught:
                raise Wrong(f"not answered: {[client.call for client in history.clients if client.call]}")
            self._judge_rest()
            if self.point is not None or self.read_only:
                self.machine.die_after(self.point.steps if self.point is not None else 0)
                await trio.sleep(LONGEST_LIFE_SECONDS)
                raise Wrong("the machine did not die")
            await store.destroy()
        self._judge_end()

    @property
    def read_only(self) -> bool:
        return self.store.readiness().read_only

    def told(self) -> None:
        """A client was answered."""
        self.answered += 1
        if self.point is not None and self.answered >= self.point.calls:
            self.machine.die_after(self.point.steps)
        if self.read_only:
            self.machine.die_after(60)  # somebody restarts a store that is read-only

    async def _calm(self) -> None:
        """Until nothing is under way."""
        while self.state().operations and not self.read_only:
            await trio.sleep(0.5)
        await trio.sleep(0.7)  # for the view

    def _judge_start(self) -> None:
        history, state = self.history, self.state()
        events = judge.events_on(history.disk)
        history.left = judge.left_behind(events)
        wrong = [
            *judge.check_journal(events, history.acknowledged, state),
            *judge.check_recovered(state),
            *self._check_pool(),
        ]
        history.acknowledged = {envelope.seq: envelope.id for envelope in events}
        if not history.visited:
            wrong += judge.check_drift(events)
        history.visited = False
        wrong += judge.check_strangers(events, history.foreign, history.ground)
        _raise(wrong, "after the start")

    def _judge_rest(self) -> None:
        if self.read_only:
            return
        wrong = [*judge.check_rest(self.state(), self._zpool), *self._check_pool()]
        _raise(wrong, "at rest")

    def _check_pool(self) -> list[str]:
        history, state = self.history, self.state()
        return [
            *judge.check_together(state, history.ground, self._zpool, left=history.left),
            *judge.check_images(state, history.ground),
            *history.book.compare(history.ground, fetching=judge.fetching(state)),
        ]

    @property
    def _zpool(self) -> ZpoolActor:
        assert self.store._actors is not None
        return self.store._actors.zpool

    def _judge_end(self) -> None:
        disk = MemoryDisk(JOURNAL, self.history.disk.contents())
        report = reader.verify(JOURNAL, files=disk)
        _raise([finding.text for finding in report.findings if finding.kind == "damage"], "at the end")


class _Opened:
    """The context in which a store has its pool."""

    def __init__(self, pool: SimulatedPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> SimulatedPool:
        await trio.lowlevel.checkpoint()
        return self._pool

    async def __aexit__(self, *_: object) -> None:
        await trio.lowlevel.checkpoint()


def _raise(wrong: list[str], when: str) -> None:
    if wrong:
        raise Wrong(f"{when}: " + "\n  ".join(wrong[:5]))


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = min(error.exceptions, key=lambda each: isinstance(each, trio.Cancelled))
    return error


def _told(error: BaseException) -> str:
    if isinstance(error, Wrong):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({place.filename.rpartition('/')[2]}:{place.lineno})"
