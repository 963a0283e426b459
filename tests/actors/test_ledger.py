import pytest

from imagestore.actors.ledger import Ledger
from imagestore.errors import NoSpace


def test_free_is_what_is_available_less_promises_and_reservations() -> None:
    ledger = Ledger()
    ledger.reserve("op", 30, available=100, promised=20)
    assert ledger.free_bytes(100, 20) == 50


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    ledger = Ledger()
    ledger.reserve("one", 30, available=100, promised=20)
    with pytest.raises(NoSpace, match="no space left on device"):
        ledger.reserve("two", 51, available=100, promised=20)
    assert ledger.reserved_bytes == 30
    ledger.reserve("two", 50, available=100, promised=20)
    assert ledger.free_bytes(100, 20) == 0


def test_free_is_never_negative() -> None:
    assert Ledger().free_bytes(10, 50) == 0


def test_a_growing_reservation_needs_room_for_its_growth_only() -> None:
    ledger = Ledger()
    ledger.reserve("op", 60, available=100, promised=0)
    ledger.reserve("op", 100, available=100, promised=0)
    with pytest.raises(NoSpace):
        ledger.reserve("op", 101, available=100, promised=0)
    assert ledger.reserved_bytes == 100


def test_release_gives_all_back_and_may_be_repeated() -> None:
    ledger = Ledger()
    ledger.reserve("op", 60, available=100, promised=0)
    ledger.release("op")
    ledger.release("op")
    assert ledger.reserved_bytes == 0


def test_what_became_a_promise_is_no_longer_reserved() -> None:
    ledger = Ledger()
    ledger.reserve("op", 60, available=100, promised=0)
    ledger.hand_over("op", 50)
    assert ledger.reserved_bytes == 10
    ledger.hand_over("op", 10)
    ledger.hand_over("op", 10)
    assert ledger.reserved_bytes == 0
