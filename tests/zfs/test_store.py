"""A whole store on real OpenZFS, seen through RPC, ``zfs`` and the devices of its volumes."""

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagestore.cli.imageservice import ImageService
from imagestore.client import Client
from imagestore.errors import HasClones, ImageStoreError, InUse
from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.writer import write_stream
from tests.pools.harness import MIB, opened_for_writing
from tests.zfs.pools import command, device, pool_on_file
from tests.zfs.storeprocess import ZfsStore

pytestmark = pytest.mark.zfs

IN_THE_END_SECONDS = 60.0
"""How long something may take that has to happen."""

VISIBLE_SECONDS = 5.0
"""A foreign change is seen within a second on real hardware, and within that in here."""


@pytest.fixture(scope="module")
def disk() -> bytes:
    """A disk with data at both ends and a hole between."""
    content = bytearray(8 * MIB)
    content[:MIB] = random.Random(5).randbytes(MIB)
    content[-MIB:] = content[:MIB]
    return bytes(content)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, disk: bytes) -> Iterator[ImageService]:
    directory = tmp_path_factory.mktemp("images")
    plain = directory / "plain.raw"
    plain.write_bytes(disk)
    (directory / "base.raw").write_bytes(disk)
    info = SnapshotInfo(name="far/away@v1", guid=0xA11CE, volsize=len(disk), volblocksize=8192)
    with plain.open("rb") as source:
        stream = b"".join(bytes(piece) for piece in write_stream(source.fileno(), info))
    (directory / "stream").write_bytes(gzip.compress(stream, compresslevel=1))
    with ImageService(str(directory)) as running:
        yield running


@pytest.fixture(scope="module")
def store(service: ImageService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZfsStore]:
    """One for all tests, each with datasets of its own: starting it takes ten seconds in the machine."""
    directory = tmp_path_factory.mktemp("store")
    with pool_on_file("mistify", directory) as name:
        store = ZfsStore(name, directory, service.address)
        yield store
        store.end(signal.SIGKILL)


def sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def datasets(pool: str) -> set[str]:
    return set(command("zfs", "list", "-H", "-t", "all", "-o", "name", "-r", pool).split())


def make_guest(client: Client, guest: str, image: str) -> list[str]:
    """A guest with a clone of the image and a blank disk; where they can be opened."""
    made = client.create_guest_disks({"id": guest, "disks": [{"image": image}, {"size": 16}]})
    return [str(disk["source"]) for disk in made["disks"]]


def test_the_whole_life_of_a_guest(store: ZfsStore, disk: bytes) -> None:
    client = store.client()
    image = client.request_image("stream", type="kvm")
    assert (image.status, image.size) == ("complete", 8)
    assert image.snapshot == "mistify/images/stream@v1"
    assert client.request_image("plain.raw").status == "complete"
    for image_id in ("stream", "plain.raw"):
        assert sha256(client.get_volume(f"images/{image_id}").device) == hashlib.sha256(disk).hexdigest()

    disks = make_guest(client, "vm1", "stream")
    assert disks == [f"/dev/zvol/mistify/guests/vm1/disk-{number}" for number in range(2)]
    assert sha256(disks[0]) == hashlib.sha256(disk).hexdigest()
    taken = {snapshot.id for snapshot in client.create_snapshot("guests/vm1", "before", recursive=True)}
    assert {f"mistify/guests/vm1/disk-{number}@before" for number in range(2)} <= taken

    for path in disks:
        with open(path, "r+b") as file:
            file.seek(2 * MIB)
            file.write(b"a guest wrote this")
    assert sha256(disks[0]) != hashlib.sha256(disk).hexdigest()
    with opened_for_writing(disks[0]) as writer, pytest.raises(InUse, match=f"pid {writer.pid}"):
        client.rollback_snapshot("guests/vm1@before")
    client.rollback_snapshot("guests/vm1@before")
    assert sha256(disks[0]) == hashlib.sha256(disk).hexdigest()
    with open(disks[1], "rb") as file:
        file.seek(2 * MIB)
        assert not any(file.read(18))

    with client.download("guests/vm1/disk-0@before") as pieces:
        stream = b"".join(map(bytes, pieces))
    command("zfs", "receive", "-u", "mistify/elsewhere", data=stream)
    assert sha256(device("mistify/elsewhere")) == hashlib.sha256(disk).hexdigest()

    client.delete_guests_disks({"id": "vm1"})
    client.delete_image("stream")
    left = datasets("mistify")
    assert left >= {"mistify/elsewhere", "mistify/images/plain.raw"}
    assert not any("vm1" in name or "images/stream" in name for name in left)


