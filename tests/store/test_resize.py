"""A volume becomes larger where it stands: content, snapshots and journal; smaller it does not become."""

import os
from pathlib import Path

import pytest

from imagestore.config import Config
from imagestore.errors import InvalidArgument, NoSpace, NotFound, NotValid, NotVolume
from imagestore.events import reader
from imagestore.events.catalogue import DatasetResized
from imagestore.model import GuestRequest, SnapshotRequest, VolumeRequest
from imagestore.service import METHODS_BY_NAME, Caller
from imagestore.store import Store
from tests.store.conftest import MIB, Run

DISK = "guests/vm1/disk-0"


async def make(store: Store) -> None:
    await store.create_guest_disks(GuestRequest(guest={"id": "vm1", "disks": [{"size": 2}]}))


async def resize(store: Store, name: str, size: int) -> int:
    (volume,) = (await store.resize_volume(VolumeRequest(id=name, size=size))).volumes
    return volume.size


async def test_a_disk_grows_and_keeps_what_it_holds_also_in_the_next_life(
    run: Run, config: Config, tmp_path: Path
) -> None:
    file = tmp_path / "pool" / DISK
    async with run() as store:
        await make(store)
        os.truncate(file, 2 * MIB)
        with open(file, "r+b") as disk:
            disk.write(b"kept")
        await store.create_snapshot(SnapshotRequest(id="guests/vm1", dest="before"))
        assert await resize(store, DISK, 5) == 5
        assert file.stat().st_size == 5 * MIB
        assert file.read_bytes()[:4] == b"kept"
    (resized,) = [e.event for e in reader.read(config.journal) if isinstance(e.event, DatasetResized)]
    assert (resized.name, resized.size_bytes) == (DISK, 5 * MIB)
    assert reader.replay(config.journal).datasets[DISK].size_bytes == 5 * MIB
    async with run() as store:
        assert (await store.get_volume(VolumeRequest(id=DISK))).volumes[0].size == 5
        await store.rollback_snapshot(SnapshotRequest(id="guests/vm1@before"))
        assert (await store.get_volume(VolumeRequest(id=DISK))).volumes[0].size == 2


async def test_the_same_size_again_is_no_change_and_a_smaller_one_is_refused(
    run: Run, config: Config
) -> None:
    async with run() as store:
        await make(store)
        seq = reader.head(config.journal)
        assert await resize(store, DISK, 2) == 2
        with pytest.raises(InvalidArgument, match="volume is larger: guests/vm1/disk-0"):
            await resize(store, DISK, 1)
        assert reader.head(config.journal) == seq


async def test_the_same_key_again_is_given_the_same_answer(run: Run) -> None:
    async with run() as store:
        await make(store)
        request, caller = VolumeRequest(id=DISK, size=3), Caller(key="k")
        first = await store.call(METHODS_BY_NAME["ResizeVolume"], request, caller)
        await resize(store, DISK, 4)
        assert await store.call(METHODS_BY_NAME["ResizeVolume"], request, caller) == first


@pytest.mark.parametrize(
    ("name", "size", "refusal"),
    [
        ("nothing", 3, NotFound),
        ("guests/vm1", 3, NotVolume),
        ("images/i", 3, NotValid),
        (DISK, 0, InvalidArgument),
        ("", 3, InvalidArgument),
        (DISK, 1 << 40, NoSpace),
    ],
)
async def test_what_cannot_be_resized(run: Run, name: str, size: int, refusal: type[Exception]) -> None:
    async with run() as store:
        await make(store)
        with pytest.raises(refusal):
            await resize(store, name, size)


async def test_a_thick_volume_stays_thick(run: Run, tmp_path: Path) -> None:
    async with run() as store:
        await store.create_volume(VolumeRequest(id="t", size=1, thick=True))
        await resize(store, "t", 3)
        assert (tmp_path / "pool" / "t").stat().st_blocks * 512 >= 3 * MIB
