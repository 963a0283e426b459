"""log, state and journal: the journal read without a store, also beside one that writes."""

import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec import structs

from imagestore import __version__
from imagestore.events.catalogue import (
    CreateIntent,
    DatasetCreated,
    DatasetId,
    DatasetReceived,
    DestroyIntent,
    Event,
    FetchIntent,
    ImageCompleted,
    ImageRequested,
    NewBlank,
    NewClone,
    NewParent,
    OperationFinished,
    OperationResumed,
    OperationStarted,
    PoolAttached,
    ReceiveIntent,
    RollbackIntent,
    SnapshotIntent,
)
from imagestore.events.commitgroup import Entry
from imagestore.events.eventtext import describe
from imagestore.events.journal import Journal, JournalSettings, open_journal
from imagestore.events.segment import decode_header, encode_header, segment_name
from tests.cli.conftest import Run
from tests.events.history import newer as written_by_newer

FETCH, GUEST, VOLUME = "op-of-the-fetch", "op-of-the-guest", "op-of-the-volume"
ORIGIN = DatasetId(name="images/deb12@made", guid=7, createtxg=1)


def history() -> Iterator[tuple[str, str, Sequence[Event]]]:
    """Operation, principal, and the events of one append."""
    yield "", "imagestore", [PoolAttached(driver="dir", pool="/srv/tank")]
    fetch = FetchIntent(image="deb12", staging="images/.staging-x")
    yield (
        FETCH,
        "alice",
        [
            OperationStarted(method="RequestImage", subject="images/deb12", intent=fetch),
            ImageRequested(image="deb12", type="kvm"),
        ],
    )
    yield FETCH, "imagestore", [OperationResumed(attempt=1)]
    yield (
        FETCH,
        "alice",
        [
            DatasetCreated(
                name="images/deb12",
                kind="volume",
                role="image",
                guid=6,
                createtxg=1,
                size_bytes=1 << 30,
                image="deb12",
            ),
            ImageCompleted(
                image="deb12",
                volume=DatasetId(name="images/deb12", guid=6, createtxg=1),
                snapshot=ORIGIN,
                size_bytes=1 << 30,
            ),
            OperationFinished(outcome="succeeded"),
        ],
    )
    clone = NewClone(name="guests/vm1/disk-0", origin=ORIGIN, size_bytes=1 << 30, image="deb12", guest="vm1")
    yield (
        GUEST,
        "bob",
        [
            OperationStarted(
                method="CreateGuestDisks",
                subject="guests/vm1",
                intent=CreateIntent(datasets=(NewParent(name="guests/vm1", guest="vm1"), clone)),
            )
        ],
    )
    yield (
        GUEST,
        "bob",
        [
            DatasetCreated(
                name="guests/vm1/disk-0",
                kind="volume",
                role="disk",
                guid=8,
                createtxg=2,
                size_bytes=1 << 30,
                origin=ORIGIN,
                image="deb12",
                guest="vm1",
            ),
            OperationFinished(outcome="succeeded"),
        ],
    )
    blank = CreateIntent(datasets=(NewBlank(name="scratch/data", size_bytes=1 << 20),))
    yield VOLUME, "bob", [OperationStarted(method="CreateVolume", subject="scratch/data", intent=blank)]
    yield VOLUME, "bob", [OperationFinished(outcome="failed", error="no space left on device")]


@asynccontextmanager
async def written(directory: str) -> AsyncIterator[Journal]:
    """An open journal with that history."""
    async with open_journal(directory, settings=JournalSettings(segment_bytes=1 << 16)) as journal:
        for operation, principal, events in history():
            await journal.append([Entry(event=e, operation=operation, principal=principal) for e in events])
        yield journal


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """A closed journal."""
    directory = str(tmp_path / "journal")

    async def write() -> None:
        async with written(directory):
            pass

    trio.run(write)
    return directory


def logged(run: Run, directory: str, *options: str) -> list[str]:
    """The types of the events that ``log`` prints."""
    ended = run("log", "--journal", directory, "-o", "jsonl", *options)
    assert (ended.status, ended.err) == (0, "")
    return [json.loads(line)["event"]["event"] for line in ended.out.splitlines()]


WHOLE_FETCH = [
    "operation-started",
    "image-requested",
    "operation-resumed",
    "dataset-created",
    "image-completed",
    "operation-finished",
]
WHOLE_GUEST = ["operation-started", "dataset-created", "operation-finished"]
WHOLE_VOLUME = ["operation-started", "operation-finished"]


def test_log_shows_everything_in_order(run: Run, journal: str) -> None:
    assert logged(run, journal) == [
        "journal-opened",
        "pool-attached",
        *WHOLE_FETCH,
        *WHOLE_GUEST,
        *WHOLE_VOLUME,
    ]


