"""An image's life in a running store: named, published, hidden, revived, deleted by the store, collected."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec import UNSET
from msgspec.structs import replace

from imagestore.config import Config
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    Cancelled,
    HasClones,
    InvalidArgument,
    NotFound,
    Stopping,
)
from imagestore.events import reader
from imagestore.events.catalogue import (
    Envelope,
    ImageDeleted,
    ImageRetired,
    ImageRevived,
    OperationFinished,
    OperationStarted,
)
from imagestore.events.state import OperationRecord
from imagestore.model import (
    AliasRequest,
    CollectRequest,
    GuestRequest,
    Image,
    ImageRequest,
    OperationRequest,
    PublishRequest,
    SnapshotRequest,
    UploadRequest,
    VolumeRequest,
)
from imagestore.pools.directory.driver import open_directory_pool
from imagestore.service import METHODS_BY_NAME, Caller
from imagestore.store import Store, Surroundings
from tests.imageservice import ImageService, answer
from tests.store.conftest import MIB, Run, raw_image, running

DEB = ImageRequest(id="deb")
GUEST = {"id": "g", "disks": [{"image": "deb"}]}


@pytest.fixture
def served(config: Config, service: ImageService, run: Run) -> Run:
    """Runs a store that has fetched nothing yet; the service has ``deb`` and ``new``."""
    service.download("deb", answer(raw_image()))
    service.download("new", answer(raw_image(MIB)))
    return lambda **settings: run(image_service=service.address, **settings)


async def described(store: Store, image: str) -> Image:
    (found,) = (await store.describe_images(ImageRequest(id=image))).images
    return found


async def listed(store: Store) -> list[str]:
    return [image.id for image in (await store.list_images(ImageRequest())).images]


async def make_guest(store: Store, image: str = "deb") -> str:
    """Returns the path of its disk."""
    guest = {"id": "g", "disks": [{"image": image}]}
    made = (await store.create_guest_disks(GuestRequest(guest=guest))).guest
    return str(made["disks"][0]["source"])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what the store does by itself."""
    while not await condition():
        await trio.lowlevel.checkpoint()


def events(config: Config) -> Sequence[Envelope]:
    return list(reader.read(config.journal))


# --- aliases ---------------------------------------------------------------------------


async def test_an_alias_is_understood_wherever_an_image_id_is(served: Run, service: ImageService) -> None:
    async with served() as store:
        await store.request_image(DEB)
        named = await store.set_image_alias(AliasRequest(alias="stable", id="deb"))
        assert named.images[0].aliases == ("stable",)
        stable = ImageRequest(id="stable", dest="c")
        assert (await store.get_image(stable)).images[0].id == "deb"
        assert (await store.request_image(stable)).images[0].id == "deb"
        assert (await store.describe_images(stable)).images[0].id == "deb"
        assert (await store.clone_image(stable)).volumes[0].id == "pool/c"
        order = GuestRequest(guest={"id": "g", "disks": [{"image": "stable"}]})
        verified = (await store.verify_disks(order)).guest
        assert verified["disks"][0] == {"image": "stable", "size": 2}
        made = (await store.create_guest_disks(order)).guest
        assert made["disks"][0]["image"] == "stable"
        assert (await described(store, "deb")).clones == ("pool/c", "pool/guests/g/disk-0")
        assert service.downloads == 1


async def test_an_alias_is_moved_and_outlives_the_store(served: Run) -> None:
    async with served() as store:
        for image in ("deb", "new"):
            await store.request_image(ImageRequest(id=image))
            await store.set_image_alias(AliasRequest(alias="stable", id=image))
        assert (await described(store, "deb")).aliases == ()
    async with served() as store:
        assert (await store.get_image(ImageRequest(id="stable"))).images[0].id == "new"
        removed = await store.remove_image_alias(AliasRequest(alias="stable"))
        assert removed.images[0].id == "new"
        with pytest.raises(NotFound):
            await store.get_image(ImageRequest(id="stable"))


