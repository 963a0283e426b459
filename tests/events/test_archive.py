"""Segments moved to cold storage: the store goes on, history comes back with them, and no crash loses any."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import trio

from imagestore.errors import Corrupt, JournalError, JournalLocked
from imagestore.events import reader
from imagestore.events.archive import archive
from imagestore.events.backup import backup, restore
from imagestore.events.catalogue import SegmentsArchived
from imagestore.events.files import SystemFiles
from imagestore.events.journal import JournalSettings, open_journal
from imagestore.events.segment import segment_name
from imagestore.events.state import State
from tests.events.history import finished, started

SETTINGS = JournalSettings(segment_bytes=4096, checkpoint_events=10**9, threads=False)


async def write(directory: str, first: int, last: int) -> State:
    async with open_journal(directory, settings=SETTINGS) as journal:
        for number in range(first, last):
            await journal.append([started(str(number))])
            await journal.append(finished(str(number)))
        return journal.state


async def move(directory: str, to: str, *, keep: int = 1) -> None:
    await archive(directory, to, principal="auditor", keep=keep, settings=SETTINGS)


def segments(directory: str) -> list[str]:
    return sorted(path.name for path in Path(directory).glob("segment-*"))


def copy_back(cold: str, directory: str) -> None:
    for name in segments(cold):
        Path(directory, name).write_bytes(Path(cold, name).read_bytes())


async def test_the_store_goes_on_from_its_checkpoint_and_history_comes_back_with_the_segments(
    tmp_path: Path,
) -> None:
    journal, cold = str(tmp_path / "journal"), str(tmp_path / "cold")
    await write(journal, 0, 40)
    before = list(reader.read(journal))
    there = segments(journal)
    await move(journal, cold)
    assert segments(cold) == there[:-1]
    assert segments(journal)[0] == there[-1]
    state = await write(journal, 40, 50)
    assert sorted(state.datasets) == sorted(f"vol-{number}" for number in range(50))
    assert reader.verify(journal).whole
    assert any("are archived in" in finding.text for finding in reader.verify(journal).findings)
    left = list(reader.read(journal))
    assert before[len(before) - 1] in left
    assert left[0].seq > 1
    (noted,) = [each for each in left if isinstance(each.event, SegmentsArchived)]
    assert noted.principal == "auditor"
    with pytest.raises(JournalError, match="needs the segments before") as refused:
        reader.replay(journal, up_to=5)
    assert f"cp {cold}/segment-*" in refused.value.detail
    copy_back(cold, journal)
    assert list(reader.read(journal))[: len(before)] == before
    assert reader.replay(journal, up_to=5).seq == 5
    assert reader.verify(journal).whole
    assert reader.archived(journal) is None
    assert (await write(journal, 50, 51)).seq > len(before)


async def test_more_is_archived_behind_what_was(tmp_path: Path) -> None:
    journal, cold = str(tmp_path / "journal"), str(tmp_path / "cold")
    await write(journal, 0, 30)
    await move(journal, cold, keep=2)
    first = segments(cold)
    await write(journal, 30, 60)
    await move(journal, cold)
    assert segments(cold)[: len(first)] == first
    assert len(segments(cold)) > len(first)
    await move(journal, cold, keep=100)
    copy_back(cold, journal)
    events = list(reader.read(journal))
    assert [each.seq for each in events] == list(range(1, len(events) + 1))


class Killing(SystemFiles):
    """Kills its process before the system call that ``left`` counts down to."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def rename(self, source: str, target: str) -> None:
        self._count()
        super().rename(source, target)

    def remove(self, path: str) -> None:
        self._count()
        super().remove(path)

    def sync(self, descriptor: int) -> None:
        self._count()
        super().sync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        self._count()
        super().sync_data(descriptor)


