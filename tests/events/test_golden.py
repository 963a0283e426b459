"""Every journal that was ever written stays readable, to the same state: row 20 of the fault table."""

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from imagestore.events import frame, reader
from imagestore.events.catalogue import Envelope, Event
from imagestore.events.files import SYSTEM_FILES
from imagestore.events.journal import JournalSettings, open_journal
from imagestore.events.log import LogWalk, survey
from tests.events.golden import make

FORMATS = sorted(path for path in make.GOLDEN.iterdir() if (path / "state.json").exists())


def name_of(path: Path) -> str:
    return path.name


def golden_part(golden: Any, ours: Any) -> Any:
    """``ours`` without what the golden value does not have: fields that were added since."""
    if isinstance(golden, dict) and isinstance(ours, dict):
        return {key: golden_part(golden[key], ours.get(key)) for key in golden}
    if isinstance(golden, list) and isinstance(ours, list) and len(golden) == len(ours):
        return [golden_part(left, right) for left, right in zip(golden, ours, strict=True)]
    return ours


def test_there_are_golden_journals() -> None:
    assert [path.name for path in FORMATS] == ["v1", "v2", "v3"]


@pytest.mark.parametrize("golden", FORMATS, ids=name_of)
def test_row_20_the_golden_journal_is_whole_and_gives_the_golden_state(golden: Path) -> None:
    directory = str(golden / "journal")
    report = reader.verify(directory)
    assert report.whole, report.findings
    state = json.loads((golden / "state.json").read_bytes())
    ours = json.loads(msgspec.json.encode(reader.replay(directory)))
    assert golden_part(state, ours) == state
    assert ours.keys() >= state.keys()
    assert list(ours["images"]) == list(state["images"])
    assert list(ours["datasets"]) == list(state["datasets"])


@pytest.mark.parametrize("golden", FORMATS, ids=name_of)
def test_row_20_the_golden_journal_gives_the_golden_state_from_nothing_too(
    golden: Path, tmp_path: Path
) -> None:
    for segment in (golden / "journal").glob("segment-*"):
        shutil.copy(segment, tmp_path)
    assert reader.replay(str(tmp_path)) == reader.replay(str(golden / "journal"))


@pytest.mark.parametrize("golden", FORMATS, ids=name_of)
def test_row_20_each_golden_event_decodes_to_what_it_was(golden: Path) -> None:
    lines = (golden / "events.jsonl").read_bytes().splitlines()
    events = list(reader.read(str(golden / "journal")))
    assert len(events) == len(lines)
    for line, envelope in zip(lines, events, strict=True):
        once = msgspec.json.decode(line, type=Envelope)
        twice = msgspec.json.decode(msgspec.json.encode(once), type=Envelope)
        assert once == twice == envelope


@pytest.mark.parametrize("golden", FORMATS[-1:], ids=name_of)
def test_row_20_the_newest_golden_bodies_encode_to_their_very_bytes(golden: Path) -> None:
    found = survey(SYSTEM_FILES, str(golden / "journal"))
    bodies = [body.body for _, body in LogWalk(SYSTEM_FILES, found)]
    assert len(bodies) > make.BATCHES
    for body in bodies:
        assert frame.encode_body(frame.decode_body(body)) == body


def test_the_golden_journals_hold_every_event_type() -> None:
    seen = {type(envelope.event) for golden in FORMATS for envelope in reader.read(str(golden / "journal"))}
    assert seen == set(get_args(Event))


@pytest.mark.parametrize("golden", FORMATS, ids=name_of)
async def test_the_store_goes_on_where_a_golden_journal_ends(golden: Path, tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    shutil.copytree(golden / "journal", directory)
    before = reader.replay(str(directory))
    async with open_journal(str(directory), settings=JournalSettings(segment_bytes=8192)) as journal:
        assert journal.epoch == before.epoch + 1
        assert journal.state.seq == before.seq + 1
        assert journal.state.images == before.images
    assert reader.verify(str(directory)).whole
