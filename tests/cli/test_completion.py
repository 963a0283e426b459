"""completion: what the shell is given is taken by it, and completes the tree of commands."""

import subprocess

import pytest

from imagestore.cli.completion import SHELLS, VARIABLE
from tests.cli.conftest import Run


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_lines_that_ask_the_program(run: Run, shell: str) -> None:
    ended = run("completion", shell)
    assert ended.status == 0
    assert f"{VARIABLE}={shell}_complete" in ended.out


def test_bash_takes_them(run: Run) -> None:
    lines = run("completion", "bash").out
    said = subprocess.run(
        ["bash", "-euc", f"{lines}\ncomplete -p imagestore"], capture_output=True, text=True, check=True
    )
    assert said.stdout.endswith("-F _imagestore_completion imagestore\n")


@pytest.mark.parametrize(
    ("typed", "number", "completed"),
    [
        ("imagestore gu", 1, {"guest"}),
        ("imagestore guest ", 2, {"create", "ls", "show", "rm", "xml"}),
        ("imagestore snap rollback --destroy", 3, {"--destroy-more-recent"}),
        ("imagestore completion ", 2, {"bash", "zsh", "fish"}),
        ("imagestore volume ls -o ", 4, {"table", "json", "jsonl"}),
    ],
)
def test_words_are_completed(
    run: Run, monkeypatch: pytest.MonkeyPatch, typed: str, number: int, completed: set[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(number))
    ended = run()
    assert {line.partition(",")[2] for line in ended.out.splitlines()} == completed
