"""Make the golden journal of a format: ``python -m tests.events.golden.make v2``.

Run once when a format or an event type lands, and never again for the same
name: what is there must stay readable for ever, byte for byte.
"""

import random
import sys
from pathlib import Path

import msgspec
import trio

from imagestore.events import reader
from imagestore.events.journal import JournalSettings, open_journal
from imagestore.identifiers import uuid7_maker
from tests.events.random_history import RandomHistory

GOLDEN = Path(__file__).parent
BATCHES = 300


async def make(directory: Path) -> None:
    """Write journal, events and state into the new ``directory``."""
    directory.mkdir()
    now_ns = 1_764_000_000_000_000_000

    def clock() -> int:
        nonlocal now_ns
        now_ns += 1_000_003
        return now_ns

    journal_directory = directory / "journal"
    settings = JournalSettings(segment_bytes=8192, checkpoint_events=60, threads=False)
    async with open_journal(
        str(journal_directory),
        now_ns=clock,
        new_id=uuid7_maker(clock, random.Random(1)),
        settings=settings,
        version="golden",
        host="golden",
    ) as journal:
        for batch in RandomHistory(1).batches(BATCHES):
            await journal.append(batch)
    for name in ("lock", "reserve"):
        (journal_directory / name).unlink()
    events = list(reader.read(str(journal_directory)))
    (directory / "events.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(events))
    state = msgspec.json.encode(reader.replay(str(journal_directory)))
    (directory / "state.json").write_bytes(msgspec.json.format(state) + b"\n")


if __name__ == "__main__":
    trio.run(make, GOLDEN / sys.argv[1])
