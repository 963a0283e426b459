"""Streams into a real store over HTTP: real chains, our own, refusals, and uploads that end midway."""

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from imagestore.config import Config
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ImageStoreError,
    NoSpace,
    TemporarilyUnavailable,
)
from imagestore.events import reader
from imagestore.events.catalogue import (
    DatasetReceived,
    Event,
    OperationFinished,
    OperationStarted,
    ReceiveIntent,
)
from imagestore.model import ImageRequest, ReceiveRequest, SnapshotRequest, VolumeRequest
from imagestore.pools.base import Space
from imagestore.store import Store
from tests.http.wire import Wire
from tests.imageservice import ImageService, answer
from tests.store.conftest import MIB, Run
from tests.streams.samples import ACCEPTED, SAMPLES, chain, load

RECEIVE = "/volumes/receive"
DOWNLOAD = "/snapshots/download"


class Remote:
    """A running store, asked over HTTP."""

    def __init__(self, store: Store, config: Config, address: tuple[str, int]) -> None:
        self.store = store
        self.config = config
        self.address = address

    async def receive(
        self, name: str, stream: bytes, *, query: str = "", chunked: bool = False
    ) -> dict[str, Any]:
        """The answer, with its status."""
        async with await Wire.open(self.address) as wire:
            reply = await wire.ask("POST", f"{RECEIVE}?id={name}{query}", {}, stream, chunked=chunked)
        decoded: dict[str, Any] = json.loads(reply.body)
        return {"status": reply.status, **decoded}

    async def send(self, snapshot: str, query: str = "", headers: dict[str, str] | None = None) -> bytes:
        async with await Wire.open(self.address) as wire:
            reply = await wire.ask("GET", f"{DOWNLOAD}?id={snapshot}{query}", headers or {})
        assert reply.status in (200, 206), reply.body
        assert reply.whole
        return reply.body

    async def names(self) -> list[str]:
        volumes = (await self.store.list_volumes(VolumeRequest())).volumes
        snapshots = (await self.store.list_snapshots(SnapshotRequest())).snapshots
        return [name.removeprefix("pool/") for name in [*(v.id for v in volumes), *(s.id for s in snapshots)]]

    @property
    def pool(self) -> Path:
        return Path(self.config.pool.removeprefix("dir:"))

    def sha256(self, name: str) -> str:
        return hashlib.sha256((self.pool / name).read_bytes()).hexdigest()

    def write(self, name: str, content: bytes, offset: int = 0) -> None:
        with open(self.pool / name, "r+b", buffering=0) as disk:
            disk.seek(offset)
            disk.write(content)

    def data_files(self) -> int:
        return len(os.listdir(self.pool / ".imagestore" / "data"))

    def events(self) -> list[Event]:
        return [envelope.event for envelope in reader.read(self.config.journal)]

    def outcomes(self) -> list[str]:
        """How receptions ended."""
        begun = {
            e.operation
            for e in reader.read(self.config.journal)
            if isinstance(e.event, OperationStarted) and e.event.method == "ReceiveVolume"
        }
        return [
            e.event.outcome
            for e in reader.read(self.config.journal)
            if isinstance(e.event, OperationFinished) and e.operation in begun
        ]


@pytest.fixture
async def remote(run: Run, config: Config, nursery: trio.Nursery) -> AsyncIterator[Remote]:
    async with run() as store:
        address = await nursery.start(store.run_http, 0)
        yield Remote(store, config, address)


# --- real streams


@pytest.mark.parametrize("name", ACCEPTED)
async def test_every_real_stream_ends_as_its_sender_was(name: str, remote: Remote) -> None:
    links = chain(name)
    for link in links:
        sample = SAMPLES[link]
        is_clone = sample.kind == "clone-incremental"
        target = "scratch/clone" if is_clone else "scratch/v"
        answered = await remote.receive(target, load(link))
        assert answered["status"] == 200, answered
        assert answered["volume"]["id"] == f"pool/{target}"
        assert answered["snapshots"][-1]["id"] == f"pool/{target}@{sample.snapshot}"
        assert remote.sha256(target) == sample.sha256
        row = await remote.store._running().zpool.driver.get(f"{target}@{sample.snapshot}")
        assert row.guid == int(sample.guid)
        assert (row.volsize, row.tags.kind) == (sample.volsize, "snapshot")
    assert remote.outcomes() == ["succeeded"] * len(links)
    assert reader.replay(remote.config.journal) == remote.store._running().operations.state


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.is_refused])
async def test_what_no_store_takes_is_refused_and_leaves_nothing(name: str, remote: Remote) -> None:
    answered = await remote.receive("scratch/v", load(name))
    assert (answered["status"], answered["error"]) == (422, "StreamError")
    await nothing_is_there(remote)


