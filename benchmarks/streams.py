"""Send streams against ``dd bs=1M conv=fsync``: reading with verification, writing, memory.

1 GiB without holes; ours runs in this process and ends in fsync.  Ours and dd
take turns, and medians are compared, so that both meet the same disk.  The
page cache is warm.  Scratch files go to ``.cache/bench`` (or ``BENCH_DIR``)
and are removed; 6 GB have to be free.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.store import scratch
from imagestore.streams import files
from imagestore.streams.applier import StreamApplier
from imagestore.streams.member import Compression
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.syncahead import SyncAhead
from imagestore.streams.writer import write_stream

SIZE = 1 << 30
PIECE = 1 << 20
ROUNDS = 3
MIB = 1 << 20
BLOCKS = (8 << 10, 128 << 10)


def run() -> list[Row]:
    with scratch() as directory:
        raw = directory / "raw"
        make_incompressible(raw)
        rows = []
        for block in BLOCKS:
            rows += [writing(directory, raw, block), reading(directory, block)]
        rows += [*memory(directory, raw)]
        make_halving(raw)
        rows.insert(2 * len(BLOCKS), reading_compressed(directory, raw))
        return rows


def make_incompressible(path: Path) -> None:
    with open(path, "wb") as file:
        file.writelines(os.urandom(PIECE) for _ in range(0, SIZE, PIECE))


def make_halving(path: Path) -> None:
    """Every 8 KiB half of chance, half of one letter: lz4 packs it to a little over a half."""
    with open(path, "wb") as file:
        for _ in range(0, SIZE, PIECE):
            noise = os.urandom(PIECE // 2)
            file.write(b"".join(noise[at : at + 4096] + b"a" * 4096 for at in range(0, len(noise), 4096)))


# --- what is measured ---------------------------------------------------------------


def writing(directory: Path, raw: Path, block: int) -> Row:
    stream = directory / f"stream-{block}"
    ours, against = alternate(
        lambda: write(raw, stream, block, None), lambda: dd(raw, directory / "copy", SIZE)
    )
    return compared(f"write a stream from a raw file, {block >> 10} KiB blocks", ours, against, 0.7)


def reading(directory: Path, block: int) -> Row:
    stream = directory / f"stream-{block}"
    ours, against = alternate(
        lambda: read(stream, directory / "volume", stream.stat().st_size),
        lambda: dd(stream, directory / "copy", stream.stat().st_size),
    )
    return compared(f"read and verify, {block >> 10} KiB blocks, to a file", ours, against, 0.7)


def reading_compressed(directory: Path, raw: Path) -> Row:
    stream = directory / "stream-lz4"
    write(raw, stream, 128 << 10, "lz4")
    ours, against = alternate(
        lambda: read(stream, directory / "volume", SIZE), lambda: dd(raw, directory / "copy", SIZE)
    )
    share = stream.stat().st_size / SIZE
    return compared(
        "read and verify, 128 KiB blocks, lz4",
        ours,
        against,
        0.5,
        note=f"MB/s of what it unpacks to; the stream has {share:.0%} of that",
    )


def memory(directory: Path, raw: Path) -> list[Row]:
    """Peak memory of a new process over what it has when it has loaded the edges and nothing else."""
    stream = directory / f"stream-{BLOCKS[-1]}"
    rows = []
    for name, arguments in (
        ("memory over idle while reading", ("read", str(stream), str(directory / "volume"))),
        ("memory over idle while writing", ("write", str(raw), str(directory / "copy"))),
    ):
        command = [sys.executable, "-m", "benchmarks.streams", *arguments]
        grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(Row(name=name, ours=int(grown) / MIB, unit="MiB", target=64, better="lower"))
    return rows


def compared(name: str, ours: list[float], against: list[float], target: float, note: str = "") -> Row:
    spread = (
        f"median of {len(ours)}, {min(ours):.0f} to {max(ours):.0f}; "
        f"dd {min(against):.0f} to {max(against):.0f}"
    )
    return Row(
        name=name,
        ours=statistics.median(ours),
        against=statistics.median(against),
        against_name="dd",
        unit="MB/s",
        target=target,
        note=f"{note}; {spread}" if note else spread,
    )


def alternate(ours: Callable[[], float], against: Callable[[], float]) -> tuple[list[float], list[float]]:
    """The rates of both in MB/s, taken in turns; the first turn only warms up."""
    rates = [(ours(), against()) for _ in range(ROUNDS + 1)][1:]
    return [mine for mine, _ in rates], [other for _, other in rates]


# --- ours, and dd ----------------------------------------------------------------------


def read(stream: Path, target: Path, size: int) -> float:
    """Apply a stream to a new file; MB/s of ``size``."""
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    with open(stream, "rb", 0) as source, open(target, "w+b", 0) as file:
        applier = StreamApplier(file.fileno())
        applier.read_from(source.fileno())
        applier.finish()
        os.fsync(file.fileno())
    return size / (time.perf_counter() - started) / 1e6


def write(raw: Path, target: Path, block: int, compress: Compression | None) -> float:
    """Write a raw file's stream to a new file; MB/s of the raw file."""
    target.unlink(missing_ok=True)
    info = SnapshotInfo(name="pool/volume@bench", guid=1, volsize=SIZE, volblocksize=block)
    started = time.perf_counter()
    with open(raw, "rb", 0) as source, open(target, "wb", 0) as file:
        written = 0
        ahead = SyncAhead(file.fileno())
        for piece in write_stream(source.fileno(), info, compress=compress):
            files.write_all(file.fileno(), written, [piece])
            written += len(piece)
            ahead.wrote(len(piece))
        ahead.finish()
        os.fsync(file.fileno())
    return SIZE / (time.perf_counter() - started) / 1e6


def dd(source: Path, target: Path, size: int) -> float:
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    subprocess.run(
        ["dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync"], check=True, stderr=subprocess.DEVNULL
    )
    return size / (time.perf_counter() - started) / 1e6


def own_memory(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def measure_memory(action: str, source: str, target: str) -> None:
    """Print by how many bytes one stream made this process grow at most."""
    idle = own_memory("VmRSS:")
    if action == "read":
        read(Path(source), Path(target), SIZE)
    else:
        write(Path(source), Path(target), BLOCKS[0], None)
    print(own_memory("VmHWM:") - idle)


if __name__ == "__main__":
    measure_memory(*sys.argv[1:])
