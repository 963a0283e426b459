"""What a whole store says of itself: the summary, its guests, its past."""

from typing import Any

import pytest
import trio

from imagestore.actors.history import Entry
from imagestore.errors import FetchFailed, InvalidArgument, NotFound
from imagestore.methods.status import failed
from imagestore.model import GuestRequest, ImageRequest, SnapshotRequest, VolumeRequest
from imagestore.pools.base import Space
from imagestore.pools.directory.driver import DirectoryPool
from imagestore.screen import (
    ExplainRequest,
    ExplainResponse,
    GuestsRequest,
    GuestStatus,
    SearchRequest,
    Status,
    StatusRequest,
)
from imagestore.service import METHODS_BY_NAME, Caller
from imagestore.store import Store
from imagestore.timings import Histogram
from tests.imageservice import ImageService, answer, status
from tests.pools.harness import opened_for_writing
from tests.store.conftest import Run, raw_image

ALICE = Caller(principal="alice")


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """How full the disk is on which these tests run is no matter of theirs."""

    async def space(pool: DirectoryPool) -> Space:
        return Space(total=100 << 30, available=90 << 30)

    monkeypatch.setattr(DirectoryPool, "space", space)


async def call(store: Store, method: str, request: Any) -> Any:
    return await store.call(METHODS_BY_NAME[method], request, ALICE)


async def summary(store: Store) -> Status:
    return (await store.get_status(StatusRequest())).status


async def make_guest(store: Store, guest: str, *disks: dict[str, Any]) -> None:
    await call(store, "CreateGuestDisks", GuestRequest(guest={"id": guest, "disks": list(disks)}))


async def only_guest(store: Store, guest: str) -> GuestStatus:
    (found,) = (await store.describe_guests(GuestsRequest(id=guest))).guests
    return found


async def test_a_fresh_store_is_well_and_says_what_it_stands_on(run: Run) -> None:
    async with run() as store:
        await call(store, "CreateVolume", VolumeRequest(id="a", size=1))
        told = await summary(store)
        assert told.condition.level == "ok"
        assert (told.pool.name, told.pool.driver, told.pool.health) == ("pool", "dir", "ok")
        assert told.pool.size_bytes == told.pool.used_bytes + told.pool.available_bytes
        assert told.pool.promised_bytes == 1 << 20
        assert told.pool.free_bytes == told.pool.available_bytes - (1 << 20)
        assert store._journal is not None
        assert (told.journal.seq, told.journal.head) == store._journal.head
        assert told.journal.flush_p99_seconds is not None
        assert (told.running, told.failures) == ((), ())