async def test_no_alias_and_image_have_the_same_name(served: Run) -> None:
    async with served() as store:
        await store.request_image(DEB)
        with pytest.raises(AlreadyExists, match="image already exists: deb"):
            await store.set_image_alias(AliasRequest(alias="deb", id="deb"))
        with pytest.raises(NotFound):
            await store.set_image_alias(AliasRequest(alias="a", id="new"))
        for wrong in (AliasRequest(id="deb"), AliasRequest(alias="a"), AliasRequest(alias="a/b", id="deb")):
            with pytest.raises(InvalidArgument):
                await store.set_image_alias(wrong)


async def test_an_alias_is_no_id_for_an_image_from_elsewhere(served: Run, service: ImageService) -> None:
    async with served() as store:
        await store.request_image(DEB)
        await store.set_image_alias(AliasRequest(alias="stable", id="deb"))
        elsewhere = f"http://{service.address}/images/new/download"
        with pytest.raises(AlreadyExists, match="alias already exists: stable"):
            await store.request_image(ImageRequest(id="stable", source=elsewhere))
        with pytest.raises(AlreadyExists, match="alias already exists: stable"):
            async with store.upload_image(UploadRequest(id="stable")):
                pytest.fail("it may not begin")
        assert await listed(store) == ["deb"]


async def test_an_image_that_an_alias_names_is_not_deleted(served: Run) -> None:
    async with served() as store:
        await store.request_image(DEB)
        await store.set_image_alias(AliasRequest(alias="stable", id="deb"))
        for text in ("deb", "stable"):
            with pytest.raises(Blocked, match="image has aliases: stable"):
                await store.delete_image(ImageRequest(id=text))
        await store.remove_image_alias(AliasRequest(alias="stable"))
        await store.delete_image(DEB)
        assert await listed(store) == []


async def test_with_a_key_the_first_answer_is_given_again(served: Run) -> None:
    async with served() as store:
        snapshot, _ = await snapshotted(store)
        asked = [
            ("SetImageAlias", AliasRequest(alias="stable", id="deb")),
            ("RemoveImageAlias", AliasRequest(alias="stable")),
            ("PublishImage", PublishRequest(id="gold", snapshot=snapshot)),
            ("DeleteImage", ImageRequest(id="deb", whenUnused=True)),
        ]
        first = {}
        for method, request in asked:
            caller = Caller(key=method)
            first[method] = await store.call(METHODS_BY_NAME[method], request, caller)
            assert await store.call(METHODS_BY_NAME[method], request, caller) == first[method]
    async with served() as store:
        for method, request in asked[1:]:
            assert await store.call(METHODS_BY_NAME[method], request, Caller(key=method)) == first[method]
        assert await listed(store) == ["gold"]


# --- what is known of an image -------------------------------------------------------------


async def test_an_image_is_described_with_all_that_is_known_of_it(served: Run) -> None:
    async with served() as store:
        await store.request_image(DEB)
        fresh = await described(store, "deb")
        assert (fresh.last_used, fresh.clones, fresh.aliases, fresh.retired) == (UNSET, (), (), False)
        assert fresh.sha256 == hashlib.sha256(raw_image()).hexdigest()
        assert isinstance(fresh.completed, str)
        assert isinstance(fresh.requested, str)
        assert fresh.completed >= fresh.requested
        assert isinstance(fresh.size_bytes, int)
        assert 0 < fresh.size_bytes <= 2 * MIB
        await make_guest(store)
        used = await described(store, "deb")
        assert used.clones == ("pool/guests/g/disk-0",)
        assert isinstance(used.last_used, str)
        with pytest.raises(NotFound):
            await described(store, "unheard")


async def test_an_old_clients_answers_are_what_they_were(served: Run) -> None:
    async with served() as store:
        await store.request_image(DEB)
        (image,) = (await store.get_image(DEB)).images
        assert (image.aliases, image.clones, image.retired, image.size_bytes) == (UNSET,) * 4


# --- deleted when unused -------------------------------------------------------------------


