"""Idempotency keys on a whole store: the same request again is the same operation."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec import Struct
from msgspec.structs import replace

from imagestore import errors
from imagestore.config import Config
from imagestore.events import reader
from imagestore.events.catalogue import OperationFinished, OperationStarted
from imagestore.model import (
    GuestRequest,
    ImageRequest,
    SnapshotRequest,
    VolumeRequest,
)
from imagestore.service import METHODS_BY_NAME, Caller, Receipt
from imagestore.store import Store, Surroundings
from tests.imageservice import ImageService, answer, head, status
from tests.store.conftest import Run, raw_image, running


async def call(store: Store, method: str, request: Struct, key: str, *, who: str = "agent") -> Any:
    return await store.call(METHODS_BY_NAME[method], request, Caller(principal=who, key=key))


def seq_of(store: Store) -> int:
    return reader.head(store.config.journal)[0]


class Gate:
    """A download that waits in its midst until it is let through."""

    def __init__(self, body: bytes) -> None:
        self.reached = trio.Event()
        self.open = trio.Event()
        self.begun = 0
        self._body = body

    async def __call__(self, stream: trio.SocketStream) -> None:
        self.begun += 1
        await stream.send_all(head(Content_Length=len(self._body)) + self._body[:1000])
        self.reached.set()
        await self.open.wait()
        await stream.send_all(self._body[1000:])


async def make_everything(store: Store) -> None:
    await store.create_volume(VolumeRequest(id="a/vol", size=8))
    await store.create_snapshot(SnapshotRequest(id="a/vol", dest="monday"))
    await store.create_snapshot(SnapshotRequest(id="a/vol", dest="tuesday"))


GUEST = {"id": "vm1", "metadata": {"password": "secret"}, "disks": [{"size": 4}, {"size": 8}]}

REQUESTS: list[tuple[str, Struct]] = [
    ("CreateVolume", VolumeRequest(id="new/one", size=16)),
    ("CreateSnapshot", SnapshotRequest(id="a/vol", dest="wednesday")),
    ("RollbackSnapshot", SnapshotRequest(id="a/vol@monday", destroyMoreRecent=True)),
    ("DeleteSnapshot", SnapshotRequest(id="a/vol@tuesday")),
    ("DeleteDataset", VolumeRequest(id="a/vol")),
    ("DeleteDataset", VolumeRequest(id="a")),
    ("CreateGuestDisks", GuestRequest(guest=GUEST)),
]


@pytest.mark.parametrize(("method", "request_"), REQUESTS, ids=lambda value: str(value)[:30])
async def test_the_first_answer_is_given_again_in_this_life_and_the_next(
    run: Run, method: str, request_: Struct
) -> None:
    async with run() as store:
        await make_everything(store)
        first = await call(store, method, request_, "k1")
        seq = seq_of(store)
        assert await call(store, method, request_, "k1") == first
        assert seq_of(store) == seq, "nothing was done again"
    async with run() as store:
        seq = seq_of(store)
        assert await call(store, method, request_, "k1") == first
        assert seq_of(store) == seq


async def test_deleted_disks_are_told_again_as_deleted(run: Run) -> None:
    async with run() as store:
        await store.create_guest_disks(GuestRequest(guest=GUEST))
        request = GuestRequest(guest={**GUEST, "state": "gone"})
        first = await call(store, "DeleteGuestsDisks", request, "k")
        await store.create_guest_disks(GuestRequest(guest=GUEST))
        assert await call(store, "DeleteGuestsDisks", request, "k") == first
        assert (await store.get_volume(VolumeRequest(id="guests/vm1/disk-0"))).volumes


async def test_an_image_is_fetched_and_deleted_once(run: Run, service: ImageService) -> None:
    service.download("golden", answer(raw_image()))
    async with run(image_service=service.address) as store:
        request = ImageRequest(id="golden", type="kvm")
        first = await call(store, "RequestImage", request, "fetch")
        assert await call(store, "RequestImage", request, "fetch") == first
        gone = await call(store, "DeleteImage", ImageRequest(id="golden"), "delete")
        assert gone == first
        await call(store, "RequestImage", request, "fetch again")
    async with run(image_service=service.address) as store:
        assert await call(store, "DeleteImage", ImageRequest(id="golden"), "delete") == gone
        assert await call(store, "RequestImage", request, "fetch") == first, "it is there"


async def test_a_failure_is_the_same_again(run: Run, service: ImageService) -> None:
    service.download("absent", status(404), status(404))
    async with run(image_service=service.address) as store:
        with pytest.raises(errors.FetchFailed) as first:
            await call(store, "RequestImage", ImageRequest(id="absent"), "k")
        assert first.value.operation
        service.download("absent", answer(raw_image()))
        with pytest.raises(errors.FetchFailed) as again:
            await call(store, "RequestImage", ImageRequest(id="absent"), "k")
        assert (str(again.value), again.value.operation) == (str(first.value), first.value.operation)
        assert type(again.value) is type(first.value)
        assert (await call(store, "RequestImage", ImageRequest(id="absent"), "other")).images


async def test_the_same_key_with_another_request_is_refused(run: Run) -> None:
    async with run() as store:
        await call(store, "CreateVolume", VolumeRequest(id="a", size=1), "k")
        for method, request in (
            ("CreateVolume", VolumeRequest(id="a", size=2)),
            ("CreateVolume", VolumeRequest(id="b", size=1)),
            ("DeleteDataset", VolumeRequest(id="a", size=1)),
        ):
            with pytest.raises(errors.KeyReused):
                await call(store, method, request, "k")
    async with run() as store:
        with pytest.raises(errors.KeyReused):
            await call(store, "CreateVolume", VolumeRequest(id="a", size=2), "k")


async def test_a_key_is_its_callers(run: Run) -> None:
    async with run() as store:
        await call(store, "CreateVolume", VolumeRequest(id="a", size=1), "k", who="one")
        await call(store, "CreateVolume", VolumeRequest(id="b", size=1), "k", who="two")
        assert len((await store.list_volumes(VolumeRequest())).volumes) == 2


async def test_a_refusal_binds_nothing(run: Run) -> None:
    async with run() as store:
        request = SnapshotRequest(id="vol", dest="monday")
        with pytest.raises(errors.NotFound):
            await call(store, "CreateSnapshot", request, "k")
        await store.create_volume(VolumeRequest(id="vol", size=1))
        assert (await call(store, "CreateSnapshot", request, "k")).snapshots


async def test_what_was_so_already_binds_nothing(run: Run) -> None:
    async with run() as store:
        await store.create_volume(VolumeRequest(id="vol", size=1))
        request = VolumeRequest(id="vol", size=1)
        await call(store, "CreateVolume", request, "k")
        await store.delete_dataset(VolumeRequest(id="vol"))
        assert (await call(store, "CreateVolume", request, "k")).volumes
        assert (await store.get_volume(request)).volumes


async def test_many_at_once_with_one_key_are_one_operation(run: Run) -> None:
    async with run() as store:
        answers = []

        async def one() -> None:
            answers.append(await call(store, "CreateGuestDisks", GuestRequest(guest=GUEST), "k"))

        before = seq_of(store)
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(one)
        assert len(answers) == 200
        assert all(answer == answers[0] for answer in answers)
        operations = [e for e in await events_of(store, before) if hasattr(e, "intent")]
        assert len(operations) == 1


async def events_of(store: Store, after: int) -> list[Any]:
    return [envelope.event for envelope in reader.read(store.config.journal, after + 1)]


async def test_who_goes_away_leaves_the_operation_to_those_who_come_back(
    run: Run, service: ImageService
) -> None:
    gate = Gate(raw_image())
    service.download("golden", gate)
    request = ImageRequest(id="golden")
    async with run(image_service=service.address) as store, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as impatient:
                impatient.start_soon(call, store, "RequestImage", request, "k")
                await gate.reached.wait()
                scope.cancel()
        nursery.start_soon(call, store, "RequestImage", request, "k")
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.open.set()
    assert gate.begun == 1


async def test_a_crash_after_the_intent_leaves_the_key_bound(run: Run, service: ImageService) -> None:
    """The fetch is broken off by the end of the first life, and taken up by the next."""
    gate = Gate(raw_image())
    service.download("golden", gate, answer(raw_image()))
    request = ImageRequest(id="golden")
    receipt = Receipt()
    async with run(image_service=service.address) as store:
        caller = Caller(principal="agent", key="k", no_wait=True, receipt=receipt)
        await store.call(METHODS_BY_NAME["RequestImage"], request, caller)
        assert receipt.early
        await gate.reached.wait()
    async with run(image_service=service.address) as store:
        again = Receipt()
        caller = Caller(principal="agent", key="k", receipt=again)
        response: Any = await store.call(METHODS_BY_NAME["RequestImage"], request, caller)
        assert response.images[0].status == "complete"
        assert again.operation == receipt.operation


async def test_the_journal_holds_neither_key_nor_request(run: Run, config: Config) -> None:
    key = "key-" + secrets.token_hex(8)
    async with run() as store:
        await call(store, "CreateGuestDisks", GuestRequest(guest=GUEST), key)
    written = b"".join(path.read_bytes() for path in Path(config.journal).iterdir() if path.is_file())
    assert b"guests/vm1/disk-0" in written
    assert key.encode() not in written
    assert b"secret" not in written
    assert b"password" not in written


async def test_a_key_stands_for_seven_days(config: Config) -> None:
    day = 86_400 * 10**9
    now = [1_800_000_000 * 10**9]
    request = VolumeRequest(id="a", size=1)

    async def life(work: Callable[[Store], Any]) -> None:
        store = Store(config, surroundings=Surroundings(now_ns=lambda: now[0]))
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await work(store)
            await store.destroy()

    async def create(store: Store) -> None:
        await call(store, "CreateVolume", request, "k")

    async def still_bound(store: Store) -> None:
        await store.delete_dataset(VolumeRequest(id="a"))
        now[0] += 7 * day - 1
        await call(store, "CreateVolume", request, "k")
        with pytest.raises(errors.NotFound):
            await store.get_volume(request)

    async def free_again(store: Store) -> None:
        now[0] += 2
        await call(store, "CreateVolume", request, "k")
        assert (await store.get_volume(request)).volumes

    for work in (create, still_bound, free_again):
        await life(work)


async def test_hundreds_of_keys_at_once(run: Run) -> None:
    async with run(mailbox_size=256) as store:
        done = []
        room = trio.CapacityLimiter(200)

        async def one(number: int) -> None:
            async with room:
                request = VolumeRequest(id=f"v{number}", size=1)
                done.append(await call(store, "CreateVolume", request, f"k{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(one, number)
        assert len(done) == 300
    async with run() as store:
        for number in (0, 150, 299):
            with pytest.raises(errors.KeyReused):
                await call(store, "CreateVolume", VolumeRequest(id="other", size=1), f"k{number}")


class PowerLoss(BaseException):
    """The process is gone at this step."""


async def dies_at(config: Config, step: str, method: str, request: Struct) -> None:
    """A life of the store that ends at ``step`` of a keyed request, without a word."""

    def trace(reached: str) -> None:
        if reached == step:
            raise PowerLoss

    async def life() -> None:
        store = Store(config, trace=trace)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            with pytest.raises(errors.OutcomeUnknown):
                await call(store, method, request, "k")

    with pytest.raises(BaseExceptionGroup) as ended:
        await life()
    assert ended.value.subgroup(PowerLoss) is not None


@pytest.mark.parametrize("step", ["before-intent", "after-intent", "after-effect", "after-outcome"])
@pytest.mark.parametrize(("method", "request_"), [REQUESTS[1], REQUESTS[4]], ids=lambda v: str(v)[:20])
async def test_wherever_the_store_dies_the_request_again_is_done_once(
    run: Run, config: Config, step: str, method: str, request_: Struct
) -> None:
    async with run() as store:
        await make_everything(store)
    await dies_at(config, step, method, request_)
    async with run() as store:
        answer = await call(store, method, request_, "k")
        seq = seq_of(store)
        assert await call(store, method, request_, "k") == answer
        assert seq_of(store) == seq
        envelopes = list(reader.read(config.journal))
        ours = {e.operation for e in envelopes if isinstance(e.event, OperationStarted) and e.event.key}
        done = [
            e
            for e in envelopes
            if isinstance(e.event, OperationFinished)
            and e.operation in ours
            and e.event.outcome == "succeeded"
        ]
        assert len(done) == 1
    # What a store that never died would have answered.
    whole = replace(config, pool=f"{config.pool}-2", journal=f"{config.journal}-2")
    async with running(whole) as store:
        await make_everything(store)
        expected = await call(store, method, request_, "k")
    assert str(answer).replace("pool", "") == str(expected).replace("pool-2", "").replace("pool", "")
