"""Bad input: a clear one-line error, nothing half-done, and the store goes on."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from imagestore.config import Config
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    HasClones,
    ImageStoreError,
    InUse,
    InvalidArgument,
    NewerSnapshots,
    NotFound,
    NotSnapshot,
    NotValid,
    NotVolume,
)
from imagestore.events import reader
from imagestore.model import GuestRequest, ImageRequest, SnapshotRequest, VolumeRequest
from imagestore.store import Store
from tests.imageservice import ImageService, answer
from tests.store.conftest import Run, raw_image

BAD_NAMES = [
    "..",
    "../x",
    "a/../b",
    "/etc/passwd",
    "a//b",
    "a/",
    "a\0b",
    "a b",
    "-r",
    "a/-rf",
    "x" * 300,
    "a#bookmark",
    "a%b",
    "a@b@c",
    "v@",
    ".imagestore",
    "images/.staging-x",
    "ä",
    "a\nb",
]

Call = Callable[[Store, str], Awaitable[object]]

BY_NAME: dict[str, Call] = {
    "CreateVolume": lambda s, name: s.create_volume(VolumeRequest(id=name, size=1)),
    "GetVolume": lambda s, name: s.get_volume(VolumeRequest(id=name)),
    "DeleteDataset": lambda s, name: s.delete_dataset(VolumeRequest(id=name)),
    "CreateSnapshot": lambda s, name: s.create_snapshot(SnapshotRequest(id=name, dest="s")),
    "GetSnapshot": lambda s, name: s.get_snapshot(SnapshotRequest(id=name)),
    "ListSnapshots": lambda s, name: s.list_snapshots(SnapshotRequest(id=name)),
    "DeleteSnapshot": lambda s, name: s.delete_snapshot(SnapshotRequest(id=name)),
    "RollbackSnapshot": lambda s, name: s.rollback_snapshot(SnapshotRequest(id=name)),
    "RequestImage": lambda s, name: s.request_image(ImageRequest(id=name)),
}


def check_error(error: ImageStoreError, kind: type[ImageStoreError], text: str | None = None) -> None:
    assert isinstance(error, kind)
    assert "\n" not in str(error)
    if text is not None:
        assert str(error) == text


async def test_no_name_leaves_the_pool_or_becomes_an_option(run: Run, config: Config) -> None:
    async with run() as store:
        before = reader.head(config.journal)
        for method, call in BY_NAME.items():
            for name in BAD_NAMES:
                with pytest.raises(ImageStoreError) as raised:
                    await call(store, name)
                check_error(raised.value, NotValid, "not a valid dataset")
                assert raised.value.detail, (method, name)
        assert reader.head(config.journal) == before


async def test_bad_guest_ids_are_invalid_arguments(run: Run) -> None:
    async with run() as store:
        for name in [*BAD_NAMES, "a/b", "a@b"]:
            request = GuestRequest(guest={"id": name, "disks": [{"size": 1}]})
            for method in (store.create_guest_disks, store.verify_disks, store.delete_guests_disks):
                with pytest.raises(ImageStoreError) as raised:
                    await method(request)
                check_error(raised.value, InvalidArgument, "invalid argument")
        assert (await store.list_volumes(VolumeRequest())).volumes == ()


async def test_another_pools_name_is_a_relative_name_that_is_not_there(run: Run) -> None:
    async with run() as store:
        with pytest.raises(NotFound):
            await store.get_volume(VolumeRequest(id="tank/guests"))


async def test_a_full_name_means_the_same_and_an_existing_relative_one_wins(run: Run) -> None:
    async with run() as store:
        await store.create_volume(VolumeRequest(id="pool/v", size=1))
        (volume,) = (await store.get_volume(VolumeRequest(id="v"))).volumes
        assert volume.id == "pool/v"
        assert (await store.get_volume(VolumeRequest(id="pool/v"))).volumes == (volume,)
        await store.create_volume(VolumeRequest(id="pool/pool/v", size=2))
        (inner,) = (await store.get_volume(VolumeRequest(id="pool/v"))).volumes
        assert (inner.id, inner.size) == ("pool/pool/v", 2)


async def refused(awaitable: Awaitable[object]) -> ImageStoreError:
    with pytest.raises(ImageStoreError) as raised:
        await awaitable
    return raised.value


async def test_every_refusal_of_the_contract_in_its_order(run: Run, service: ImageService) -> None:
    service.download("deb", answer(raw_image()))
    async with run(image_service=service.address) as store:
        snap, vol, img, guest = SnapshotRequest, VolumeRequest, ImageRequest, GuestRequest
        await store.create_volume(vol(id="d/v", size=1))
        await store.create_snapshot(snap(id="d/v", dest="s"))
        await store.request_image(img(id="deb"))
        expected: list[tuple[Awaitable[object], type[ImageStoreError], str]] = [
            (store.get_image(img(id="none")), NotFound, "not found"),
            (store.request_image(img()), InvalidArgument, "need id"),
            (store.delete_image(img(id="none")), NotFound, "not found"),
            (store.clone_image(img(id="none")), InvalidArgument, "need dest"),
            (store.clone_image(img(id="none", dest="c")), NotFound, "not found"),
            (store.create_volume(vol()), InvalidArgument, "need a valid size"),
            (store.create_volume(vol(size=1 << 50, id="x")), InvalidArgument, "need a valid size"),
            (store.create_volume(vol(size=1)), InvalidArgument, "need an id"),
            (store.create_volume(vol(id="d/v", size=2)), AlreadyExists, "dataset already exists: d/v"),
            (store.get_volume(vol()), InvalidArgument, "need an id"),
            (store.get_volume(vol(id="none")), NotFound, "not found"),
            (store.get_volume(vol(id="d")), NotVolume, "not a volume"),
            (store.get_volume(vol(id="d/v@s")), NotVolume, "not a volume"),
            (store.delete_dataset(vol()), InvalidArgument, "need an id"),
            (store.delete_dataset(vol(id="none")), NotFound, "not found"),
            (store.create_snapshot(snap()), InvalidArgument, "need an id"),
            (store.create_snapshot(snap(id="none")), NotFound, "not found"),
            (
                store.create_snapshot(snap(id="d/v@s")),
                InvalidArgument,
                "cannot create a snapshot of a snapshot",
            ),
            (store.create_snapshot(snap(id="d/v")), InvalidArgument, "need a dest"),
            (
                store.create_snapshot(snap(id="d/v", dest="a/b")),
                InvalidArgument,
                "invalid snapshot dest",
            ),
            (
                store.create_snapshot(snap(id="d/v", dest="s")),
                AlreadyExists,
                "dataset already exists: d/v@s",
            ),
            (store.get_snapshot(snap()), InvalidArgument, "need an id"),
            (store.get_snapshot(snap(id="none")), NotFound, "not found"),
            (store.get_snapshot(snap(id="d/v")), NotSnapshot, "not a snapshot"),
            (store.list_snapshots(snap(id="none")), NotFound, "not found"),
            (store.delete_snapshot(snap(id="d/v")), NotSnapshot, "not a snapshot"),
            (store.rollback_snapshot(snap(id="d/v")), NotSnapshot, "not a snapshot"),
            (store.verify_disks(guest()), InvalidArgument, "invalid argument"),
            (store.verify_disks(guest(guest={})), InvalidArgument, "invalid argument"),
            (store.verify_disks(guest(guest={"id": "g"})), InvalidArgument, "invalid argument"),
            (
                store.verify_disks(guest(guest={"id": "g", "disks": [{}]})),
                InvalidArgument,
                "invalid argument",
            ),
            (
                store.verify_disks(guest(guest={"id": "g", "disks": [{"image": "none"}]})),
                NotFound,
                "not found",
            ),
            (
                store.verify_disks(guest(guest={"id": "g", "disks": [{"size": 1 << 42}]})),
                ImageStoreError,
                "no space left on device",
            ),
            (store.delete_guests_disks(guest()), InvalidArgument, "invalid argument"),
        ]
        for call, kind, text in expected:
            check_error(await refused(call), kind, text)


async def test_a_refused_guest_leaves_nothing(run: Run) -> None:
    async with run() as store:
        disks = [{"size": 1}] * 99 + [{"image": "none"}]
        error = await refused(store.create_guest_disks(GuestRequest(guest={"id": "g", "disks": disks})))
        check_error(error, NotFound, "not found")
        with pytest.raises(NotFound):
            await store.list_snapshots(SnapshotRequest(id="guests/g"))


async def test_a_guest_with_a_hundred_disks(run: Run) -> None:
    async with run() as store:
        request = GuestRequest(guest={"id": "g", "disks": [{"size": 1}] * 100})
        guest = (await store.create_guest_disks(request)).guest
        assert [disk["volume"] for disk in guest["disks"]] == [f"pool/guests/g/disk-{n}" for n in range(100)]
        taken = await store.create_snapshot(SnapshotRequest(id="guests/g", dest="s"))
        assert len(taken.snapshots) == 101
        await store.delete_guests_disks(GuestRequest(guest={"id": "g"}))
        await store.delete_guests_disks(GuestRequest(guest={"id": "g"}))
        assert (await store.list_volumes(VolumeRequest())).volumes == ()


async def test_what_protects_images_and_snapshots(run: Run, service: ImageService) -> None:
    service.download("deb", answer(raw_image()))
    async with run(image_service=service.address) as store:
        await store.request_image(ImageRequest(id="deb"))
        await store.clone_image(ImageRequest(id="deb", dest="c"))
        error = await refused(store.delete_image(ImageRequest(id="deb")))
        check_error(error, HasClones, "image has dependent clones: c")
        for name in ("images", "guests", "images/deb", "images/deb@image"):
            check_error(await refused(store.delete_dataset(VolumeRequest(id=name))), Blocked)
        await store.create_snapshot(SnapshotRequest(id="c", dest="one"))
        await store.create_snapshot(SnapshotRequest(id="c", dest="two"))
        error = await refused(store.rollback_snapshot(SnapshotRequest(id="c@one")))
        check_error(error, NewerSnapshots, "more recent snapshots exist: c@two")
        await store.rollback_snapshot(SnapshotRequest(id="c@one", destroyMoreRecent=True))
        await store.delete_dataset(VolumeRequest(id="c"))
        await store.delete_image(ImageRequest(id="deb"))
        assert (await store.list_images(ImageRequest())).images == ()


async def test_an_open_disk_is_not_pulled_away_unless_forced(run: Run) -> None:
    async with run() as store:
        (volume,) = (await store.create_volume(VolumeRequest(id="v", size=1))).volumes
        with open(volume.device, "r+b") as guest:
            guest.write(b"x" * 512)
            guest.flush()
            error = await refused(store.delete_dataset(VolumeRequest(id="v")))
            check_error(error, InUse)
            assert str(error).startswith("dataset is in use: v (pid ")
            await store.delete_dataset(VolumeRequest(id="v", force=True))
        assert (await store.list_volumes(VolumeRequest())).volumes == ()


async def test_a_full_mailbox_is_refused_at_once(run: Run) -> None:
    async with run(mailbox_size=1) as store:
        results: list[str] = []

        async def ask() -> None:
            try:
                await store.create_guest_disks(GuestRequest(guest={"id": "g", "disks": [{"size": 1}]}))
                results.append("done")
            except ImageStoreError as error:
                results.append(str(error))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert set(results) == {"done", "resource temporarily unavailable"}


async def test_a_whole_guest_goes_back_past_newer_snapshots_of_itself(run: Run) -> None:
    async with run() as store:
        await store.create_guest_disks(GuestRequest(guest={"id": "g", "disks": [{"size": 1}, {"size": 1}]}))
        for name in ("a", "b"):
            await store.create_snapshot(SnapshotRequest(id="guests/g", dest=name))
        error = await refused(store.rollback_snapshot(SnapshotRequest(id="guests/g@a")))
        check_error(error, NewerSnapshots)
        await store.rollback_snapshot(SnapshotRequest(id="guests/g@a", destroyMoreRecent=True))
        left = (await store.list_snapshots(SnapshotRequest(id="guests/g"))).snapshots
        assert [s.id for s in left] == ["pool/guests/g@a", "pool/guests/g/disk-0@a", "pool/guests/g/disk-1@a"]