async def test_an_image_is_hidden_until_its_last_clone_goes_and_then_deleted(
    served: Run, config: Config
) -> None:
    async with served() as store:
        await store.request_image(DEB)
        await make_guest(store)
        with pytest.raises(HasClones, match="image has dependent clones: guests/g/disk-0"):
            await store.delete_image(DEB)
        gone = await store.delete_image(ImageRequest(id="deb", whenUnused=True))
        assert gone.images[0].id == "deb"
        assert await listed(store) == []
        assert (await described(store, "deb")).retired is True
        with pytest.raises(NotFound):
            await store.get_image(DEB)
        with pytest.raises(NotFound):
            await store.clone_image(ImageRequest(id="deb", dest="c"))
        with pytest.raises(NotFound):
            await store.verify_disks(GuestRequest(guest={"id": "h", "disks": [{"image": "deb"}]}))
        assert (await store.verify_disks(GuestRequest(guest=GUEST))).guest["disks"][0]["size"] == 2
        await store.delete_guests_disks(GuestRequest(guest={"id": "g"}))
        await until(lambda: is_gone(store, "deb"))
        assert [v.id for v in (await store.list_volumes(VolumeRequest())).volumes] == []
    told = events(config)
    (deletion,) = [e for e in told if isinstance(e.event, ImageDeleted)]
    (begun,) = [
        e for e in told if isinstance(e.event, OperationStarted) and e.operation == deletion.operation
    ]
    (guests,) = [
        e for e in told if isinstance(e.event, OperationStarted) and e.event.method == "DeleteGuestsDisks"
    ]
    assert begun.cause == guests.operation
    assert begun.principal == "imagestore"


async def is_gone(store: Store, image: str) -> bool:
    return image not in [i.id for i in (await store.describe_images(ImageRequest())).images]


async def test_an_image_without_clones_goes_at_once_also_when_unused(served: Run) -> None:
    async with served() as store:
        await store.request_image(DEB)
        await store.delete_image(ImageRequest(id="deb", whenUnused=True))
        assert await is_gone(store, "deb")


async def test_a_hidden_image_is_revived_by_a_request_and_not_fetched_again(
    served: Run, service: ImageService, config: Config
) -> None:
    async with served() as store:
        await store.request_image(DEB)
        await make_guest(store)
        await store.delete_image(ImageRequest(id="deb", whenUnused=True))
        (image,) = (await store.request_image(DEB)).images
        assert image.status == "complete"
        assert await listed(store) == ["deb"]
        await store.delete_guests_disks(GuestRequest(guest={"id": "g"}))
        assert (await described(store, "deb")).retired is False
    assert service.downloads == 1
    kinds = [type(e.event) for e in events(config) if isinstance(e.event, ImageRetired | ImageRevived)]
    assert kinds == [ImageRetired, ImageRevived]


async def test_what_became_due_while_no_store_ran_is_deleted_before_the_next_is_ready(
    served: Run, config: Config, tmp_path: Path
) -> None:
    """The last clone goes by another hand, between two lives."""
    async with served() as store:
        await store.request_image(DEB)
        await make_guest(store)
        await store.delete_image(ImageRequest(id="deb", whenUnused=True))
    await destroy_by_hand(config, "guests/g/disk-0")
    async with served() as store:
        assert await is_gone(store, "deb")


async def destroy_by_hand(config: Config, name: str) -> None:
    pool = await open_directory_pool(config.pool_address[1], create=False)
    try:
        await pool.destroy([(await pool.get(name)).target])
    finally:
        await pool.close()


async def test_a_hidden_image_stays_as_long_as_one_clone_is_left(served: Run) -> None:
    async with served() as store:
        await store.request_image(DEB)
        await make_guest(store)
        await store.clone_image(ImageRequest(id="deb", dest="c"))
        await store.delete_image(ImageRequest(id="deb", whenUnused=True))
        await store.delete_guests_disks(GuestRequest(guest={"id": "g"}))
        assert (await described(store, "deb")).clones == ("pool/c",)
    async with served() as store:
        assert (await described(store, "deb")).clones == ("pool/c",)
        await store.delete_dataset(VolumeRequest(id="c"))
        await until(lambda: is_gone(store, "deb"))


