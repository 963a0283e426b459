"""Operations on a whole store: known from the start, and for ever."""

from typing import Any

import pytest
import trio
import trio.testing

from imagestore import errors
from imagestore.actors.claims import Claim
from imagestore.actors.history import History, Ticket
from imagestore.events import reader
from imagestore.model import (
    GuestRequest,
    ImageRequest,
    Operation,
    OperationRequest,
    SnapshotRequest,
    VolumeRequest,
)
from imagestore.service import METHODS_BY_NAME, Caller, Receipt
from imagestore.store import Store
from tests.imageservice import ImageService, answer
from tests.store.conftest import Run, raw_image
from tests.store.test_fetch import Gate

GUEST = {"id": "vm1", "disks": [{"size": 4}]}


async def begun(store: Store, method: str, request: Any, **caller: Any) -> str:
    """Have a change begun, without waiting for its end; returns its operation's id."""
    receipt = Receipt()
    said = Caller(no_wait=True, receipt=receipt, **caller)
    await store.call(METHODS_BY_NAME[method], request, said)
    return receipt.operation


async def shown(store: Store, operation: str) -> Operation:
    (found,) = (await store.get_operation(OperationRequest(id=operation))).operations
    return found


async def listed(store: Store, **wanted: Any) -> list[Operation]:
    return list((await store.list_operations(OperationRequest(**wanted))).operations)


async def test_an_operation_tells_what_it_did_and_caused(run: Run) -> None:
    receipt = Receipt()
    async with run() as store:
        caller = Caller(principal="alice", receipt=receipt)
        await store.call(METHODS_BY_NAME["CreateVolume"], VolumeRequest(id="a/b", size=1), caller)
        assert receipt.accepted.is_set()
        now = await shown(store, receipt.operation)
    assert (now.method, now.who, now.status, now.subject) == (
        "CreateVolume",
        "alice",
        "succeeded",
        "pool/a/b",
    )
    assert [(e.event, e.subject) for e in now.effects or ()] == [
        ("dataset-created", "a"),
        ("dataset-created", "a/b"),
    ]
    assert now.queued is not None
    assert now.started is not None
    assert now.finished is not None
    async with run() as store:
        later = await shown(store, receipt.operation)
        assert later.queued is None, "what was never journaled is not remembered by another life"
        for name in (
            "id",
            "method",
            "who",
            "status",
            "seq",
            "lastSeq",
            "effects",
            "effectsTotal",
            "finished",
        ):
            assert getattr(later, name) == getattr(now, name)
        assert not later.cancellable


async def test_a_refusal_is_remembered_as_one(run: Run) -> None:
    async with run() as store:
        await store.create_volume(VolumeRequest(id="a", size=1))
        receipt = Receipt()
        with pytest.raises(errors.AlreadyExists) as refused:
            await store.call(
                METHODS_BY_NAME["CreateVolume"], VolumeRequest(id="a", size=2), Caller(receipt=receipt)
            )
        assert refused.value.operation == "", "nothing was accepted"
        found = await shown(store, receipt.operation)
        assert (found.status, found.errorType, found.seq) == ("refused", "AlreadyExists", 0)
        assert receipt.operation in [o.id for o in await listed(store, status="refused")]
    async with run() as store:
        with pytest.raises(errors.NotFound):
            await shown(store, receipt.operation)


async def test_lists_come_in_pages_and_by_filter(run: Run) -> None:
    async with run() as store:
        for number in range(7):
            who = Caller(principal=f"user-{number % 2}")
            await store.create_volume(VolumeRequest(id=f"v{number}", size=1), who)
        await store.create_guest_disks(GuestRequest(guest=GUEST))
        await store.create_snapshot(SnapshotRequest(id="guests/vm1", dest="monday"))
        pages: list[Operation] = []
        before = 0
        while True:
            page = await store.list_operations(OperationRequest(limit=3, before=before))
            pages += page.operations
            before = page.next
            if not before:
                break
        assert [o.seq for o in pages] == sorted((o.seq for o in pages), reverse=True)
        assert [o.id for o in pages] == [o.id for o in await listed(store)]
        assert len(await listed(store, who="user-1")) == 3
        assert [o.method for o in await listed(store, dataset="guests/vm1")] == [
            "CreateSnapshot",
            "CreateGuestDisks",
        ]
        assert [o.method for o in await listed(store, dataset="pool/guests/vm1/disk-0@monday")] == [
            "CreateSnapshot"
        ]
        assert len(await listed(store, of="CreateVolume")) == 7
        assert await listed(store, status="failed") == []
        assert await listed(store, since="2999-01-01T00:00:00Z") == []
        with pytest.raises(errors.InvalidArgument):
            await listed(store, since="yesterday")
        with pytest.raises(errors.InvalidArgument):
            await listed(store, status="fine")
        ids = [o.id for o in pages]
    async with run() as store:
        assert [o.id for o in await listed(store)] == ids


async def test_a_fetch_shows_its_progress_and_is_waited_for_over_a_restart(
    run: Run, service: ImageService
) -> None:
    gate = Gate(raw_image())
    service.download("golden", gate, answer(raw_image()))
    async with run(image_service=service.address) as store:
        operation = await begun(store, "RequestImage", ImageRequest(id="golden"))
        await gate.reached.wait()
        found = await shown(store, operation)
        assert (found.status, found.cancellable) == ("running", True)
        (running,) = await listed(store, status="running")
        assert running.id == operation
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.destroy)
            with pytest.raises(errors.Stopping):
                await store.wait_operation(OperationRequest(id=operation))
    async with run(image_service=service.address) as store:
        (found,) = (await store.wait_operation(OperationRequest(id=operation))).operations
        assert found.status == "succeeded"
        assert found.attempts == 1
        assert "image-completed" in [e.event for e in found.effects or ()]