def test_a_snapshot_is_published_and_served_as_an_image_that_leans_on_nothing(store: ZfsStore) -> None:
    client = store.client()
    (path, _) = make_guest(client, "vm2", client.request_image("base.raw").id)
    with open(path, "r+b") as file:
        file.seek(3 * MIB)
        file.write(random.Random(11).randbytes(MIB))
        file.flush()
        os.fsync(file.fileno())
    content = sha256(path)
    client.create_snapshot("guests/vm2/disk-0", "gold")
    image = client.publish_image("guests/vm2/disk-0@gold", "golden")
    assert (image.status, image.snapshot) == ("complete", "mistify/images/golden@gold")
    assert client.publish_image("guests/vm2/disk-0@gold", "golden").completed == image.completed
    assert command("zfs", "get", "-Ho", "value", "origin", "mistify/images/golden").strip() == "-"
    with pytest.raises(HasClones, match="guests/vm2/disk-0"):
        client.delete_image("base.raw")
    client.delete_image("base.raw", when_unused=True)
    client.delete_guests_disks({"id": "vm2"})
    deadline = time.monotonic() + IN_THE_END_SECONDS
    while "mistify/images/base.raw" in datasets("mistify/images"):
        assert time.monotonic() < deadline, "nobody deleted the image after its last clone"
    assert sha256(client.clone_image("golden", "copy").device) == content
    stream = fetched(f"{client.server}/images/golden/download")
    assert len(stream) == json.loads(fetched(f"{client.server}/images/golden"))["size"]
    command("zfs", "receive", "-u", "mistify/fed", data=stream)
    assert sha256(device("mistify/fed")) == content


def fetched(address: str) -> bytes:
    with urllib.request.urlopen(address) as answer:
        body: bytes = answer.read()
    return body


def test_changes_by_other_hands_are_seen_soon(store: ZfsStore) -> None:
    client = store.client()
    client.create_volume("v", size_mib=8)

    def soon(has: bool, name: str) -> None:
        deadline = time.monotonic() + VISIBLE_SECONDS
        while (name in {snapshot.id for snapshot in client.list_snapshots("v")}) is not has:
            assert time.monotonic() < deadline, f"{name} is still {'not ' * has}listed"

    command("zfs", "snapshot", "mistify/v@cron")
    soon(True, "mistify/v@cron")
    command("zfs", "rename", "mistify/v@cron", "mistify/v@renamed")
    soon(True, "mistify/v@renamed")
    command("zfs", "destroy", "mistify/v@renamed")
    soon(False, "mistify/v@renamed")


def test_sizes_and_space_are_those_of_zfs(store: ZfsStore) -> None:
    client = store.client()
    volume = client.create_volume("w", size_mib=8)
    with open(volume.device, "r+b") as file:
        file.write(random.Random(7).randbytes(3 * MIB))
        file.flush()
        os.fsync(file.fileno())
    (snapshot,) = client.create_snapshot("w", "s")
    written = int(command("zfs", "get", "-Hpo", "value", "written", "mistify/w@s"))
    assert snapshot.size == written // MIB >= 3
    assert volume.size == int(command("zfs", "get", "-Hpo", "value", "volsize", "mistify/w")) // MIB == 8


def test_a_store_killed_while_it_makes_a_guest_ends_it_one_way_or_the_other(store: ZfsStore) -> None:
    client = store.client()
    client.request_image("plain.raw")
    for attempt, wait in enumerate((0.1, 1.0)):
        guest = f"killed{attempt}"
        ends: list[object] = []

        def create(client: Client, guest: str, ends: list[object]) -> None:
            try:
                ends.append(make_guest(client, guest, "plain.raw"))
            except ImageStoreError as error:
                ends.append(error)

        creating = threading.Thread(target=create, args=(client, guest, ends))
        creating.start()
        creating.join(wait)
        store.end(signal.SIGKILL)
        creating.join()
        client = store.client()
        made = {name for name in datasets("mistify") if f"/{guest}" in name}
        whole = {f"mistify/guests/{guest}", *(f"mistify/guests/{guest}/disk-{n}" for n in range(2))}
        assert made in (set(), whole)
        listed = {volume.id for volume in client.list_volumes() if f"/{guest}/" in volume.id}
        assert listed == {name for name in made if "disk" in name}
        # Whatever came of it, the guest can be had.
        assert len(make_guest(client, guest, "plain.raw")) == 2


def test_two_stores_do_not_share_a_pool(store: ZfsStore, tmp_path: Path) -> None:
    store.client()
    second = tmp_path / "second"
    second.mkdir()
    words = ["--pool", "zfs:mistify", "--journal", str(second / "journal"), "--port", "0"]
    finished = subprocess.run(
        [sys.executable, "-m", "imagestore", "serve", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "IMAGESTORE_RECOVERY_WAIT_SECONDS": "1"},
    )
    assert finished.returncode == 32
    assert "pool mistify is held by pid" in finished.stderr
