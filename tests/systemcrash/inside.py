"""Within the machine: judge what the crash left, then load the store until the machine is killed.

``python -m tests.systemcrash.inside DIRECTORY SEED ROUND [--last]``, as root; DIRECTORY is shared with the
host.  The store lives on the machine's own disk, an ext4 file system on /dev/vda.
"""

import argparse
import random
import subprocess
import sys
from pathlib import Path

import trio

from imagestore.client import Client
from tests.crash.content import provide
from tests.crash.imagebook import ImageBook
from tests.crash.judge import Judge
from tests.crash.process import Place, StoreProcess
from tests.crash.workload import ANSWER_SECONDS, Statistics, Worker
from tests.imageservice import ImageService
from tests.systemcrash.memory import Known, Memory, give_back, known_by

DISK = "/dev/vda"
CLIENTS = 4
BEGUN = "begun"
"""The file that tells the host that the machine is up and this here runs."""

LOADING = "loading"
"""The file that tells the host that the load has begun; ``judged`` and ``failed`` come before it."""

LONGEST_LOAD_SECONDS = 600


def mount(directory: Path, *, fresh: bool) -> None:
    for command in (
        ["modprobe", "virtio_blk"],
        ["modprobe", "ext4"],
        *([["mkfs.ext4", "-q", "-F", DISK]] if fresh else []),
        ["mount", "-t", "ext4", DISK, str(directory)],
    ):
        subprocess.run(command, check=True)


async def run(shared: Path, place: Place, *, seed: int, number: int, last: bool) -> list[str]:
    """What is wrong; loads for ever if nothing is and it is not the ``last``."""
    chance = random.Random(f"{seed}-{number}")
    memory, images, statistics = Memory(shared / "memory"), ImageBook(), Statistics()

    def watch() -> None:
        memory.keep(known())

    def known() -> Known:
        return known_by(workers, images, statistics)

    workers = [
        Worker(client, chance.randrange(1 << 32), str(place.pool), images, statistics, watch=watch)
        for client in range(CLIENTS)
    ]
    before = memory.last()
    if before is not None:
        give_back(before, workers, images, statistics)
    service = ImageService()
    provide(service, pause_seconds=0.01)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        store = StoreProcess(place, service.address)
        await store.spawn()
        client = Client(await store.until_ready(), timeout=10 * ANSWER_SECONDS)
        memory.begin(known())
        for worker in workers:
            if worker.writing is not None:  # half of it may be there: write it again
                worker.write(worker.writing)
        judge = Judge(place, chance)
        found = await judge.judge(client, workers, images, complete=last or number % 5 == 0)
        told = [f"{finding.fault}: {finding.text}" for finding in found]
        (shared / ("failed" if told else "judged")).write_text("\n".join(told))
        if not told and not last:
            memory.begin(known())
            (shared / LOADING).touch()
            with trio.move_on_after(LONGEST_LOAD_SECONDS):
                async with trio.open_nursery() as load:
                    for worker in workers:
                        load.start_soon(worker.work, client)
        await store.kill()
        nursery.cancel_scope.cancel()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.systemcrash.inside", description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("round", type=int)
    parser.add_argument("--last", action="store_true")
    options = parser.parse_args()
    (options.shared / BEGUN).touch()
    directory = Path("/run/tmp/store")
    directory.mkdir()
    mount(directory, fresh=options.round == 0)
    place = Place(directory)
    told = trio.run(
        lambda: run(options.shared, place, seed=options.seed, number=options.round, last=options.last)
    )
    print("\n".join(told) or "right")
    sys.exit(1 if told else 0)


if __name__ == "__main__":
    main()