async def test_waiting_ends_when_the_time_is_up(run: Run, service: ImageService) -> None:
    gate = Gate(raw_image())
    service.download("golden", gate)
    async with run(image_service=service.address) as store:
        operation = await begun(store, "RequestImage", ImageRequest(id="golden"))
        (found,) = (await store.wait_operation(OperationRequest(id=operation, timeout=1))).operations
        assert found.status == "running"
        gate.open.set()
        (found,) = (await store.wait_operation(OperationRequest(id=operation))).operations
        assert found.status == "succeeded"


async def test_a_fetch_is_cancelled(run: Run, service: ImageService) -> None:
    gate = Gate(raw_image())
    service.download("golden", gate)
    async with run(image_service=service.address) as store:
        operation = await begun(store, "RequestImage", ImageRequest(id="golden"))
        await gate.reached.wait()
        for _ in range(2):
            (found,) = (await store.cancel_operation(OperationRequest(id=operation))).operations
            assert found.status == "cancelled"
    async with run(image_service=service.address) as store:
        assert (await shown(store, operation)).status == "cancelled"
        assert (await store.cancel_operation(OperationRequest(id=operation))).operations


async def test_what_is_queued_is_cancelled_and_never_begins(run: Run) -> None:
    """The first waits for its claim, the second in the guest's mailbox."""
    async with run() as store:
        await store.create_guest_disks(GuestRequest(guest=GUEST))
        before = reader.head(store.config.journal)
        refused = []

        async def snapshot(name: str) -> None:
            with pytest.raises(errors.Cancelled):
                await store.create_snapshot(SnapshotRequest(id="guests/vm1", dest=name))
            refused.append(name)

        actors = store._running()
        async with (
            actors.zpool.claimed("test", Claim(exclusive=("guests/vm1",))),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(snapshot, "one")
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(snapshot, "two")
            await trio.testing.wait_all_tasks_blocked(0.01)
            queued = await listed(store, status="queued")
            assert [o.method for o in queued] == ["CreateSnapshot", "CreateSnapshot"]
            assert all(o.cancellable for o in queued)
            for operation in queued:
                (found,) = (await store.cancel_operation(OperationRequest(id=operation.id))).operations
                assert found.status == "cancelled"
        assert sorted(refused) == ["one", "two"]
        assert reader.head(store.config.journal) == before
        assert await listed(store, status="queued") == []
        assert (await store.create_snapshot(SnapshotRequest(id="guests/vm1", dest="three"))).snapshots


async def test_what_has_ended_cannot_be_cancelled(run: Run) -> None:
    async with run() as store:
        receipt = Receipt()
        caller = Caller(receipt=receipt)
        await store.call(METHODS_BY_NAME["CreateVolume"], VolumeRequest(id="a", size=1), caller)
        with pytest.raises(errors.TooLate, match="it was succeeded"):
            await store.cancel_operation(OperationRequest(id=receipt.operation))
    async with run() as store:
        with pytest.raises(errors.TooLate):
            await store.cancel_operation(OperationRequest(id=receipt.operation))
        with pytest.raises(errors.NotFound):
            await store.cancel_operation(OperationRequest(id="unknown"))


async def test_a_change_that_is_not_waited_for_is_accepted_or_refused(run: Run) -> None:
    async with run() as store:
        operation = await begun(store, "CreateVolume", VolumeRequest(id="a", size=1), key="k")
        (found,) = (await store.wait_operation(OperationRequest(id=operation))).operations
        assert found.status == "succeeded"
        assert await begun(store, "CreateVolume", VolumeRequest(id="a", size=1), key="k") == operation
        with pytest.raises(errors.AlreadyExists):
            await begun(store, "CreateVolume", VolumeRequest(id="a", size=2))


async def test_requests_for_one_image_are_one_operation(run: Run, service: ImageService) -> None:
    gate = Gate(raw_image())
    service.download("golden", gate)
    async with run(image_service=service.address) as store:
        operations = {await begun(store, "RequestImage", ImageRequest(id="golden")) for _ in range(5)}
        assert len(operations) == 1
        gate.open.set()
        (operation,) = operations
        await store.wait_operation(OperationRequest(id=operation))
        assert [o.id for o in await listed(store, of="RequestImage")] == [operation]


def test_the_history_forgets_the_oldest_of_those_that_ended() -> None:
    numbers = iter(range(1000))
    history = History(new_id=lambda: f"op-{next(numbers)}", now_ns=lambda: 5, kept=10)
    ticket = Ticket(method="CreateVolume", subject="a", principal="alice")
    running = history.queue(ticket)
    ended = [history.queue(ticket) for _ in range(30)]
    for operation in ended:
        history.conclude(operation, errors.NotFound())
    assert [entry.id for entry in history.under_way()] == [running]
    assert [entry.id for entry in history.unjournaled()] == ended[:-11:-1]
    assert history.find(ended[0]) is None
    history.drop(running)
    assert history.find(running) is None