async def nothing_is_there(remote: Remote) -> None:
    assert await remote.names() == []
    assert remote.data_files() == 0
    assert os.listdir(remote.pool / "images") == []
    assert remote.store._running().operations.state.operations == {}
    assert remote.store._running().zpool.ledger.reserved_bytes == 0


async def test_a_clone_becomes_a_clone_of_the_origin_that_is_there(remote: Remote) -> None:
    await remote.receive("guests/a/disk-0", load("v8k-s1-plain"))
    await remote.receive("guests/a/disk-0", load("v8k-s1-s2-c"))
    assert (await remote.receive("guests/b/disk-0", load("clone-inc")))["status"] == 200
    row = await remote.store._running().zpool.driver.get("guests/b/disk-0")
    assert (row.origin, row.tags.kind, row.tags.guest, row.tags.disk) == (
        "guests/a/disk-0@s2",
        "disk",
        "b",
        "0",
    )
    record = remote.store._running().operations.state.datasets["guests/b/disk-0"]
    assert record.origin is not None
    assert record.origin.name == "guests/a/disk-0@s2"
    with pytest.raises(Blocked, match="guests/b/disk-0"):
        await remote.store.delete_dataset(VolumeRequest(id="guests/a"))


async def test_gzip_and_chunks_are_taken(remote: Remote) -> None:
    packed = gzip.compress(load("v8k-s1-plain"), 1)
    assert (await remote.receive("v", packed, chunked=True))["status"] == 200
    assert remote.sha256("v") == SAMPLES["v8k-s1-plain"].sha256


async def test_the_new_state_is_known_in_the_next_life(run: Run, config: Config) -> None:
    async with run() as store:
        for name in ("v8k-s1-plain", "v8k-s1-s2-plain", "v8k-s2-s3-plain"):
            async with store.receive(ReceiveRequest(id="v")) as upload:
                await upload.feed(load(name))
                await upload.finish()
    async with run() as store:
        assert (await store.get_volume(VolumeRequest(id="v"))).volumes[0].size == 10
        assert len((await store.list_snapshots(SnapshotRequest(id="v"))).snapshots) == 3
        assert store._running().operations.state.datasets["v"].size_bytes == 10 * MIB


# --- our own streams


async def test_a_volume_travels_full_and_incremental_and_every_state_is_the_same(remote: Remote) -> None:
    store = remote.store
    await store.create_volume(VolumeRequest(id="there/disk", size=4))
    taken = []
    for number in range(3):
        remote.write("there/disk", bytes([number + 1]) * (200_000 * (number + 1)), offset=number * 300_000)
        await store.create_snapshot(SnapshotRequest(id="there/disk", dest=f"s{number}"))
        taken.append(remote.sha256("there/disk"))
        base = f"&from=@s{number - 1}" if number else ""
        stream = await remote.send(f"there/disk@s{number}", base)
        assert (await remote.receive("here/copy", stream))["status"] == 200
        assert remote.sha256("here/copy") == taken[-1]
        assert len(await remote.send(f"here/copy@s{number}", base)) == len(stream)


async def test_a_guests_disk_travels_as_a_clone_of_its_image(
    run: Run, service: ImageService, config: Config, nursery: trio.Nursery
) -> None:
    service.download("deb", answer(load("v8k-s1-plain")))
    async with run(image_service=service.address) as store:
        remote = Remote(store, config, await nursery.start(store.run_http, 0))
        await store.request_image(ImageRequest(id="deb"))
        await store.clone_image(ImageRequest(id="deb", dest="guests/a/disk-0"))
        remote.write("guests/a/disk-0", b"changed" * 1000)
        await store.create_snapshot(SnapshotRequest(id="guests/a/disk-0", dest="mon"))
        full = await remote.send("guests/a/disk-0@mon")
        small = b""
        for base in ("images/deb@s1", "pool/images/deb@s1", SAMPLES["v8k-s1-plain"].guid):
            small = await remote.send("guests/a/disk-0@mon", f"&from={base}")
            assert len(small) < 100_000 < len(full)
        assert (await remote.receive("guests/b/disk-0", small))["status"] == 200
        assert remote.sha256("guests/b/disk-0") == remote.sha256("guests/a/disk-0")
        row = await store._running().zpool.driver.get("guests/b/disk-0")
        assert (row.origin, row.tags.image) == ("images/deb@s1", "deb")
        with pytest.raises(Blocked, match="guests/a/disk-0, guests/b/disk-0"):
            await store.delete_image(ImageRequest(id="deb"))


