"""Importing images, from loopback into a directory pool, against ``curl`` into a file; resuming; memory.

Ours is one RequestImage of a running store: asked for, fetched, verified, on
the disk, journaled.  Theirs is ``curl`` (and ``gzip``) into a file and
``sync`` of that file.  They take turns, and medians are compared.  Scratch
files go to ``.cache/bench`` (or ``BENCH_DIR``) and are removed; 6 GB have to
be free.
"""

import gzip
import os
import statistics
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.rows import Row
from benchmarks.serving import Store, image_service, serve
from benchmarks.store import scratch
from imagestore.streams import files
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.writer import write_stream

GZIPPED_BYTES = 256 << 20
RAW_BYTES = 1 << 30
ROUNDS = 5
FETCHERS = 8
PIECE = 1 << 20


def run() -> list[Row]:
    with scratch() as directory:
        images = directory / "images"
        images.mkdir()
        unpacked = make_images(directory, images)
        with (
            image_service(images) as address,
            serve(directory / "pool", directory / "journal", "-i", address) as store,
        ):
            rows = [
                importing(
                    store,
                    address,
                    directory,
                    "gzip",
                    unpacked,
                    1.0,
                    name="import of a gzipped stream",
                    theirs="curl -s {url} | gzip -dc > {file} && sync {file}",
                ),
                importing(
                    store,
                    address,
                    directory,
                    "raw",
                    RAW_BYTES,
                    0.8,
                    name="import of a raw image",
                    theirs="curl -s -o {file} {url} && sync {file}",
                ),
                *broken_off(store, address, images),
            ]
        with image_service(images) as address:
            rows.append(memory(directory, address))
        return rows


def make_images(directory: Path, images: Path) -> int:
    """``gzip`` is a stream of words that packs three to one, ``raw`` is of chance. Length of the stream."""
    chance = np.random.default_rng(1)
    words = chance.integers(0, 256, (4096, 8), dtype=np.uint8)
    disk, stream = directory / "disk", directory / "stream"
    with disk.open("wb") as file:
        for _ in range(0, GZIPPED_BYTES, PIECE):
            file.write(words[chance.zipf(1.25, PIECE // 8) % 4096].tobytes())
    info = SnapshotInfo(name="pool/volume@bench", guid=7, volsize=GZIPPED_BYTES, volblocksize=8192)
    with disk.open("rb", 0) as source, stream.open("wb", 0) as target:
        written = 0
        for piece in write_stream(source.fileno(), info):
            files.write_all(target.fileno(), written, [piece])
            written += len(piece)
    with stream.open("rb") as plain, gzip.open(images / "gzip", "wb", 6) as packed:
        while data := plain.read(PIECE):
            packed.write(data)
    with (images / "raw").open("wb") as file:
        for _ in range(0, RAW_BYTES, PIECE):
            file.write(os.urandom(PIECE))
    for scratch_file in (disk, stream):
        scratch_file.unlink()
    os.sync()
    return written


def importing(
    store: Store,
    address: str,
    directory: Path,
    image: str,
    size: int,
    target: float,
    *,
    name: str,
    theirs: str,
) -> Row:
    file = directory / "theirs"
    command = theirs.format(url=f"http://{address}/images/{image}/download", file=file)
    ours_seconds, theirs_seconds = [], []
    for number in range(ROUNDS + 1):
        fetched = f"{image}.{number}"
        mine = timed(lambda: store.call("RequestImage", {"id": fetched}))  # noqa: B023 (called at once)
        other = timed(lambda: subprocess.run(command, shell=True, check=True))
        file.unlink()
        store.call("DeleteImage", {"id": fetched})
        os.sync()
        if number:  # the first round only warms up
            ours_seconds.append(mine)
            theirs_seconds.append(other)
    rates = [size / seconds / 1e6 for seconds in ours_seconds]
    against = [size / seconds / 1e6 for seconds in theirs_seconds]
    packed = os.path.getsize(directory / "images" / image)
    return Row(
        name=name,
        ours=statistics.median(rates),
        against=statistics.median(against),
        against_name="curl",
        unit="MB/s",
        target=target,
        note=f"median of {ROUNDS}, {min(rates):.0f} to {max(rates):.0f}; "
        f"curl {min(against):.0f} to {max(against):.0f}; the body has {packed / size:.0%} of these bytes",
    )


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sent(address: str) -> int:
    """How many bytes of images the service has sent."""
    with urllib.request.urlopen(f"http://{address}/sent") as answer:
        return int(answer.read())


def broken_off(store: Store, address: str, images: Path) -> list[Row]:
    rows = []
    for image in ("gzip", "raw"):
        before = sent(address)
        store.call("RequestImage", {"id": f"cut-{image}.0"})
        rows.append(
            Row(
                name=f"{image} broken off at 90 %: bytes sent in all",
                ours=(sent(address) - before) / 1e6,
                against=os.path.getsize(images / image) / 1e6,
                against_name="image",
                unit="MB",
                target=1.1,
                better="lower",
            )
        )
    return rows


def memory(directory: Path, address: str) -> Row:
    """The most that a store has over what it had idle, while so many are transferred at once."""
    pool, journal = directory / "memory", directory / "memory-journal"
    with serve(pool, journal, "-i", address, "--num-fetchers", str(FETCHERS)) as store:
        time.sleep(1)  # until the allocations of start-up have come to rest
        idle = store.resident_mb()
        wanted = [f"gzip.{number}" for number in range(FETCHERS)]
        tasks = [threading.Thread(target=store.call, args=("RequestImage", {"id": id_})) for id_ in wanted]
        for task in tasks:
            task.start()
        most, at_once = idle, 0
        while any(task.is_alive() for task in tasks):
            most = max(most, store.resident_mb())
            listed = store.call("ListImages", {})["images"]
            at_once = max(at_once, sum(image["status"] == "downloading" for image in listed))
            time.sleep(0.02)
    return Row(
        name=f"memory over idle during {FETCHERS} gzipped fetches",
        ours=most - idle,
        unit="MB",
        target=150,
        better="lower",
        note=f"up to {at_once} transferring at once; {idle:.0f} MB idle",
    )
