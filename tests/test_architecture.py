"""The shape of the code: imports point one way, files stay small and say what they are."""

import ast
from functools import cache
from pathlib import Path

import pytest

import imagestore

PACKAGE = Path(imagestore.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE_LINES = 500

GROUND = {
    *("", "errors", "names", "model", "identifiers", "timings", "guard", "access", "tokens"),
    *("serviceaddress", "condition", "screen", "sizes", "times"),
}
"""What everything may use: plain data, no effects."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "identifiers": {"errors"},
    "guard": {"errors"},
    "names": {"errors"},
    "access": {"errors"},
    "tokens": {"errors"},
    "serviceaddress": {"errors"},
    "model": {"access", "errors", "names"},
    "timings": set(),
    "times": {"errors"},
    "pipes": set(),
    "sizes": set(),
    "condition": {"sizes"},
    "screen": {"condition", "errors", "model", "names", "access"},
    "events": GROUND,
    "streams": GROUND,
    "pools": GROUND | {"pipes", "streams"},
    "actors": GROUND | {"events", "pools", "streams"},
    "config": GROUND,
    "service": GROUND | {"pipes"},
    "headlog": GROUND,
    "supervisor": set(),
    "traces": GROUND | {"events"},
    "attachment": GROUND | {"pools"},
    "doctor": GROUND | {"actors", "config", "events", "pools"},
    "guestarchive": GROUND | {"pools"},
    "guestorders": GROUND | {"actors"},
    "methods": GROUND | {"actors", "events", "guestarchive", "guestorders", "pools", "service", "streams"},
    "rebuild": GROUND | {"actors", "config", "events", "pools", "store"},
    "store": GROUND
    | {
        "actors",
        "attachment",
        "config",
        "events",
        "headlog",
        "http",
        "methods",
        "pools",
        "service",
        "streams",
        "supervisor",
        "traces",
    },
    "http": GROUND | {"config", "pipes", "service"},
    "wiretexts": GROUND,
    "endpoint": GROUND,
    "wire": GROUND | {"endpoint", "wiretexts"},
    "client": GROUND | {"endpoint", "wire"},
    "operationclient": GROUND | {"client", "wire"},
    "trioclient": GROUND | {"client", "endpoint", "operationclient", "wire"},
    "cli": GROUND
    | {
        "client",
        "config",
        "doctor",
        "events",
        "operationclient",
        "rebuild",
        "service",
        "store",
        "streams",
        "wiretexts",
    },
    "__main__": {"cli"},
}
"""The package's first level (a subpackage or a module): what it may import of the others."""


def layer_of(module: str) -> str:
    """``events`` of ``imagestore.events.frame``; "" of the package itself."""
    return (module + ".").split(".")[1]


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), filename=str(file))


@cache
def imports_of(file: Path) -> frozenset[str]:
    """Every module that the file imports, wherever in it; relative imports spelt out."""
    package = module_of(file).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            found.add(module)
            if module == "imagestore":
                names = {alias.name for alias in node.names}
                found |= {f"imagestore.{name}" for name in names if (PACKAGE / name).exists()}
                found |= {f"imagestore.{name}" for name in names if (PACKAGE / f"{name}.py").exists()}
    return frozenset(found)


def short(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_every_part_of_the_package_has_its_place_in_the_order() -> None:
    parts = {layer_of(module_of(file)) for file in FILES} - {""}
    assert parts <= set(MAY_IMPORT), "say in MAY_IMPORT what the new part may import"


@pytest.mark.parametrize("file", FILES, ids=short)
def test_imports_point_one_way(file: Path) -> None:
    layer = layer_of(module_of(file))
    used = {layer_of(module) for module in imports_of(file) if module.split(".")[0] == "imagestore"}
    assert used - {layer} - MAY_IMPORT.get(layer, set()) == set()


def test_the_order_has_no_cycle() -> None:
    def reachable(layer: str, seen: tuple[str, ...] = ()) -> None:
        assert layer not in seen, " → ".join([*seen, layer])
        for below in MAY_IMPORT.get(layer, set()):
            reachable(below, (*seen, layer))

    for layer in MAY_IMPORT:
        reachable(layer)


def test_only_the_store_imports_http() -> None:
    assert {layer for layer, allowed in MAY_IMPORT.items() if "http" in allowed} == {"store"}


def test_events_and_pools_know_nothing_of_each_other() -> None:
    assert "pools" not in MAY_IMPORT["events"]
    assert "events" not in MAY_IMPORT["pools"]


IMPURE = {"trio", "os", "io", "time", "datetime", "random", "secrets", "uuid", "socket", "sqlite3"}


@pytest.mark.parametrize("module", ["events/state.py", "events/catalogue.py", "names.py", "model.py"])
def test_what_decides_has_no_clock_no_chance_and_no_files(module: str) -> None:
    file = PACKAGE / module
    assert {name.split(".")[0] for name in imports_of(file)} & IMPURE == set()
    called = {
        node.func.id
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & {"open", "input", "print", "exec", "eval"} == set()


@pytest.mark.parametrize("file", FILES, ids=short)
def test_every_module_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(tree_of(file))


@pytest.mark.parametrize("file", FILES, ids=short)
def test_no_module_is_long(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= LONGEST_FILE_LINES


@pytest.mark.parametrize("file", FILES, ids=short)
def test_no_module_uses_anothers_private_names(file: Path) -> None:
    private = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("imagestore")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert private == []


@pytest.mark.parametrize("file", FILES, ids=short)
def test_no_name_says_nothing(file: Path) -> None:
    assert not {"utils", "util", "helper", "helpers", "manager", "misc", "common"} & set(file.stem.split("_"))
