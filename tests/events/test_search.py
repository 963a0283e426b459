"""Searching with the index finds what reading everything finds, also beyond its end and when it is lost."""

import random
from collections import deque
from pathlib import Path

import pytest

from imagestore.events import reader
from imagestore.events.catalogue import Envelope, PoolAttached
from imagestore.events.journal import Entry, JournalSettings, open_journal
from imagestore.events.search import search
from imagestore.events.selection import Filter, select
from tests.events.history import finished, started

SETTINGS = JournalSettings(segment_bytes=1 << 16, threads=False)


async def write(directory: str, first: int, last: int) -> None:
    async with open_journal(directory, settings=SETTINGS) as journal:
        if first == 0:
            await journal.append([Entry(event=PoolAttached(driver="dir", pool="/srv/tank"))])
        for number in range(first, last):
            await journal.append([started(str(number))])
            await journal.append(finished(str(number)))


FILTERS = [
    Filter(dataset="vol-7"),
    Filter(dataset="tank/vol-7"),
    Filter(dataset="vol"),
    Filter(who="local"),
    Filter(operation="7"),
    Filter(operation="7", from_seq=20),
    Filter(types=("dataset-created",)),
    Filter(dataset="vol-12", types=("operation-finished",)),
    Filter(since_ns=1, who="nobody"),
    Filter(guest="vm1"),
    Filter(from_seq=30),
]


def read_whole(directory: str, wanted: Filter, last: int | None) -> list[Envelope]:
    found = select(reader.read(directory), wanted)
    return list(found if last is None else deque(found, maxlen=last))


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
@pytest.mark.parametrize("last", [None, 1, 3])
async def test_the_index_finds_what_reading_everything_finds(
    wanted: Filter, last: int | None, tmp_path: Path
) -> None:
    directory, cache = str(tmp_path / "journal"), tmp_path / "journal.cache"
    await write(directory, 0, 15)
    cache.mkdir()
    assert list(search(directory, wanted, last=last)) == read_whole(directory, wanted, last)
    await write(directory, 15, 20)
    assert list(search(directory, wanted, last=last)) == read_whole(directory, wanted, last)
    is_indexed = wanted != Filter(from_seq=30) or last is not None
    assert (cache / "index.sqlite").exists() == is_indexed


async def test_a_small_journal_without_an_index_gets_none(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    await write(directory, 0, 5)
    assert len(list(search(directory, Filter(dataset="vol-3")))) == 3
    assert not (tmp_path / "journal.cache").exists()


async def test_a_lost_index_costs_time_and_nothing_else(tmp_path: Path) -> None:
    directory, cache = str(tmp_path / "journal"), tmp_path / "journal.cache"
    await write(directory, 0, 10)
    cache.mkdir()
    wanted = Filter(dataset="vol-3")
    expected = list(search(directory, wanted))
    index = cache / "index.sqlite"
    data = bytearray(index.read_bytes())
    chance = random.Random(1)
    for _ in range(200):
        data[chance.randrange(len(data))] ^= 0xFF
    index.write_bytes(data)
    assert list(search(directory, wanted)) == expected
