"""A store killed at named points of every change: what ``zfs list`` shows is what its journal says.

An operation whose effect was whole succeeded; a deletion went on; a fetch was
queued again and completed; anything else was undone and failed.  All cases are
run on one pool, each on names of its own, and settled by the next start.
"""

import itertools
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from imagestore.cli.imageservice import ImageService
from imagestore.events import reader
from imagestore.events.catalogue import Envelope, OperationFinished, OperationStarted
from tests.crash import files
from tests.crash.files import Row
from tests.crash.judge import judge_journal
from tests.crash.process import Place
from tests.pools.harness import MIB
from tests.zfs.crashing import SECOND_MADE, UNMARKED, Case, Children
from tests.zfs.pools import command, device, pool_on_file
from tests.zfs.seen import rows_of

pytestmark = pytest.mark.zfs

POOL = "points"

WHOLE = ("after-effect", "fetch-published", "receive-published", "after-outcome")
"""Points at which the effect is whole."""

CHANGES = {
    "CreateVolume": ("after-intent", SECOND_MADE, "after-effect"),
    "CloneImage": (SECOND_MADE, "after-effect"),
    "CreateGuestDisks": ("before-intent", "after-intent", SECOND_MADE, "after-effect", "after-outcome"),
    "CreateSnapshot": ("after-intent", "after-effect"),
    "RollbackSnapshot": ("after-intent", "after-effect"),
    "DeleteSnapshot": ("after-intent", "after-effect"),
    "DeleteDataset": ("before-intent", "after-intent", "after-effect"),
    "DeleteGuestsDisks": ("after-intent", "after-effect"),
    "DeleteImage": ("after-intent", "after-effect"),
    "RequestImage": ("fetch-accepted", "fetch-staged", "fetch-published"),
    "receive": ("receive-accepted", "receive-staged", "receive-published"),
    "receive onto": ("receive-accepted", "receive-staged", UNMARKED, "receive-published"),
}

NAMES = {
    "CreateVolume": ("new{}", "new{}/deep", "new{}/deep/volume"),
    "CloneImage": ("of{}", "of{}/clone"),
    "CreateGuestDisks": ("guests/h{}", "guests/h{}/disk-0", "guests/h{}/disk-1"),
    "CreateSnapshot": ("guests/g@s{}", "guests/g/disk-0@s{}", "guests/g/disk-1@s{}"),
    "RollbackSnapshot": (),
    "DeleteSnapshot": ("guests/g@doomed{}", "guests/g/disk-0@doomed{}", "guests/g/disk-1@doomed{}"),
    "DeleteDataset": ("v{}",),
    "DeleteGuestsDisks": ("guests/d{}", "guests/d{}/disk-0", "guests/d{}/disk-1"),
    "DeleteImage": ("images/doomed{}", "images/doomed{}@image"),
    "RequestImage": ("images/i{}", "images/i{}@image"),
    "receive": ("in{}", "in{}/new", "in{}/new@a"),
    "receive onto": ("onto{}@b",),
}
"""What each action makes, or takes away."""

EVERY = "IMAGESTORE_TEST_EVERY_POINT"
"""With this in the environment (``make points-zfs``) every point of every change is tried; else a slice."""

SLICE = {
    ("CreateVolume", SECOND_MADE),
    ("CloneImage", "after-effect"),
    ("CreateGuestDisks", SECOND_MADE),
    ("CreateGuestDisks", "after-effect"),
    ("CreateSnapshot", "after-effect"),
    ("RollbackSnapshot", "after-intent"),
    ("RollbackSnapshot", "after-effect"),
    ("DeleteSnapshot", "after-intent"),
    ("DeleteGuestsDisks", "after-intent"),
    ("DeleteImage", "after-effect"),
    ("RequestImage", "fetch-staged"),
    ("receive", "receive-staged"),
    ("receive onto", UNMARKED),
    ("receive onto", "receive-published"),
}
"""A start of a store takes six seconds in the machine."""

CASES = [
    (action, number, point)
    for action, points in CHANGES.items()
    for number, point in enumerate(
        point for point in points if EVERY in os.environ or (action, point) in SLICE
    )
]
MOST = 1 + max(number for _, number, _ in CASES)


class Told(NamedTuple):
    """What the journal says of one case: None if it never began."""

    outcome: str | None
    error_type: str


class Ended(NamedTuple):
    """The pool after all cases, how each child ended, what the journal says, and what a judge finds wrong."""

    rows: dict[str, Row]
    statuses: dict[tuple[str, int], int]
    told: dict[tuple[str, int], Told]
    findings: list[str]


