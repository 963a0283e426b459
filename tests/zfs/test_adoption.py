"""Adoption and release on real OpenZFS: foreign volumes, and a pool that the original program left."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imagestore.client import Client
from imagestore.errors import AlreadyExists, Blocked, HasClones, InUse, NotValid, NotVolume
from imagestore.model import AdoptRequest
from tests.pools.harness import MIB, opened_for_writing
from tests.zfs.pools import command, device, pool_on_file
from tests.zfs.storeprocess import ZfsStore

pytestmark = pytest.mark.zfs

CONTENT = random.Random(11).randbytes(2 * MIB)
VISIBLE_SECONDS = 15.0
"""A foreign change is seen within a second on real hardware; how soon in here tells nothing."""

SET = "zfs set imagestore:op=OPERATION imagestore:kind="


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZfsStore]:
    """One for all tests about foreign volumes, each with volumes of its own."""
    directory = tmp_path_factory.mktemp("store")
    with pool_on_file("tank", directory) as name:
        store = ZfsStore(name, directory)
        yield store
        store.end(signal.SIGKILL)


def identities(pool: str) -> dict[str, tuple[str, str, str]]:
    """Guid, createtxg and origin of everything."""
    text = command("zfs", "list", "-Hp", "-t", "all", "-o", "name,guid,createtxg,origin", "-r", pool)
    rows = [line.split("\t") for line in text.splitlines()]
    return {name: (guid, createtxg, origin) for name, guid, createtxg, origin in rows}


def local_tags(dataset: str) -> dict[str, str]:
    """Our properties that stand on the dataset itself."""
    lines = command("zfs", "get", "-H", "-s", "local", "-o", "property,value", "all", dataset).splitlines()
    pairs = (line.split("\t") for line in lines)
    return {name.removeprefix("imagestore:"): text for name, text in pairs if name.startswith("imagestore:")}


def content(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(len(CONTENT))).hexdigest()


SHA256 = hashlib.sha256(CONTENT).hexdigest()


def make_volume(name: str, *options: str) -> str:
    """A volume by another hand than the store's, with content. Returns its device."""
    command("zfs", "create", "-p", *options, "-V", "8M", name)
    path = device(name)
    with open(path, "r+b") as file:
        file.write(CONTENT)
    return path