@pytest.mark.parametrize(
    ("options", "events"),
    [
        (("--dataset", "scratch"), WHOLE_VOLUME),
        (("--dataset", "tank/scratch/data"), WHOLE_VOLUME),
        (("--dataset", "scratch/dat"), []),
        (("--dataset", "images/deb12"), WHOLE_FETCH),
        (("--guest", "vm1"), WHOLE_GUEST),
        (("--guest", "vm"), []),
        (("--image", "deb12"), [*WHOLE_FETCH, *WHOLE_GUEST]),
        (("--image", "deb12", "--guest", "vm1"), WHOLE_GUEST),
        (("--who", "bob"), [*WHOLE_GUEST, *WHOLE_VOLUME]),
        (("--operation", VOLUME), WHOLE_VOLUME),
        (("--operation", VOLUME[-8:]), WHOLE_VOLUME),
        (("--from-seq", "12"), WHOLE_VOLUME),
        (("--image", "deb12", "--from-seq", "8"), [WHOLE_FETCH[-1], *WHOLE_GUEST]),
        (("--last", "1"), ["operation-finished"]),
        (("--until", "2001-01-01"), []),
        (("--since", "2001-01-01", "--last", "2"), WHOLE_VOLUME),
        (("--since", "1d", "--last", "2"), WHOLE_VOLUME),
    ],
)
def test_log_shows_whole_operations_that_touched_what_was_asked_for(
    run: Run, journal: str, options: tuple[str, ...], events: list[str]
) -> None:
    assert logged(run, journal, *options) == events


def test_log_as_a_table_says_who_did_what(run: Run, journal: str) -> None:
    lines = run("log", "--journal", journal, "--operation", VOLUME).out.splitlines()
    assert lines[0].split() == ["SEQ", "TIME", "WHO", "OPERATION", "EVENT", "WHAT"]
    assert "bob  e-volume   operation-started   CreateVolume scratch/data: make scratch/data" in lines[1]
    assert lines[2].endswith("operation-finished  failed: no space left on device")


def test_log_as_json_is_one_document(run: Run, journal: str) -> None:
    assert [entry["seq"] for entry in json.loads(run("log", "--journal", journal, "-o", "json").out)] == list(
        range(1, 14)
    )


def test_a_time_that_is_none_is_refused(run: Run, journal: str) -> None:
    ended = run("log", "--journal", journal, "--since", "yesterday")
    assert ended.status == 2
    assert "2h" in ended.err


def test_state_is_what_the_events_amount_to(run: Run, journal: str) -> None:
    state = json.loads(run("state", "--journal", journal, "-o", "json").out)
    assert state["seq"] == 13
    assert sorted(state["datasets"]) == ["guests/vm1/disk-0", "images/deb12"]
    assert state["images"]["deb12"]["status"] == "complete"
    assert state["operations"] == {}


def test_state_at_an_earlier_event_shows_what_was_under_way(run: Run, journal: str) -> None:
    state = json.loads(run("state", "--journal", journal, "--at", "4", "-o", "jsonl").out)
    assert state["seq"] == 4
    assert list(state["operations"]) == [FETCH]
    assert state["datasets"] == {}
    shown = run("state", "--journal", journal, "--at", "4").out
    assert "fetch deb12" in shown
    assert "pending" in shown


def test_state_as_a_table_lists_datasets_and_images(run: Run, journal: str) -> None:
    shown = run("state", "--journal", journal).out
    assert shown.startswith("seq 13, life 1, pool dir:/srv/tank\n")
    assert "guests/vm1/disk-0  disk" in shown


def test_state_after_the_end_is_refused(run: Run, journal: str) -> None:
    ended = run("state", "--journal", journal, "--at", "99")
    assert (ended.status, ended.err) == (2, "imagestore: the journal ends at seq 13, before 99\n")


def test_verify_of_a_whole_journal_exits_0(run: Run, journal: str) -> None:
    ended = run("journal", "verify", "--journal", journal)
    assert (ended.status, ended.err) == (0, "")
    assert f"journal {journal}: whole; 1 segments" in ended.out
    assert json.loads(run("journal", "verify", "--journal", journal, "-o", "json").out)["seq"] == 13


def damage(directory: str) -> None:
    """Flip a bit in the middle of what was written first."""
    with open(os.path.join(directory, segment_name(1)), "r+b") as file:
        at = file.read(1 << 16).index(b"journal-opened")
        file.seek(at)
        file.write(b"J")


