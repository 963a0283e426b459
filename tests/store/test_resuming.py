"""A fetch that is broken off goes on behind the bytes that it has, in this life and the next."""

import gzip
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from imagestore.config import Config
from imagestore.errors import AlreadyExists, Cancelled, ContentRefused, Stopping
from imagestore.events import reader
from imagestore.events.catalogue import OperationFinished, OperationStarted
from imagestore.model import ImageRequest
from imagestore.store import Store
from tests.imageservice import ImageService, Ranged, Script, answer
from tests.store.conftest import MIB, Run

RAW = random.Random(1).randbytes(6 * MIB) + bytes(2 * MIB) + random.Random(2).randbytes(8 * MIB)
GZIPPED = gzip.compress(RAW, 1)
NEW = random.Random(3).randbytes(4 * MIB)
CUT = 9 * MIB
ASK = ImageRequest(id="a")

BODIES = [pytest.param(RAW, id="raw"), pytest.param(GZIPPED, id="gzip")]


def spool(config: Config) -> Path:
    return Path(config.pool.removeprefix("dir:")) / ".imagestore" / "spool"


def content(config: Config) -> bytes:
    return (Path(config.pool.removeprefix("dir:")) / "images/a").read_bytes()


def sole_operation(config: Config) -> str:
    """The id of the only fetch that was ever accepted."""
    (operation,) = {
        envelope.operation
        for envelope in reader.read(config.journal)
        if isinstance(envelope.event, OperationStarted) and envelope.event.method == "RequestImage"
    }
    return operation


def holding(service: ImageService, script: Script) -> Script:
    """Do as ``script`` does and then say nothing more, until the client goes away."""

    async def held(stream: trio.SocketStream) -> None:
        await script(stream)
        await service.until_hung_up(stream)

    return held


async def until_received(store: Store, size: int) -> None:
    """Wait until so much of the image has come."""
    while True:
        fetch = store._running().fetcher.under_way("a")
        if fetch is not None and fetch.progress is not None and fetch.progress.done_bytes >= size:
            return
        await trio.sleep(0.001)


@asynccontextmanager
async def broken_off(
    run: Run, service: ImageService, served: Ranged, **settings: object
) -> AsyncIterator[Store]:
    """A life that ends when CUT bytes of the image have come."""
    service.download("a", holding(service, served), served)
    async with run(image_service=service.address, **settings) as store, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(Stopping):
                await store.request_image(ASK)

        nursery.start_soon(ask)
        await until_received(store, CUT)
        yield store
        await store.destroy()


# --- in one life ---------------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES)
async def test_a_broken_connection_is_gone_on_from_the_last_byte(
    run: Run, service: ImageService, config: Config, body: bytes
) -> None:
    served = Ranged(service, body, cuts=[5 * MIB, 5 * MIB])
    service.download("a", served)
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
    assert content(config) == RAW
    assert served.starts[0] == 0 < served.starts[1] < served.starts[2]
    assert served.sent_bytes <= 1.1 * len(body)
    assert os.listdir(spool(config)) == []


async def test_nothing_of_the_old_body_is_used_when_the_server_has_a_new_one(
    run: Run, service: ImageService, config: Config
) -> None:
    service.download("a", Ranged(service, RAW, cuts=[CUT]), Ranged(service, NEW, tag='"two"'))
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
    assert content(config) == NEW


async def test_a_server_without_a_strong_tag_sends_all_of_it_again(
    run: Run, service: ImageService, config: Config
) -> None:
    served = Ranged(service, RAW, tag='W/"weak"', cuts=[CUT])
    service.download("a", served)
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
    assert content(config) == RAW
    assert served.starts == [0, 0]
    assert "range:" not in service.heads[-1].lower()


