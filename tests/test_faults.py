"""Every fault of the journal's table has its tests: FAULTS.md names them, and they are there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = 21
_ROW = re.compile(r"^\| (\d+) \| .* \| ([^|]+) \|$", re.MULTILINE)
_TEST = re.compile(r"`([a-z_/]+\.py)::(\w+)`")


def named() -> dict[int, list[tuple[str, str]]]:
    """File and function of the tests of each row."""
    text = (TESTS / "FAULTS.md").read_text()
    return {int(number): _TEST.findall(tests) for number, tests in _ROW.findall(text)}


def functions(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_has_a_test_and_every_test_is_there() -> None:
    rows = named()
    assert sorted(rows) == list(range(1, ROWS + 1))
    for number, tests in rows.items():
        assert tests, f"row {number} has no test"
        for file, name in tests:
            assert name in functions(file), f"row {number}: {file} has no {name}"


def test_every_test_named_after_a_row_is_in_the_table() -> None:
    listed = {test for tests in named().values() for test in tests}
    there = {
        (str(path.relative_to(TESTS)), name)
        for path in TESTS.rglob("test_*.py")
        for name in functions(str(path.relative_to(TESTS)))
        if re.match(r"test_row_\d+_", name)
    }
    assert there - listed == set()