def test_verify_of_a_damaged_journal_exits_1_and_says_where_and_what_next(run: Run, journal: str) -> None:
    damage(journal)
    ended = run("journal", "verify", "--journal", journal)
    assert ended.status == 1
    assert "DAMAGED" in ended.out
    assert "offset" in ended.out
    assert "seq 1" in ended.out
    assert f"imagestore journal salvage --journal {journal} --to NEW" in ended.out
    assert json.loads(run("journal", "verify", "--journal", journal, "-o", "jsonl").out)["findings"]


@pytest.mark.parametrize("newer", ["format", "event"])
def test_verify_of_a_newer_journal_says_so_and_exits_as_all_that_refuse_it(
    run: Run, journal: str, newer: str
) -> None:
    if newer == "format":
        with open(os.path.join(journal, segment_name(1)), "r+b") as file:
            old = decode_header(file.read(4096))
            assert old is not None
            file.seek(0)
            file.write(encode_header(structs.replace(old, version=9, oldest_reader=2)))
    else:

        async def write() -> None:
            with written_by_newer("image-requested"):
                async with open_journal(journal) as opened:
                    await opened.append([Entry(event=ImageRequested(image="new"))])

        trio.run(write)
    ended = run("journal", "verify", "--journal", journal)
    assert ended.status == 23
    assert "DAMAGED" not in ended.out
    first, *lines = ended.out.splitlines()
    if newer == "format":
        assert first == f"journal {journal}: of a newer format, nothing of it was checked"
        assert "is of format 9" in lines[0]
        assert lines[1] == "  install that imagestore or a newer one; nothing was changed"
    else:
        assert first.startswith(f"journal {journal}: of a newer imagestore, no damage found; 1 segments, ")
        assert "seq 15" in lines[0]
        assert lines[1] == f"  use imagestore {__version__}, which wrote it, or a newer one"
    assert run("log", "--journal", journal).status == 23


def test_log_of_a_damaged_journal_stops_there_with_its_exit_code(run: Run, journal: str) -> None:
    damage(journal)
    ended = run("log", "--journal", journal)
    assert ended.status == 21
    assert ended.err.startswith("imagestore: ")
    assert "offset" in ended.err


def test_salvage_copies_what_is_whole(run: Run, journal: str, tmp_path: Path) -> None:
    to = str(tmp_path / "saved")
    assert run("journal", "salvage", "--journal", journal, "--to", to).status == 0
    assert logged(run, to) == logged(run, journal)


def test_salvage_of_a_damaged_journal_says_what_is_missing(run: Run, journal: str, tmp_path: Path) -> None:
    damage(journal)
    ended = run("journal", "salvage", "--journal", journal, "--to", str(tmp_path / "saved"))
    assert ended.status == 21
    assert "is not in" in ended.err
    assert "imagestore recover --pool POOL --journal NEW-DIRECTORY" in ended.err


def test_head_is_the_last_seq_and_the_chains_hash(run: Run, journal: str) -> None:
    head = json.loads(run("journal", "head", "--journal", journal, "-o", "json").out)
    verified = json.loads(run("journal", "verify", "--journal", journal, "-o", "json").out)
    assert head == {"seq": 13, "hash": verified["hash"]}
    assert len(bytes.fromhex(head["hash"])) == 32


@pytest.mark.parametrize("command", [("journal", "verify"), ("journal", "head"), ("log",), ("state",)])
def test_a_journal_that_is_not_there_is_named(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    directory = str(tmp_path / "none")
    ended = run(*command, "--journal", directory)
    assert ended.status == 20
    assert directory in ended.err


async def test_all_offline_verbs_work_beside_a_store_that_writes(tmp_path: Path, run: Run) -> None:
    directory = str(tmp_path / "journal")
    async with written(directory) as journal:
        for command in (("journal", "verify"), ("journal", "head"), ("log",), ("state",)):
            ended = run(*command, "--journal", directory)
            assert (ended.status, ended.err) == (0, "")
        assert journal.head[0] == 13


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            OperationStarted(
                method="DeleteDataset", subject="a", intent=DestroyIntent(datasets=(ORIGIN,)), force=True
            ),
            "DeleteDataset a: destroy images/deb12@made, forced",
        ),
        (
            OperationStarted(
                method="CreateSnapshot", subject="a", intent=SnapshotIntent(datasets=(ORIGIN,), snapshot="s")
            ),
            "CreateSnapshot a: snapshot images/deb12@made as @s",
        ),
        (
            OperationStarted(
                method="RollbackSnapshot",
                subject="a",
                intent=RollbackIntent(snapshots=(ORIGIN,), volumes=(), newer=(ORIGIN,)),
            ),
            "RollbackSnapshot a: go back to images/deb12@made, destroying images/deb12@made",
        ),
        (
            OperationStarted(
                method="ReceiveVolume",
                subject="v",
                intent=ReceiveIntent(name="v", staging="x", base=ORIGIN),
                force=True,
            ),
            "ReceiveVolume v: receive v from images/deb12@made, forced",
        ),
        (DatasetReceived(name="v", guid=1, createtxg=2, snapshot=ORIGIN), "v is now images/deb12@made"),
        (
            OperationFinished(outcome="failed", error="e", left_behind=(ORIGIN,)),
            "failed: e; left behind: images/deb12@made",
        ),
    ],
)
def test_an_event_is_told_in_a_sentence(event: Event, text: str) -> None:
    assert describe(event) == text


