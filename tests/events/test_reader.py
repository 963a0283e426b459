"""Reading, verifying and salvaging without opening: beside a running store, and what it refuses."""

import os
from pathlib import Path

import pytest
import trio
from msgspec import structs

from imagestore.errors import Corrupt, JournalError
from imagestore.events import checkpoint, reader
from imagestore.events.catalogue import ImageFailed, ImageRequested
from imagestore.events.commitgroup import Entry
from imagestore.events.files import SystemFiles
from imagestore.events.journal import JournalSettings, open_journal
from imagestore.events.salvage import salvage
from imagestore.events.segment import decode_header, encode_header, segment_name
from imagestore.events.state import State
from tests.events.disk import MemoryDisk
from tests.events.history import (
    DIRECTORY,
    SMALL,
    events_on,
    finished,
    frames_of,
    newer,
    opened,
    ours,
    record,
    started,
)

ONE, TWO = segment_name(1), segment_name(2)
SETTINGS = JournalSettings(segment_bytes=4096, checkpoint_events=25, threads=False)


async def a_disk(operations: int = 30) -> MemoryDisk:
    disk = MemoryDisk()
    await record(disk, range(operations), SETTINGS)
    return disk


async def test_events_can_be_read_from_any_seq_on() -> None:
    disk = await a_disk()
    events = events_on(disk)
    for seq in (1, 2, 3, 40, len(events), len(events) + 1):
        assert list(reader.read(DIRECTORY, seq, files=disk)) == events[seq - 1 :]


async def test_the_state_can_be_had_as_of_any_seq() -> None:
    disk = await a_disk()
    assert reader.replay(DIRECTORY, files=disk).seq == len(events_on(disk))
    for seq in (1, 2, 4, 24, 25, 26, 50):
        state = reader.replay(DIRECTORY, up_to=seq, files=disk)
        assert state.seq == seq
        assert len(state.datasets) == sum(
            event.seq <= seq for event in events_on(disk) if type(event.event).__name__ == "DatasetCreated"
        )


async def test_the_head_is_that_of_the_writer() -> None:
    disk = MemoryDisk()
    async with opened(disk, SMALL) as journal:
        for number in range(12):
            await journal.append([started(str(number))])
            assert reader.head(DIRECTORY, files=disk) == journal.head


async def test_an_empty_directory_is_an_empty_journal_and_none_is_an_error(tmp_path: Path) -> None:
    assert reader.head(str(tmp_path)) == (0, "")
    assert list(reader.read(str(tmp_path))) == []
    assert reader.replay(str(tmp_path)) == State()
    assert reader.verify(str(tmp_path)).whole
    missing = str(tmp_path / "missing")
    with pytest.raises(JournalError, match=f"there is no journal {missing}"):
        reader.head(missing)
    with pytest.raises(JournalError, match=f"there is no journal {missing}"):
        reader.verify(missing)


async def test_a_whole_journal_is_verified_as_whole() -> None:
    disk = await a_disk()
    report = reader.verify(DIRECTORY, files=disk)
    assert report.whole
    assert report.findings == ()
    assert (report.seq, report.hash) == reader.head(DIRECTORY, files=disk)
    assert report.frames == len(frames_of(disk))
    assert report.epoch == 1


async def test_every_damaged_segment_is_found_not_only_the_first() -> None:
    disk = await a_disk()
    contents = disk.contents()
    for name in (ONE, TWO):
        contents[name] = contents[name][:300] + b"\xff" + contents[name][301:]
    report = reader.verify(DIRECTORY, files=MemoryDisk(contents=contents))
    assert not report.whole
    texts = [finding.text for finding in report.findings if finding.kind == "damage"]
    assert [ONE in texts[0], TWO in texts[1]] == [True, True]
    assert "salvage" in report.findings[0].advice


async def from_the_future() -> MemoryDisk:
    """A disk on which a newer imagestore wrote an event of its own among those that all know."""
    disk = MemoryDisk()
    with newer("image-failed"):
        async with opened(disk, SETTINGS) as journal:
            for number in range(30):
                await journal.append([started(str(number))])
            invented = Entry(event=ImageFailed(image="deb12", reason="r"))
            await journal.append([Entry(event=ImageRequested(image="deb12")), invented])
            for number in range(30, 60):
                await journal.append([started(str(number))])
    return disk