def killed(journal: str, cold: str, calls: int) -> bool:
    """Archive in a process that is killed before its call number ``calls``; False if it made fewer."""
    child = os.fork()
    if child == 0:
        work = partial(archive, journal, cold, principal="auditor", settings=SETTINGS, files=Killing(calls))
        trio.run(work)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_any_step_loses_nothing_and_the_next_archive_goes_on(tmp_path: Path) -> None:
    calls = 0
    while True:
        journal, cold = str(tmp_path / f"journal{calls}"), str(tmp_path / f"cold{calls}")
        trio.run(write, journal, 0, 12)
        events = list(reader.read(journal))
        if not killed(journal, cold, calls):
            break
        state = trio.run(write, journal, 12, 13)
        assert sorted(state.datasets) == sorted(f"vol-{number}" for number in range(13))
        trio.run(move, journal, cold)
        copy_back(cold, journal)
        assert list(reader.read(journal))[: len(events)] == events
        calls += 1
    assert calls > 12


async def test_what_was_archived_is_not_mistaken_for_what_is_lost(tmp_path: Path) -> None:
    journal, cold = str(tmp_path / "journal"), str(tmp_path / "cold")
    await write(journal, 0, 40)
    await move(journal, cold, keep=3)
    kept = segments(journal)
    last_archived = segments(cold)[-1]
    missing = Path(journal, kept[0])
    data = missing.read_bytes()
    missing.unlink()
    with pytest.raises(Corrupt, match=f"{kept[0]} at offset 0.*is missing"):
        reader.replay(journal)
    missing.write_bytes(Path(cold, last_archived).read_bytes())
    with pytest.raises(Corrupt, match="renamed or doubled"):
        reader.replay(journal)
    missing.write_bytes(data)
    Path(journal, "archived").write_text("{}")
    with pytest.raises(Corrupt, match="does not say what was archived"):
        reader.replay(journal)


async def test_without_a_checkpoint_the_segments_are_asked_for_by_name(tmp_path: Path) -> None:
    journal, cold = str(tmp_path / "journal"), str(tmp_path / "cold")
    await write(journal, 0, 40)
    await move(journal, cold)
    for checkpoint in Path(journal).glob("checkpoint-*"):
        checkpoint.write_bytes(b"torn")
    with pytest.raises(JournalError, match=f"were archived in {cold}"):
        await write(journal, 40, 41)
    copy_back(cold, journal)
    assert len((await write(journal, 40, 41)).datasets) == 41


async def test_a_journal_whose_beginning_is_archived_is_backed_up_and_restored(tmp_path: Path) -> None:
    journal, cold, copy, again = (str(tmp_path / name) for name in ("journal", "cold", "copy", "again"))
    await write(journal, 0, 40)
    await move(journal, cold)
    backup(journal, copy)
    restore(copy, again)
    assert len((await write(again, 40, 41)).datasets) == 41


@pytest.mark.parametrize("to", ["journal", "link", "journal/cold"])
async def test_segments_are_not_archived_where_they_are(tmp_path: Path, to: str) -> None:
    journal = str(tmp_path / "journal")
    (tmp_path / "link").symlink_to("journal")
    await write(journal, 0, 40)
    there, before = segments(journal), list(reader.read(journal))
    with pytest.raises(JournalError, match=r"is the journal .* itself"):
        await move(journal, str(tmp_path / to))
    assert segments(journal) == there
    assert list(reader.read(journal)) == before
    assert reader.verify(journal).whole


async def test_not_beside_a_store_and_not_over_something_else(tmp_path: Path) -> None:
    journal, cold = str(tmp_path / "journal"), str(tmp_path / "cold")
    await write(journal, 0, 40)
    async with open_journal(journal, settings=SETTINGS):
        with pytest.raises(JournalLocked):
            await move(journal, cold)
    Path(cold).mkdir()
    Path(cold, segment_name(1)).write_bytes(b"not ours")
    there = segments(journal)
    with pytest.raises(JournalError, match="is no"):
        await move(journal, cold)
    assert segments(journal)[: len(there)] == there
