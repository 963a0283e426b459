"""The pool as a simulation drives it: it takes time, fails, dies midway, and is watched.

Watched: no effect without an intent that is durable, and no destruction but of
what an operation under way has named, has made, or left in staging.
"""

import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from imagestore import names
from imagestore.errors import ImageStoreError, PoolError
from imagestore.events.catalogue import DestroyIntent, RollbackIntent
from imagestore.events.state import State
from imagestore.pools.base import Creation, Dataset, Identity, Receiver, Tags, Target
from tests.simulation.machine import Machine
from tests.simulation.memorypool import MemoryPool
from tests.simulation.poolground import PoolGround

T = TypeVar("T")

OFTEN = frozenset({"generation", "changes"})
"""Asked twice a second: nobody gets a turn meanwhile, which keeps histories cheap."""

PAUSES = (0.0, 0.0, 0.001, 0.02, 0.3)


class Paces:
    """How long the pool's commands take, and what becomes of those that a crash overtakes."""

    def __init__(self, machine: Machine, chance: random.Random, *, trouble: float) -> None:
        self.machine = machine
        self.trouble = 0.0
        """The part of commands that fail; none does before the store serves."""
        self.serving_trouble = trouble
        self._chance = chance
        self._under_way: dict[int, Callable[[], object]] = {}
        self._count = 0
        self._surviving = False
        self.spares_next = False
        """The next command does not fail: it takes back what another left that did."""

    async def begin(self, call: str, change: Callable[[], object]) -> None:
        spared, self.spares_next = self.spares_next, False
        self.machine.step(call)
        self._count += 1
        number = self._count
        self._under_way[number] = change
        try:
            await trio.sleep(self._chance.choice(PAUSES))
        except trio.Cancelled:
            del self._under_way[number]
            raise
        if not self.machine.dead:
            del self._under_way[number]
        if self._chance.random() < self.trouble and not spared:
            raise PoolError("the pool's command failed (simulated)")

    def commit(self, call: str, change: Callable[[], T]) -> T:
        self.machine.step(f"{call} begins")
        result = change()
        self.machine.step(f"{call} done")
        return result

    def partly(self) -> None:
        if not self._surviving:
            self.machine.step("partly")

    async def look(self, call: str) -> None:
        self.machine.step(call)
        if call not in OFTEN:
            await trio.lowlevel.checkpoint()

    def outlive(self, chance: random.Random) -> None:
        """Commands that were under way at the crash end now, each or not: children outlive their store."""
        self._surviving = True
        for change in self._under_way.values():
            if chance.random() < 0.5:
                try:
                    change()
                except ImageStoreError:
                    continue


class Unlawful(AssertionError):
    """The store did to the pool what it may not do."""


class SimulatedPool(MemoryPool):
    """``state`` gives the journal's state, which is durable."""

    def __init__(self, ground: PoolGround, paces: Paces, state: Callable[[], State]) -> None:
        super().__init__(ground, clock=lambda: paces.machine.now_ns() / 1e9, pace=paces)
        self.in_use: set[str] = set()
        self.violations: list[str] = []
        self._state = state
        self._paces = paces

    def writers(self, name: str) -> Sequence[str]:
        return ("pid 4242 qemu",) if name in self.in_use else ()

    async def create(self, creations: Sequence[Creation]) -> Sequence[Dataset]:
        self._require_intent("create", [creation.tags.op for creation in creations])
        return await super().create(creations)

    async def snapshot(self, volumes: Sequence[Target], snapshot: str, tags: Tags) -> Sequence[Dataset]:
        self._require_intent("snapshot", [tags.op])
        return await super().snapshot(volumes, snapshot, tags)

    async def rollback(
        self, snapshots: Sequence[Target], *, destroy: Sequence[Target], operation: str, force: bool = False
    ) -> Sequence[Dataset]:
        self._require_intent("rollback", [operation])
        self._require_named("rollback", destroy)
        return await super().rollback(snapshots, destroy=destroy, operation=operation, force=force)

    async def destroy(self, targets: Sequence[Target], *, force: bool = False) -> None:
        self._require_named("destroy", targets)
        under_way = self._state().operations
        self._paces.spares_next = any(self._made_by(target) in under_way for target in targets)
        await super().destroy(targets, force=force)

    async def rename(self, target: Target, name: str) -> Sequence[Dataset]:
        self._require_intent("rename", [self._made_by(target)])
        return await super().rename(target, name)

    @asynccontextmanager
    async def receive_raw(
        self, name: str, tags: Tags, *, snapshot: str, snapshot_tags: Tags, read_only: bool = False
    ) -> AsyncIterator[Receiver]:
        self._require_intent("receive", [tags.op, snapshot_tags.op])
        received = super().receive_raw(
            name, tags, snapshot=snapshot, snapshot_tags=snapshot_tags, read_only=read_only
        )
        async with received as receiver:
            yield receiver

    @asynccontextmanager
    async def receive_stream(
        self,
        name: str,
        tags: Tags,
        *,
        snapshot_tags: Tags,
        origin: Target | None = None,
        read_only: bool = False,
    ) -> AsyncIterator[Receiver]:
        self._require_intent("receive", [tags.op, snapshot_tags.op])
        received = super().receive_stream(
            name, tags, snapshot_tags=snapshot_tags, origin=origin, read_only=read_only
        )
        async with received as receiver:
            yield receiver

    @asynccontextmanager
    async def receive_onto(
        self, volume: Target, *, base: Target, snapshot_tags: Tags, operation: str, force: bool = False
    ) -> AsyncIterator[Receiver]:
        self._require_intent("receive", [operation, snapshot_tags.op])
        received = super().receive_onto(
            volume, base=base, snapshot_tags=snapshot_tags, operation=operation, force=force
        )
        async with received as receiver:
            yield receiver

    def _made_by(self, target: Target) -> str:
        entry = self.ground.find(target.name)
        return entry.dataset.tags.op if entry is not None and entry.dataset.target == target else "nobody"

    def _require_intent(self, call: str, operations: Iterable[str]) -> None:
        under_way = self._state().operations
        for operation in operations:
            if operation not in under_way:
                self._violated(f"{call} without a durable intent: operation {operation!r} is not under way")

    def _require_named(self, call: str, targets: Sequence[Target]) -> None:
        under_way = self._state().operations
        named: set[Identity] = set()
        for record in under_way.values():
            intent = record.intent
            if isinstance(intent, DestroyIntent):
                named.update(Identity(each.guid, each.createtxg) for each in intent.datasets)
            elif isinstance(intent, RollbackIntent):
                named.update(Identity(each.guid, each.createtxg) for each in intent.newer)
        staging = f"{names.IMAGES}/{names.STAGING_PREFIX}"
        for target in targets:
            is_ours = self._made_by(target) in under_way or target.name.startswith(staging)
            if target.identity not in named and not is_ours and self.ground.find(target.name) is not None:
                self._violated(f"{call} of {target.name}, which no operation under way has named or made")

    def _violated(self, what: str) -> None:
        if not self._paces.machine.dead:
            self.violations.append(what)
            raise Unlawful(what)