def test_state_at_a_time_is_that_of_the_last_event_before(run: Run, journal: str) -> None:
    assert json.loads(run("state", "--journal", journal, "--at", "2001-01-01", "-o", "json").out)["seq"] == 0
    assert json.loads(run("state", "--journal", journal, "--at", "0s", "-o", "json").out)["seq"] == 13


def test_explain_tells_a_disk_from_its_making_back_to_the_image(run: Run, journal: str) -> None:
    for name in ("guests/vm1/disk-0", "tank/guests/vm1/disk-0"):
        ended = run("explain", name, "--journal", journal)
        assert (ended.status, ended.err) == (0, "")
        assert "guests/vm1/disk-0: disk, guid 8, txg 2, a clone of images/deb12@made; there" in ended.out
        assert "CreateGuestDisks guests/vm1: make guests/vm1" in ended.out
        assert "guests/vm1/disk-0 came from:\nimages/deb12: image, guid 6" in ended.out
    told = json.loads(run("explain", "guests/vm1/disk-0", "--journal", journal, "-o", "json").out)
    assert [event["seq"] for event in told["lives"][0]["events"]] == [9, 10, 11]


def test_explain_tells_of_attempts_that_failed(run: Run, journal: str) -> None:
    ended = run("explain", "scratch/data", "--journal", journal)
    assert ended.out.startswith("attempts that left nothing at scratch/data:\n")
    assert "failed: no space left on device" in ended.out


def test_explain_of_what_the_journal_does_not_know_says_where_to_look(run: Run, journal: str) -> None:
    ended = run("explain", "scratch/dat", "--journal", journal)
    assert ended.status != 0
    assert "knows nothing of scratch/dat" in ended.err
    assert "imagestore drift" in ended.err


def test_diff_tells_what_came_and_went_between_two_moments(run: Run, journal: str) -> None:
    ended = run("diff", "8", "13", "--journal", journal)
    assert ended.out.startswith("seq 8 to 13: ")
    assert ended.out.splitlines()[2].split()[:3] == ["added", "dataset", "guests/vm1/disk-0"]
    assert json.loads(run("diff", "2001-01-01", "--journal", journal, "-o", "jsonl").out.splitlines()[0]) == {
        "change": "added",
        "what": "dataset",
        "name": "guests/vm1/disk-0",
        "now": {"role": "disk", "size_bytes": "1073741824", "origin": "images/deb12@made", "guid": "8"},
    }
    refused = run("diff", "8", "99", "--journal", journal)
    assert (refused.status, refused.err) == (2, "imagestore: the journal ends at seq 13, before 99\n")


def test_backup_restore_and_a_head_kept_elsewhere(run: Run, journal: str, tmp_path: Path) -> None:
    copy, again = str(tmp_path / "copy"), str(tmp_path / "again")
    head = json.loads(run("journal", "head", "--journal", journal, "-o", "json").out)
    kept = f"{head['seq']}:{head['hash']}"
    backed_up = run("journal", "backup", "--journal", journal, "--to", copy)
    assert (backed_up.status, backed_up.err) == (0, "")
    assert kept in backed_up.out
    assert kept in run("journal", "restore", copy, "--journal", again).out
    assert run("journal", "verify", "--journal", again, "--head", kept).status == 0
    assert run("journal", "verify", "--journal", again, "--head", f"12:{head['hash']}").status == 1
    refused = run("journal", "verify", "--journal", again, "--head", "yesterday")
    assert refused.status == 2
    assert "SEQ:HASH" in refused.err
    assert run("journal", "restore", copy, "--journal", again).err.startswith(
        f"imagestore: {again} is not empty"
    )


def test_archived_segments_are_named_and_the_rest_is_still_read(
    run: Run, journal: str, tmp_path: Path
) -> None:
    nothing = run("journal", "archive", "--journal", journal, "--to", str(tmp_path / "cold"))
    assert (nothing.status, nothing.out) == (0, "there is nothing to move: the last 1 segments stay\n")


def test_export_is_every_event_a_line(run: Run, journal: str) -> None:
    lines = run("journal", "export", "--journal", journal).out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, 14))
    assert len(run("journal", "export", "--journal", journal, "--from-seq", "12").out.splitlines()) == 2
