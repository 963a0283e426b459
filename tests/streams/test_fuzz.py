"""A bounded slice of the fuzzers, in every run of the tests."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.streams.building import stream
from tests.streams.fuzzing import Mutator, apply_any, decode_any, guard_any, is_incremental, one_case, seeds

SOME = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_every_seed_is_a_right_stream() -> None:
    for seed in seeds():
        data = stream(seed)
        applied = apply_any(data, [1 << 20])
        assert applied[0] == "applied"
        assert apply_any(data, [13]) == applied


def test_seeds_are_of_both_kinds() -> None:
    assert {is_incremental(stream(seed)) for seed in seeds()} == {True, False}


@SOME
@given(st.integers(min_value=0))
def test_mutated_streams_are_applied_or_refused(number: int) -> None:
    one_case(Mutator(random.Random(number)))


@SOME
@given(st.binary(max_size=2000), st.lists(st.integers(1, 400), min_size=1, max_size=4))
def test_any_bytes_are_decoded_or_refused(data: bytes, cuts: list[int]) -> None:
    decode_any(data, cuts)
    decode_any(b"\x1f\x8b\x08" + data, cuts)
    assert apply_any(data, cuts) == ("refused",)


@SOME
@given(
    st.sampled_from(range(len(seeds()))),
    st.lists(st.tuples(st.integers(0, 279), st.integers(0, 255)), max_size=3),
    st.integers(0),
    st.lists(st.integers(1, 5000), min_size=1, max_size=4),
)
def test_records_with_any_bytes_changed_are_the_same_in_any_cut(
    seed: int, changes: list[tuple[int, int]], which: int, cuts: list[int]
) -> None:
    records = list(seeds()[seed])
    number = which % len(records)
    header = bytearray(records[number][0])
    for at, value in changes:
        header[at] = value
    records[number] = bytes(header), records[number][1]
    data = stream(records)
    outcome = apply_any(data, cuts)
    assert apply_any(data, [1 << 20]) == outcome
    assert guard_any(data, cuts) in (outcome, ("refused",))