async def test_events_of_a_newer_imagestore_are_no_damage_and_the_rest_is_checked_all_the_same() -> None:
    disk = await from_the_future()
    report = reader.verify(DIRECTORY, files=disk)
    assert report.verdict == "newer"
    assert not report.whole
    (finding,) = (each for each in report.findings if each.kind != "note")
    assert finding.kind == "newer"
    assert "an event that this imagestore does not know" in finding.text
    assert "invented-later" in finding.text
    assert "seq 32" in finding.text
    assert finding.advice == "use imagestore test, which wrote it, or a newer one"
    assert (report.seq, report.hash) == reader.head(DIRECTORY, files=disk)
    assert report.frames == len(frames_of(disk))


async def test_damage_behind_events_of_a_newer_imagestore_is_damage() -> None:
    contents = (await from_the_future()).contents()
    last = max(name for name in contents if name.startswith("segment-") and b"IJFR" in contents[name])
    contents[last] = contents[last][:200] + b"\xff" + contents[last][201:]
    report = reader.verify(DIRECTORY, files=MemoryDisk(contents=contents))
    assert report.verdict == "damaged"
    assert [each.kind for each in report.findings if each.kind != "note"] == ["newer", "damage"]


async def test_a_newer_format_is_no_damage() -> None:
    disk = await a_disk()
    contents = disk.contents()
    old = decode_header(contents[ONE])
    assert old is not None
    header = encode_header(structs.replace(old, version=9, oldest_reader=2))
    contents[ONE] = header + contents[ONE][len(header) :]
    report = reader.verify(DIRECTORY, files=MemoryDisk(contents=contents))
    assert (report.verdict, report.segments) == ("newer", 0)
    assert "format 9" in report.findings[0].text
    assert "install that imagestore" in report.findings[0].advice


async def test_a_checkpoint_that_tells_another_story_is_damage_and_a_broken_one_a_note() -> None:
    disk = await a_disk()
    contents = disk.contents()
    older, newer = sorted(name for name in contents if "checkpoint" in name)
    broken = {**contents, newer: contents[newer][:-1]}
    report = reader.verify(DIRECTORY, files=MemoryDisk(contents=broken))
    assert report.whole
    assert newer in report.findings[0].text
    decoded = checkpoint.decode(contents[newer])
    assert isinstance(decoded, checkpoint.Checkpoint)
    decoded.state.pool = "another"
    forged = checkpoint.encode(decoded.anchor, checkpoint.encode_state(decoded.state))
    report = reader.verify(DIRECTORY, files=MemoryDisk(contents={**contents, newer: forged}))
    assert not report.whole
    assert newer in report.findings[0].text
    assert older not in report.findings[0].text


async def test_an_unfinished_last_group_is_no_damage() -> None:
    disk = await a_disk(3)
    contents = disk.contents()
    end = frames_of(disk)[-1][2]
    last = segment_name(frames_of(disk)[-1][0])
    contents[last] = contents[last][:end] + b"half of a frame"
    damaged = MemoryDisk(contents=contents)
    assert list(reader.read(DIRECTORY, files=damaged)) == events_on(disk)
    report = reader.verify(DIRECTORY, files=damaged)
    assert report.whole
    assert [finding.kind for finding in report.findings] == ["note"]


@pytest.mark.parametrize("first", [None, b""])
async def test_checkpoints_without_their_segments_are_damage_for_every_reader(first: bytes | None) -> None:
    disk = await a_disk()
    left = {name: data for name, data in disk.contents().items() if "checkpoint" in name}
    assert left
    bereft = MemoryDisk(contents=left if first is None else {**left, ONE: first})
    assert not reader.verify(DIRECTORY, files=bereft).whole
    with pytest.raises(Corrupt, match="has lost its segments"):
        reader.head(DIRECTORY, files=bereft)
    with pytest.raises(Corrupt, match="has lost its segments"):
        reader.replay(DIRECTORY, files=bereft)
    with pytest.raises(Corrupt, match="has lost its segments"):
        list(reader.read(DIRECTORY, files=bereft))


class TearingDisk(MemoryDisk):
    """Shows a reader a group that is being written: one read sees pages of two moments."""

    def __init__(self, contents: dict[str, bytes], torn: dict[str, bytes]) -> None:
        super().__init__(contents=contents)
        self.torn = torn

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        path = os.path.basename(self._open[descriptor][0])
        if length > 1000 and path in self.torn:
            return self.torn.pop(path)[offset : offset + length]
        return super().read(descriptor, length, offset)


