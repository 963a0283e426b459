"""The store on real OpenZFS against ``zfs`` itself: lists, looks, guests at once, downloads.

Runs where there is OpenZFS: in the machine of the tests (``make bench-zfs``).
That is emulated, so only ratios within the run mean anything.  The pool is a
sparse file in the directory for temporary files; its disks are memory.
"""

import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.serving import Store, image_service, request_body, serve
from benchmarks.store import http_request, read_to_end, write_random

MIB = 1 << 20
POOL = "bench"

VOLUMES = 40
SNAPSHOTS_PER_VOLUME = 50
GUESTS = 100
STREAM_BYTES = 128 * MIB
LOOKS = 50
"""Calls of which the median counts; of processes a tenth, of the long list one (a minute)."""

ROUNDS = 3
"""Downloads, and as many of ``zfs send``, by turns; the median counts."""

MADE_WITH = {
    "compression": "lz4",
    "imagestore:op": "019ab7c2-0000-7000-8000-000000000000",
    "imagestore:kind": "disk",
    "imagestore:image": "golden",
    "imagestore:guest": "guest-0",
    "imagestore:disk": "0",
}
"""What the store gives each disk; the shell loop sets the same."""


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as made, pool_on_file(Path(made)):
        directory = Path(made)
        images = directory / "images"
        images.mkdir()
        write_random(images / "golden", 8 * MIB)
        say(f"making {VOLUMES * SNAPSHOTS_PER_VOLUME:,} snapshots")
        make_snapshots()
        say(f"writing {STREAM_BYTES // MIB} MiB")
        make_stream()
        say("starting the store")
        with (
            image_service(images) as address,
            serve(
                f"zfs:{POOL}",
                directory / "journal",
                "--image-service",
                address,
                "--set",
                "allow_unsafe_filesystem=true",
            ) as store,
        ):
            store.call("RequestImage", {"id": "golden"})
            return [*looks(store), guests_at_once(store, directory), download(store)]


@contextlib.contextmanager
def pool_on_file(directory: Path) -> Iterator[None]:
    disk = directory / "disk"
    with disk.open("wb") as file:
        file.truncate(8 << 30)
    command("zpool", "create", "-f", "-o", "ashift=12", "-O", "mountpoint=none", POOL, str(disk))
    try:
        yield
    finally:
        command("zpool", "destroy", "-f", POOL)


def say(text: str) -> None:
    """Everything takes its time in the machine: tell that it goes on."""
    print(f"  zfs: {text} …", file=sys.stderr, flush=True)


