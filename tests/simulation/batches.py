"""Many histories, in one process or in several."""

import multiprocessing
from collections.abc import Iterator

from tests.simulation.history import Result, run
from tests.simulation.plan import make_plan
from tests.simulation.surroundings import simulated

BATCH = 50
"""Histories that a process runs before it hands in what came of them."""


def run_all(seeds: range, *, jobs: int) -> Iterator[list[Result]]:
    """What came of each, in order, batch by batch. Whoever stops reading ends the processes."""
    batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
    if jobs == 1:
        yield from map(run_batch, batches)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run_batch, batches)


def run_batch(seeds: range) -> list[Result]:
    """Ends after the first that fails."""
    results: list[Result] = []
    with simulated():
        for seed in seeds:
            results.append(run(make_plan(seed)))
            if results[-1].failure:
                break
    return results
