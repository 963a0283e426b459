"""A whole store on a pool in trouble (full, exported, suspended), and on one that others change by hand."""

import itertools
import os
import random
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagestore.cli.imageservice import Hold, ImageService
from imagestore.client import Client
from imagestore.errors import ImageStoreError, NoSpace, NotFound, OutcomeUnknown, PoolError
from imagestore.events import reader
from imagestore.events.catalogue import DatasetLost, DatasetRenamed
from tests.crash import files
from tests.crash.judge import judge_journal
from tests.crash.process import Place
from tests.pools.harness import MIB
from tests.zfs.pools import command, device, pool_on_file
from tests.zfs.seen import rows_of
from tests.zfs.storeprocess import ZfsStore

pytestmark = pytest.mark.zfs

IN_THE_END_SECONDS = 60.0
"""How long something may take that has to happen."""

VISIBLE_SECONDS = 5.0
"""A change by another hand is seen within that, in the machine, too."""


def eventually(happened: Callable[[], bool], what: str, seconds: float = IN_THE_END_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"


def unready(client: Client) -> str:
    """Why the store is not ready; "" if it is."""
    try:
        with urllib.request.urlopen(f"{client.server}/readyz"):
            return ""
    except urllib.error.HTTPError as refusal:
        reason: str = refusal.read().decode()
        return reason


def judge(store: ZfsStore) -> list[str]:
    """What is wrong with journal and pool of a store that has ended, foreign datasets left out."""
    place = Place(store.directory)
    ours = {name: row for name, row in rows_of(store.pool).items() if row.operation}
    events = files.events_of(place.journal)
    found = judge_journal(place, ours, files.destroyed_by(events), reader.replay(str(place.journal)))
    return [finding.text for finding in found]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageService]:
    directory = tmp_path_factory.mktemp("images")
    (directory / "slow").write_bytes(random.Random(1).randbytes(4 * MIB))
    with ImageService(str(directory), holds={"slow": Hold(2 * MIB)}) as running:
        yield running


@pytest.fixture(scope="module")
def store(service: ImageService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZfsStore]:
    directory = tmp_path_factory.mktemp("store")
    with pool_on_file("trouble", directory, size_bytes=384 * MIB) as name:
        store = ZfsStore(name, directory, service.address)
        yield store
        store.end(signal.SIGKILL)


# --- other hands ------------------------------------------------------------------------------


def test_what_others_do_while_the_store_runs_is_seen_and_recorded(store: ZfsStore) -> None:
    client = store.client()
    client.create_volume("hands/v", size_mib=1)
    for name in ("kept", "gone", "old"):
        client.create_snapshot("hands/v", name)

    def seen() -> set[str]:
        return {snapshot.id.partition("@")[2] for snapshot in client.list_snapshots("hands/v")}

    command("zfs", "snapshot", "trouble/hands/v@cron")
    eventually(lambda: "cron" in seen(), "a foreign snapshot is listed", VISIBLE_SECONDS)
    command("zfs", "destroy", "trouble/hands/v@gone")
    eventually(lambda: "gone" not in seen(), "a destroyed one is not", VISIBLE_SECONDS)
    command("zfs", "rename", "trouble/hands/v@old", "trouble/hands/v@new")
    eventually(lambda: seen() == {"kept", "cron", "new"}, "a renamed one is", VISIBLE_SECONDS)
    with pytest.raises(NotFound):
        client.get_snapshot("hands/v@gone")
    assert client.get_snapshot("hands/v@new").id == "trouble/hands/v@new"
    store.end()
    store.client()
    store.end()
    drift = [
        e.event for e in files.events_of(Place(store.directory).journal)
        if isinstance(e.event, DatasetLost | DatasetRenamed)
    ]  # fmt: skip
    told = {(event.name, getattr(event, "new_name", None)) for event in drift}
    assert told >= {("hands/v@gone", None), ("hands/v@old", "hands/v@new")}
    assert judge(store) == []
    assert "hands/v@cron" in rows_of("trouble")


def test_what_others_did_while_the_store_was_down_is_seen_and_recorded(store: ZfsStore) -> None:
    client = store.client()
    for name in ("down/a", "down/b", "down/c"):
        client.create_volume(name, size_mib=1)
        client.create_snapshot(name, "s")
    store.end()
    command("zfs", "rename", "trouble/down/a", "trouble/down/moved")
    command("zfs", "destroy", "-r", "trouble/down/b")
    command("zfs", "create", "-s", "-V", "1M", "trouble/down/b")
    command("zfs", "rename", "trouble/down/c@s", "trouble/down/c@t")
    command("zfs", "snapshot", "trouble/down/c@foreign")
    client = store.client()
    assert {v.id for v in client.list_volumes() if "/down/" in v.id} == {
        "trouble/down/moved", "trouble/down/b", "trouble/down/c",
    }  # fmt: skip
    assert {s.id for s in client.list_snapshots("down/c")} == {"trouble/down/c@t", "trouble/down/c@foreign"}
    client.rollback_snapshot("down/moved@s")
    store.end()
    assert judge(store) == []
    assert rows_of("trouble")["down/b"].operation == ""


# --- a child that outlives its store --------------------------------------------------------


def children_of(pid: int, words: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError):
            continue
        if parent == pid and words in line:
            found.append(int(entry))
    return found


