"""``python -m benchmarks [MODULE…]``: run the benchmarks and print one table.

Modules are given by name, apart by blanks or commas; none means those that run anywhere.  Each has
``run() -> list[Row]``.
"""

import importlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence

from benchmarks.rows import Row, table

MODULES = ("journal", "streams", "images", "store")
"""Those that run anywhere; ``zfs`` needs OpenZFS and is given by name."""

ALL_MODULES = (*MODULES, "zfs")


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if every row was measured, whether or not it reached its target."""
    wanted = [name for argument in arguments for name in argument.split(",") if name] or list(MODULES)
    unknown = [name for name in wanted if name not in ALL_MODULES]
    if unknown:
        print(f"no benchmarks {', '.join(unknown)}; there are: {', '.join(ALL_MODULES)}", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    rows: list[Row] = []
    broken = 0
    for name in wanted:
        started = time.perf_counter()
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        try:
            rows += importlib.import_module(f"benchmarks.{name}").run()
        except Exception:
            # The other modules' rows are still worth having; the exit status tells.
            traceback.print_exc()
            broken += 1
        print(f"  {name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} processors")
    print(f"load average before: {load:.1f} (on a busy machine neither side of a row means much)")
    print(table(rows))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