def make_streams(directory: Path) -> None:
    """A full stream of one volume's @a, and the increment to @b."""
    command("zfs", "create", "-s", "-V", "1M", f"{POOL}/source")
    for number, snapshot in enumerate("ab"):
        with open(device(f"{POOL}/source"), "r+b") as disk:
            disk.write(random.Random(number).randbytes(MIB // 2))
            disk.flush()
            os.fsync(disk.fileno())
        command("zfs", "snapshot", f"{POOL}/source@{snapshot}")
    for file, words in (("full", [f"{POOL}/source@a"]), ("increment", ["-i", "@a", f"{POOL}/source@b"])):
        command("sh", "-c", f"zfs send {' '.join(words)} > {directory}/{file}")
    command("zfs", "destroy", "-r", f"{POOL}/source")


def told_by(events: list[Envelope], operation: str) -> Told:
    (finished,) = [
        e.event for e in events if e.operation == operation and isinstance(e.event, OperationFinished)
    ]
    return Told(finished.outcome, finished.error_type)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    directory = tmp_path_factory.mktemp("points")
    images = directory / "images"
    images.mkdir()
    content = random.Random(3).randbytes(MIB)
    for name in ("raw", *(f"{kind}{n}" for kind in ("doomed", "i") for n in range(MOST))):
        (images / name).write_bytes(content)
    place = Place(directory)
    told: dict[tuple[str, int], Told] = {}
    with pool_on_file(POOL, directory), ImageService(str(images)) as service, Children() as children:
        make_streams(directory)

        def run(action: str, number: int = 0, point: str = "") -> int:
            return children.run(
                Case(
                    directory=str(directory),
                    pool=POOL,
                    image_service=service.address,
                    action=action,
                    number=number,
                    point=point,
                )
            )

        assert run("prepare", MOST) == 0
        assert run("prepare receptions", MOST) == 0
        statuses: dict[tuple[str, int], int] = {}
        began: dict[tuple[str, int], str] = {}
        for action, number, point in CASES:
            seq = reader.head(str(place.journal))[0]
            statuses[action, number] = run(action, number, point)
            started = [
                e.operation for e in files.events_of(place.journal, seq + 1)
                if isinstance(e.event, OperationStarted) and e.event.method != "Start"
            ]  # fmt: skip
            assert len(started) <= 1
            began[action, number] = started[0] if started else ""
            if action == "RequestImage":  # else the next life fetches two at once, and dies of either
                assert run("settle") == 0
        assert run("settle") == 0
        events = files.events_of(place.journal)
        for case, operation in began.items():
            told[case] = told_by(list(events), operation) if operation else Told(None, "")
        rows = rows_of(POOL)
        state = reader.replay(str(place.journal))
        found = judge_journal(place, rows, files.destroyed_by(events), state)
        findings = [finding.text for finding in found] + files.drift_in(events)
        findings += [f"staging: {name}" for name in rows if "/." in name]
        findings += [
            f"{name} is tagged {rows[name].operation}, made by {record.made_by}"
            for name, record in state.datasets.items()
            if name in rows and record.made_by != rows[name].operation
        ]
        yield Ended(rows, statuses, told, findings)


@pytest.mark.parametrize(("action", "number", "point"), CASES)
def test_what_the_pool_holds_after_a_kill_is_what_the_rule_says(
    ended: Ended, action: str, number: int, point: str
) -> None:
    assert ended.statuses[action, number] == -signal.SIGKILL, "it ended by itself; see what it said"
    is_deletion = action.startswith("Delete")
    has_begun = point != "before-intent"
    happens = has_begun and (point in WHOLE or is_deletion or action == "RequestImage")
    outcome = ("succeeded" if happens else "failed") if has_begun else None
    assert ended.told[action, number] == (outcome, "Interrupted" if outcome == "failed" else "")
    for name in NAMES[action]:
        assert (name.format(number) in ended.rows) == (happens is not is_deletion), name


def test_names_guids_and_tags_are_those_of_the_journal(ended: Ended) -> None:
    assert ended.findings == []


def test_a_rollback_that_was_whole_has_destroyed_what_was_newer(ended: Ended) -> None:
    assert [name for name in ended.rows if name.startswith("guests/r/disk-0@")] == ["guests/r/disk-0@one"]
    assert len(list(itertools.filterfalse(lambda name: "@" not in name, ended.rows))) > 5
