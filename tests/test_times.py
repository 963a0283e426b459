"""Times on the wire."""

import random

import pytest

from imagestore.errors import InvalidArgument
from imagestore.times import read_time, show_time


def test_a_time_that_was_shown_is_read_to_the_microsecond() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        time_ns = chance.randrange(1, 4 * 10**18)
        shown = show_time(time_ns)
        assert shown is not None
        assert read_time(shown) == time_ns // 1000 * 1000


@pytest.mark.parametrize("text", ["yesterday", "2026-11-28", "2026-11-28T12:00:00"])
def test_a_time_without_its_zone_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        read_time(text)
