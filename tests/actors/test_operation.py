"""The life of a change when the journal, the pool or the code fails in the middle of it."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from imagestore.actors.base import NO_DEADLINE
from imagestore.actors.commands import CreateSnapshot, CreateVolume, DeleteDataset, DeleteSnapshot
from imagestore.actors.operation import Operations
from imagestore.actors.plans import Plan
from imagestore.actors.zpool import ZpoolActor
from imagestore.errors import ImageStoreError, NotFound, OutcomeUnknown, PoolStuck, ReadOnly, Rejected
from imagestore.events.catalogue import CreateIntent, Event, OperationFinished, OperationStarted
from imagestore.events.settings import Failure
from imagestore.pools.base import Dataset, PoolDriver
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


async def test_a_change_that_does_not_end_has_not_failed(
    operations: Operations, journal: MemoryJournal, driver: PoolDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may still do it: only the next life, which waits for it, can tell."""

    async def hang(creations: object) -> Sequence[Dataset]:
        raise PoolStuck("creating has not ended after 300 seconds; pool tank is SUSPENDED")

    monkeypatch.setattr(driver, "create", hang)
    with pytest.raises(OutcomeUnknown, match="pool tank is SUSPENDED"):
        await perform(operations)
    assert [record.subject for record in journal.state.operations.values()] == ["v"]
    with pytest.raises(ReadOnly):
        await perform(operations)


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


async def test_what_is_made_is_counted_once_before_its_outcome_is_durable(
    operations: Operations, zpool: ZpoolActor
) -> None:
    """Else many disks made at once are refused for want of space that is there."""
    counted: list[int] = []

    def count(step: str) -> None:
        if step in ("before-intent", "after-effect"):
            counted.append(zpool.ledger.reserved_bytes + zpool.view.promised_bytes)

    operations.trace = count
    await perform(operations)
    snapshot = CreateSnapshot(name="v", snapshot="s")
    await operations.perform(snapshot, principal="test", deadline=NO_DEADLINE)
    assert counted[:2] == [MIB, MIB]
    assert counted[2] == counted[3]


async def test_a_snapshot_stands_though_its_volume_cannot_be_read_again(
    operations: Operations,
    journal: MemoryJournal,
    zpool: ZpoolActor,
    driver: PoolDriver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await perform(operations)

    async def fail(name: str) -> Dataset:
        raise NotFound(detail=name)

    monkeypatch.setattr(driver, "get", fail)
    await operations.perform(CreateSnapshot(name="v", snapshot="s"), principal="test", deadline=NO_DEADLINE)
    assert "v@s" in zpool.view
    assert journal.events[-1] == OperationFinished(outcome="succeeded")


async def test_a_volume_is_read_again_when_its_snapshot_goes(
    operations: Operations, zpool: ZpoolActor, driver: PoolDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counted as the snapshot's is the volume's again; the view would promise it a second time."""
    await perform(operations)
    await operations.perform(CreateSnapshot(name="v", snapshot="s"), principal="test", deadline=NO_DEADLINE)
    now = replace(await driver.get("v"), written=MIB)

    async def get(name: str) -> Dataset:
        return now

    monkeypatch.setattr(driver, "get", get)
    await operations.perform(DeleteSnapshot(name="v@s"), principal="test", deadline=NO_DEADLINE)
    assert zpool.view.get("v") == now
    await operations.perform(DeleteDataset(name="v"), principal="test", deadline=NO_DEADLINE)
    assert "v" not in zpool.view


async def test_an_operation_whose_outcome_was_refused_is_not_ended_otherwise(
    operations: Operations, journal: MemoryJournal
) -> None:
    """Whoever cleans up after the error would journal a failure of what stands in the pool."""
    plan = Plan(method="CreateVolume", subject="v", intent=CreateIntent(datasets=()))
    for operation in ("one", "other"):
        await operations.begin(operation, plan, principal="test")

    def refuse(events: list[Event]) -> None:
        raise Rejected("disk full")

    accept, journal.fault = journal.fault, refuse
    with pytest.raises(OutcomeUnknown):
        await operations.finish("one", (), principal="test")
    journal.fault = accept
    with pytest.raises(OutcomeUnknown):
        await operations.fail("one", NotFound(), principal="test")
    await operations.finish("other", (), principal="test")
    assert list(operations.state.operations) == ["one"]


async def test_nothing_more_comes_into_the_pool_once_the_journal_failed(
    operations: Operations, journal: MemoryJournal, zpool: ZpoolActor
) -> None:
    await zpool.reserve("op", MIB)
    journal.failed = Failure(reason="EIO", seq=0)
    with pytest.raises(ReadOnly):
        await zpool.reserve("op", MIB, renew=True)
    await zpool.reserve("op", 0)
    assert zpool.ledger.reserved_bytes == 0