@pytest.mark.parametrize("incremental", [False, True])
async def test_a_download_that_broke_off_goes_on_to_the_same_bytes(remote: Remote, incremental: bool) -> None:
    await remote.receive("v", load("v8k-s1-plain"))
    await remote.receive("v", load("v8k-s1-s2-plain"))
    query = "&from=@s1" if incremental else ""
    async with await Wire.open(remote.address) as wire:
        whole = await wire.ask("GET", f"{DOWNLOAD}?id=v@s2{query}")
    etag = whole.headers["etag"]
    guids = [f"{int(SAMPLES[name].guid):016x}" for name in ("v8k-s1-s2-plain", "v8k-s1-plain")]
    assert etag == (f'"{guids[0]}-{guids[1]}"' if incremental else f'"{guids[0]}"')
    for first in (1, len(whole.body) // 3, len(whole.body) - 1):
        rest = await remote.send("v@s2", query, {"Range": f"bytes={first}-", "If-Range": etag})
        assert rest == whole.body[first:]
    other = await remote.send("v@s2", query, {"Range": "bytes=5-", "If-Range": '"0"'})
    assert other == whole.body


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("&from=@s2", 400, "v@s2 is no earlier snapshot of v, nor its origin\n"),
        ("&from=@none", 404, "not found\n"),
        ("&from=0x5", 404, "not found\n"),
    ],
)
async def test_a_base_that_is_none_is_refused(query: str, status: int, text: str, remote: Remote) -> None:
    await remote.receive("v", load("v8k-s1-plain"))
    await remote.receive("v", load("v8k-s1-s2-plain"))
    async with await Wire.open(remote.address) as wire:
        reply = await wire.ask("GET", f"{DOWNLOAD}?id=v@s1{query}")
    assert (reply.status, reply.body.decode()) == (status, text)


# --- refusals


async def test_where_a_stream_cannot_go_is_said_before_it_comes(remote: Remote) -> None:
    await remote.store.create_volume(VolumeRequest(id="a/v", size=1))
    for name, status, title in (
        ("images/x", 400, "not a valid dataset"),
        ("v@s", 400, "not a valid dataset"),
        ("a/v/below", 400, "not a valid dataset"),
        ("a", 400, "not a volume"),
        ("..%2Fx", 400, "not a valid dataset"),
    ):
        answered = await remote.receive(name, load("v8k-s1-plain"))
        assert (answered["status"], answered["title"]) == (status, title), name
    assert not [e for e in remote.events() if isinstance(e, OperationStarted) and e.method == "ReceiveVolume"]


async def test_a_stream_that_does_not_fit_is_refused_and_nothing_has_changed(remote: Remote) -> None:
    await remote.receive("v", load("v8k-s1-plain"))
    before = remote.sha256("v"), await remote.names(), remote.data_files()
    for name, stream, status, title in (
        ("v", "v8k-s1-plain", 409, "dataset already exists: v"),
        ("v", "v8k-s2-s3-plain", 409, "most recent snapshot of v is not the stream's base: v@s1 with guid"),
        ("new", "v8k-s1-s2-plain", 404, "not found"),
        ("new", "clone-inc", 404, "not found"),
        ("new", "raw", 422, "this is no ZFS send stream; it looks like a raw disk image"),
        ("new", "text", 422, ""),
    ):
        body = {"raw": bytes(MIB), "text": b"hello"}.get(stream) or load(stream)
        answered = await remote.receive(name, body)
        assert answered["status"] == status, answered
        assert answered["title"].startswith(title)
    assert (remote.sha256("v"), await remote.names(), remote.data_files()) == before