def command(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


# --- what is there already ---------------------------------------------------------------


def make_snapshots() -> None:
    """``VOLUMES`` volumes, a snapshot of all of them at once, again and again."""
    command("zfs", "create", f"{POOL}/v")
    for number in range(VOLUMES):
        command("zfs", "create", "-s", "-V", "16M", "-o", "volmode=none", f"{POOL}/v/{number}")
    for number in range(SNAPSHOTS_PER_VOLUME):
        command("zfs", "snapshot", *(f"{POOL}/v/{volume}@s{number}" for volume in range(VOLUMES)))


def make_stream() -> None:
    """A volume without a hole and its snapshot."""
    command("zfs", "create", "-s", "-V", str(STREAM_BYTES), "-b", "64K", f"{POOL}/full")
    wait_for_node(f"{POOL}/full")
    write_random(Path(f"/dev/zvol/{POOL}/full"), STREAM_BYTES)
    command("zfs", "snapshot", f"{POOL}/full@s")


def wait_for_node(dataset: str) -> None:
    while not os.path.exists(f"/dev/zvol/{dataset}"):
        time.sleep(0.01)


# --- reads ---------------------------------------------------------------------------------


def looks(store: Store) -> list[Row]:
    one = f"{POOL}/v/0"

    def ask(method: str, identifier: str) -> Callable[[], object]:
        # One for each row: while ``zfs`` is measured, the store would let an idle one go.
        connection = socket.create_connection(("127.0.0.1", store.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = http_request(request_body(method, {"id": identifier}), keep_alive=True)
        return lambda: answered(connection, request)

    listed = len(store.call("ListSnapshots", {})["snapshots"])
    properties = "volsize,written,guid"
    say("looking")
    return [
        compared(
            f"ListSnapshots, {listed:,} snapshots",
            ask("ListSnapshots", ""),
            ("zfs", "list", "-Hp", "-t", "snapshot", "-o", "name,written"),
            "zfs list",
            processes=1,
        ),
        compared("GetVolume", ask("GetVolume", one), ("zfs", "get", "-Hp", properties, one), "zfs get"),
        compared(
            "GetSnapshot",
            ask("GetSnapshot", f"{one}@s0"),
            ("zfs", "get", "-Hp", properties, f"{one}@s0"),
            "zfs get",
        ),
    ]


def answered(connection: socket.socket, request: bytes) -> bytes:
    """One call on a connection that stays: as little as a client can do."""
    connection.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += _received(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    assert length is not None, head
    pieces = [body]
    left = int(length[1]) - len(body)
    while left:
        pieces.append(_received(connection))
        left -= len(pieces[-1])
    answer = b"".join(pieces)
    if b'"error":null' not in answer[-200:]:
        raise RuntimeError(answer[-300:].decode(errors="replace"))
    return answer


def _received(connection: socket.socket) -> bytes:
    piece = connection.recv(1 << 20)
    if not piece:
        raise RuntimeError("the store closed the connection")
    return piece


def compared(
    name: str,
    ask: Callable[[], object],
    words: tuple[str, ...],
    against_name: str,
    *,
    processes: int = LOOKS // 10,
) -> Row:
    ours = median_seconds(ask, LOOKS)
    theirs = median_seconds(lambda: command(*words), processes)
    return Row(
        name=name,
        ours=1 / ours,
        unit="1/s",
        against=1 / theirs,
        against_name=against_name,
        target=20,
        note=f"{ours * 1e3:.2f} ms against {theirs * 1e3:.0f} ms, medians",
    )


def median_seconds(work: Callable[[], object], count: int) -> float:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


# --- guests --------------------------------------------------------------------------------


def guests_at_once(store: Store, directory: Path) -> Row:
    say(f"making {GUESTS} guests one by one")
    theirs = clone_one_by_one(directory)
    say(f"making {GUESTS} guests at once")
    ours = create_guests(store)
    return Row(
        name=f"{GUESTS} guests at once",
        ours=GUESTS / ours,
        unit="1/s",
        against=GUESTS / theirs,
        against_name="zfs create, zfs clone",
        target=1.5,
        note=f"all in {ours:.1f} s, the shell loop in {theirs:.1f} s, both until the nodes are there",
    )


def clone_one_by_one(directory: Path) -> float:
    """Seconds of a shell loop that makes what the store makes, with the same properties."""
    (origin,) = command("zfs", "list", "-H", "-o", "name", "-t", "snapshot", f"{POOL}/images/golden").split()
    options = " ".join(f"-o {name}={value}" for name, value in MADE_WITH.items())
    parent = (
        "-o canmount=off -o volmode=dev -o imagestore:op=1 -o imagestore:kind=parent -o imagestore:guest=g"
    )
    script = directory / "loop.sh"
    script.write_text(
        "set -e\n"
        f"for n in $(seq {GUESTS}); do\n"
        f"  zfs create {parent} {POOL}/loop/guest-$n\n"
        f"  zfs clone {options} {origin} {POOL}/loop/guest-$n/disk-0\n"
        f"  until [ -e /dev/zvol/{POOL}/loop/guest-$n/disk-0 ]; do sleep 0.01; done\n"
        "done\n"
    )
    command("zfs", "create", "-o", "canmount=off", "-o", "volmode=dev", f"{POOL}/loop")
    began = time.perf_counter()
    command("sh", str(script))
    return time.perf_counter() - began


def create_guests(store: Store) -> float:
    """Seconds from the first request sent to the last answer read; each on a connection of its own."""
    connections = [socket.create_connection(("127.0.0.1", store.port)) for _ in range(GUESTS)]
    requests = [
        http_request(
            request_body("CreateGuestDisks", {"guest": {"id": f"guest-{n}", "disks": [{"image": "golden"}]}})
        )
        for n in range(GUESTS)
    ]
    began = time.perf_counter()
    for connection, request in zip(connections, requests, strict=True):
        connection.sendall(request)
    answers = [read_to_end(connection) for connection in connections]
    seconds = time.perf_counter() - began
    failed = [answer for answer in answers if b'"error":null' not in answer]
    if failed:
        raise RuntimeError(f"{len(failed)} of {GUESTS} guests failed, the first: {failed[0][-300:]!r}")
    missing = [n for n in range(GUESTS) if not os.path.exists(f"/dev/zvol/{POOL}/guests/guest-{n}/disk-0")]
    assert not missing, f"no nodes: {missing}"
    return seconds


# --- streams -------------------------------------------------------------------------------


def download(store: Store) -> Row:
    say("downloading")
    ours, theirs = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(["sh", "-c", f"zfs send {POOL}/full@s | cat > /dev/null"], check=True)
        theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        received = read_download(store, f"{POOL}/full@s")
        ours.append(time.perf_counter() - began)
        assert received > STREAM_BYTES
    megabytes = STREAM_BYTES / 1e6
    return Row(
        name=f"download of {STREAM_BYTES // MIB} MiB",
        ours=megabytes / statistics.median(ours),
        unit="MB/s",
        against=megabytes / statistics.median(theirs),
        against_name="zfs send | cat",
        target=0.8,
        note=f"medians of {ROUNDS}; through cat, as OpenZFS 2.1 cannot send to /dev/null itself on Linux 6; "
        "the client reads into one buffer and shares the two processors",
    )


def read_download(store: Store, snapshot: str) -> int:
    """How many bytes the answer has, its head and its chunks' heads included."""
    with socket.create_connection(("127.0.0.1", store.port)) as connection:
        path = f"/snapshots/download?id={snapshot}"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        buffer = memoryview(bytearray(MIB))
        total = 0
        while count := connection.recv_into(buffer):
            if not total and not bytes(buffer[:15]).startswith(b"HTTP/1.1 200"):
                raise RuntimeError(bytes(buffer[:count]).decode(errors="replace")[:300])
            total += count
    return total