# --- publishing --------------------------------------------------------------------------------


async def snapshotted(store: Store) -> tuple[str, bytes]:
    """A guest's disk with something written, as ``@gold``. Returns the snapshot and its content."""
    await store.request_image(DEB)
    path = await make_guest(store)
    with open(path, "r+b") as disk:
        disk.seek(MIB)
        disk.write(b"golden" * 1000)
    await store.create_snapshot(SnapshotRequest(id="guests/g/disk-0", dest="gold"))
    return "guests/g/disk-0@gold", Path(path).read_bytes()


async def test_a_snapshot_is_published_as_an_image_that_leans_on_nothing(served: Run, config: Config) -> None:
    async with served() as store:
        snapshot, content = await snapshotted(store)
        (image,) = (
            await store.publish_image(PublishRequest(id="gold", snapshot=snapshot, type="kvm"))
        ).images
        assert (image.status, image.type, image.size) == ("complete", "kvm", 2)
        assert image.source == f"pool/{snapshot}"
        assert image.snapshot == "pool/images/gold@gold"
        again = await store.publish_image(PublishRequest(id="gold", snapshot=snapshot))
        assert again.images[0].completed == image.completed
        await store.delete_guests_disks(GuestRequest(guest={"id": "g"}))
        await store.delete_image(DEB)
        device = await clone_of(store, "gold")
        assert Path(device).read_bytes() == content
    async with served() as store:
        assert await listed(store) == ["gold"]
    methods = [e.event.method for e in events(config) if isinstance(e.event, OperationStarted)]
    assert methods.count("PublishImage") == 1


async def clone_of(store: Store, image: str) -> str:
    (volume,) = (await store.clone_image(ImageRequest(id=image, dest="copy"))).volumes
    return volume.device


async def test_a_publication_that_fails_leaves_nothing(served: Run, config: Config) -> None:
    async with served() as store:
        snapshot, _ = await snapshotted(store)
        (Path(config.pool_address[1]) / "images" / "gold").write_text("in the way")
        before = [v.id for v in (await store.list_volumes(VolumeRequest())).volumes]
        with pytest.raises(Exception, match="in the way"):
            await store.publish_image(PublishRequest(id="gold", snapshot=snapshot))
        assert [v.id for v in (await store.list_volumes(VolumeRequest())).volumes] == before
        assert await listed(store) == ["deb"]
    last = [e.event for e in events(config) if isinstance(e.event, OperationFinished)][-1]
    assert last.outcome == "failed"
    async with served() as store:
        (Path(config.pool_address[1]) / "images" / "gold").unlink()
        await store.publish_image(PublishRequest(id="gold", snapshot=snapshot))
        assert await listed(store) == ["deb", "gold"]


async def test_a_store_that_stops_breaks_a_publication_off_and_leaves_nothing(
    served: Run, config: Config
) -> None:
    async with served() as store:
        snapshot, _ = await snapshotted(store)
        async with trio.open_nursery() as nursery:

            async def publish() -> None:
                with pytest.raises(Stopping):
                    await store.publish_image(PublishRequest(id="gold", snapshot=snapshot))

            nursery.start_soon(publish)
            while not any(o.method == "PublishImage" for o in operations_of(store)):
                await trio.lowlevel.checkpoint()
            await store.destroy()
    last = [e.event for e in events(config) if isinstance(e.event, OperationFinished)][-1]
    assert (last.outcome, last.error_type) == ("failed", "Stopping")
    async with served() as store:
        assert await listed(store) == ["deb"]
        assert len((await store.list_volumes(VolumeRequest())).volumes) == 2


