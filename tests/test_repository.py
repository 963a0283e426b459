"""The repository: nothing in it is of one machine, the lock is whole, the README tells the truth."""

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent

OF_ONE_MACHINE = re.compile(
    rb"/[r]oot/|/home/[a-z]+/|(?<![\w.])/[w]ork/|\.\./shared|[b]ash_jobs"
    rb"|pypi\.org|[p]ythonhosted|[i]ndex-url|--[f]ind-links|[f]ind-links\s*=|[t]rusted-host|deb\.debian\.org|registry\.npmjs",
)
"""Written so that it does not find itself: no file is exempt, this one included."""


@cache
def tracked() -> tuple[Path, ...]:
    """The files that a clone has; of a copy without .git, all but what .gitignore leaves out by name."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode == 0:
        return tuple(ROOT / name for name in listed.stdout.decode().split("\0") if name)
    ignored = {".venv", ".cache", ".git", "build", "dist", "pool", "journal", "__pycache__"}
    return tuple(
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not ignored & set(path.relative_to(ROOT).parts[:-1])
    )


def test_no_file_names_a_path_of_one_machine_or_a_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip().decode(errors='replace')[:100]}"
        for path in tracked()
        if path.is_file()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if OF_ONE_MACHINE.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "words",
    [
        (b"cp /", b"root/x ."),
        (b"see ..", b"/shared/X.md"),
        (b"--extra-index", b"-url=a"),
        (b"--find", b"-links a"),
        (b"'/", b"work/main'"),
    ],
)
def test_the_search_would_find_one(words: tuple[bytes, ...]) -> None:
    assert OF_ONE_MACHINE.search(b"".join(words))


# --- the lock -------------------------------------------------------------------


def locked() -> dict[str, list[Requirement]]:
    """By canonical name; a package may stand twice, with markers that exclude each other."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if re.match(r"[a-zA-Z0-9]", line):
            requirement = Requirement(line.removesuffix("\\"))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
    ]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_what_pyproject_asks_for_is_locked_at_a_version_that_it_allows(requirement: Requirement) -> None:
    pins = locked().get(canonicalize_name(requirement.name), [])
    assert pins, "run make lock"
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert requirement.specifier.contains(Version(exact.version)), "run make lock"


@pytest.mark.parametrize("python", ["3.11.2", "3.12.0", "3.13.0"])
def test_each_supported_python_gets_each_package_once(python: str) -> None:
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    for name, pins in locked().items():
        chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)]
        assert len(chosen) <= 1, name
    for requirement in declared():
        pins = locked()[canonicalize_name(requirement.name)]
        assert any(pin.marker is None or pin.marker.evaluate(environment) for pin in pins), requirement.name


def test_every_locked_package_has_hashes_and_the_lock_has_nothing_else() -> None:
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^#]+?)?\s+(--hash=sha256:[0-9a-f]{64}\s*)+", line), line[
            :120
        ]


# --- the README -------------------------------------------------------------------


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def documents() -> tuple[Path, ...]:
    named = (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
    return (*named, *sorted((ROOT / "docs").glob("*.md")))


@cache
def shell_lines() -> tuple[str, ...]:
    """What the documents tell a reader to type: ```sh blocks, and the `$ ` lines of ```console blocks."""
    lines: list[str] = []
    for document in documents():
        text = document.read_text().replace("\\\n", " ")
        for kind, block in re.findall(r"```(sh|console)\n(.*?)```", text, re.DOTALL):
            typed = block.splitlines()
            if kind == "console":
                typed = [line.removeprefix("$ ") for line in typed if line.startswith("$ ")]
            lines += typed
    return tuple(lines)


def test_every_make_target_that_the_documents_name_exists() -> None:
    named = {
        target for document in documents() for target in re.findall(r"`make ([a-z-]+)", document.read_text())
    }
    named |= {target for line in shell_lines() for target in re.findall(r"(?:^|&& )make ([a-z-]+)", line)}
    assert named >= {"run", "test"}
    assert named - makefile_targets() == set()


def test_every_target_is_explained_and_help_is_the_default() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == makefile_targets()
    assert ".DEFAULT_GOAL := help" in makefile


def test_every_subcommand_that_the_documents_show_exists() -> None:
    """Each `imagestore a b …` is asked for its --help."""
    import click

    from imagestore.cli.main import cli

    shown = [
        match[1].split()
        for line in shell_lines()
        for match in re.finditer(r"(?:^|[|;&] *)(?:\.venv/bin/)?imagestore +([^|;&>]+)", line)
    ]
    assert shown
    for words in shown:
        command: click.Command = cli
        for word in words:
            if word.startswith("-") or not isinstance(command, click.Group):
                break
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"imagestore {' '.join(words)}"
            command = found
        options = {option for parameter in command.params for option in parameter.opts}
        named = {word.partition("=")[0] for word in words if word.startswith("-") and len(word) > 1}
        assert named - options - {"--help", "-h", "--version"} == set(), f"imagestore {' '.join(words)}"


def headings_of(document: Path) -> set[str]:
    """The anchors that a renderer makes of its headings."""
    found = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", document.read_text()):
        if "://" in target:
            continue
        leads_to = document.parent / target if target else document
        assert leads_to.exists(), target
        assert not anchor or leads_to.suffix != ".md" or anchor in headings_of(leads_to), f"{target}#{anchor}"


def test_the_readme_names_every_method_of_the_wire() -> None:
    from imagestore.service import METHODS

    readme = (ROOT / "README.md").read_text()
    assert [method.name for method in METHODS if f"`{method.name}`" not in readme] == []


def test_the_readme_names_every_exit_code() -> None:
    from imagestore.errors import ImageStoreError

    def all_of(error: type[ImageStoreError]) -> set[int]:
        return {error.exit_code}.union(*(all_of(child) for child in error.__subclasses__()))

    table = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(all_of(ImageStoreError)) == sorted(int(code) for code in table)
