"""The command itself: help, quick start, how it ends."""

import subprocess
import sys
from collections.abc import Iterator
from typing import NoReturn

import click
import pytest

from imagestore import __version__
from imagestore.cli import main as entry
from imagestore.errors import NotFound, PoolBusy
from tests.cli.conftest import Run


def all_commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group, by the words that call it."""

    def below(
        words: tuple[str, ...], command: click.Command
    ) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        yield words, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from below((*words, name), found)

    return below((), entry.cli)


COMMANDS = dict(all_commands())


@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words)) for words in COMMANDS])
def test_help_of_every_command_says_what_it_does(run: Run, words: tuple[str, ...]) -> None:
    ended = run(*words, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(" ".join(("Usage: imagestore", *words)))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=" ".join(words))
        for words, command in COMMANDS.items()
        if not isinstance(command, click.Group)
    ],
)
def test_help_of_every_command_ends_with_examples_of_it(run: Run, words: tuple[str, ...]) -> None:
    examples = run(*words, "--help").out.partition("\n  Examples:\n")[2].splitlines()
    assert examples
    assert all("imagestore " in line for line in examples)
    assert any(f"imagestore {' '.join(words)}" in line for line in examples)


def test_the_line_of_each_command_is_there_without_importing_it(run: Run) -> None:
    shown = run("--help").out
    for name, (_, line) in entry.COMMANDS.items():
        assert name in shown
        assert line in shown


def test_version_is_the_packages(run: Run) -> None:
    assert run("--version").out == f"imagestore, version {__version__}\n"


def test_an_unknown_command_exits_2(run: Run) -> None:
    ended = run("imagee", "ls")
    assert ended.status == 2
    assert "No such command 'imagee'" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("images",), "No such command 'images'. Did you mean image or"),
        (("--server", "http://x", "status"), "An option of a command stands behind it: imagestore COMMAND"),
        (("image", "--server", "http://x", "ls"), "stands behind it: imagestore image COMMAND --server"),
        (("image", "list"), "No such command 'list'."),
        (("--vresion",), "No such option '--vresion'. Did you mean '--version'?"),
        (("stream", "extract", "only"), "give the STREAM and the OUTPUT; 'only' is only one of them"),
        (("snap", "create", "a@b@c"), "'a@b@c' is not DATASET@NAME"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_would_be_right(
    run: Run, words: tuple[str, ...], said: str
) -> None:
    ended = run(*words)
    assert ended.status == 2
    assert said in ended.err


def test_a_group_lists_its_commands_in_whole_sentences(run: Run) -> None:
    shown = " ".join(run("image", "--help").out.split())
    assert "Remove the images that have neither clone nor alias and were not used for a time." in shown
    assert "Have ALIAS name the image ID from now on, whatever it named before." in " ".join(
        run("image", "alias", "--help").out.split()
    )


def test_clients_start_without_trio_numpy_or_an_http_server() -> None:
    script = (
        "import sys\n"
        "from imagestore.cli.main import main\n"
        "try:\n"
        "    main(['image', 'ls', '--server', 'http://127.0.0.1:1'])\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 40, ended.code\n"
        "heavy = {'trio', 'numpy', 'quart', 'hypercorn', 'httpcore', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_python_dash_m_is_the_same_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "imagestore", "--version"], capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"imagestore, version {__version__}\n"


def raising(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> None:
    """Make every command end with ``problem``."""

    def invoke(self: click.Group, ctx: click.Context) -> NoReturn:
        raise problem

    monkeypatch.setattr(entry.Commands, "invoke", invoke)


def test_an_error_with_detail_is_two_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, NotFound(detail="look elsewhere"))
    ended = run("config", "show")
    assert (ended.status, ended.out, ended.err) == (3, "", "imagestore: not found\n  look elsewhere\n")


def test_errors_out_of_a_nursery_are_told_like_any_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    group = BaseExceptionGroup("", [ExceptionGroup("", [PoolBusy("the pool is busy")])])
    raising(monkeypatch, group)
    ended = run("config", "show")
    assert (ended.status, ended.err) == (32, "imagestore: the pool is busy\n")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line in which ``$imagestore`` is this package's command."""
    command = f"imagestore='{sys.executable} -m imagestore'; {line}"
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", ["config show", "config show -o json", "--version", "--help"])
def test_a_full_disk_under_stdout_is_one_line(words: str) -> None:
    ended = shell(f"$imagestore {words} > /dev/full")
    assert (ended.returncode, ended.stderr) == (1, "imagestore: No space left on device\n")


@pytest.mark.parametrize("words", ["config show", "config show -o json", "--version"])
def test_whoever_closes_the_standard_files_wants_no_output(words: str) -> None:
    ended = shell(f"$imagestore {words} <&- >&-")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert shell(f"$imagestore {words} 2>&-").returncode == 0


def test_a_stream_is_not_sent_to_a_closed_stdout() -> None:
    ended = shell("$imagestore send v@s >&-")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0] == "imagestore: standard output is closed"


def test_a_bug_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ExceptionGroup("", [NotFound(), ZeroDivisionError()]))
    with pytest.raises(ExceptionGroup) as caught:
        entry.main(["config", "show"])
    assert caught.group_contains(ZeroDivisionError)


def test_ctrl_c_exits_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    ended = run("config", "show")
    assert (ended.status, ended.err.strip()) == (130, "imagestore: interrupted")
