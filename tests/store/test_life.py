"""A store's life: start, serve, stop, start again; journals and pools that do not belong together."""

import os
import re
import shutil
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from imagestore.attachment import JournalSide, check
from imagestore.config import Config
from imagestore.errors import (
    ConfigError,
    JournalLocked,
    OutcomeUnknown,
    PoolBusy,
    PoolMismatch,
    TemporarilyUnavailable,
)
from imagestore.events import reader
from imagestore.events.catalogue import DatasetLost, OperationFinished
from imagestore.events.journal import Journal
from imagestore.model import DriftRequest, GuestRequest, ImageRequest, SnapshotRequest, VolumeRequest
from imagestore.pools.base import NO_TAGS, Mark, NewVolume
from imagestore.pools.directory.driver import DirectoryPool, open_directory_pool
from imagestore.rebuild import rebuild
from imagestore.store import Store, create
from tests.imageservice import ImageService, answer
from tests.store.conftest import MIB, Run, raw_image, running

VOLUME = VolumeRequest(id="a/b", size=1)


async def volumes(store: Store) -> list[str]:
    return [v.id for v in (await store.list_volumes(VolumeRequest())).volumes]


async def test_a_fresh_store_makes_its_two_roots_and_nothing_else(run: Run, tmp_path: Path) -> None:
    async with run() as store:
        assert store.readiness().ready
        assert await volumes(store) == []
    visible = [name for name in os.listdir(tmp_path / "pool") if not name.startswith(".")]
    assert sorted(visible) == ["guests", "images"]


async def test_what_was_made_is_there_in_the_next_life(run: Run) -> None:
    async with run() as store:
        await store.create_volume(VOLUME)
    async with run() as store:
        assert await volumes(store) == ["pool/a/b"]


async def test_a_store_that_does_not_run_says_so(config: Config) -> None:
    store = create(config)
    assert not store.readiness().ready
    with pytest.raises(TemporarilyUnavailable, match="not running"):
        await store.list_volumes(VolumeRequest())
    await store.destroy()


async def test_destroy_releases_everything_and_deletes_no_data(config: Config) -> None:
    async with running(config) as store:
        await store.create_volume(VOLUME)
        await store.destroy()
        await store.destroy()
        with pytest.raises(TemporarilyUnavailable, match="has ended"):
            await store.list_volumes(VolumeRequest())
        async with running(config) as again:
            assert await volumes(again) == ["pool/a/b"]


async def test_a_store_runs_once(config: Config) -> None:
    async with running(config) as store:
        with pytest.raises(ConfigError, match="runs once"):
            await store.run()


async def test_a_second_store_on_the_same_pool_is_refused_with_the_pid(config: Config) -> None:
    async with running(config):
        with pytest.raises(PoolBusy, match=f"pid {os.getpid()}"):
            await create(replace(config, recovery_wait_seconds=0.01)).run()


async def test_a_second_store_on_the_same_journal_is_refused_with_the_pid(
    config: Config, tmp_path: Path
) -> None:
    await (await open_directory_pool(f"{tmp_path}/other", create=True)).close()
    async with running(config):
        with pytest.raises(JournalLocked, match=f"process {os.getpid()}"):
            await create(replace(config, pool=f"dir:{tmp_path}/other")).run()


async def test_http_serves_before_and_after_the_store_is_ready(config: Config) -> None:
    store = create(config)
    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(store.run_http)
        assert b" 503 " in await get(port, "/readyz")
        await nursery.start(store.run)
        assert b" 200 " in await get(port, "/readyz")
        assert b" 200 " in await get(port, "/healthz")
        await store.destroy()


async def get(port: int, path: str) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join([piece async for piece in stream])


# --- what does not belong together ---------------------------------------------------


async def test_a_marked_pool_without_its_journal_names_the_command_that_settles_it(
    run: Run, config: Config, tmp_path: Path
) -> None:
    async with run() as store:
        await store.create_volume(VOLUME)
    lost = replace(config, journal=f"{tmp_path}/new")
    with pytest.raises(PoolMismatch, match="is empty") as raised:
        await create(lost).run()
    assert f"imagestore recover --pool {config.pool} --journal {tmp_path}/new" in raised.value.detail
    found = await rebuild(lost)
    assert found.datasets == 4
    async with running(lost) as store:
        assert await volumes(store) == ["pool/a/b"]


