import itertools
import random

import pytest

from imagestore.actors.claims import Claim, ClaimTable, conflict


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Claim(exclusive=("a",)), Claim(exclusive=("a",)), True),
        (Claim(exclusive=("a",)), Claim(exclusive=("a/b",)), True),
        (Claim(exclusive=("a/b",)), Claim(exclusive=("a",)), True),
        (Claim(exclusive=("a",)), Claim(exclusive=("ab",)), False),
        (Claim(exclusive=("a",)), Claim(exclusive=("a-1",)), False),
        (Claim(exclusive=("",)), Claim(exclusive=("a/b",)), True),
        (Claim(exclusive=("images/x",)), Claim(shared=("images/x@s",)), True),
        (Claim(exclusive=("images/x@s",)), Claim(shared=("images/x",)), False),
        (Claim(exclusive=("images/x@s",)), Claim(shared=("images/x@s",)), True),
        (Claim(shared=("images/x@s",)), Claim(shared=("images/x@s",)), False),
    ],
)
def test_what_excludes_what(one: Claim, other: Claim, expected: bool) -> None:
    assert conflict(one, other) is expected
    assert conflict(other, one) is expected


def test_a_free_claim_is_granted_at_once() -> None:
    table: ClaimTable[str] = ClaimTable()
    assert table.request("first", Claim(exclusive=("a",)))
    assert table.request("second", Claim(exclusive=("b",)))


def test_a_waiting_claim_is_granted_when_the_last_obstacle_goes() -> None:
    table: ClaimTable[str] = ClaimTable()
    table.request("first", Claim(exclusive=("a",)))
    table.request("second", Claim(exclusive=("b",)))
    assert not table.request("both", Claim(exclusive=("a", "b")))
    assert table.release("first") == []
    assert table.release("second") == ["both"]


def test_a_later_request_does_not_overtake_an_earlier_one_that_it_touches() -> None:
    table: ClaimTable[str] = ClaimTable()
    table.request("reader", Claim(shared=("images/x@s",)))
    assert not table.request("deleter", Claim(exclusive=("images/x",)))
    assert not table.request("late reader", Claim(shared=("images/x@s",)))
    assert table.release("reader") == ["deleter"]
    assert table.release("deleter") == ["late reader"]


def test_a_later_request_that_touches_nothing_of_the_waiting_ones_need_not_wait() -> None:
    table: ClaimTable[str] = ClaimTable()
    table.request("first", Claim(exclusive=("a",)))
    table.request("second", Claim(exclusive=("a",)))
    assert table.request("elsewhere", Claim(exclusive=("b",)))


def test_one_that_gives_up_waiting_lets_those_behind_it_through() -> None:
    table: ClaimTable[str] = ClaimTable()
    table.request("reader", Claim(shared=("a",)))
    table.request("writer", Claim(exclusive=("a",)))
    table.request("late reader", Claim(shared=("a",)))
    assert table.release("writer") == ["late reader"]


def test_random_histories_never_grant_a_conflict_and_serve_everybody() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        table: ClaimTable[int] = ClaimTable()
        granted: dict[int, Claim] = {}
        waiting: dict[int, Claim] = {}
        names = ["", "a", "a/b", "a/b@s", "c", "c@s"]
        for holder in range(60):
            claim = Claim(
                exclusive=tuple(rng.sample(names, rng.randrange(2))),
                shared=tuple(rng.sample(names, rng.randrange(2))),
            )
            (granted if table.request(holder, claim) else waiting)[holder] = claim
            while granted and rng.random() < 0.5:
                done = rng.choice(list(granted))
                del granted[done]
                for served in table.release(done):
                    granted[served] = waiting.pop(served)
            assert not any(conflict(a, b) for a, b in itertools.combinations(granted.values(), 2)), seed
        while granted:
            done = next(iter(granted))
            del granted[done]
            for served in table.release(done):
                granted[served] = waiting.pop(served)
        assert not waiting, seed
        assert len(table) == 0
