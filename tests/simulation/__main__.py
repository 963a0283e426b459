"""``python -m tests.simulation``: run many histories, or one from its seed, and print figures.

Exits with 1 if one failed; then its seed and the shortest history found are printed.
"""

import argparse
import os
import subprocess
import sys
import time

from tests.simulation.batches import run_all
from tests.simulation.history import Result, run
from tests.simulation.plan import Plan, make_plan
from tests.simulation.shrinking import shown, shrink
from tests.simulation.surroundings import simulated

HASH_SEED = "0"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--seed", type=int, help="this history only; its trace with --log")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--log", action="store_true", help="print every step of --seed")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for the shortest history")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        # Sets of names are walked through in the order of their hashes.
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        return subprocess.call(command, env={**os.environ, "PYTHONHASHSEED": HASH_SEED})
    if arguments.seed is not None:
        return _one(arguments.seed, log=arguments.log, smallest=not arguments.no_shrink)
    return _many(arguments.first, arguments.seeds, jobs=arguments.jobs, smallest=not arguments.no_shrink)


def _one(seed: int, *, log: bool, smallest: bool) -> int:
    plan = make_plan(seed)
    lines: list[str] | None = [] if log else None
    with simulated():
        result = run(plan, log=lines)
    if lines:
        print("\n".join(lines))
    if not result.failure:
        print(result)
        return 0
    _explain(plan, result, smallest=smallest)
    return 1


def _many(first: int, count: int, *, jobs: int, smallest: bool) -> int:
    began = time.monotonic()
    results: list[Result] = []
    failed = None
    for chunk in run_all(range(first, first + count), jobs=jobs):
        results += chunk
        failed = next((result for result in chunk if result.failure), None)
        if failed is not None:
            break
    _print_figures(results, time.monotonic() - began, jobs)
    if failed is None:
        return 0
    _explain(make_plan(failed.seed), failed, smallest=smallest)
    return 1


def _print_figures(results: list[Result], seconds: float, jobs: int) -> None:
    def total(field: str) -> int:
        return sum(getattr(result, field) for result in results)

    print(
        f"{len(results)} histories, {total('lives')} lives, {total('crashes')} crashes, "
        f"{total('steps')} steps, {total('events')} events; calls: {total('acknowledged')} acknowledged, "
        f"{total('refused')} refused, {total('unknown')} unknown; "
        f"{sum(bool(result.failure) for result in results)} failed; "
        f"{seconds:.1f} s with {jobs} processes, {len(results) / seconds:.1f} histories/s"
    )


def _explain(plan: Plan, result: Result, *, smallest: bool) -> None:
    print(f"seed {plan.seed} fails: {result.failure}\n")
    if smallest:
        with simulated():
            plan = shrink(plan, lambda smaller: bool(run(smaller).failure))
            print(f"the shortest history found fails: {run(plan).failure}")
        print(shown(plan))
    print(f"\nagain: python -m tests.simulation --seed {plan.seed} [--log]")


if __name__ == "__main__":
    sys.exit(main())