async def test_a_journal_whose_pool_is_missing_refuses(run: Run, config: Config, tmp_path: Path) -> None:
    async with run():
        pass
    shutil.rmtree(tmp_path / "pool")
    with pytest.raises(PoolMismatch, match="there is no pool") as raised:
        await create(config).run()
    assert "--journal NEW-DIRECTORY" in raised.value.detail
    assert not (tmp_path / "pool").exists()


async def test_a_journal_whose_pool_carries_no_mark_refuses(run: Run, config: Config, tmp_path: Path) -> None:
    async with run():
        pass
    shutil.rmtree(tmp_path / "pool")
    await (await open_directory_pool(f"{tmp_path}/pool", create=True)).close()
    with pytest.raises(PoolMismatch, match="carries no mark"):
        await create(config).run()


async def test_another_journals_pool_is_refused_and_the_journal_not_changed(
    run: Run, config: Config, tmp_path: Path
) -> None:
    async with run():
        pass
    other = replace(config, pool=f"dir:{tmp_path}/pool2", journal=f"{tmp_path}/journal2")
    async with running(other):
        pass
    before = reader.head(other.journal)
    with pytest.raises(PoolMismatch, match="belongs to journal"):
        await create(replace(other, pool=config.pool)).run()
    assert reader.head(other.journal) == before


async def test_a_restored_old_journal_is_refused_however_often_it_is_tried(
    run: Run, config: Config, tmp_path: Path
) -> None:
    async with run():
        pass
    shutil.copytree(tmp_path / "journal", tmp_path / "backup")
    async with run() as store:
        await store.create_volume(VOLUME)
    shutil.rmtree(tmp_path / "journal")
    shutil.copytree(tmp_path / "backup", tmp_path / "journal")
    for _ in range(3):
        with pytest.raises(PoolMismatch, match="is older than pool"):
            await create(config).run()


def test_a_crash_between_the_mark_and_the_journals_note_of_it_settles_by_itself() -> None:
    side = JournalSide(directory="j", uuid="u", epoch=1, pool="")
    check(side, Mark(journal="u", epoch=1), "dir:p")
    check(side, None, "dir:p")


async def test_a_pool_that_was_moved_goes_on_under_its_new_name(
    run: Run, config: Config, tmp_path: Path
) -> None:
    async with run() as store:
        await store.create_volume(VOLUME)
    os.rename(tmp_path / "pool", tmp_path / "moved")
    async with running(replace(config, pool=f"dir:{tmp_path}/moved")) as store:
        assert await volumes(store) == ["moved/a/b"]


