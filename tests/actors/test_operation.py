"""The life of a change when the journal, the pool or the code fails in the middle of it."""

import pytest

from imagestore.actors.base import NO_DEADLINE
from imagestore.actors.commands import CreateVolume
from imagestore.actors.operation import Operations
from imagestore.actors.zpool import ZpoolActor
from imagestore.errors import ImageStoreError, OutcomeUnknown, ReadOnly
from imagestore.events.catalogue import Event, OperationFinished, OperationStarted
from imagestore.events.settings import Failure
from tests.actors.memory_journal import MemoryJournal
from tests.actors.rows import MIB

VOLUME = CreateVolume(name="v", size=MIB)


async def perform(operations: Operations) -> None:
    await operations.perform(VOLUME, principal="test", deadline=NO_DEADLINE)


async def test_the_pool_is_not_changed_once_the_journal_failed(
    operations: Operations, journal: MemoryJournal, zpool: ZpoolActor
) -> None:
    """The intent is durable, then another's append fails: no effect may follow."""

    def fail(step: str) -> None:
        if step == "after-intent":
            journal.failed = Failure(reason="EIO", seq=journal.state.seq)

    def refuse(events: list[Event]) -> None:
        if journal.failed is not None:
            raise ReadOnly(detail=journal.failed.reason)

    operations.trace = fail
    journal.fault = refuse
    with pytest.raises(OutcomeUnknown):
        await perform(operations)
    assert "v" not in zpool.view
    with pytest.raises(ReadOnly):
        await perform(operations)


async def test_an_effect_whose_outcome_a_failed_journal_refuses_is_of_unknown_outcome(
    operations: Operations, journal: MemoryJournal
) -> None:
    """Another's append failed while the pool was being changed: ReadOnly would say that nothing happened."""

    def refuse(events: list[Event]) -> None:
        if any(isinstance(event, OperationFinished) for event in events):
            raise ReadOnly(detail="EIO")

    journal.fault = refuse
    with pytest.raises(OutcomeUnknown):
        await perform(operations)
    with pytest.raises(ReadOnly):
        await perform(operations)
    assert [type(event) for event in journal.events] == [OperationStarted]


async def test_a_bug_before_the_intent_fails_that_request_alone(
    operations: Operations, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("imagestore.actors.operation.decide", stumble)
        with pytest.raises(ImageStoreError, match="internal error"):
            await perform(operations)
    assert journal.events == []
    await perform(operations)