def test_a_child_that_outlives_a_killed_store_is_waited_for(store: ZfsStore, service: ImageService) -> None:
    client = store.client()
    ends: list[object] = []

    def ask() -> None:
        try:
            ends.append(client.request_image("slow"))
        except (ImageStoreError, OSError) as error:
            ends.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert service.holds["slow"].reached.wait(IN_THE_END_SECONDS)
    pid = store.pid
    eventually(lambda: bool(children_of(pid, "zfs receive")), "the image is being received")
    (child,) = children_of(pid, "zfs receive")
    os.kill(child, signal.SIGSTOP)
    store.end(signal.SIGKILL)
    asking.join()
    service.holds["slow"].release()
    refused = store.refused(recovery_wait_seconds=1)
    assert refused.returncode == 32
    assert f"pool trouble is held by pid {child} zfs" in refused.stderr
    os.kill(child, signal.SIGCONT)
    client = store.client()
    assert client.request_image("slow").status == "complete"
    store.end()
    assert judge(store) == []
    assert [name for name in rows_of("trouble") if name.startswith("images/")] == [
        "images/slow", "images/slow@image",
    ]  # fmt: skip


# --- a pool in trouble ------------------------------------------------------------------------


def test_a_full_pool_refuses_what_needs_room_and_lets_things_be_deleted(store: ZfsStore) -> None:
    client = store.client()
    client.create_volume("full/v", size_mib=16)
    room = int(command("zfs", "get", "-Hpo", "value", "available", "trouble")) // MIB
    command("zfs", "create", "-V", f"{room * 9 // 10}M", "trouble/filler")  # thick: nothing need be written
    with pytest.raises(NoSpace, match="no space left on device"):
        client.create_volume("full/w", size_mib=64)
    assert not unready(client)
    client.delete_dataset("full/v")
    command("zfs", "destroy", "trouble/filler")
    eventually(lambda: can_create(client, "full/w"), "there is room again")
    store.end()
    assert judge(store) == []


def can_create(client: Client, name: str) -> bool:
    """What is destroyed is given back a little later."""
    try:
        client.create_volume(name, size_mib=64)
    except NoSpace:
        return False
    return True


def test_an_exported_pool_is_not_ready_until_it_is_imported(store: ZfsStore) -> None:
    client = store.client()
    client.create_volume("away", size_mib=1)
    listed = [volume.id for volume in client.list_volumes()]
    command("zpool", "export", "trouble")
    eventually(lambda: "pool trouble is not imported" in unready(client), "the store is not ready")
    assert [volume.id for volume in client.list_volumes()] == listed
    with pytest.raises(PoolError, match="pool trouble is not imported"):
        client.create_volume("away2", size_mib=1)
    with pytest.raises(PoolError, match="pool trouble is not imported"):
        client.create_snapshot("away", "s")
    command("zpool", "import", "-d", str(store.directory), "trouble")
    eventually(lambda: not unready(client), "the store is ready again")
    client.create_snapshot("away", "s")
    command("zfs", "snapshot", "trouble/away@cron")
    eventually(lambda: len(client.list_snapshots("away")) == 2, "others are seen again", VISIBLE_SECONDS)
    store.end()
    assert judge(store) == []


class SmallDisk:
    """A file system of 96 MiB with a pool on it that believes to have 1 GiB."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def grow(self) -> None:
        """There is room: the pool goes on."""
        command("mount", "-o", "remount,size=1200m", str(self.directory))
        command("zpool", "clear", "halted")


@contextmanager
def small_disk(directory: Path) -> Iterator[SmallDisk]:
    """Whatever happens the pool does not stay suspended: then nothing could end it."""
    directory.mkdir()
    command("mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(directory))
    disk = SmallDisk(directory)
    with pool_on_file("halted", directory, size_bytes=1024 * MIB):
        try:
            yield disk
        finally:
            disk.grow()
    command("umount", str(directory))


def health(pool: str) -> str:
    return Path(f"/proc/spl/kstat/zfs/{pool}/state").read_text().strip()


def test_a_suspended_pool_stops_changes_and_not_reads(tmp_path: Path) -> None:
    """The disk behind the pool has no room for what the pool believes to have."""
    with small_disk(tmp_path / "disk") as disk:
        store = ZfsStore(
            "halted", tmp_path, settings={"pool_stuck_seconds": "5", "recovery_wait_seconds": "1"}
        )
        client = store.client()
        client.create_volume("v", size_mib=512)
        words = ["dd", "if=/dev/urandom", f"of={device('halted/v')}", "bs=1M", "count=400", "conv=fsync"]
        writing = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        try:
            refusal = change_until_refused(client)
            eventually(lambda: health("halted") == "SUSPENDED", "the pool is suspended")
            assert isinstance(refusal, OutcomeUnknown | PoolError), refusal
            eventually(lambda: "halted" in unready(client), "the store is not ready")
            assert [volume.id for volume in client.list_volumes()] == ["halted/v"]
            assert client.get_volume("v").size == 512
            with pytest.raises(ImageStoreError, match=r"is suspended|read-only"):
                client.create_volume("w", size_mib=1)
            store.send(signal.SIGKILL)
            assert store.refused().returncode in (30, 32)
        finally:
            disk.grow()
            writing.kill()
            writing.wait()
            store.end(signal.SIGKILL)
        client = store.client()
        listed = {snapshot.id for snapshot in client.list_snapshots()}
        client.create_volume("w", size_mib=1)
        store.end()
        assert {f"halted/{name}" for name in rows_of("halted") if "@" in name} == listed
        assert judge(store) == []


def change_until_refused(client: Client) -> ImageStoreError:
    """Take snapshots until the store says no: at its deadline, if the pool stops in the middle of one."""
    for number in itertools.count():
        try:
            client.create_snapshot("v", f"s{number}")
        except ImageStoreError as error:
            return error
    raise AssertionError