@pytest.mark.parametrize("what", ["pool", "journal"])
async def test_a_place_that_cannot_be_made_is_named(config: Config, tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("")
    place = f"{tmp_path}/file/x"
    settings = {"pool": f"dir:{place}"} if what == "pool" else {"journal": place}
    with pytest.raises(Exception, match=re.escape(str(tmp_path))):
        await create(replace(config, **settings)).run()
    assert not (tmp_path / "journal").exists() or what == "journal"


# --- what others did meanwhile ----------------------------------------------------------


async def test_what_others_destroyed_while_it_was_down_is_recorded_and_not_listed(
    run: Run, config: Config, tmp_path: Path
) -> None:
    async with run() as store:
        await store.create_volume(VOLUME)
        await store.create_volume(VolumeRequest(id="kept", size=1))
    pool = await open_directory_pool(f"{tmp_path}/pool", create=False)
    await pool.destroy([(await pool.get("a/b")).target])
    await pool.close()
    async with run() as store:
        assert await volumes(store) == ["pool/kept"]
    lost = [e.event for e in reader.read(config.journal) if isinstance(e.event, DatasetLost)]
    assert [event.name for event in lost] == ["a/b"]


async def test_what_is_not_ours_is_told_as_foreign(run: Run, config: Config, tmp_path: Path) -> None:
    async with run() as store:
        await store.create_volume(VOLUME)
        assert (await store.get_drift(DriftRequest())).datasets == ()
    pool = await open_directory_pool(f"{tmp_path}/pool", create=False)
    made = await pool.create([NewVolume(name="theirs", size=1 << 20, tags=NO_TAGS)])
    await pool.rename((await pool.get("a/b")).target, "c")
    await pool.close()
    async with run() as store:
        (foreign,) = (await store.get_drift(DriftRequest())).datasets
        assert (foreign.id, foreign.change, foreign.guid) == ("pool/theirs", "foreign", made[0].guid)
        assert await volumes(store) == ["pool/c", "pool/theirs"]


async def test_an_image_whose_dataset_is_gone_is_not_complete(
    run: Run, service: ImageService, tmp_path: Path
) -> None:
    service.download("deb", answer(raw_image()))
    async with run(image_service=service.address) as store:
        await store.request_image(ImageRequest(id="deb"))
    pool = await open_directory_pool(f"{tmp_path}/pool", create=False)
    rows = [await pool.get("images/deb"), await pool.get("images/deb@image")]
    await pool.destroy([row.target for row in rows])
    await pool.close()
    async with run(image_service=service.address) as store:
        (image,) = (await store.get_image(ImageRequest(id="deb"))).images
        assert image.status == "error"
        assert image.reason == "its dataset images/deb is gone from the pool"
        (image,) = (await store.request_image(ImageRequest(id="deb"))).images
        assert image.status == "complete"


# --- two at once ----------------------------------------------------------------------


async def test_two_requests_for_one_guest_at_once_make_it_once(run: Run, config: Config) -> None:
    request = GuestRequest(guest={"id": "g", "disks": [{"size": 1}, {"size": 2}]})
    answers = []
    async with run() as store:

        async def ask() -> None:
            answers.append(await store.create_guest_disks(request))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert answers == [answers[0]] * 5
    finished = [e for e in reader.read(config.journal) if isinstance(e.event, OperationFinished)]
    assert len(finished) == 2  # the roots, and the guest


async def test_a_caller_that_goes_away_does_not_cancel_what_it_asked_for(run: Run) -> None:
    async with run() as store:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.create_volume, VOLUME)
                await trio.testing.wait_all_tasks_blocked(0.0)
                scope.cancel()
        await store.create_snapshot(SnapshotRequest(id="images", dest="s"))
        while await volumes(store) != ["pool/a/b"]:
            await trio.lowlevel.checkpoint()


async def test_a_hundred_guests_at_once(run: Run, service: ImageService) -> None:
    service.download("deb", answer(raw_image()))
    async with run(image_service=service.address) as store:
        await store.request_image(ImageRequest(id="deb"))

        async def ask(number: int) -> None:
            await store.create_guest_disks(
                GuestRequest(guest={"id": f"g{number}", "disks": [{"image": "deb"}, {"size": 1}]})
            )

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
        assert len(await volumes(store)) == 201


async def test_space_is_promised_once_and_refused_when_it_is_gone(run: Run) -> None:
    async with run() as store:
        free = await store.space_available()
        await store.create_volume(VolumeRequest(id="half", size=free // MIB // 2))
        left = await store.space_available()
        assert left < free * 0.6
        with pytest.raises(Exception, match=r"^no space left on device$"):
            await store.create_volume(VolumeRequest(id="more", size=left // MIB + 1024))
        assert await volumes(store) == ["pool/half"]


async def test_a_command_of_the_pool_that_hangs_does_not_keep_the_store(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = trio.Event()

    async def hang(*_: object) -> None:
        begun.set()
        await trio.sleep_forever()

    async def ask(store: Store) -> None:
        with pytest.raises(OutcomeUnknown):
            await store.create_volume(VOLUME)

    async with running(replace(config, shutdown_seconds=0.1)) as store:
        monkeypatch.setattr(DirectoryPool, "create", hang)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, store)
            await begun.wait()
            await store.destroy()
    monkeypatch.undo()
    async with running(config) as again:
        assert await volumes(again) == []


async def test_a_journal_whose_disk_does_not_answer_is_not_ready_but_not_read_only(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits may still succeed; only a failed journal refuses until a restart."""
    async with run() as store:
        monkeypatch.setattr(Journal, "trouble", lambda journal: "a flush has taken 9 s so far")
        readiness = store.readiness()
        assert not readiness.ready
        assert not readiness.read_only
        monkeypatch.undo()
        assert store.readiness().ready
