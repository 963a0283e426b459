"""Identifiers are UUIDs of version 7, grow strictly, and repeat from a seed."""

import random
import uuid

from imagestore.identifiers import uuid7_maker

NOON_NS = 1_764_000_000_123_456_789


def test_they_are_version_7_and_carry_the_milliseconds() -> None:
    identifier = uuid.UUID(uuid7_maker(lambda: NOON_NS)())
    assert identifier.version == 7
    assert identifier.variant == uuid.RFC_4122
    assert identifier.int >> 80 == NOON_NS // 1_000_000


def test_they_grow_strictly_also_when_the_clock_stands_still_or_steps_back() -> None:
    times = [NOON_NS] * 9000 + [NOON_NS - 10**12] * 100 + [NOON_NS + 10**9]
    make = uuid7_maker(iter(times).__next__)
    made = [make() for _ in times]
    assert made == sorted(set(made))
    assert all(uuid.UUID(text).version == 7 for text in made)


def test_a_seed_repeats_them_and_chance_does_not() -> None:
    def three(seed: int) -> list[str]:
        make = uuid7_maker(lambda: NOON_NS, random.Random(seed))
        return [make() for _ in range(3)]

    assert three(1) == three(1) != three(2)
    assert uuid7_maker()() != uuid7_maker()()