# --- in the next life ----------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES)
async def test_the_next_life_goes_on_behind_what_the_spool_holds(
    run: Run, service: ImageService, config: Config, body: bytes
) -> None:
    served = Ranged(service, body, cuts=[CUT + MIB])
    async with broken_off(run, service, served):
        pass
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
    assert content(config) == RAW
    assert served.starts[1] > CUT - 4 * MIB
    assert sole_operation(config)
    assert os.listdir(spool(config)) == []


async def test_a_raw_disk_is_written_once_and_its_spool_is_its_data_file(
    run: Run, service: ImageService, config: Config
) -> None:
    served = Ranged(service, RAW, cuts=[CUT + MIB])
    async with broken_off(run, service, served):
        kept = (spool(config) / sole_operation(config)).stat()
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
    volume = (Path(config.pool.removeprefix("dir:")) / "images/a").stat()
    assert volume.st_ino == kept.st_ino
    assert volume.st_blocks * 512 <= len(RAW) - 2 * MIB + (64 << 10), "zeros are a hole"


def flip(kept: Path) -> None:
    with kept.open("r+b") as file:
        file.seek(MIB)
        byte = file.read(1)
        file.seek(MIB)
        file.write(bytes([byte[0] ^ 1]))


def lose_blocks(kept: Path) -> None:
    """What a power cut does to what was not synced."""
    os.truncate(kept, 3 * MIB)


def lose_marks(kept: Path) -> None:
    os.truncate(f"{kept}.marks", 10)


def lose_the_body(kept: Path) -> None:
    kept.unlink()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("damage", [flip, lose_blocks, lose_marks, lose_the_body])
async def test_a_damaged_spool_is_noticed_and_the_image_comes_anew(
    run: Run, service: ImageService, config: Config, body: bytes, damage: Callable[[Path], None]
) -> None:
    served = Ranged(service, body, cuts=[CUT + MIB])
    async with broken_off(run, service, served):
        pass
    damage(spool(config) / sole_operation(config))
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
    assert content(config) == RAW
    assert served.starts == [0, 0]


async def test_a_cut_mark_leaves_the_one_before(run: Run, service: ImageService, config: Config) -> None:
    served = Ranged(service, RAW, cuts=[CUT + MIB])
    async with broken_off(run, service, served):
        pass
    marks = spool(config) / f"{sole_operation(config)}.marks"
    os.truncate(marks, marks.stat().st_size - 20)
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
    assert content(config) == RAW
    assert served.starts[1] > 0


async def test_over_the_quota_nothing_is_kept_and_the_fetch_goes_on(
    run: Run, service: ImageService, config: Config
) -> None:
    served = Ranged(service, GZIPPED, cuts=[CUT + MIB])
    async with broken_off(run, service, served, spool_bytes=2 * MIB):
        assert os.listdir(spool(config)) == []
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
    assert content(config) == RAW
    assert served.starts == [0, 0]


@pytest.mark.parametrize("body", BODIES)
async def test_a_spool_beside_the_pool_is_gone_on_from_as_well(
    run: Run, service: ImageService, config: Config, body: bytes, tmp_path: Path
) -> None:
    """As with OpenZFS, where the pool makes no file its own."""
    served = Ranged(service, body, cuts=[CUT + MIB])
    elsewhere = tmp_path / "elsewhere"
    async with broken_off(run, service, served, spool=str(elsewhere)):
        pass
    async with run(image_service=service.address, spool=str(elsewhere)) as store:
        await store.request_image(ASK)
    assert content(config) == RAW
    assert served.starts[1] > CUT - 4 * MIB
    assert os.listdir(elsewhere) == []


async def test_another_content_under_the_same_address_does_not_join_the_old_half(
    run: Run, service: ImageService, config: Config
) -> None:
    async with broken_off(run, service, Ranged(service, RAW, cuts=[CUT + MIB])):
        pass
    service.download("a", Ranged(service, NEW, tag='"two"'))
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
    assert content(config) == NEW