async def test_what_looks_damaged_beside_a_writer_is_read_again() -> None:
    disk = await a_disk(2)
    contents = disk.contents()
    frames = frames_of(disk)
    hole = contents[ONE][: frames[3][1]] + bytes(64) + contents[ONE][frames[3][1] + 64 :]
    tearing = TearingDisk(contents, {ONE: hole})
    assert list(reader.read(DIRECTORY, files=tearing)) == events_on(disk)
    assert tearing.torn == {}
    with pytest.raises(Corrupt):
        list(reader.read(DIRECTORY, files=MemoryDisk(contents={**contents, ONE: hole})))


async def test_reading_beside_a_writer_never_sees_damage(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    settings = JournalSettings(segment_bytes=1 << 14, checkpoint_events=50)
    read: list[int] = []
    async with open_journal(directory, settings=settings) as journal:

        async def write(caller: int) -> None:
            for number in range(caller, 240, 4):
                await journal.append([started(str(number))])
                await journal.append(finished(str(number)))

        async def audit() -> None:
            while journal.state.seq < 600:
                report = await trio.to_thread.run_sync(reader.verify, directory)
                assert report.whole, report.findings
                read.append(report.seq)

        async with trio.open_nursery() as nursery:
            for caller in range(4):
                nursery.start_soon(write, caller)
            nursery.start_soon(audit)
    assert read == sorted(read)
    assert reader.verify(directory).seq == 721


class CountingFiles(SystemFiles):
    def __init__(self) -> None:
        self.written: list[str] = []

    def open(self, path: str, flags: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            self.written.append(path)
        return super().open(path, flags)


async def test_readers_change_nothing_and_take_no_lock(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    async with open_journal(directory, settings=JournalSettings(segment_bytes=1 << 16)) as journal:
        await journal.append([started("1")])
        files = CountingFiles()
        assert reader.verify(directory, files=files).whole
        assert reader.replay(directory, files=files).seq == 2
        assert reader.head(directory, files=files) == journal.head
        assert files.written == []


async def test_salvage_copies_what_stood_before_the_damage(tmp_path: Path) -> None:
    disk = await a_disk()
    contents = disk.contents()
    frames = frames_of(disk)
    victim = next(index for index, frame in enumerate(frames) if frame[0] == 3) + 2
    name = segment_name(3)
    place = frames[victim][1] + 100
    contents[name] = contents[name][:place] + b"\xff" + contents[name][place + 1 :]
    damaged, rescued = tmp_path / "damaged", tmp_path / "rescued"
    damaged.mkdir()
    for file, data in contents.items():
        (damaged / file).write_bytes(data)
    with pytest.raises(JournalError, match=r"is the journal .* itself"):
        salvage(str(damaged), str(damaged))
    rescued.mkdir()
    (rescued / "other").write_bytes(b"")
    with pytest.raises(JournalError, match="is not empty"):
        salvage(str(damaged), str(rescued))
    (rescued / "other").unlink()
    salvaged = salvage(str(damaged), str(rescued))
    assert name in salvaged.damage
    assert {file.name: file.read_bytes() for file in damaged.iterdir()} == contents
    assert list(reader.read(str(rescued))) == events_on(disk)[: salvaged.seq]
    assert salvaged.seq > 20
    settings = JournalSettings(segment_bytes=4096, threads=False)
    async with open_journal(str(rescued), settings=settings) as journal:
        await journal.append([started("999")])
    assert ours(list(reader.read(str(rescued))))[-1].operation == "999"


async def test_a_journal_of_which_nothing_can_be_saved_names_the_way_without_it(tmp_path: Path) -> None:
    disk = await a_disk(1)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / ONE).write_bytes(b"\xff" + disk.contents()[ONE][1:])
    with pytest.raises(Corrupt, match="header is damaged") as refusal:
        salvage(str(damaged), str(tmp_path / "rescued"))
    assert "imagestore recover --pool" in refusal.value.detail
    assert "imagestore journal" not in refusal.value.detail
    assert not (tmp_path / "rescued").exists()


async def test_salvage_of_a_whole_journal_is_the_whole_journal(tmp_path: Path) -> None:
    directory, copy = str(tmp_path / "journal"), str(tmp_path / "copy")
    async with open_journal(directory, settings=JournalSettings(segment_bytes=1 << 16)) as journal:
        await journal.append([started("1")])
    salvaged = salvage(directory, copy)
    assert salvaged.damage == ""
    assert reader.head(copy) == reader.head(directory)
