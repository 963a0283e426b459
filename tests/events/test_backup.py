"""Backups: of a journal that is being written, taken again, broken off, restored; and what they refuse."""

from pathlib import Path

import pytest

from imagestore.errors import Corrupt, JournalError
from imagestore.events import reader
from imagestore.events.backup import backup, restore
from imagestore.events.files import SystemFiles
from imagestore.events.journal import JournalSettings, open_journal
from imagestore.events.reader import Head
from imagestore.events.salvage import salvage
from imagestore.events.segment import segment_name
from tests.events.history import finished, started

SETTINGS = JournalSettings(segment_bytes=4096, checkpoint_events=25, threads=False)


async def write(directory: str, first: int, last: int) -> None:
    async with open_journal(directory, settings=SETTINGS) as journal:
        for number in range(first, last):
            await journal.append([started(str(number))])
            await journal.append(finished(str(number)))


async def test_a_backup_of_a_running_store_holds_what_was_acknowledged(tmp_path: Path) -> None:
    source, copy = str(tmp_path / "journal"), str(tmp_path / "copy")
    async with open_journal(source, settings=SETTINGS) as journal:
        for number in range(20):
            await journal.append([started(str(number))])
            if number % 7 == 0:
                copied = backup(source, copy)
                assert copied.seq == journal.state.seq
                assert reader.verify(copy).whole
                assert reader.replay(copy) == journal.state


async def test_a_later_backup_writes_only_what_the_earlier_one_lacks(tmp_path: Path) -> None:
    source, copy = str(tmp_path / "journal"), str(tmp_path / "copy")
    await write(source, 0, 30)
    first = backup(source, copy)
    assert first.written == first.segments > 2
    again = backup(source, copy)
    assert (again.written, again.seq) == (0, first.seq)
    await write(source, 30, 45)
    later = backup(source, copy)
    assert 1 <= later.written <= later.segments - first.segments + 1
    assert list(reader.read(copy)) == list(reader.read(source))


async def test_a_backup_that_broke_off_is_an_earlier_backup(tmp_path: Path) -> None:
    source = str(tmp_path / "journal")
    await write(source, 0, 30)
    everything = list(reader.read(source))
    for number in range(1, 4):

        class BreaksOff(SystemFiles):
            left = number

            def rename(self, source: str, target: str) -> None:
                if self.left == 0:
                    raise OSError("cut off")
                self.left -= 1
                super().rename(source, target)

        copy = str(tmp_path / f"copy{number}")
        with pytest.raises(OSError, match="cut off"):
            backup(source, copy, files=BreaksOff())
        there = list(reader.read(copy))
        assert there == everything[: len(there)]
        assert there
        backup(source, copy)
        assert list(reader.read(copy)) == everything


async def test_a_restored_backup_opens_and_goes_on(tmp_path: Path) -> None:
    source, copy, again = (str(tmp_path / name) for name in ("journal", "copy", "again"))
    await write(source, 0, 10)
    backup(source, copy)
    restored = restore(copy, again)
    assert restored.seq == reader.head(source)[0]
    await write(again, 10, 12)
    assert list(reader.read(again))[: restored.seq] == list(reader.read(source))


async def test_what_holds_something_else_is_not_overwritten(tmp_path: Path) -> None:
    source, other = str(tmp_path / "journal"), str(tmp_path / "other")
    await write(source, 0, 5)
    await write(other, 0, 5)
    before = {path.name: path.read_bytes() for path in Path(other).iterdir()}
    with pytest.raises(JournalError, match="is a backup of journal"):
        backup(source, other)
    with pytest.raises(JournalError, match="is not empty"):
        restore(source, other)
    stray = tmp_path / "stray"
    stray.mkdir()
    (stray / "letters.txt").write_text("dear")
    with pytest.raises(JournalError, match=r"is no backup.*letters\.txt"):
        backup(source, str(stray))
    assert {path.name: path.read_bytes() for path in Path(other).iterdir()} == before
    with pytest.raises(JournalError, match="there is no journal"):
        backup(str(tmp_path / "nowhere"), str(tmp_path / "new"))


@pytest.mark.parametrize("to", ["journal", "journal/copy", "link", "link/copy", "journal/../journal/"])
async def test_a_journal_is_not_copied_over_itself(tmp_path: Path, to: str) -> None:
    source = str(tmp_path / "journal")
    (tmp_path / "link").symlink_to("journal")
    async with open_journal(source, settings=SETTINGS) as journal:
        await journal.append([started("1")])
        with pytest.raises(JournalError, match=r"is the journal .* itself, or lies in it"):
            backup(source, str(tmp_path / to))
        with pytest.raises(JournalError, match=r"is the journal .* itself, or lies in it"):
            salvage(source, str(tmp_path / to))
        await journal.append(finished("1"))
    assert reader.verify(source).whole


async def test_a_backup_that_was_changed_is_told_from_the_journal(tmp_path: Path) -> None:
    source, copy = str(tmp_path / "journal"), str(tmp_path / "copy")
    await write(source, 0, 30)
    backup(source, copy)
    segment = Path(copy, segment_name(1))
    data = bytearray(segment.read_bytes())
    data[-100] ^= 1
    segment.write_bytes(data)
    with pytest.raises(JournalError, match="is no earlier backup"):
        backup(source, copy)
    with pytest.raises(Corrupt):
        restore(copy, str(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


async def test_a_head_written_down_elsewhere_must_be_in_the_journal(tmp_path: Path) -> None:
    source, copy = str(tmp_path / "journal"), str(tmp_path / "copy")
    await write(source, 0, 10)
    seq, digest = reader.head(source)
    backup(source, copy)
    await write(source, 10, 20)
    await write(copy, 20, 30)  # another history from there on
    later_seq, later_digest = reader.head(source)
    for directory in (source, copy):
        assert reader.verify(directory, expected=Head(seq=seq, hash=digest)).whole
    assert reader.verify(source, expected=Head(seq=later_seq, hash=later_digest)).whole
    rewritten = reader.verify(copy, expected=Head(seq=later_seq, hash=later_digest))
    assert not rewritten.whole
    assert "history was rewritten" in rewritten.findings[0].text
    short = reader.verify(source, expected=Head(seq=later_seq + 1, hash=later_digest))
    assert f"ends at seq {later_seq}, before the head" in short.findings[0].text
