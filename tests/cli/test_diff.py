"""``imagestore diff``: what people read of the difference between two moments."""

from pathlib import Path

import pytest
import trio

from imagestore.events.accessfacts import TokenCreated, TokenRevoked
from imagestore.events.catalogue import (
    DatasetCreated,
    DatasetId,
    DatasetRolledBack,
    Event,
    ImageRequested,
    OperationStarted,
    RollbackIntent,
)
from imagestore.events.commitgroup import Entry
from imagestore.events.journal import open_journal
from tests.cli.conftest import Run

SECRET = "5ec4e7" * 10
SNAPSHOT = DatasetId(name="v@s", guid=8, createtxg=2)
HISTORY: tuple[tuple[str, Event], ...] = (
    ("", DatasetCreated(name="v", kind="volume", role="volume", guid=7, createtxg=1, size_bytes=3 << 20)),
    ("", TokenCreated(name="old", role="admin", sha256=SECRET)),
    ("", DatasetRolledBack(name="v", guid=7, createtxg=1, snapshot=SNAPSHOT, size_bytes=3 << 20)),
    ("", ImageRequested(image="deb12")),
    ("", TokenRevoked(name="old")),
    ("", TokenCreated(name="new", role="reader", sha256=SECRET)),
    (
        "01a20e9f-18bf-7000-8e64-000012345678",
        OperationStarted(
            method="RollbackSnapshot",
            subject="v@s",
            intent=RollbackIntent(volumes=(), snapshots=(), newer=()),
        ),
    ),
)


@pytest.fixture
def journal(tmp_path: Path) -> str:
    directory = str(tmp_path / "journal")

    async def write() -> None:
        async with open_journal(directory) as journal:
            for operation, event in HISTORY:
                await journal.append([Entry(event=event, operation=operation, principal="root")])

    trio.run(write)
    return directory


def rows(run: Run, journal: str, *moments: str) -> list[list[str]]:
    ended = run("diff", *moments, "--journal", journal)
    assert (ended.status, ended.err) == (0, "")
    assert SECRET not in ended.out
    return [line.split(maxsplit=3) for line in ended.out.splitlines()[2:]]


def test_what_came_and_went_says_what_it_was(run: Run, journal: str) -> None:
    volume, token = rows(run, journal, "1", "3")
    assert volume[:3] == ["added", "dataset", "v"]
    assert volume[3].split(maxsplit=1) == ["-", "role=volume, size=3M, guid=7"]
    assert token[:3] == ["added", "token", "old"]


def test_an_auditor_sees_rollbacks_tokens_and_what_is_under_way(run: Run, journal: str) -> None:
    found = rows(run, journal, "3", "8")
    assert [row[:3] for row in found] == [
        ["changed", "dataset", "v"],
        ["added", "image", "deb12"],
        ["added", "token", "new"],
        ["removed", "token", "old"],
        ["added", "operation", "12345678"],
    ]
    assert "content=v@s rolled back at seq 4" in found[0][3]
    assert "role=reader" in found[2][3]
    assert "created_by=root" in found[2][3]
    assert "role=admin" in found[3][3]
    assert "status=under way, method=RollbackSnapshot, subject=v@s" in found[4][3]


def test_times_are_times_and_nothing_behind_the_later_moment_is_told(run: Run, journal: str) -> None:
    (row,) = rows(run, journal, "4", "5")
    assert row[:3] == ["added", "image", "deb12"]
    assert "requested=20" in row[3]
    assert "_ns" not in row[3]


def test_no_format_has_the_hash_of_a_token(run: Run, journal: str) -> None:
    for output in ("json", "jsonl"):
        ended = run("diff", "1", "--journal", journal, "-o", output)
        assert '"token"' in ended.out.replace(" ", "")
        assert SECRET not in ended.out