def imagestore(*words: str) -> str:
    """The command line, as one types it."""
    finished = subprocess.run(
        [sys.executable, "-m", "imagestore", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "IMAGESTORE_ALLOW_UNSAFE_FILESYSTEM": "true"},  # the machine's disks are memory
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def wait_until_listed(client: Client, name: str) -> None:
    deadline = time.monotonic() + VISIBLE_SECONDS
    while name not in {volume.id for volume in client.list_volumes()}:
        assert time.monotonic() < deadline, f"{name} is not listed"


def pool_commands(told: str) -> list[str]:
    """Those that a dry run told, indented under what they are for."""
    return [line.strip() for line in told.splitlines() if line.startswith("  zfs ")]


# --- foreign volumes -------------------------------------------------------------------


def test_a_volume_is_adopted_where_it_stands_and_released_again(store: ZfsStore) -> None:
    client = store.client()
    path = make_volume("tank/old/root", "-s")
    command("zfs", "snapshot", "tank/old/root@monday")
    wait_until_listed(client, "tank/old/root")
    before = identities("tank")
    used = command("zfs", "get", "-Hpo", "value", "used,referenced,written", "tank/old/root")

    words = ["adopt", "old/root", "--guest", "vm9", "--disk", "0", "--server", client.server]
    assert pool_commands(imagestore(*words, "--dry-run")) == [
        "zfs create -o canmount=off -o volmode=dev -o imagestore:op=OPERATION -o imagestore:kind=parent "
        "-o imagestore:guest=vm9 tank/guests/vm9",
        f"{SET}disk imagestore:guest=vm9 imagestore:disk=0 tank/old/root",
        f"{SET}snapshot imagestore:guest=vm9 tank/old/root@monday",
    ]
    assert identities("tank") == before
    assert local_tags("tank/old/root") == {}
    with opened_for_writing(path) as writer, pytest.raises(InUse, match=f"old/root .pid {writer.pid}"):
        client.adopt(AdoptRequest(id="old/root", guest="vm9", disk=0))

    imagestore(*words)
    after = identities("tank")
    assert after.keys() - before.keys() == {"tank/guests/vm9"}
    assert all(after[name] == before[name] for name in before)
    assert command("zfs", "get", "-Hpo", "value", "used,referenced,written", "tank/old/root") == used
    tags = local_tags("tank/old/root")
    assert (tags["kind"], tags["guest"], tags["disk"]) == ("disk", "vm9", "0")
    taken = {snapshot.id for snapshot in client.create_snapshot("guests/vm9", "s")}
    assert taken == {"tank/guests/vm9@s", "tank/old/root@s"}
    with open(path, "r+b") as file:
        file.write(b"overwritten")
    client.rollback_snapshot("guests/vm9@s")
    assert content(path) == SHA256

    log = imagestore("log", "--journal", str(store.directory / "journal"))
    assert re.search(r"old/root is ours now \(disk 0 of guest vm9", log)
    imagestore("release", "tank/old/root", "--server", client.server)
    assert local_tags("tank/old/root") == local_tags("tank/old/root@monday") == {}
    assert identities("tank")["tank/old/root"] == before["tank/old/root"]
    assert content(path) == SHA256
    client.delete_guests_disks({"id": "vm9"})
    assert "tank/old/root" in identities("tank")


def test_what_is_no_foreign_volume_is_refused(store: ZfsStore) -> None:
    client = store.client()
    client.create_guest_disks({"id": "vm1", "disks": [{"size": 8}]})
    make_volume("tank/some/root", "-s")
    command("zfs", "snapshot", "tank/some/root@monday")
    command("zfs", "create", "-s", "-V", "8M", "tank/theirs")
    wait_until_listed(client, "tank/theirs")
    command("zfs", "set", "imagestore:op=0199-theirs", "imagestore:kind=volume", "tank/theirs")
    cases: list[tuple[str, type[Exception], str]] = [
        ("some", NotVolume, "not a volume"),
        ("images", NotVolume, "not a volume"),
        ("some/root@monday", NotVolume, "not a volume"),
        ("theirs", Blocked, r"another store: theirs \(volume of operation 0199-theirs\)"),
        ("guests/vm1/disk-0", Blocked, r"already: guests/vm1/disk-0 \(disk 0 of guest vm1\)"),
        *(
            (name, NotValid, "not a valid dataset")
            for name in ("-r", "a@b@c", "a root", "a#b", "a/%recv", "../a")
        ),
    ]
    before = identities("tank")
    for name, error, text in cases:
        with pytest.raises(error, match=text):
            client.adopt(AdoptRequest(id=name, guest="vm8", disk=0))
    with pytest.raises(AlreadyExists, match="dataset already exists: guests/vm1/disk-0"):
        client.adopt(AdoptRequest(id="some/root", guest="vm1", disk=0))
    assert identities("tank") == before
    assert local_tags("tank/some/root") == {}


# --- what the original program left -----------------------------------------------------


@pytest.fixture
def original(tmp_path: Path) -> Iterator[ZfsStore]:
    """A store, not started yet, on a pool as the original leaves it.

    Its file systems are mounted, its volumes thick, its database is among the images.  Of these
    ``alpine`` is whole, ``failed`` an error, ``gone`` only in the database, ``unknown`` only in the
    pool; ``files`` is no volume.
    """
    with pool_on_file("mistify", tmp_path) as name:
        command("zfs", "set", f"mountpoint={tmp_path}/mistify", name)
        for filesystem in ("images", "guests", "guests/vm1", "images/files"):
            command("zfs", "create", f"{name}/{filesystem}")
        for volume in ("images/alpine", "images/failed", "images/unknown", "guests/vm1/disk-1"):
            make_volume(f"{name}/{volume}")
        for image in ("alpine", "failed", "unknown"):
            command("zfs", "snapshot", f"{name}/images/{image}@sent")
        command("zfs", "clone", f"{name}/images/alpine@sent", f"{name}/guests/vm1/disk-0")
        command("zfs", "snapshot", f"{name}/guests/vm1/disk-0@backup")
        write_database(tmp_path / "mistify" / "images" / ".images.db")
        store = ZfsStore(name, tmp_path)
        yield store
        store.end(signal.SIGKILL)


def write_database(path: Path) -> None:
    def value(image: str, status: str) -> bytes:
        known = {
            "id": image,
            "type": "kvm",
            "volume": f"mistify/images/{image}",
            "snapshot": f"mistify/images/{image}@sent",
            "size": 8,
            "status": status,
        }
        return json.dumps(known).encode()

    statuses = {"alpine": "complete", "failed": "error", "gone": "complete"}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute('CREATE TABLE "mistify-agent-image" (key, bucket, value)')
        rows = [(image, "images", value(image, status)) for image, status in statuses.items()]
        connection.executemany('INSERT INTO "mistify-agent-image" VALUES (?, ?, ?)', rows)
        connection.commit()


def test_a_pool_of_the_originals_is_adopted_recovered_and_used(original: ZfsStore) -> None:
    client = original.client()
    assert "imagestore adopt --original --dry-run" in (original.directory / "log").read_text()
    before = identities("mistify")
    dry = imagestore("adopt", "--original", "--dry-run", "--server", client.server)
    assert pool_commands(dry) == [
        f"{SET}image imagestore:image=alpine mistify/images/alpine",
        f"{SET}snapshot imagestore:image=alpine mistify/images/alpine@sent",
        f"{SET}image imagestore:image=unknown mistify/images/unknown",
        f"{SET}snapshot imagestore:image=unknown mistify/images/unknown@sent",
        f"{SET}disk imagestore:guest=vm1 imagestore:disk=0 mistify/guests/vm1/disk-0",
        f"{SET}snapshot imagestore:guest=vm1 mistify/guests/vm1/disk-0@backup",
        f"{SET}disk imagestore:guest=vm1 imagestore:disk=1 mistify/guests/vm1/disk-1",
    ]
    assert not any(local_tags(name) for name in before if name != "mistify")

    done = client.adopt_original()
    assert identities("mistify") == before
    assert {left.id: left.reason for left in done.left} == {
        "mistify/images/failed": "the database says that its status is 'error'",
        "mistify/images/gone": "the database names it, and it is gone",
        "mistify/images/files": "it is a filesystem, not a volume",
    }
    assert len(done.adopted) == 7
    assert client.adopt_original().adopted == ()
    assert [(i.id, i.type, i.status, i.size) for i in client.list_images()] == [
        ("alpine", "kvm", "complete", 8),
        ("unknown", "", "complete", 8),
    ]
    make_guest_again(client)

    client = with_rebuilt_journal(original)
    assert identities("mistify") == before
    with pytest.raises(Blocked, match=r"already: images/alpine \(image alpine\)"):
        client.adopt(AdoptRequest(id="images/alpine", image="alpine"))
    with pytest.raises(HasClones, match="image has dependent clones: guests/vm1/disk-0"):
        client.release("images/alpine")
    make_guest_again(client)
    delete_mounted_guest(client)
    client.release("images/alpine")
    assert local_tags("mistify/images/alpine") == local_tags("mistify/images/alpine@sent") == {}
    assert [image.id for image in client.list_images()] == ["unknown"]


def make_guest_again(client: Client) -> None:
    """What the agent asks of a guest that is there: it gets the disks that it has."""
    guest = client.create_guest_disks({"id": "vm1", "disks": [{"image": "alpine"}, {"size": 8}]})
    sources = [str(disk["source"]) for disk in guest["disks"]]
    assert sources == [f"/dev/zvol/mistify/guests/vm1/disk-{number}" for number in range(2)]
    assert {content(path) for path in sources} == {SHA256}


def with_rebuilt_journal(store: ZfsStore) -> Client:
    """Lose the journal and recover it: the same is listed."""
    client = store.client()
    before = client.list_volumes(), client.list_snapshots()
    images = {(image.id, image.snapshot, image.size) for image in client.list_images()}
    store.end()
    journal = store.directory / "journal"
    shutil.rmtree(journal)

    imagestore("recover", "--pool", f"zfs:{store.pool}", "--journal", str(journal))
    client = store.client()
    assert (client.list_volumes(), client.list_snapshots()) == before
    assert {(image.id, image.snapshot, image.size) for image in client.list_images()} == images
    return client


def delete_mounted_guest(client: Client) -> None:
    """The original's file systems are mounted; one in whose guest a disk is open is mounted again."""
    mounted = ("zfs", "get", "-Ho", "value", "mounted", "mistify/guests/vm1")
    assert command(*mounted).strip() == "yes"
    with opened_for_writing("/dev/zvol/mistify/guests/vm1/disk-1"), pytest.raises(InUse):
        client.delete_guests_disks({"id": "vm1"})
    assert command(*mounted).strip() == "yes"
    client.delete_guests_disks({"id": "vm1"})
    assert not any("vm1" in name for name in identities("mistify"))
