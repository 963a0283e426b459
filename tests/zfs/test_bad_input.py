"""What a ZFS pool must withstand: names, streams that break hosts, locked keys, old pools, no rights."""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from imagestore.config import Config
from imagestore.errors import AlreadyExists, ImageStoreError, NotVolume, PoolError, StreamError
from imagestore.model import GuestRequest, ImageRequest, SnapshotRequest, VolumeRequest
from imagestore.pools.base import NewClone, NewVolume, Receiver
from imagestore.pools.zfs.driver import ZfsPool, open_zfs_pool
from imagestore.store import Store
from tests.pools.harness import MIB, SNAPSHOT, VOLUME, listed, snapshot, volume
from tests.streams import building as b
from tests.streams.building import BLOCK, full, stream
from tests.zfs.pools import command, empty, pool_on_file

pytestmark = pytest.mark.zfs

ONES = b"\x11" * BLOCK


@pytest.fixture(scope="module")
def pool_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pool_on_file("tank", tmp_path_factory.mktemp("zfs")) as name:
        yield name


@pytest.fixture
async def pool(pool_name: str) -> AsyncIterator[ZfsPool]:
    pool = await open_zfs_pool(pool_name)
    yield pool
    await empty(pool)
    await pool.close()


# --- names ------------------------------------------------------------------------------------

HOSTILE = (
    "-o", "--help", "-rf/v", "v/-R", "a b", "a%b", "v/%recv", "a#b", "v@s@t", "v@", "@", "..", "v/..", "/v",
    "v/", "v//w", "v\nw", "v\tw", "v;reboot", "$(reboot)", "v\0w", "vé", "*", ".receiving-1", ".staging-1",
    "v" * 300,
)  # fmt: skip


