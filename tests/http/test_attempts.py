"""Failed attempts: what is free, what must wait, what is forgotten."""

import pytest

from imagestore.http import attempts
from imagestore.http.attempts import FREE, LONGEST_WAIT_SECONDS, Attempts


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> Attempts:
    return Attempts(clock)


def test_some_failures_are_free_then_each_doubles_the_wait(table: Attempts, clock: Clock) -> None:
    for count in range(1, FREE):
        assert table.failed("a") == count
        assert table.wait_seconds("a") == 0.0
    waits = []
    for _ in range(5):
        table.failed("a")
        waits.append(table.wait_seconds("a"))
        clock.seconds += waits[-1]
        assert table.wait_seconds("a") == 0.0
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert table.wait_seconds("b") == 0.0, "others may"


def test_the_wait_has_a_bound_however_often_it_failed(table: Attempts) -> None:
    for _ in range(10_000):
        table.failed("a")
    assert table.wait_seconds("a") == LONGEST_WAIT_SECONDS


def test_success_begins_anew(table: Attempts) -> None:
    for _ in range(FREE):
        table.failed("a")
    table.succeeded("a")
    assert table.wait_seconds("a") == 0.0
    assert table.failed("a") == 1
    table.succeeded("never seen")


def test_what_was_quiet_for_long_begins_anew(table: Attempts, clock: Clock) -> None:
    for _ in range(FREE + 3):
        table.failed("a")
    clock.seconds += attempts.FORGET_SECONDS + 1
    assert table.failed("a") == 1


def test_the_table_is_bounded_and_forgets_who_was_quiet_for_longest(
    table: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MOST_SOURCES", 2)
    for source in ("a", "b", "a", "c"):
        table.failed(source)
    assert len(table) == 2
    assert table.failed("a") == 3
    assert table.failed("b") == 1
