"""Disks that are full, read-only or gone, under the pool and under the journal. Needs root."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from imagestore.config import Config
from imagestore.errors import FetchFailed, JournalError, NoSpace, PoolError
from imagestore.events import reader
from imagestore.model import GuestRequest, ImageRequest, SnapshotRequest, VolumeRequest
from imagestore.store import Store, create
from tests.imageservice import ImageService, answer
from tests.pools.directories import loop_mount
from tests.store.conftest import MIB, raw_image, running

pytestmark = pytest.mark.system


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system; xfs is not made smaller than 300 MiB."""
    size = 64 * MIB if request.param == "ext4" else 320 * MIB
    with loop_mount(tmp_path, request.param, size) as mount:
        yield mount


def fill(disk: Path) -> Path:
    """Take all the space that there is."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        try:
            for size in (MIB, 4096, 512):
                while True:
                    try:
                        os.write(file.fileno(), b"x" * size)
                    except OSError:
                        break
        finally:
            os.fsync(file.fileno())
    return ballast


async def volumes(store: Store) -> list[str]:
    return [volume.id for volume in (await store.list_volumes(VolumeRequest())).volumes]


async def test_a_full_disk_under_the_pool_refuses_and_leaves_nothing(
    disk: Path, config: Config, service: ImageService
) -> None:
    service.download("deb", answer(raw_image()))
    on_disk = replace(config, pool=f"dir:{disk}/pool", image_service=service.address)
    async with running(on_disk) as store:
        await store.create_volume(VolumeRequest(id="before", size=1))
        ballast = fill(disk)
        with pytest.raises(NoSpace):
            await store.create_volume(VolumeRequest(id="more", size=1))
        with pytest.raises(NoSpace):
            await store.create_guest_disks(GuestRequest(guest={"id": "g", "disks": [{"size": 1}]}))
        with pytest.raises((NoSpace, FetchFailed)):
            await store.request_image(ImageRequest(id="deb"))
        assert await volumes(store) == ["pool/before"]
        await store.delete_dataset(VolumeRequest(id="before"))
        ballast.unlink()
        (image,) = (await store.request_image(ImageRequest(id="deb"))).images
        assert image.status == "complete"


async def snapshots_until_refused(store: Store) -> int:
    """How many snapshots were taken before the journal had no room for another."""
    for number in range(100_000):
        try:
            await store.create_snapshot(SnapshotRequest(id="v0", dest=f"s{number}"))
        except JournalError:
            return number
    raise AssertionError("the disk is full and the journal grows")


async def test_a_full_disk_under_the_journal_refuses_changes_and_still_deletes(
    disk: Path, config: Config
) -> None:
    on_disk = replace(config, journal=f"{disk}/journal", journal_segment_bytes=1 << 16)
    async with running(on_disk) as store:
        names = [f"v{number}" for number in range(20)]
        for name in names:
            await store.create_volume(VolumeRequest(id=name, size=1))
        ballast = fill(disk)
        made = await snapshots_until_refused(store)
        for name in names[1:]:
            await store.delete_dataset(VolumeRequest(id=name))
        assert await volumes(store) == ["pool/v0"]
        ballast.unlink()
    async with running(on_disk) as store:
        assert await volumes(store) == ["pool/v0"]
        assert len((await store.list_snapshots(SnapshotRequest(id="v0"))).snapshots) == made
        await store.create_volume(VolumeRequest(id="after", size=1))
    assert reader.verify(f"{disk}/journal").whole


@pytest.mark.parametrize("what", ["pool", "journal"])
async def test_no_right_to_write_is_said_in_one_line(disk: Path, config: Config, what: str) -> None:
    place = f"dir:{disk}/pool" if what == "pool" else f"{disk}/journal"
    on_disk = replace(config, **{what: place})
    async with running(on_disk) as store:
        await store.create_volume(VolumeRequest(id="v", size=1))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        with pytest.raises((PoolError, JournalError)) as raised:
            await create(on_disk).run()
        assert "\n" not in str(raised.value)
        assert "Read-only file system" in f"{raised.value} {raised.value.detail}"
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    async with running(on_disk) as store:
        assert await volumes(store) == ["pool/v"]


async def test_one_who_has_no_rights_is_told_where() -> None:
    """As another user in a child process: root may write anywhere."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        settings = f"pool='dir:{directory}/pool', journal='{directory}/journal'"
        script = (
            "import os, trio; from imagestore.config import Config; from imagestore.store import create;"
            "from imagestore.errors import ImageStoreError;"
            "os.setgid(65534); os.setuid(65534)\n"
            f"try: trio.run(create(Config({settings})).run)\n"
            "except ImageStoreError as error: print(error)"
        )
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert "ermission denied" in said.stdout
        assert directory in said.stdout
        assert said.stdout.count("\n") == 1
        assert said.stderr == ""
        assert os.listdir(directory) == []