async def test_a_publication_can_be_cancelled_while_it_copies(served: Run, config: Config) -> None:
    async with served() as store:
        snapshot, _ = await snapshotted(store)
        async with trio.open_nursery() as nursery:

            async def publish() -> None:
                with pytest.raises(Cancelled):
                    await store.publish_image(PublishRequest(id="gold", snapshot=snapshot))

            nursery.start_soon(publish)
            zpool = store._running().zpool
            while not any(zpool.copying(operation.id) for operation in operations_of(store)):
                await trio.lowlevel.checkpoint()
            request = OperationRequest(id=operations_of(store)[0].id)
            (told,) = (await store.get_operation(request)).operations
            assert (told.method, told.phase, told.cancellable) == ("PublishImage", "copying", True)
            (ended,) = (await store.cancel_operation(request)).operations
            assert ended.status == "cancelled"
        assert await listed(store) == ["deb"]
        await store.publish_image(PublishRequest(id="gold", snapshot=snapshot))
    outcomes = [e.event.outcome for e in events(config) if isinstance(e.event, OperationFinished)]
    assert outcomes[-2:] == ["cancelled", "succeeded"]


def operations_of(store: Store) -> Sequence[OperationRecord]:
    return list(store._running().operations.state.operations.values())


async def test_a_request_for_an_image_that_is_being_published_waits_for_it(
    served: Run, service: ImageService
) -> None:
    async with served() as store:
        snapshot, _ = await snapshotted(store)
        answers: list[Image] = []

        async def ask() -> None:
            answers.extend((await store.request_image(ImageRequest(id="gold"))).images)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.publish_image, PublishRequest(id="gold", snapshot=snapshot))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask)
        assert [image.snapshot for image in answers] == ["pool/images/gold@gold"]
        assert service.downloads == 1


async def test_what_cannot_be_published_is_refused_before_anything_happens(served: Run) -> None:
    async with served() as store:
        snapshot, _ = await snapshotted(store)
        await store.set_image_alias(AliasRequest(alias="stable", id="deb"))
        for wrong, error in (
            (PublishRequest(snapshot=snapshot), InvalidArgument),
            (PublishRequest(id="gold"), InvalidArgument),
            (PublishRequest(id="a/b", snapshot=snapshot), InvalidArgument),
            (PublishRequest(id="gold", snapshot="guests/g/disk-0"), InvalidArgument),
            (PublishRequest(id="gold", snapshot="guests/g/disk-0@other"), NotFound),
            (PublishRequest(id="deb", snapshot=snapshot), AlreadyExists),
            (PublishRequest(id="stable", snapshot=snapshot), AlreadyExists),
        ):
            with pytest.raises(error):
                await store.publish_image(wrong)


# --- collecting --------------------------------------------------------------------------------

DAY_SECONDS = 86_400


async def test_images_unused_for_long_are_collected_and_others_stay(
    config: Config, service: ImageService
) -> None:
    """On a clock that is set forward."""
    now_ns = 1_800_000_000_000_000_000
    surroundings = Surroundings(now_ns=lambda: now_ns)
    config = replace(config, image_service=service.address)
    for image in ("cloned", "named", "old", "used"):
        service.download(image, answer(raw_image(MIB)))
    service.download("young", answer(raw_image(MIB)))
    async with running(config, surroundings=surroundings) as store:
        for image in ("cloned", "named", "old", "used"):
            await store.request_image(ImageRequest(id=image))
        await store.clone_image(ImageRequest(id="cloned", dest="c"))
        await store.clone_image(ImageRequest(id="used", dest="u"))
        await store.set_image_alias(AliasRequest(alias="stable", id="named"))
        now_ns += 40 * DAY_SECONDS * 1_000_000_000
        await store.request_image(ImageRequest(id="young"))
        await store.delete_dataset(VolumeRequest(id="u"))
        wanted = CollectRequest(unusedSeconds=30 * DAY_SECONDS, dryRun=True)
        told = (await store.collect_images(wanted)).images
        assert [(image.id, image.size_bytes) for image in told] == [
            ("old", (await described(store, "old")).size_bytes)
        ]
        assert len(await listed(store)) == 5
        gone = (await store.collect_images(CollectRequest(unusedSeconds=30 * DAY_SECONDS))).images
        assert [image.id for image in gone] == ["old"]
        assert await listed(store) == ["cloned", "named", "used", "young"]
        now_ns += 1_000_000_000
        gone = (await store.collect_images(CollectRequest(unusedSeconds=0))).images
        assert [image.id for image in gone] == ["used", "young"]
