"""The log: stable keys for programs, one line for people."""

import json
import logging
import sys

from imagestore.cli.logs import HumanFormatter, JsonFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("imagestore.test").makeRecord(
        "imagestore.test", logging.WARNING, "file", 1, message, (), None, extra=extra
    )
    made.created = 1_000_000_000.5
    return made


def test_a_json_line_has_the_stable_keys_first() -> None:
    line = JsonFormatter().format(record("it took long", operation="op", duration_seconds=1.5, seq=7))
    assert "\n" not in line
    assert list(json.loads(line).items()) == [
        ("time", "2001-09-09T01:46:40.500Z"),
        ("level", "warning"),
        ("logger", "imagestore.test"),
        ("message", "it took long"),
        ("operation", "op"),
        ("duration_seconds", 1.5),
        ("seq", 7),
    ]


def test_what_json_does_not_know_is_told_as_text() -> None:
    assert json.loads(JsonFormatter().format(record("x", dataset=ValueError("v"))))["dataset"] == "v"


def test_an_exception_stays_on_the_line() -> None:
    made = record("failed")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_people_get_level_message_and_pairs() -> None:
    line = HumanFormatter(colour=False).format(record("it took long", dataset="a/b", seq=7))
    assert line.endswith("warning it took long dataset=a/b seq=7")
    assert "\033" not in line


def test_colour_only_where_it_was_asked_for() -> None:
    assert "\033[33mwarning\033[0m" in HumanFormatter(colour=True).format(record("x"))


def test_a_message_cannot_move_the_cursor() -> None:
    assert "\033" not in HumanFormatter(colour=False).format(record("a\033[2Jb", dataset="\r"))
