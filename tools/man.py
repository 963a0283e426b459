"""The manual pages, one a command, made of the command line's help: ``python -m tools.man DIRECTORY``.

Owns how a page looks; every word comes from ``imagestore.cli`` and the errors.
"""

import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from imagestore import __version__
from imagestore.cli.main import cli
from imagestore.errors import ImageStoreError

PROGRAM = "imagestore"


def pages() -> Iterator[tuple[str, str]]:
    """Each page's file name and text."""
    yield from _pages(cli, (PROGRAM,))


def _pages(command: click.Command, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    context = click.Context(command, info_name=" ".join(words))
    yield f"{'-'.join(words)}.1", "\n".join(_page(command, context, words)) + "\n"
    for name, below in _children(command, context):
        yield from _pages(below, (*words, name))


def _children(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield name, below


def _page(command: click.Command, context: click.Context, words: Sequence[str]) -> Iterator[str]:
    title = "-".join(words)
    yield f'.TH "{title.upper()}" "1" "" "{PROGRAM} {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"{_plain(title)} \\- {_plain(command.get_short_help_str(limit=200).rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_plain(' '.join(words))}"
    yield _plain(" ".join(command.collect_usage_pieces(context)))
    yield ".SH DESCRIPTION"
    yield from _paragraphs(inspect.cleandoc(command.help or ""))
    given = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    options = [record for each in given if (record := each.get_help_record(context))]
    if options:
        yield ".SH OPTIONS"
        yield from _list(options)
    below = [(name, child.get_short_help_str(limit=200)) for name, child in _children(command, context)]
    if below:
        yield ".SH COMMANDS"
        yield from _list((f"{title}-{name}(1)", line) for name, line in below)
    yield from _examples(command.epilog or "")
    if len(words) == 1:
        yield ".SH EXIT STATUS"
        yield from _list([("0", "Success."), *_exit_codes()])
    else:
        yield ".SH SEE ALSO"
        yield f"{_plain('-'.join(words[:-1]))}(1)"


def _exit_codes() -> Iterable[tuple[str, str]]:
    """Each exit code, and the first line of what the first error with it says of itself."""
    found: dict[int, str] = {}

    def look(error: type[ImageStoreError]) -> None:
        found.setdefault(error.exit_code, (inspect.getdoc(error) or "").partition("\n")[0])
        for below in error.__subclasses__():
            look(below)

    look(ImageStoreError)
    return [(str(code), found[code]) for code in sorted(found)]


def _list(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in pairs:
        yield ".TP"
        yield f"\\fB{_plain(term)}\\fP"
        yield _plain(" ".join(text.split()))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text)):
        if number:
            yield ".PP"
        yield _plain(" ".join(paragraph.split()))


def _examples(epilog: str) -> Iterator[str]:
    lines = [line for line in epilog.replace("\b", "").splitlines() if line.strip()]
    if lines:
        yield ".SH EXAMPLES"
        yield ".nf"
        yield from (_plain(line.strip()) for line in lines if line.strip() != "Examples:")
        yield ".fi"


def _plain(text: str) -> str:
    """``text`` as roff shows it unchanged."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("~", "\\(ti")
    ascii_only = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in escaped)
    return f"\\&{ascii_only}" if ascii_only[:1] in (".", "'") else ascii_only


def main(directory: str) -> None:
    """Write all pages into ``directory``."""
    os.makedirs(directory, exist_ok=True)
    for name, text in pages():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