@pytest.mark.parametrize("onto", [False, True])
@pytest.mark.parametrize("damage", ["cut", "flipped", "trailing"])
async def test_a_damaged_stream_leaves_everything_as_it_was(damage: str, onto: bool, remote: Remote) -> None:
    if onto:
        await remote.receive("v", load("v8k-s1-plain"))
    before = await remote.names(), remote.data_files()
    stream = bytearray(load("v8k-s1-s2-plain" if onto else "v8k-s1-plain"))
    if damage == "cut":
        del stream[-312:]
    elif damage == "flipped":
        stream[len(stream) // 2] ^= 1
    else:
        stream += bytes(512)
    answered = await remote.receive("v", bytes(stream))
    assert (answered["status"], answered["error"]) == (422, "StreamError")
    assert (await remote.names(), remote.data_files()) == before
    assert remote.outcomes() == ["succeeded", "failed"][not onto :]
    stream = bytearray(load("v8k-s1-s2-plain" if onto else "v8k-s1-plain"))
    assert (await remote.receive("v", bytes(stream)))["status"] == 200


async def test_what_was_written_since_is_lost_only_by_force(remote: Remote) -> None:
    await remote.receive("v", load("v8k-s1-plain"))
    remote.write("v", b"mine")
    answered = await remote.receive("v", load("v8k-s1-s2-plain"))
    assert (answered["status"], answered["title"]) == (409, "dataset has been modified: v since v@s1")
    assert (await remote.receive("v", load("v8k-s1-s2-plain"), query="&force=true"))["status"] == 200
    assert remote.sha256("v") == SAMPLES["v8k-s1-s2-plain"].sha256
    started = [
        e for e in remote.events() if isinstance(e, OperationStarted) and isinstance(e.intent, ReceiveIntent)
    ]
    assert [e.force for e in started] == [False, False, True]
    received = [e for e in remote.events() if isinstance(e, DatasetReceived)]
    assert [(e.name, e.snapshot.name) for e in received] == [("v", "v@s2")]


async def test_a_volume_that_promises_more_than_there_is_room_is_refused(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    zpool = remote.store._running().zpool

    async def space() -> Space:
        return Space(total=1 << 40, available=SAMPLES["v8k-s1-plain"].volsize // 2)

    monkeypatch.setattr(zpool.driver, "space", space)
    answered = await remote.receive("v", load("v8k-s1-plain"))
    assert (answered["status"], answered["title"]) == (507, NoSpace.text)
    await nothing_is_there(remote)


# --- uploads that end midway


async def test_a_client_that_hangs_up_midway_leaves_nothing(remote: Remote) -> None:
    stream = load("v8k-s1-plain")
    async with await Wire.open(remote.address) as wire:
        head = f"POST {RECEIVE}?id=v HTTP/1.1\r\nHost: x\r\nContent-Length: {len(stream)}\r\n\r\n"
        await wire.send(head.encode() + stream[: 2 << 20])
        while not remote.store._running().operations.state.operations:
            await trio.lowlevel.checkpoint()
        answered = await remote.receive("v", stream)
        assert (answered["status"], answered["title"]) == (409, "dataset is being received: v")
    while remote.store._running().operations.state.operations:
        await trio.lowlevel.checkpoint()
    await nothing_is_there(remote)
    (finished,) = [e for e in remote.events() if isinstance(e, OperationFinished) and e.outcome == "failed"]
    assert "broke off after" in finished.error
    assert (await remote.receive("v", stream))["status"] == 200


async def test_a_caller_that_is_cancelled_midway_leaves_nothing(remote: Remote) -> None:
    with trio.CancelScope() as scope:
        async with remote.store.receive(ReceiveRequest(id="v")) as upload:
            await upload.feed(load("v8k-s1-plain")[: 2 << 20])
            scope.cancel()
            await upload.feed(bytes(1 << 20))
    while remote.store._running().operations.state.operations:
        await trio.lowlevel.checkpoint()
    await nothing_is_there(remote)


async def test_the_end_of_the_store_breaks_uploads_off_and_says_so_in_the_journal(
    run: Run, config: Config
) -> None:
    async with run() as store, trio.open_nursery() as nursery:
        refused: list[ImageStoreError] = []

        async def upload() -> None:
            try:
                async with store.receive(ReceiveRequest(id="v")) as upload:
                    while True:
                        await upload.feed(load("v8k-s1-plain")[: 2 << 20])
                        await trio.lowlevel.checkpoint()
                        begun.set()
                        await trio.sleep_forever()
            except ImageStoreError as error:
                refused.append(error)

        begun = trio.Event()
        nursery.start_soon(upload)
        await begun.wait()
        while not store._running().operations.state.operations:
            await trio.lowlevel.checkpoint()
        await store.destroy()
        nursery.cancel_scope.cancel()
    state = reader.replay(config.journal)
    assert state.operations == {}
    assert list(state.datasets) == ["images", "guests"]
    assert os.listdir(f"{config.pool.removeprefix('dir:')}/.imagestore/data") == []


async def test_there_is_a_bound_to_what_comes_in_at_once(remote: Remote) -> None:
    async with AsyncExitStack() as stack:
        for number in range(16):
            await stack.enter_async_context(remote.store.receive(ReceiveRequest(id=f"v{number}")))
        with pytest.raises(TemporarilyUnavailable):
            async with remote.store.receive(ReceiveRequest(id="one-more")):
                pass


async def test_two_that_want_one_name_do_not_mix(remote: Remote) -> None:
    async with remote.store.receive(ReceiveRequest(id="v")) as upload:
        await upload.feed(load("v8k-s1-plain"))
        await remote.store.create_volume(VolumeRequest(id="v", size=1))
        with pytest.raises(AlreadyExists):
            await upload.finish()
    assert await remote.names() == ["v"]
    assert remote.data_files() == 1


async def test_what_changes_while_a_stream_comes_is_seen_at_its_end(remote: Remote) -> None:
    await remote.receive("v", load("v8k-s1-plain"))
    async with remote.store.receive(ReceiveRequest(id="v")) as upload:
        await upload.feed(load("v8k-s1-s2-plain"))
        while not remote.store._running().operations.state.operations:
            await trio.lowlevel.checkpoint()
        await remote.store.create_snapshot(SnapshotRequest(id="v", dest="between"))
        with pytest.raises(Blocked, match="most recent snapshot of v"):
            await upload.finish()
    assert await remote.names() == ["v", "v@s1", "v@between"]


# --- a life that ends midway


@pytest.mark.parametrize("onto", [False, True])
@pytest.mark.parametrize(
    ("step", "is_there"),
    [
        ("receive-accepted", False),
        ("receive-staged", False),
        ("receive-published", True),
        ("receive-finished", True),
    ],
)
async def test_what_a_dead_store_left_is_whole_or_gone_in_the_next_life(
    step: str, is_there: bool, onto: bool, run: Run, config: Config, tmp_path: Path
) -> None:
    """The files as they are at that step are what a kill leaves (all that was promised is durable)."""
    if onto:
        async with run() as store:
            async with store.receive(ReceiveRequest(id="a/v")) as upload:
                await upload.feed(load("v8k-s1-plain"))
                await upload.finish()
    name = "v8k-s1-s2-plain" if onto else "v8k-s1-plain"
    left = tmp_path / "left"

    def trace(reached: str) -> None:
        if reached == step and not left.exists():
            for directory in ("pool", "journal"):
                shutil.copytree(tmp_path / directory, left / directory, symlinks=True)

    store = Store(config, trace=trace)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        async with store.receive(ReceiveRequest(id="a/v")) as upload:
            await upload.feed(load(name))
            await upload.finish()
        await store.destroy()
    shutil.rmtree(tmp_path / "pool")
    shutil.rmtree(tmp_path / "journal")
    for directory in ("pool", "journal"):
        (left / directory).rename(tmp_path / directory)
    async with run() as store:
        remote = Remote(store, config, ("", 0))
        before = ["a/v", "a/v@s1"] if onto else []
        after = [*(before or ["a/v"]), f"a/v@{SAMPLES[name].snapshot}"]
        assert await remote.names() == (after if is_there else before)
        assert remote.data_files() == len(await remote.names())
        if is_there:
            assert remote.sha256("a/v") == SAMPLES[name].sha256
        elif onto:
            assert remote.sha256("a/v") == SAMPLES["v8k-s1-plain"].sha256
        assert store._running().operations.state.operations == {}
        assert remote.outcomes()[-1] == ("succeeded" if is_there else "failed")
        known = {record.name for record in store._running().operations.state.datasets.values()}
        assert known - {"images", "guests", "a"} == set(await remote.names())
