"""A slice of the simulation, and that it can be trusted: it repeats, and it finds mistakes."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

import imagestore
from tests.simulation.calls import Call
from tests.simulation.disk import SimulatedDisk
from tests.simulation.history import run
from tests.simulation.machine import Crash, Machine, Stuck
from tests.simulation.plan import Plan, make_plan
from tests.simulation.planting import Mutant, Tree, check_whole, find, mutants, planted
from tests.simulation.shrinking import shrink
from tests.simulation.surroundings import simulated

SLICES = 5
HISTORIES = 60

PLANTED_HERE = ("fetched-under-its-name", "reply-without-outcome", "effect-before-intent")


@pytest.fixture(autouse=True)
def stage() -> Iterator[None]:
    with simulated():
        yield


@pytest.mark.parametrize("part", range(SLICES))
def test_row_21_every_history_ends_as_the_model_says(part: int) -> None:
    for seed in range(part * HISTORIES, (part + 1) * HISTORIES):
        result = run(make_plan(seed))
        assert not result.failure, f"seed {seed}: {result.failure}"
        assert result.crashes >= 2


def test_a_plan_has_three_clients_forty_calls_and_two_crashes() -> None:
    for seed in range(50):
        plan = make_plan(seed)
        assert len(plan.scripts) >= 3
        assert plan.calls >= 40
        assert len(plan.crashes) >= 2


@pytest.mark.parametrize("seed", [11, 12])
def test_the_same_seed_gives_the_same_history_step_by_step(seed: int) -> None:
    first: list[str] = []
    second: list[str] = []
    results = run(make_plan(seed), log=first), run(make_plan(seed), log=second)
    assert first == second
    assert results[0] == results[1]
    assert run(make_plan(seed + 100)).trace != results[0].trace


def test_shrinking_leaves_what_is_needed_and_nothing_else() -> None:
    needed = Call(kind="snapshot", name="c0/v0", argument="s")
    plan = make_plan(3)
    plan = replace(plan, scripts=(*plan.scripts[:-1], (*plan.scripts[-1], needed)), strangers=True)

    def fails(smaller: Plan) -> bool:
        return any(needed in script for script in smaller.scripts) and len(smaller.crashes) >= 1

    shortest = shrink(plan, fails)
    assert [script for script in shortest.scripts if script] == [(needed,)]
    assert len(shortest.crashes) == 1
    assert not shortest.strangers


class TestMachine:
    def test_it_dies_at_the_step_that_was_chosen_and_does_nothing_after_it(self) -> None:
        done: list[str] = []
        machine = Machine(random.Random(1), began=0.0)

        async def write_and_clean_up() -> None:
            try:
                for number in range(100):
                    machine.step("write")
                    done.append(str(number))
                    await trio.sleep(1)
            finally:
                with trio.CancelScope(shield=True):
                    machine.step("clean up")
                    done.append("cleaned up")

        machine.die_after(20)
        assert machine.run(write_and_clean_up)
        assert done == [str(number) for number in range(len(done))]
        assert 0 < len(done) < 20
        with pytest.raises(Crash):
            machine.step("later")

    def test_time_passes_only_when_nobody_runs(self) -> None:
        machine = Machine(random.Random(1), began=5.0)
        seen: list[float] = []

        async def sleep() -> None:
            await trio.sleep(100)
            seen.append(trio.current_time())

        assert not machine.run(sleep)
        assert seen == [105.0]

    def test_a_store_that_waits_for_nothing_is_found(self) -> None:
        with pytest.raises(Stuck):
            Machine(random.Random(1), began=0.0).run(trio.sleep_forever)


class TestDisk:
    def _disk(self) -> tuple[SimulatedDisk, int]:
        disk = SimulatedDisk("/journal")
        disk.machine = Machine(random.Random(1), began=0.0)
        file = disk.open("/journal/a", 0o102)
        disk.sync_directory("/journal")
        return disk, file

    def _survivors(self, disk: SimulatedDisk) -> set[bytes]:
        return {disk.after_crash(random.Random(seed)).contents()["a"] for seed in range(30)}

    def test_what_was_not_flushed_may_be_lost(self) -> None:
        disk, file = self._disk()
        disk.write(file, b"x" * 512, 0)
        assert self._survivors(disk) == {b"", bytes(512), b"x" * 512}
        disk.sync_data(file)
        assert self._survivors(disk) == {b"x" * 512}

    def test_what_a_failed_flush_lost_no_later_one_brings_back(self) -> None:
        disk, file = self._disk()
        disk.write(file, b"x" * 512, 0)
        disk.fails_at["sync_data"] = 0
        with pytest.raises(OSError, match="Input/output error"):
            disk.sync_data(file)
        disk.sync_data(file)
        assert bytes(512) in self._survivors(disk)
        disk.write(file, b"y" * 512, 0)
        disk.sync_data(file)
        assert self._survivors(disk) == {b"y" * 512}

    def test_a_kill_takes_nothing_from_the_page_cache(self) -> None:
        disk, file = self._disk()
        disk.write(file, b"x" * 512, 0)
        assert disk.after_kill().contents() == {"a": b"x" * 512}


def _chosen() -> list[Mutant]:
    return [mutant for mutant in mutants() if mutant.name in PLANTED_HERE]


def test_there_are_many_mistakes_and_each_has_a_name() -> None:
    names = [mutant.name for mutant in mutants()]
    assert len(names) == len(set(names)) >= 25


def test_every_mistake_fits_the_code_as_it_is() -> None:
    package = Path(imagestore.__file__).parent
    for mutant in mutants():
        assert planted(mutant, package), mutant.name


def test_planted_mistakes_are_found(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    assert check_whole(tree, (), seeds=5) == ""
    for mutant in _chosen():
        assert find(mutant, tree).by == "simulation", mutant.name