@pytest.fixture
async def store(pool_name: str, tmp_path: Path) -> AsyncIterator[Store]:
    config = Config(pool=f"zfs:{pool_name}", journal=str(tmp_path / "journal"), allow_unsafe_filesystem=True)
    store = Store(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        await store.destroy()
    pool = await open_zfs_pool(pool_name)
    await empty(pool)
    await pool.close()


def asked_about(store: Store, name: str) -> list[Callable[[], Awaitable[object]]]:
    """All that can be done to a dataset, an image, a guest of that name."""
    disks = [{"size": 1}]
    asks: list[Callable[[], Awaitable[object]]] = [
        lambda: store.create_volume(VolumeRequest(id=name, size=1)),
        lambda: store.get_volume(VolumeRequest(id=name)),
        lambda: store.delete_dataset(VolumeRequest(id=name)),
        lambda: store.create_snapshot(SnapshotRequest(id=name, dest="s")),
        lambda: store.rollback_snapshot(SnapshotRequest(id=f"{name}@s")),
        lambda: store.clone_image(ImageRequest(id=name, dest="w")),
        lambda: store.delete_guests_disks(GuestRequest(guest={"id": name})),
        lambda: store.create_guest_disks(GuestRequest(guest={"id": name, "disks": disks})),
    ]
    if not re.fullmatch(r"[A-Za-z0-9_:.-]{1,200}", name):
        asks.append(lambda: store.create_snapshot(SnapshotRequest(id="v", dest=name)))
    return asks


async def test_a_snapshots_name_may_look_like_an_option(store: Store) -> None:
    """The wire allows it, and with its dataset in front it is none."""
    await store.create_volume(VolumeRequest(id="v", size=1))
    for name in ("-o", "--help", "..", "-r"):
        await store.create_snapshot(SnapshotRequest(id="v", dest=name))
    text = command("zfs", "list", "-H", "-r", "-t", "snapshot", "-o", "name", "tank/v")
    assert text.split() == ["tank/v@-o", "tank/v@--help", "tank/v@..", "tank/v@-r"]
    await store.rollback_snapshot(SnapshotRequest(id="v@-r"))
    await store.delete_snapshot(SnapshotRequest(id="v@-r"))
    await store.delete_snapshot(SnapshotRequest(id="v@.."))
    assert command("zfs", "list", "-H", "-r", "-t", "snapshot", "-o", "name", "tank/v").split() == [
        "tank/v@-o", "tank/v@--help",
    ]  # fmt: skip


async def test_no_name_becomes_an_option_or_leaves_the_pool(store: Store) -> None:
    await store.create_volume(VolumeRequest(id="v", size=1))
    await store.create_snapshot(SnapshotRequest(id="v", dest="s"))
    command("zfs", "create", "-p", "-s", "-V", "1M", "tank/with blank/-o")
    there = command("zfs", "list", "-Hp", "-r", "-t", "all", "-o", "name,guid", "tank")
    for name in HOSTILE:
        for ask in asked_about(store, name):
            with pytest.raises(ImageStoreError) as refusal:
                await ask()
            assert "\n" not in str(refusal.value)
    assert command("zfs", "list", "-Hp", "-r", "-t", "all", "-o", "name,guid", "tank") == there
    with trio.fail_after(60):
        while "tank/with blank/-o" not in {v.id for v in (await store.list_volumes(VolumeRequest())).volumes}:
            await trio.sleep(0.1)


async def test_a_volume_that_turns_out_to_be_a_file_system_is_none(store: Store) -> None:
    await store.create_volume(VolumeRequest(id="v", size=1))
    await store.create_snapshot(SnapshotRequest(id="v", dest="s"))
    command("zfs", "destroy", "-r", "tank/v")
    command("zfs", "create", "tank/v")
    command("zfs", "snapshot", "tank/v@s")
    with trio.fail_after(60):
        while (await store.list_volumes(VolumeRequest())).volumes:
            await trio.sleep(0.1)
    with pytest.raises(NotVolume):
        await store.get_volume(VolumeRequest(id="v"))
    with pytest.raises(AlreadyExists):
        await store.create_volume(VolumeRequest(id="v", size=1))
    with pytest.raises(ImageStoreError):
        async with store.download(SnapshotRequest(id="v@s")):
            pass


async def bring(receiver: Receiver, data: bytes) -> None:
    await receiver.feed(data)
    await receiver.finish()


# --- streams ----------------------------------------------------------------------------------

BREAK_HOSTS = {
    "no size: listing it wedges the host": [b.begin(), b.obj(), b.write(0, ONES), b.end()],
    "blocks of no power of two damage the pool": [
        b.begin(), b.obj(block=3 * BLOCK), b.write(0, ONES * 3), *b.properties(), b.end(),
    ],
    "object 2 before object 1": [b.begin(), *b.properties(), b.obj(), b.write(0, ONES), b.end()],
    "offsets that descend": full(b.write(BLOCK, ONES), b.write(0, ONES)),
    "a write without its object": [b.begin(), b.write(0, ONES), *b.properties(), b.end()],
    "a third object": full(b.obj(3)),
}  # fmt: skip


async def test_streams_that_break_hosts_do_not_reach_the_kernel_whole(pool: ZfsPool) -> None:
    for records in BREAK_HOSTS.values():
        async with pool.receive_stream("v", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
            with pytest.raises(StreamError):
                await bring(receiver, stream(records))
        assert await listed(pool) == [""]
    assert "receiving" not in command("zfs", "list", "-H", "-t", "all", "-o", "name", "-r", "tank")
    async with pool.receive_stream("v", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
        await receiver.feed(stream(full(b.write(0, ONES))))
        await receiver.finish()
    command("zpool", "scrub", "-w", "tank")
    assert "errors: No known data errors" in command("zpool", "status", "tank")
    assert not any(word in command("dmesg") for word in ("PANIC", "VERIFY"))


async def test_an_increment_with_other_blocks_does_not_discard_what_is_there(pool: ZfsPool) -> None:
    async with pool.receive_stream("v", VOLUME, snapshot_tags=SNAPSHOT) as receiver:
        await receiver.feed(stream(full(b.write(0, ONES))))
        made, base = await receiver.finish()
    other = [
        b.begin(toguid=77, fromguid=base.guid, name=b"pool/volume@next"),
        b.obj(block=2 * BLOCK, toguid=77), b.write(0, ONES * 2, toguid=77), b.end(toguid=77),
    ]  # fmt: skip
    onto = pool.receive_onto(made.target, base=base.target, snapshot_tags=SNAPSHOT, operation="op")
    async with onto as receiver:
        with pytest.raises(StreamError):
            await bring(receiver, stream(other))
    assert await listed(pool) == ["", "v", "v@snap"]
    with open(pool.device("v"), "rb") as file:
        assert file.read(BLOCK) == ONES


# --- encrypted datasets without their key -------------------------------------------------------


async def test_a_dataset_whose_key_is_not_loaded_says_so(
    pool: ZfsPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("a passphrase\n")
    encrypted = ("encryption=on", "keyformat=passphrase", f"keylocation=file://{key}")
    command("zfs", "create", *(word for pair in encrypted for word in ("-o", pair)), "tank/secret")
    made = await volume(pool, "secret/v")
    taken = await snapshot(pool, made, "s")
    command("zfs", "unload-key", "tank/secret")
    assert await listed(pool) == ["", "secret", "secret/v", "secret/v@s"]
    assert await pool.get("secret/v@s") == taken

    async def create() -> object:
        return await pool.create([NewVolume(name="secret/w", size=MIB, tags=VOLUME)])

    async def clone() -> object:
        return await pool.create([NewClone(name="secret/w", origin=taken.target, tags=VOLUME)])

    async def send() -> object:
        return await pool.send_bytes(taken.target)

    async def receive() -> None:
        async with pool.receive_raw("secret/w", VOLUME, snapshot="s", snapshot_tags=SNAPSHOT) as receiver:
            await receiver.feed(bytes(MIB))
            await receiver.finish()

    for attempt in (create, clone, send, receive):
        with monkeypatch.context() as patched:
            patched.setattr("imagestore.pools.zfs.ground.NODE_SECONDS", 3.0)  # a clone's never comes
            with pytest.raises(PoolError, match="is encrypted and its key is not loaded") as refusal:
                await attempt()
        assert "zfs load-key" in refusal.value.detail
    assert await listed(pool) == ["", "secret", "secret/v", "secret/v@s"]
    command("zfs", "load-key", "tank/secret")
    await create()


# --- pools of another age --------------------------------------------------------------------


@contextmanager
def old_pool(name: str, directory: Path, *options: str) -> Iterator[str]:
    disk = directory / f"{name}.disk"
    with disk.open("wb") as file:
        file.truncate(256 * MIB)
    command("zpool", "create", "-f", *options, "-O", "mountpoint=none", name, str(disk))
    try:
        yield name
    finally:
        command("zpool", "destroy", "-f", name)


async def test_a_pool_of_an_old_format_says_how_it_is_upgraded(tmp_path: Path) -> None:
    with old_pool("old", tmp_path, "-o", "version=28") as name:
        with pytest.raises(PoolError, match="pool old has the old format 28") as refusal:
            await open_zfs_pool(name)
        assert "zpool upgrade old" in refusal.value.detail


async def test_a_pool_without_features_says_which_it_needs(tmp_path: Path) -> None:
    with old_pool("plain", tmp_path, "-d") as name:
        with pytest.raises(PoolError, match="pool plain lacks the feature lz4_compress") as refusal:
            await open_zfs_pool(name)
        assert "zpool set feature@lz4_compress=enabled plain" in refusal.value.detail
        command("zpool", "set", "feature@lz4_compress=enabled", name)
        pool = await open_zfs_pool(name)
        await snapshot(pool, await volume(pool, "v"), "s")
        await pool.close()


# --- rights -----------------------------------------------------------------------------------

NOBODY = 65534


def as_nobody(work: Callable[[], str]) -> str:
    """What ``work`` gives in a child of another user; nothing of ours need be readable for that one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


def opened(pool: str, locks: Path) -> str:
    """What opening the pool says."""

    async def open_it() -> str:
        try:
            await open_zfs_pool(pool, lock_directory=str(locks), lock_deadline=1)
        except ImageStoreError as error:
            return f"{error} | {error.detail}"
        return "opened"

    return trio.run(open_it)


def test_a_user_without_rights_is_told_which_are_missing(pool_name: str) -> None:
    locks = Path("/run/locks-of-nobody")
    locks.mkdir()
    locks.chmod(0o777)
    os.chmod("/dev/zfs", 0o600)
    try:
        said = as_nobody(lambda: opened(pool_name, locks))
        assert said.startswith(("/dev/zfs may not be opened by user 65534", "not permitted"))
        assert "run the store as root" in said
        os.chmod("/dev/zfs", 0o666)
        for rights in ((), ("create", "clone", "snapshot", "destroy", "mount", "userprop")):
            if rights:
                command("zfs", "allow", "nobody", ",".join(rights), pool_name)
            said = as_nobody(lambda: opened(pool_name, locks))
            assert said.startswith("not permitted"), said
            assert "channel program" in said
            assert "run the store as root" in said
    finally:
        os.chmod("/dev/zfs", 0o600)
