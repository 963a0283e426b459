"""``python -m tests.crash --rounds N --seed S [--directory DIR]``: the long crash test."""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

import trio

from tests.crash.rounds import COURSE, Course, Failed, run


async def crash(directory: Path, course: Course, arguments: argparse.Namespace) -> int:
    print(f"crash: seed {arguments.seed}, in {directory}", flush=True)

    def say(line: str) -> None:
        if arguments.verbose:
            print(line, flush=True)

    try:
        summary = await run(directory, seed=arguments.seed, rounds=arguments.rounds, course=course, say=say)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    print(summary.line)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1 << 32), help="default: a random one, printed"
    )
    parser.add_argument(
        "--directory", type=Path, help="where pools and journals are made, and kept; default: a temporary one"
    )
    parser.add_argument("--verbose", action="store_true", help="a line a round")
    return parser.parse_args()


def main(course: Course) -> int:
    """Crash as the command line says; the exit status."""
    arguments = parse()
    if arguments.directory is not None:
        arguments.directory.mkdir(parents=True, exist_ok=True)
        return trio.run(crash, arguments.directory.resolve(), course, arguments)
    with tempfile.TemporaryDirectory() as directory:
        return trio.run(crash, Path(directory), course, arguments)


if __name__ == "__main__":
    sys.exit(main(COURSE))
