"""The store as a whole, seen by its clients: start-up, memory, latency, many guests at once.

Every row talks to a real ``imagestore serve`` over HTTP.  Scratch files go to
``.cache/bench`` (or ``BENCH_DIR``), which needs some 25 GB free, and are removed.
"""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import trio
from msgspec import Struct

from benchmarks.rows import Row
from benchmarks.seeding import add_guests, add_past
from benchmarks.serving import RPC_PATH, Store, call_on, image_service, request_body, serve

GIB = 1 << 30
PIECE = 1 << 20

START_EVENTS = 1_000_000
START_DATASETS = 20_000
MANY_DATASETS = 100_000
DATASETS_PER_GUEST = 2
GUESTS = 200
CALLS = 5_000
FETCHES = 4
FETCH_ROUNDS = 20
"""Most times that the images are fetched again while the calls are not all made."""


def run() -> list[Row]:
    with scratch() as directory:
        return [*fetching(directory), *starting(directory), guests_at_once(directory)]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    parent = Path(os.environ.get("BENCH_DIR", ".cache/bench")).absolute()
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


# --- start-up, and memory with many datasets ---------------------------------------


def starting(directory: Path) -> list[Row]:
    pool, journal = directory / "aged", directory / "aged-journal"
    with serve(pool, journal):
        pass  # begins both, marks them as belonging together, makes images and guests
    live = START_DATASETS // DATASETS_PER_GUEST
    trio.run(add_guests, pool, journal, range(live))
    trio.run(add_past, journal, START_EVENTS)
    seconds = []
    for _ in range(3):
        with serve(pool, journal) as store:
            seconds.append(store.started_seconds)
    trio.run(add_guests, pool, journal, range(live, MANY_DATASETS // DATASETS_PER_GUEST))
    with serve(pool, journal) as store:
        time.sleep(2)  # until the allocations of start-up have come to rest
        resident = store.resident_mb()
        store.call("SearchEvents", {"who": "bench", "limit": 1})  # it comes when the index is built
        guest = statistics.median(log_seconds(store, "--guest", "bench-7") for _ in range(3))
        last = statistics.median(log_seconds(store, "--guest", "bench-0", "--last", "20") for _ in range(3))
    return [
        Row(
            name="exec to /readyz, 1 M events, 20,000 datasets",
            ours=statistics.median(seconds),
            unit="s",
            target=2,
            better="lower",
            note=f"median of {len(seconds)} ({min(seconds):.2f} to {max(seconds):.2f} s), page cache warm",
        ),
        Row(name="VmRSS with 100,000 datasets", ours=resident, unit="MB", target=200, better="lower"),
        Row(
            name="log --guest, 1.2 M events",
            ours=guest,
            unit="s",
            target=1,
            better="lower",
            note=f"command to its end; the last 20 of a guest that most events are about: {last:.2f} s",
        ),
    ]


def log_seconds(store: Store, *options: str) -> float:
    command = [sys.executable, "-m", "imagestore", "log", "--server", f"http://127.0.0.1:{store.port}"]
    began = time.perf_counter()
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


# --- memory after a fetch, and latency while fetching ---------------------------------


def fetching(directory: Path) -> list[Row]:
    images = directory / "service"
    images.mkdir()
    write_random(images / "image-0", GIB)
    for number in range(1, FETCHES):
        os.link(images / "image-0", images / f"image-{number}")
    pool, journal = directory / "fetching", directory / "fetching-journal"
    with (
        image_service(images) as address,
        serve(pool, journal, "--image-service", address, "--num-fetchers", str(FETCHES)) as store,
    ):
        store.call("RequestImage", {"id": "image-0"})
        time.sleep(1)  # until what the fetch allocated has been given back, if it will be
        resident = store.resident_mb()
        before = latencies(store, CALLS)
        busy = latencies_while_fetching(store)
        calls = len(busy.seconds)
        resident_after = store.resident_mb()
        after = latencies(store, CALLS)
    # Whatever else the machine does makes idle look slow and the ratio good: the calmer half counts.
    idle = min(before, after, key=lambda seconds: percentile(seconds, 99))
    shutil.rmtree(images)
    shutil.rmtree(pool)
    return [
        Row(
            name="VmRSS idle after one fetch of 1 GiB",
            ours=resident,
            unit="MB",
            target=100,
            better="lower",
            note=f"{resident_after:.0f} MB after all fetches of the next row",
        ),
        Row(
            name=f"p99 of GetImage, {FETCHES} fetches under way",
            ours=percentile(busy.seconds, 99) * 1e3,
            unit="ms",
            against=percentile(idle, 99) * 1e3,
            against_name="idle",
            target=5,
            better="lower",
            note="; ".join(
                (
                    f"{calls:,} calls in {busy.rounds} rounds of {FETCHES} x 1 GiB",
                    f"{busy.gib_per_second:.2f} GiB/s",
                    f"median {percentile(busy.seconds, 50) * 1e3:.2f} ms "
                    f"against {percentile(idle, 50) * 1e3:.2f} ms",
                    f"of a call's {statistics.mean(busy.seconds) * 1e3:.2f} ms client and event loop were "
                    f"ready but without a processor for {busy.waited_seconds / calls * 1e3:.2f} ms",
                    f"p99 idle {percentile(before, 99) * 1e3:.2f} ms before",
                    f"{percentile(after, 99) * 1e3:.2f} ms after",
                    f"load average {os.getloadavg()[0]:.1f}",
                    "client, image service and store share the processors",
                )
            ),
        ),
    ]


def write_random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // PIECE):
            file.write(os.urandom(PIECE))


def latencies(store: Store, count: int) -> list[float]:
    """Seconds of each of ``count`` calls of GetImage, one after the other on one connection."""
    connection = store.connection()
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        call_on(connection, "GetImage", {"id": "image-0"})
        seconds.append(time.perf_counter() - began)
    connection.close()
    return seconds


class Busy(Struct, frozen=True, kw_only=True):
    """Calls made while all fetches were under way.

    ``seconds`` of each; ``waited_seconds`` is how long the client's thread and the store's event loop were
    ready to run meanwhile and had no processor; ``gib_per_second`` is of all fetches together.
    """

    seconds: list[float]
    waited_seconds: float
    rounds: int
    gib_per_second: float


def latencies_while_fetching(store: Store) -> Busy:
    """Fetches again as often as it takes to make all calls; the images of the last round stay."""
    seconds: list[float] = []
    waited = elapsed = 0.0
    rounds = 0
    while len(seconds) < CALLS and rounds < FETCH_ROUNDS:
        rounds += 1
        for image in store.call("ListImages", {})["images"]:
            store.call("DeleteImage", {"id": image["id"]})
        failures: list[Exception] = []
        workers = [
            threading.Thread(target=fetch, args=(store, f"image-{number}", failures))
            for number in range(FETCHES)
        ]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        wait_requested(store)
        connection = store.connection()
        waited -= without_processor(store)
        while len(seconds) < CALLS and all(worker.is_alive() for worker in workers):
            called = time.perf_counter()
            call_on(connection, "GetImage", {"id": "image-0"})
            seconds.append(time.perf_counter() - called)
        waited += without_processor(store)
        connection.close()
        for worker in workers:
            worker.join()
        elapsed += time.perf_counter() - began
        if failures:
            raise failures[0]
    return Busy(
        seconds=seconds,
        waited_seconds=waited,
        rounds=rounds,
        gib_per_second=rounds * FETCHES / elapsed,
    )


def without_processor(store: Store) -> float:
    """Seconds so far that the main threads, ours and the store's, were ready to run and did not."""
    waits = (
        Path(f"/proc/{process}/schedstat").read_text().split()[1] for process in ("self", store.process.pid)
    )
    return sum(map(int, waits)) / 1e9


def fetch(store: Store, image: str, failures: list[Exception]) -> None:
    try:
        store.call("RequestImage", {"id": image})
    except Exception as error:
        failures.append(error)


def wait_requested(store: Store) -> None:
    """Until the store knows all images that are being fetched."""
    while len(store.call("ListImages", {})["images"]) < FETCHES:
        time.sleep(0.005)


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


# --- many guests at once -----------------------------------------------------------------


def guests_at_once(directory: Path) -> Row:
    name = f"{GUESTS} guests at once, clones of a 10 GiB image"
    if os.geteuid() != 0:
        return Row(
            name=name,
            ours=None,
            unit="1/s",
            against_name="cp --reflink",
            target=0.5,
            note="needs root, to mount xfs on a loop device: sudo make bench ROWS=store",
        )
    with reflink_filesystem(directory) as mounted:
        return measure_guests(name, directory, mounted)


def measure_guests(name: str, directory: Path, mounted: Path) -> Row:
    images = directory / "holey"
    images.mkdir()
    write_holey(images / "golden", size=10 * GIB, data=2 * GIB)
    with (
        image_service(images) as address,
        serve(mounted / "pool", directory / "guests-journal", "--image-service", address) as store,
    ):
        store.call("RequestImage", {"id": "golden"})
        volumes = store.call("ListVolumes", {})["volumes"]
        (device,) = (str(volume["device"]) for volume in volumes if volume["id"] == "pool/images/golden")
        ours = create_guests(store)
        theirs = copy_one_by_one(os.path.realpath(device), mounted / "copies")
    return Row(
        name=name,
        ours=GUESTS / ours,
        unit="1/s",
        against=GUESTS / theirs,
        against_name="cp --reflink",
        target=0.5,
        note=f"all {GUESTS} durable in {ours:.2f} s; cp, which makes nothing durable, took {theirs:.2f} s",
    )


def write_holey(path: Path, *, size: int, data: int) -> None:
    """A raw disk with ``data`` bytes in pieces of 1 MiB, evenly apart, and holes between."""
    pieces = data // PIECE
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(pieces):
            file.seek(number * (size // pieces) // 4096 * 4096)
            file.write(os.urandom(PIECE))


def create_guests(store: Store) -> float:
    """Seconds from the first request sent to the last answer read; each on a connection of its own."""
    connections = []
    for _ in range(GUESTS):
        connection = socket.create_connection(("127.0.0.1", store.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections.append(connection)
    requests = [
        http_request(
            request_body(
                "CreateGuestDisks", {"guest": {"id": f"guest-{number}", "disks": [{"image": "golden"}]}}
            )
        )
        for number in range(GUESTS)
    ]
    began = time.perf_counter()
    for connection, request in zip(connections, requests, strict=True):
        connection.sendall(request)
    answers = [read_to_end(connection) for connection in connections]
    seconds = time.perf_counter() - began
    failed = [answer for answer in answers if b'"error":null' not in answer]
    if failed:
        raise RuntimeError(f"{len(failed)} of {GUESTS} guests failed, the first: {failed[0][-300:]!r}")
    return seconds


def http_request(body: bytes, *, keep_alive: bool = False) -> bytes:
    connection = "keep-alive" if keep_alive else "close"
    return (
        f"POST {RPC_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: {connection}\r\n\r\n"
    ).encode() + body


def read_to_end(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    connection.close()
    return b"".join(pieces)


def copy_one_by_one(source: str, target: Path) -> float:
    target.mkdir()
    began = time.perf_counter()
    for number in range(GUESTS):
        subprocess.run(["cp", "--reflink=always", source, str(target / str(number))], check=True)
    return time.perf_counter() - began


@contextlib.contextmanager
def reflink_filesystem(directory: Path) -> Iterator[Path]:
    """A loop-mounted xfs of 4 TiB on a sparse file: room for what clones may still write."""
    image, mounted = directory / "xfs", directory / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(4 << 40)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", "-l", "size=64m", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