async def test_what_belongs_to_no_fetch_is_removed_from_the_spool_at_the_start(
    run: Run, service: ImageService, config: Config
) -> None:
    async with run():
        pass
    ended = "01a20db3-7b2b-7000-b1f6-e452cc7f8af7"
    for name in (ended, f"{ended}.marks", f"{ended}.unpacked", f"{ended}.disk", "of somebody else"):
        (spool(config) / name).write_bytes(b"x")
    async with run():
        assert os.listdir(spool(config)) == ["of somebody else"]


# --- cancelled -----------------------------------------------------------------------


async def test_a_cancelled_fetch_tells_its_waiters_and_leaves_nothing(
    run: Run, service: ImageService, config: Config
) -> None:
    served = Ranged(service, RAW, cuts=[CUT, None])
    service.download("a", holding(service, served), served)
    async with run(image_service=service.address) as store:
        fetcher = store._running().fetcher
        refused: list[str] = []

        async def ask() -> None:
            with pytest.raises(Cancelled) as raised:
                await store.request_image(ASK)
            refused.append(str(raised.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await until_received(store, CUT - MIB)
            operation = sole_operation(config)
            assert fetcher.cancel(operation, "root")
        assert refused == ["fetch of image a was cancelled by root"] * 2
        assert os.listdir(spool(config)) == []
        assert os.listdir(spool(config).parent / "data") == []
        assert store._running().zpool.ledger.reserved_bytes == 0
        (image,) = (await store.get_image(ASK)).images
        assert (image.status, image.reason) == ("error", refused[0])
        assert not fetcher.cancel(operation, "root")
        await store.request_image(ASK)
    assert content(config) == RAW
    outcomes = [
        (envelope.event.outcome, envelope.principal)
        for envelope in reader.read(config.journal)
        if isinstance(envelope.event, OperationFinished) and envelope.operation == operation
    ]
    assert outcomes == [("cancelled", "root")]


async def test_a_fetch_that_waits_for_its_turn_is_cancelled_as_well(
    run: Run, service: ImageService, config: Config
) -> None:
    service.download("a", holding(service, Ranged(service, RAW, cuts=[CUT])))
    service.download("b", answer(NEW))
    async with run(image_service=service.address, num_fetchers=1) as store, trio.open_nursery() as nursery:

        async def ask(image: str) -> None:
            with pytest.raises(Cancelled):
                await store.request_image(ImageRequest(id=image))

        nursery.start_soon(ask, "a")
        await until_received(store, MIB)
        nursery.start_soon(ask, "b")
        fetcher = store._running().fetcher
        while not store._running().operations.state.images.get("b"):
            await trio.sleep(0.001)
        for image in ("b", "a"):
            fetch = fetcher.under_way(image)
            assert fetch is not None
            while not fetch.is_accepted:
                await trio.sleep(0.001)
            assert fetcher.cancel(fetch.operation, "root")
    assert not any("/b/" in path for path in service.requests)


# --- the same id, the same content ------------------------------------------------------


async def test_an_image_that_was_lost_comes_back_with_the_same_content_only(
    run: Run, service: ImageService, config: Config
) -> None:
    service.download("a", answer(RAW), answer(NEW), answer(RAW))
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
        zpool = store._running().zpool
        rows = list(zpool.view.under("images/a"))
        await zpool.driver.destroy([row.target for row in rows])
        await zpool.refresh()
        with pytest.raises(ContentRefused, match=r"image has sha256 .*, wanted is"):
            await store.request_image(ASK)
        await store.request_image(ASK)
        assert content(config) == RAW


async def test_a_deleted_image_may_come_back_with_another_content(
    run: Run, service: ImageService, config: Config
) -> None:
    service.download("a", answer(RAW), answer(NEW))
    async with run(image_service=service.address) as store:
        await store.request_image(ASK)
        with pytest.raises(AlreadyExists, match="image a is known with another content: sha256"):
            await store.request_image(ImageRequest(id="a", sha256="ab" * 32))
        await store.delete_image(ASK)
        await store.request_image(ASK)
    assert content(config) == NEW
