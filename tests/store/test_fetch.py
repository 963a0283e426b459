"""The fetch queue over a real pool and a real, misbehaving image service."""

import os
from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing

from imagestore.config import Config
from imagestore.errors import Blocked, ContentRefused, FetchFailed, FetchUnreachable, Stopping
from imagestore.errors import TemporarilyUnavailable as Busy
from imagestore.events import reader
from imagestore.events.catalogue import (
    Event,
    ImageDeleted,
    ImageRequested,
    OperationFinished,
    OperationResumed,
    OperationStarted,
)
from imagestore.model import Image, ImageRequest, SnapshotRequest, VolumeRequest
from imagestore.pools.base import NewVolume, Tags, Target
from imagestore.store import Store
from tests.imageservice import ImageService, Script, answer, head, status, truncated
from tests.store.conftest import MIB, Run, raw_image

DEB = ImageRequest(id="deb", type="kvm")


def events(config: Config) -> list[Event]:
    return [envelope.event for envelope in reader.read(config.journal)]


def nothing_stray(config: Config, datasets: int) -> None:
    """As many data files as datasets with content, and no staging."""
    pool = config.pool.removeprefix("dir:")
    assert len(os.listdir(f"{pool}/.imagestore/data")) == datasets
    assert not [name for name in os.listdir(f"{pool}/images") if name.startswith(".staging")]


class Gate:
    """A download that waits halfway until it is let through."""

    def __init__(self, body: bytes) -> None:
        self.reached = trio.Event()
        self.open = trio.Event()
        self._body = body

    async def __call__(self, stream: trio.SocketStream) -> None:
        half = len(self._body) // 2
        await stream.send_all(head(Content_Length=len(self._body)) + self._body[:half])
        self.reached.set()
        await self.open.wait()
        await stream.send_all(self._body[half:])


@pytest.fixture
async def store(run: Run, service: ImageService) -> AsyncIterator[Store]:
    async with run(image_service=service.address) as store:
        yield store


async def image(store: Store, name: str = "deb") -> Image:
    return (await store.get_image(ImageRequest(id=name))).images[0]


async def test_a_fetched_image_is_whole_and_says_so(
    store: Store, service: ImageService, config: Config
) -> None:
    service.download("deb", answer(raw_image()))
    (fetched,) = (await store.request_image(DEB)).images
    assert fetched == await image(store)
    assert (fetched.type, fetched.volume, fetched.snapshot, fetched.size, fetched.status) == (
        "kvm",
        "pool/images/deb",
        "pool/images/deb@image",
        2,
        "complete",
    )
    with open(f"{config.pool.removeprefix('dir:')}/images/deb", "rb") as volume:
        assert volume.read() == raw_image()
    nothing_stray(config, 2)


async def test_all_who_want_one_image_share_one_fetch(store: Store, service: ImageService) -> None:
    gate = Gate(raw_image())
    service.download("deb", gate)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(store.request_image, DEB)
        await gate.reached.wait()
        gate.open.set()
    assert service.downloads == 1
    await store.request_image(DEB)
    assert service.downloads == 1


async def test_a_caller_that_gives_up_does_not_stop_the_fetch(store: Store, service: ImageService) -> None:
    gate = Gate(raw_image())
    service.download("deb", gate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.request_image, DEB)
        await gate.reached.wait()
        nursery.cancel_scope.cancel()
    under_way = await image(store)
    assert under_way.status == "downloading"
    gate.open.set()
    await store.request_image(DEB)
    assert service.downloads == 1


async def test_max_pending_counts_images_not_callers(run: Run, service: ImageService) -> None:
    gates = {name: Gate(raw_image()) for name in ("one", "two")}
    for name, gate in gates.items():
        service.download(name, gate)
    async with run(image_service=service.address, max_pending=2, num_fetchers=2) as store:
        async with trio.open_nursery() as nursery:
            for name in ("one", "two", "one", "two", "one"):
                nursery.start_soon(store.request_image, ImageRequest(id=name))
            for gate in gates.values():
                await gate.reached.wait()
            with pytest.raises(Busy, match=r"^resource temporarily unavailable$"):
                await store.request_image(ImageRequest(id="three"))
            for gate in gates.values():
                gate.open.set()
        assert service.downloads == 2


async def test_no_more_workers_than_told_and_in_the_order_asked(run: Run, service: ImageService) -> None:
    gates = [Gate(raw_image()) for _ in range(3)]
    for number, gate in enumerate(gates):
        service.download(str(number), gate)
    async with run(image_service=service.address, num_fetchers=1) as store, trio.open_nursery() as nursery:
        for number, gate in enumerate(gates):
            nursery.start_soon(store.request_image, ImageRequest(id=str(number)))
            if number == 0:
                await gate.reached.wait()
            else:
                await until_known(store, str(number))
        assert service.downloads == 1
        assert (await image(store, "2")).status == "pending"
        for gate in gates:
            await gate.reached.wait()
            gate.open.set()


async def until_known(store: Store, name: str) -> None:
    while name not in [image.id for image in (await store.list_images(ImageRequest())).images]:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (status(404), FetchFailed),
        (status(500), FetchUnreachable),
        (answer(b"<html>no such image</html>"), ContentRefused),
        (answer(b""), ContentRefused),
        (answer(raw_image()[:1000]), ContentRefused),
        (answer(b"QFI\xfb" + bytes(508)), FetchFailed),  # qemu-img refuses it, or is not installed
    ],
)
async def test_a_fetch_that_fails_leaves_nothing_and_the_next_starts_clean(
    store: Store, service: ImageService, config: Config, script: Script, kind: type[FetchFailed]
) -> None:
    service.download("deb", script, answer(raw_image()))
    with pytest.raises(kind) as raised:
        await store.request_image(DEB)
    assert "\n" not in str(raised.value)
    failed = await image(store)
    assert (failed.status, failed.reason) == ("error", str(raised.value))
    nothing_stray(config, 0)
    assert (await store.list_volumes(VolumeRequest())).volumes == ()
    (fetched,) = (await store.request_image(DEB)).images
    assert fetched.status == "complete"
    outcomes = [event.outcome for event in events(config) if isinstance(event, OperationFinished)]
    assert outcomes == ["succeeded", "failed", "succeeded"]


