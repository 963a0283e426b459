"""Kill a virtual machine under a loaded store again and again; judge from inside after each start.

``python -m tests.systemcrash [--kills N] [--seed S]``, as root on Debian 12.  The machine is that of
``tests/zfs/machine``; journal and pool are on its own disk.  A SIGKILL of qemu takes all that the
system in it had not written to that disk.  Exits 1 at the first thing that is wrong and keeps the files.
"""

import argparse
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.process import ROOT
from tests.systemcrash.inside import BEGUN, LOADING
from tests.systemcrash.memory import Memory

DISK_BYTES = 4 << 30
BOOT_SECONDS = 180
BOOTS = 3
"""A machine in which nothing of ours has begun by then hangs by itself, and is booted again, so often."""

LOAD_SECONDS = 600
"""A store that is not under load by then hangs."""

LONGEST_LOAD_SECONDS = 12.0


class Wrong(Exception):
    """What a judgement found, or that there was none."""


class Machine:
    """One boot after the other, on one disk."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.results = directory / "results"
        self.results.mkdir()
        self._disk = directory / "disk"
        self._seed = seed
        with self._disk.open("wb") as disk:
            disk.truncate(DISK_BYTES)

    def boot(self, number: int, *, last: bool = False) -> subprocess.Popen[bytes]:
        for name in (BEGUN, LOADING, "judged", "failed", "qemu"):
            (self.results / name).unlink(missing_ok=True)
        environment = os.environ | {
            "IMAGESTORE_ZFS_DISK": str(self._disk),
            "IMAGESTORE_ZFS_RESULTS": str(self.results),
        }
        with (self.directory / "machine.log").open("ab") as log:
            return subprocess.Popen(
                [
                    *("tests/zfs/machine/run", str(2 * LOAD_SECONDS), sys.executable, "-m"),
                    *("tests.systemcrash.inside", "/run/results", str(self._seed), str(number)),
                    *(["--last"] if last else []),
                ],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def booted(self, number: int, *, last: bool = False) -> subprocess.Popen[bytes]:
        """The machine, once it has begun with our part.  Raises Wrong."""
        for _ in range(BOOTS):
            process = self.boot(number, last=last)
            if self._comes_to(BEGUN, process, BOOT_SECONDS):
                return process
            print("systemcrash: the machine did not boot", flush=True)
            self.end(process)
        raise Wrong(f"the machine does not boot: {self.last_words()}")

    def load(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the store in it is judged and under load.  Raises Wrong."""
        if not self._comes_to(LOADING, process, LOAD_SECONDS):
            raise Wrong(f"the store did not come to its load: {self.last_words()}")

    def _comes_to(self, sign: str, process: subprocess.Popen[bytes], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not (self.results / sign).exists():
            self.check()
            if process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def check(self) -> None:
        failed = self.results / "failed"
        if failed.exists():
            raise Wrong(failed.read_text())

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it, if it runs."""
        if process.poll() is None:
            qemu = self.results / "qemu"
            if qemu.exists():
                os.kill(int(qemu.read_text()), signal.SIGKILL)
            else:
                process.terminate()
            process.wait(60)

    def last_words(self) -> str:
        output = (self.results / "output").read_text(errors="replace") if self.results.exists() else ""
        log = (self.directory / "machine.log").read_text(errors="replace")
        return "\n".join((output + log).splitlines()[-40:])


def crash(directory: Path, *, seed: int, kills: int) -> str:
    """The summary. Raises Wrong."""
    chance = random.Random(seed)
    machine = Machine(directory, seed)
    for number in range(kills):
        process = machine.booted(number)
        try:
            machine.load(process)
            time.sleep(chance.uniform(0.2, LONGEST_LOAD_SECONDS))
        finally:
            machine.end(process)
        print(f"systemcrash: {told(machine, number + 1)}", flush=True)
    process = machine.booted(kills, last=True)
    status = process.wait()
    machine.check()
    if status != 0:
        raise Wrong(machine.last_words())
    return told(machine, kills)


def told(machine: Machine, kills: int) -> str:
    known = Memory(machine.results / "memory").last()
    assert known is not None
    return (
        f"{kills} kills of the machine, {known.calls} calls ({known.acknowledged} acknowledged, "
        f"{known.refused} refused); lost 0, back 0, half 0, stray 0, other 0"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.systemcrash", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="default: a random one")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="imagestore-systemcrash-"))
    print(f"systemcrash: seed {options.seed}, files in {directory}", flush=True)
    try:
        print(f"systemcrash: {crash(directory, seed=options.seed, kills=options.kills)}")
    except Wrong as wrong:
        print(f"systemcrash: WRONG\n{wrong}\nfiles are kept in {directory}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
