"""journal/README.md says what the bytes are: a reader written from it alone sees the same."""

import json
import random
import re
import struct
from pathlib import Path

import pytest

import imagestore
from imagestore.errors import JournalError
from imagestore.events import checkpoint, frame, reader, segment
from imagestore.events.journal import JournalSettings, open_journal
from imagestore.events.segment import segment_name
from tests.events import plain_reader
from tests.events.plain_reader import read_journal
from tests.events.random_history import RandomHistory

SETTINGS = JournalSettings(segment_bytes=8192, threads=False)
SPECIFICATION = (Path(imagestore.__file__).parent.parent / "journal" / "README.md").read_text()


async def a_journal(directory: str, seed: int = 1, batches: int = 60) -> None:
    async with open_journal(directory, settings=SETTINGS) as journal:
        for batch in RandomHistory(seed).batches(batches):
            await journal.append(batch)


async def test_a_reader_written_from_the_specification_reads_the_same_events(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    for seed in range(3):
        async with open_journal(directory, settings=SETTINGS) as journal:
            history = RandomHistory(seed)
            if seed == 0:
                for batch in history.batches(80):
                    await journal.append(batch)
    events, head = read_journal(directory)
    ours = list(reader.read(directory))
    assert len(events) == len(ours)
    for theirs, envelope in zip(events, ours, strict=True):
        assert json.dumps(theirs, ensure_ascii=False, separators=(",", ":")).encode() == frame.encode_body(
            [envelope]
        ).removeprefix(b"[").removesuffix(b"]")
    assert (events[-1]["seq"], head.hex()) == reader.head(directory)


@pytest.mark.parametrize("seed", range(3))
async def test_both_readers_judge_damage_alike(tmp_path: Path, seed: int) -> None:
    directory = tmp_path / "journal"
    await a_journal(str(directory), seed, 12)
    chance = random.Random(seed)
    file = max(directory.glob("segment-??????????"))
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for _ in range(80):
        data = bytearray(whole)
        place = chance.randrange(96, end + 40)
        match chance.randrange(3):
            case 0:
                data[place] ^= 1 << chance.randrange(8)
            case 1:
                data[place : place + 64] = bytes(64)
            case _:
                data = data[:place]
        file.write_bytes(data)
        try:
            theirs = [event["seq"] for event in read_journal(str(directory))[0]]
        except ValueError:
            theirs = []
        try:
            ours = [envelope.seq for envelope in reader.read(str(directory))]
        except JournalError:
            ours = []
        assert ours == theirs


def test_the_plain_reader_knows_nothing_of_imagestore() -> None:
    source = Path(plain_reader.__file__).read_text()
    assert not re.search(r"^\s*(from|import) imagestore", source, re.MULTILINE)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (segment.HEADER_BYTES, "A header of 96 bytes"),
        (frame.HEADER.size, "A header of 80 bytes"),
        (frame.MAX_BODY_BYTES, f"{frame.MAX_BODY_BYTES:,}"),
        (segment.VERSION, "format version of the writer: 1"),
        (checkpoint.VERSION, "| 8 | 4 | version: 2; other versions are ignored |"),
        (checkpoint.HEADER_BYTES, "| 104 | … | the state as JSON |"),
    ],
)
def test_the_specification_has_the_numbers_of_the_code(size: int, text: str) -> None:
    assert re.search(r"\d+", text.replace(",", ""))
    assert str(size) in text.replace(",", "")
    assert text in SPECIFICATION


def test_the_specification_names_every_file() -> None:
    names = (
        "segment-NNNNNNNNNN",
        ".cut-OFFSET",
        "checkpoint-SSSSSSSSSSSSSSSSSSSS",
        "reserve",
        "lock",
        "….new",
    )
    for name in names:
        assert name in SPECIFICATION


async def test_the_text_of_events_can_be_read_with_strings(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    await a_journal(str(directory))
    data = (directory / segment_name(1)).read_bytes()
    assert b'"event":{"event":"journal-opened","epoch":1' in data
    assert struct.unpack_from("<I", data, 8) == (segment.VERSION,)