async def test_a_body_that_is_cut_off_again_and_again_is_given_up(
    store: Store, service: ImageService, config: Config
) -> None:
    cut = truncated(raw_image(), 3 * MIB)
    service.download("deb", cut)
    with pytest.raises(FetchUnreachable):
        await store.request_image(DEB)
    nothing_stray(config, 0)


async def test_an_unreachable_service_stops_neither_start_nor_readiness(run: Run) -> None:
    async with run(image_service="127.0.0.1:1") as store:
        assert store.readiness().ready
        with pytest.raises(FetchUnreachable):
            await store.request_image(DEB)


async def test_an_image_being_fetched_is_not_deleted_and_not_listed_as_a_volume(
    store: Store, service: ImageService
) -> None:
    gate = Gate(raw_image())
    service.download("deb", gate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.request_image, DEB)
        await gate.reached.wait()
        assert (await store.list_volumes(VolumeRequest())).volumes == ()
        with pytest.raises(Blocked, match="image is being fetched: deb"):
            await store.delete_image(DEB)
        await store.create_snapshot(SnapshotRequest(id="images", dest="s", recursive=True))
        gate.open.set()
    assert (await image(store)).status == "complete"


async def test_an_image_asked_for_while_it_is_being_deleted_is_fetched_after_that(
    store: Store,
    service: ImageService,
    config: Config,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service.download("deb", answer(raw_image()))
    await store.request_image(DEB)
    zpool = store._running().zpool
    destroy = zpool.driver.destroy

    async def destroy_and_be_asked(targets: Sequence[Target], *, force: bool = False) -> None:
        """Its datasets are gone, seen to be gone, and the journal does not say so yet."""
        await destroy(targets, force=force)
        zpool.view.remove(target.name for target in targets)
        nursery.start_soon(store.request_image, DEB)
        await trio.testing.wait_all_tasks_blocked()

    monkeypatch.setattr(zpool.driver, "destroy", destroy_and_be_asked)
    await store.delete_image(DEB)
    await store.request_image(DEB)
    assert (await image(store)).status == "complete"
    told = [type(event) for event in events(config) if isinstance(event, ImageRequested | ImageDeleted)]
    assert told == [ImageRequested, ImageDeleted, ImageRequested]
    assert reader.replay(config.journal).images["deb"].status == "complete"


async def test_images_are_listed_in_the_order_of_first_request(store: Store, service: ImageService) -> None:
    for name in ("z", "a", "m"):
        service.download(name, status(404), answer(raw_image()))
        with pytest.raises(FetchFailed):
            await store.request_image(ImageRequest(id=name))
    await store.request_image(ImageRequest(id="m"))
    listed = (await store.list_images(ImageRequest())).images
    assert [(i.id, i.status) for i in listed] == [("z", "error"), ("a", "error"), ("m", "complete")]


async def test_a_fetch_broken_off_by_the_end_of_the_store_goes_on_in_the_next_life(
    run: Run, service: ImageService, config: Config
) -> None:
    gate = Gate(raw_image())
    service.download("deb", gate, answer(raw_image()))
    async with run(image_service=service.address) as store, trio.open_nursery() as nursery:
        refused: list[Exception] = []

        async def ask() -> None:
            try:
                await store.request_image(DEB)
            except Stopping as error:
                refused.append(error)

        nursery.start_soon(ask)
        await gate.reached.wait()
        await store.destroy()
    assert len(refused) == 1
    async with run(image_service=service.address) as store:
        await store.request_image(DEB)
        assert (await image(store)).status == "complete"
    assert service.downloads == 2
    kinds = [e for e in events(config) if isinstance(e, OperationStarted) and e.method == "RequestImage"]
    assert len(kinds) == 1
    assert [e.attempt for e in events(config) if isinstance(e, OperationResumed)] == [1]
    nothing_stray(config, 2)


async def test_a_fetch_that_outlives_three_restarts_is_given_up(
    run: Run, service: ImageService, config: Config
) -> None:
    service.download("deb", Gate(raw_image()))
    for life in range(4):
        async with run(image_service=service.address) as store, trio.open_nursery() as nursery:
            if life == 0:
                nursery.start_soon(_ignore_stopping, store)
            while service.downloads <= life:
                await trio.lowlevel.checkpoint()
            await store.destroy()
    async with run(image_service=service.address) as store:
        failed = await image(store)
        assert (failed.status, failed.reason) == ("error", "given up after 3 restarts")
    nothing_stray(config, 0)


async def _ignore_stopping(store: Store) -> None:
    with pytest.raises(Stopping):
        await store.request_image(DEB)


async def test_a_foreign_dataset_of_the_images_name_is_not_taken_for_it(
    store: Store, service: ImageService
) -> None:
    service.download("deb", answer(raw_image()))
    driver = store._running().zpool.driver
    await driver.create([NewVolume(name="images/deb", size=MIB, tags=Tags())])
    await store._running().zpool.refresh()
    with pytest.raises(Exception, match="dataset already exists: images/deb"):
        await store.request_image(DEB)
    (volume,) = (await store.get_volume(VolumeRequest(id="images/deb"))).volumes
    assert volume.size == 1
