"""``python -m tests.streams.fuzz --cases N [--seed S]``: the long run of the stream fuzzer.

Every case is drawn from its own number, so a finding is repeated by
``--first NUMBER --cases 1``.  Exits 1 at the first crash, hang or escape, with
the stream written to a file.
"""

import argparse
import collections
import random
import signal
import sys
import time
import traceback
from types import FrameType

from tests.streams.fuzzing import Mutator, one_case

HANG_SECONDS = 10


class Hang(Exception):
    """A case took longer than HANG_SECONDS."""


def _hangs(signum: int, frame: FrameType | None) -> None:
    raise Hang(f"longer than {HANG_SECONDS} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", default="imagestore")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _hangs)
    outcomes: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    for number in range(options.first, options.first + options.cases):
        chance = random.Random(f"{options.seed}:{number}")
        signal.alarm(HANG_SECONDS)
        try:
            _, outcome = one_case(Mutator(chance))
        except Exception:
            traceback.print_exc()
            _keep(options.seed, number)
            return 1
        finally:
            signal.alarm(0)
        outcomes[outcome[0]] += 1
        if number % 10_000 == 9_999:
            rate = sum(outcomes.values()) / (time.monotonic() - started)
            print(f"{number + 1} cases, {dict(outcomes)}, {rate:.0f}/s", file=sys.stderr, flush=True)
    print(f"{sum(outcomes.values())} cases without a crash, a hang or an escape: {dict(outcomes)}")
    return 0


def _keep(seed: str, number: int) -> None:
    path = f"fuzz-{number}.zfs"
    with open(path, "wb") as file:
        file.write(Mutator(random.Random(f"{seed}:{number}")).stream())
    print(f"case {number} is kept in {path}; repeat it with --first {number} --cases 1", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
