"""A row's verdict, and the table that is printed."""

import pytest

from benchmarks.rows import Row, number, table


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row(name="r", ours=10, unit="1/s", against=1, target=10), "ok"),
        (Row(name="r", ours=9, unit="1/s", against=1, target=10), "short"),
        (Row(name="r", ours=5, unit="ms", against=1, target=5, better="lower"), "ok"),
        (Row(name="r", ours=6, unit="ms", against=1, target=5, better="lower"), "short"),
        (Row(name="r", ours=2, unit="s", target=2, better="lower"), "ok"),
        (Row(name="r", ours=2.1, unit="s", target=2, better="lower"), "short"),
        (Row(name="r", ours=None, unit="s", target=2, note="needs root"), "not measured"),
        (Row(name="r", ours=1, unit="s", against=0, target=2), "not measured"),
    ],
)
def test_a_row_is_judged_by_its_ratio_or_by_its_bound(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_the_table_shows_every_row_and_its_note() -> None:
    text = table(
        [
            Row(name="appends", ours=12_345, unit="1/s", against=1000, against_name="SQLite", target=10),
            Row(name="start", ours=None, unit="s", target=2, better="lower", note="needs root"),
        ]
    )
    assert [line.split() for line in text.splitlines() if line.startswith("appends")] == [
        ["appends", "12,345", "1/s", "1,000", "1/s", "(SQLite)", "12.35", "≥", "10x", "ok"]
    ]
    assert "start: needs root" in text
    assert "not measured" in text


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (0.01234, "0.0123"), (0, "0")]
)
def test_numbers_have_three_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text