async def test_what_runs_is_told_with_its_progress(run: Run, service: ImageService) -> None:
    begun, go_on = trio.Event(), trio.Event()
    body = raw_image()

    async def slowly(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        await stream.send_all(body[: 1 << 20])
        begun.set()
        await go_on.wait()
        await stream.send_all(body[1 << 20 :])

    service.download("golden", slowly)
    async with run(image_service=service.address) as store, trio.open_nursery() as nursery:
        nursery.start_soon(call, store, "RequestImage", ImageRequest(id="golden"))
        await begun.wait()
        (operation,) = (await summary(store)).running
        assert (operation.method, operation.who, operation.status) == ("RequestImage", "alice", "running")
        assert operation.subject == "pool/images/golden"
        go_on.set()


async def test_a_failure_wants_attention_until_it_was_done_after_all(run: Run, service: ImageService) -> None:
    service.download("golden", status(404), answer(raw_image()))
    async with run(image_service=service.address) as store:
        with pytest.raises(FetchFailed):
            await call(store, "RequestImage", ImageRequest(id="golden"))
        told = await summary(store)
        assert [(each.method, each.status) for each in told.failures] == [("RequestImage", "failed")]
        assert told.condition.level == "attention"
        assert told.condition.next == "imagestore image pull golden"
        assert told.condition.findings[-1].next == f"imagestore op show {told.failures[0].id}"
    async with run(image_service=service.address) as store:
        told = await summary(store)
        assert [each.method for each in told.failures] == ["RequestImage"], "earlier lives count, too"
        assert told.condition.level == "attention"
        await call(store, "RequestImage", ImageRequest(id="golden"))
        told = await summary(store)
        assert told.condition.level == "ok"
        assert told.failures_total == 1, "it stays a failure of the day"


def entry(status: Any, method: str = "CloneImage", subject: str = "a", at: int = 10) -> Entry:
    return Entry(id=f"{at}", method=method, subject=subject, principal="x", status=status, finished_ns=at)


@pytest.mark.parametrize(
    ("newest_first", "counting"),
    [
        ([entry("failed")], [True]),
        ([entry("failed", at=4)], []),
        ([entry("succeeded"), entry("failed")], [False]),
        ([entry("failed"), entry("succeeded")], [True]),
        ([entry("succeeded", subject="b"), entry("failed")], [True]),
        ([entry("succeeded", method="DeleteDataset"), entry("failed")], [False]),
        ([entry("failed"), entry("failed")], [True, False]),
        ([entry("refused"), entry("cancelled")], []),
    ],
)
def test_a_failure_counts_unless_something_put_it_right(
    newest_first: list[Entry], counting: list[bool]
) -> None:
    assert [counts for _, counts in failed(newest_first, since_ns=5)] == counting


async def test_what_others_did_to_the_pool_is_counted(run: Run) -> None:
    async with run() as store:
        await call(store, "CreateVolume", VolumeRequest(id="a", size=1))
        await call(store, "CreateVolume", VolumeRequest(id="b", size=1))
        assert store._actors is not None
        driver = store._actors.zpool.driver
        await driver.destroy([(await driver.get("a")).target])
        await driver.rename((await driver.get("b")).target, "c")
        await store._actors.zpool.refresh()
        told = await summary(store)
        assert (told.drift.lost, told.drift.renamed) == (1, 1)
        assert told.condition.next == "imagestore drift"


# --- guests ------------------------------------------------------------------------


async def test_a_guest_is_told_with_its_origin_snapshots_and_use(run: Run, service: ImageService) -> None:
    service.download("golden", answer(raw_image()))
    async with run(image_service=service.address) as store:
        await call(store, "RequestImage", ImageRequest(id="golden"))
        await make_guest(store, "vm1", {"image": "golden"}, {"size": 4})
        assert (await only_guest(store, "vm1")).last_snapshot is None
        await call(store, "CreateSnapshot", SnapshotRequest(id="guests/vm1", dest="monday", recursive=True))
        guest = await only_guest(store, "vm1")
        clone, blank = guest.disks
        assert (clone.image, clone.origin) == ("golden", "pool/images/golden@image")
        assert (blank.image, blank.origin) == ("", "")
        assert guest.size_bytes == clone.size_bytes + blank.size_bytes == 6 << 20
        assert [snapshot.id for snapshot in clone.snapshots or ()] == ["pool/guests/vm1/disk-0@monday"]
        assert guest.last_snapshot is not None
        assert not guest.in_use
        with opened_for_writing(blank.device):
            used = await only_guest(store, "vm1")
        assert [disk.in_use for disk in used.disks] == [False, True]
        assert used.in_use


async def test_guests_come_in_pages_without_their_snapshots(run: Run) -> None:
    async with run() as store:
        for name in ("b", "a", "c"):
            await make_guest(store, name, {"size": 1})
        first = await store.describe_guests(GuestsRequest(limit=2))
        assert ([guest.id for guest in first.guests], first.total, first.next) == (["a", "b"], 3, "b")
        last = await store.describe_guests(GuestsRequest(after=first.next, limit=2))
        assert ([guest.id for guest in last.guests], last.next) == (["c"], "")
        assert not last.guests[0].disks[0].snapshots
        with pytest.raises(NotFound):
            await store.describe_guests(GuestsRequest(id="d"))
        with pytest.raises(InvalidArgument):
            await store.describe_guests(GuestsRequest(id="../d"))


# --- the past ------------------------------------------------------------------------


async def test_events_are_found_by_words_and_by_what_they_are_about(run: Run) -> None:
    async with run() as store:
        await make_guest(store, "vm1", {"size": 1})
        await call(store, "CreateVolume", VolumeRequest(id="scratch", size=1))

        async def found(**wanted: Any) -> list[str]:
            answer = await store.search_events(SearchRequest(**wanted))
            return [f"{event.event} {event.what}" for event in answer.events]

        assert (await found())[0] == "operation-finished succeeded"
        assert await found(text="SCRATCH created") == ["dataset-created scratch (volume, 1M)"]
        assert await found(text="alice vm1/disk-0", type="dataset-created") == [
            "dataset-created guests/vm1/disk-0 (disk, 1M)"
        ]
        assert await found(text="nobody-said-this") == []
        assert len(await found(guest="vm1")) == 4
        assert await found(dataset="pool/scratch", type="dataset-created") == [
            "dataset-created scratch (volume, 1M)"
        ]
        assert await found(since="2999-01-01T00:00:00Z") == []
        with pytest.raises(InvalidArgument):
            await found(since="yesterday")
        with pytest.raises(InvalidArgument):
            await found(text="x" * 201)


async def test_pages_of_a_search_have_each_event_once(run: Run) -> None:
    async with run() as store:
        for name in "abcde":
            await call(store, "CreateVolume", VolumeRequest(id=name, size=1))
        for text in ("", "alice"):
            whole = (await store.search_events(SearchRequest(text=text, limit=500))).events
            pieces: list[int] = []
            before = 0
            while True:
                page = await store.search_events(SearchRequest(text=text, limit=3, before=before))
                pieces += [event.seq for event in page.events]
                before = page.next
                if not before:
                    break
            assert pieces == [event.seq for event in whole]
            assert len(pieces) >= 15


async def test_a_dataset_is_explained_back_to_its_image(run: Run, service: ImageService) -> None:
    service.download("golden", answer(raw_image()))
    async with run(image_service=service.address) as store:
        await call(store, "RequestImage", ImageRequest(id="golden"))
        await make_guest(store, "vm1", {"image": "golden"})
        await call(store, "CreateSnapshot", SnapshotRequest(id="guests/vm1/disk-0", dest="monday"))
        await call(store, "DeleteGuestsDisks", GuestRequest(guest={"id": "vm1"}))
        await make_guest(store, "vm1", {"image": "golden"})
        told: ExplainResponse = await store.explain_dataset(ExplainRequest(id="pool/guests/vm1/disk-0"))
        assert [bool(life.ended) for life in told.lives] == [True, False]
        assert [life.names[0] for life in told.origins] == ["images/golden@image", "images/golden"]
        first, second = told.lives
        assert [event.event for event in first.events] == [
            "operation-started",
            "dataset-created",
            "operation-finished",
            "operation-started",
            "dataset-destroyed",
            "operation-finished",
        ]
        assert [event.event for event in second.events][1] == "dataset-created"
        assert not told.truncated
        with pytest.raises(NotFound):
            await store.explain_dataset(ExplainRequest(id="never"))
        with pytest.raises(InvalidArgument):
            await store.explain_dataset(ExplainRequest())


# --- the 99th of a hundred ----------------------------------------------------------------


def test_a_quantile_is_a_bound_of_its_bucket() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.99) is None
    for _ in range(99):
        histogram.observe(0.0009)
    histogram.observe(4000)
    assert histogram.quantile(0.99) == 0.001
    assert histogram.quantile(1.0) == 300.0
