"""``python -m tests.simulation.planting``: plant known mistakes, one by one, and see that each is found.

A mistake is a replacement in ``mutants/*.toml``: a piece of a file of
``imagestore`` that stands there exactly once, and what takes its place.  It is
planted into a copy of the tree.  The simulation must fail then; where it
cannot see the mistake, the test that is named must.  A mistake that no longer
fits the code is an error: it has to be written anew.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COPIED = ("imagestore", "tests", "journal", "pyproject.toml")
SEEDS = 400
"""Histories that have to show a mistake."""

SEEDS_BEFORE_TEST = 150
"""Histories that may show one which has a test of its own."""

PATIENCE_SECONDS = 900


class Mutant(Struct, frozen=True, forbid_unknown_fields=True):
    """``also``: further pairs of old and new, in ``file`` or in ``also_in``. ``test``: what else finds it."""

    name: str
    description: str
    file: str
    old: str
    new: str
    also: tuple[tuple[str, str], ...] = ()
    also_in: str = ""
    test: str = ""

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """File, old, new."""
        more = [(self.also_in or self.file, old, new) for old, new in self.also]
        return [(self.file, self.old, self.new), *more]


class Finding(Struct, frozen=True):
    """``by``: "simulation", "test", or "" if nobody has found it."""

    by: str
    where: str
    seconds: float


class DoesNotFit(Exception):
    """The code that a mistake is to be planted in has changed."""


def mutants() -> list[Mutant]:
    """All of them, in the order of their files."""
    found: list[Mutant] = []
    for file in sorted((HERE / "mutants").glob("*.toml")):
        found += msgspec.convert(tomllib.loads(file.read_text()), dict[str, list[Mutant]])["mutant"]
    return found


def planted(mutant: Mutant, package: Path) -> dict[Path, str]:
    """The texts of the files that it changes, changed. Raises DoesNotFit."""
    texts: dict[Path, str] = {}
    for name, old, new in mutant.changes:
        path = package / name
        text = texts.get(path) or path.read_text()
        if text.count(old) != 1:
            raise DoesNotFit(f"{mutant.name}: what it replaces stands {text.count(old)} times in {name}")
        texts[path] = text.replace(old, new)
    return texts


class Tree:
    """A copy of the source, in which mistakes can be planted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writes = 0
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, path / name, ignore=shutil.ignore_patterns("__pycache__", "zfs/machine")
                )
            else:
                shutil.copy(source, path / name)

    @contextmanager
    def with_mistake(self, mutant: Mutant) -> Iterator[None]:
        changed = planted(mutant, self.path / "imagestore")
        before = {path: path.read_text() for path in changed}
        self._write(changed)
        try:
            yield
        finally:
            self._write(before)

    def _write(self, texts: dict[Path, str]) -> None:
        """With a time of its own for each, so that no compiled file of another text is taken."""
        for path, text in texts.items():
            self._writes += 1
            path.write_text(text)
            os.utime(path, (self._writes, self._writes))

    def run(self, *arguments: str) -> tuple[int, str]:
        """A Python command in the copy: its exit code and what it printed."""
        try:
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=self.path,
                env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(self.path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return 1, "it did not end"
        return done.returncode, done.stdout

    def simulate(self, seeds: int) -> tuple[int, str]:
        return self.run("-m", "tests.simulation", "--seeds", str(seeds), "--no-shrink")

    def test(self, name: str) -> tuple[int, str]:
        return self.run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", name)


def find(mutant: Mutant, tree: Tree) -> Finding:
    """Plant it and look, as long as it takes. Raises DoesNotFit."""
    began = time.monotonic()
    with tree.with_mistake(mutant):
        code, text = tree.simulate(SEEDS_BEFORE_TEST if mutant.test else SEEDS)
        if code:
            return Finding("simulation", _where(text), time.monotonic() - began)
        if mutant.test:
            code, text = tree.test(mutant.test)
            if code:
                failed = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
                where = failed[0].split(" - ")[0] if failed else mutant.test
                return Finding("test", where, time.monotonic() - began)
    return Finding("", "", time.monotonic() - began)


def _where(text: str) -> str:
    failed = next((line for line in text.splitlines() if line.startswith("seed ")), "")
    return failed[:110] or text.strip().splitlines()[-1][:110]


def check_whole(tree: Tree, chosen: Sequence[Mutant], *, seeds: int) -> str:
    """What fails without any mistake, "" if nothing does."""
    code, text = tree.simulate(seeds)
    if code:
        return text
    for test in sorted({mutant.test for mutant in chosen if mutant.test}):
        code, text = tree.test(test)
        if code:
            return text
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planting")
    parser.add_argument("names", nargs="*", help="these only")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in mutants() if not arguments.names or mutant.name in arguments.names]
    found = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        tree = Tree(Path(directory))
        wrong = check_whole(tree, chosen, seeds=SEEDS)
        if wrong:
            print(f"without a mistake something fails already:\n{wrong}")
            return 1
        for mutant in chosen:
            try:
                finding = find(mutant, tree)
            except DoesNotFit as error:
                print(f"{mutant.name:32} DOES NOT FIT: {error}", flush=True)
                continue
            found += bool(finding.by)
            by = finding.by or "NOT FOUND"
            print(f"{mutant.name:32} {by:11} {finding.seconds:6.1f} s  {finding.where}", flush=True)
    print(f"{found} of {len(chosen)} found")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
