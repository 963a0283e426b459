"""``imagestore status``: what the store judged, printed."""

import json
from typing import Any

import msgspec
import pytest

from imagestore.cli.output import styled
from imagestore.condition import Condition, Finding
from imagestore.errors import TemporarilyUnavailable
from imagestore.model import Image, ImageResponse, Operation, Progress
from imagestore.screen import (
    DiskStatus,
    DriftStatus,
    EventLine,
    GuestsResponse,
    GuestStatus,
    JournalStatus,
    PoolStatus,
    SearchResponse,
    Status,
    StatusResponse,
)
from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore

NOW = "2030-01-31T12:00:00.000000Z"
DISK = DiskStatus(
    id="tank/guests/vm1/disk-0",
    size_bytes=1 << 30,
    written_bytes=1 << 20,
    device="/d",
    in_use=True,
    image="deb12",
)
GUEST = GuestStatus(
    id="vm1",
    in_use=True,
    size_bytes=1 << 30,
    written_bytes=1 << 20,
    disks=(DISK,),
    last_snapshot="2030-01-31T09:00:00.000000Z",
)
RUNNING = Operation(
    id="0190",
    method="RequestImage",
    subject="tank/images/web",
    who="alice",
    status="running",
    phase="downloading",
    progress=Progress(done_bytes=1 << 20, total_bytes=4 << 20),
    rate=1 << 19,
)
STATUS = Status(
    version="1",
    now=NOW,
    condition=Condition(),
    pool=PoolStatus(
        name="tank",
        driver="zfs",
        health="ok",
        size_bytes=100 << 30,
        used_bytes=40 << 30,
        available_bytes=60 << 30,
        promised_bytes=10 << 30,
        free_bytes=50 << 30,
    ),
    journal=JournalStatus(seq=17, head="ab" * 32, epoch=3, flush_p99_seconds=0.0025),
    drift=DriftStatus(lost=1, foreign=2),
    running=(RUNNING,),
    running_total=1,
)


@pytest.fixture
def shown(memory_store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store that tells STATUS; ``condition`` may be put in its place."""
    event = EventLine(seq=17, time=NOW, who="alice", operation="", event="dataset-created", what="a (volume)")
    image = Image(
        id="deb12", status="complete", sha256="ff", size_bytes=1 << 20, clones=("tank/guests/vm1/disk-0",)
    )
    answers = {
        "get_status": StatusResponse(status=STATUS),
        "describe_guests": GuestsResponse(guests=(GUEST,), total=41),
        "describe_images": ImageResponse(images=(image,)),
        "search_events": SearchResponse(events=(event,)),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(memory_store, name, _telling(answer), raising=False)
    return memory_store


def _telling(answer: msgspec.Struct) -> Any:
    return lambda request: msgspec.to_builtins(answer)


def test_all_of_the_screen_is_printed(run: Run, shown: MemoryStore) -> None:
    ended = run("status")
    assert ended.status == 0
    lines = [line.rstrip() for line in ended.out.splitlines()]
    assert lines[:2] == ["OK", "  everything is as it should be"]
    for line in (
        "Pool tank: ok, zfs; 40G of 100G used (40%), 60G left, 10G promised, 50G free for new disks",
        "Journal: seq 17, life 3, flush p99 at most 2.5 ms, head abababababababab…",
        "Datasets: 1 lost, 0 renamed by others, 2 foreign",
        "RequestImage  tank/images/web  alice  running downloading 25% 512K/s",
        "Failed within a day: none",
        "Guests: 41 (the first 1)",
        "vm1    in use    1G       1M  deb12  3 h ago",
        "deb12  complete    1M  verified       1",
    ):
        assert line in lines
    assert lines[-1].endswith("alice  dataset-created  a (volume)")


def test_what_is_wrong_comes_first_with_what_is_next(
    run: Run, shown: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    worst = Finding(level="read-only", reason="the journal\x1b failed", next="systemctl restart x")
    other = Finding(level="attention", reason="full")
    condition = Condition(level="read-only", reason=worst.reason, next=worst.next, findings=(worst, other))
    status = msgspec.structs.replace(STATUS, condition=condition)
    monkeypatch.setattr(shown, "get_status", _telling(StatusResponse(status=status)))
    assert run("status").out.splitlines()[:4] == [
        "READ-ONLY",
        "  the journal\N{REPLACEMENT CHARACTER} failed",
        "    next: systemctl restart x",
        "  full",
    ]


def test_as_json_it_is_one_document(run: Run, shown: MemoryStore) -> None:
    told = json.loads(run("status", "-o", "json", "--guests", "0").out)
    assert told["status"]["condition"]["level"] == "ok"
    assert (told["guests"], told["guests_total"]) == ([], 41)
    assert told["events"][0]["what"] == "a (volume)"


def test_watching_shows_it_again_and_outlasts_a_store_that_is_away(
    run: Run, shown: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0

    def sleep(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            shown.refusals["GetStatus"] = str(TemporarilyUnavailable())
        elif rounds == 2:
            shown.refusals.clear()
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr("imagestore.cli.status.time.sleep", sleep)
    ended = run("status", "--watch")
    assert ended.status == 130
    said = [line for line in ended.out.splitlines() if line in ("OK", "NOT CONNECTED")]
    assert said == ["OK", "NOT CONNECTED", "OK"]


def test_a_store_that_is_not_there_is_an_error_without_watching(run: Run) -> None:
    ended = run("status", "--server", "http://127.0.0.1:1")
    assert ended.status != 0
    assert ended.err.startswith("imagestore: ")


@pytest.mark.parametrize(("no_colour", "shown"), [("", "\x1b[31m\x1b[1mNO\x1b[0m"), ("1", "NO")])
def test_there_is_no_colour_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, no_colour: str, shown: str
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    assert styled("NO", fg="red", bold=True) == shown
