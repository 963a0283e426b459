"""A store killed at every named point of every change: what its files hold is what its journal says.

An operation whose effect was whole succeeded; a deletion went on; a fetch was
queued again and completed; anything else was undone and failed.
"""

import itertools
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from imagestore.events import reader
from imagestore.events.catalogue import (
    Envelope,
    ImageDeleted,
    OperationFinished,
    OperationResumed,
    OperationStarted,
)
from tests.crash import files
from tests.crash.child import ANSWERED, DRIVER, JOURNAL, Case, Children
from tests.crash.content import provide
from tests.crash.judge import judge_journal
from tests.crash.process import Place
from tests.crash.scene import ACTIONS
from tests.imageservice import ImageService

LIFE = ("before-intent", "after-intent", "after-effect", "after-outcome", ANSWERED)
FETCH = ("fetch-accepted", "fetch-staged", "fetch-published", "fetch-finished", ANSWERED)

DRIVER_POINTS = {
    "CreateGuestDisks": ("files made", "files durable", "before commit", "committed", "linked"),
    "CreateSnapshot guest": ("files made", "files durable", "before commit", "committed", "linked"),
    "RollbackSnapshot guest": ("files made", "before commit", "committed", "linked", "files removed"),
    "DeleteGuestsDisks": ("before commit", "committed", "linked", "files removed"),
    "RequestImage": ("received", "before commit", "committed", "linked"),
    "RequestImage raw": ("received", "before commit", "committed", "linked"),
    "PublishImage": ("received", "before commit", "committed", "linked"),
    "ResizeVolume": ("resize noted",),
}
"""Inside the driver, in order; the effect has happened from ``committed`` on.  Of a publication these
are the points of its reception into staging: its effect is the renaming after them."""

FETCHES = ("RequestImage", "RequestImage raw")
"""A raw image's spool becomes its data file."""

NOTES = ("RetireImage", "SetImageAlias")
"""Changes that are in the journal alone: once the intent is durable there is nothing to be undone."""

CASES = [
    *((action, point) for action in ACTIONS if action not in ("settle", *FETCHES) for point in LIFE),
    *((action, point) for action in FETCHES for point in FETCH),
    *((action, DRIVER + point) for action, points in DRIVER_POINTS.items() for point in points),
]

Pool = dict[str, tuple[str, int, str, str]]
"""By name: kind, size, origin and sha256."""


def look(place: Place) -> Pool:
    rows = files.rows_of(place.pool)
    return {
        row.name: (row.kind, row.volsize, row.origin, files.sha256_of(place.pool, row) if row.file else "")
        for row in rows.values()
    }


class Scene:
    """The prepared pool, copies of it, and what each action makes of it when nothing dies."""

    def __init__(self, directory: Path, children: Children) -> None:
        self._directory = directory
        self._children = children
        self._image_service = ""
        self._after: dict[str, Pool] = {}
        self._copies = 0
        self._original = Place(directory / "original")
        self.before: Pool = {}
        self.seq = 0

    async def prepare(self, service: ImageService) -> None:
        """Once for all tests; the image service is a new one for each."""
        provide(service, pause_seconds=0)
        self._image_service = service.address
        if not self.before:
            self._original.directory.mkdir()
            assert await self.run(self._original, "prepare") == 0
            self.before = look(self._original)
            self.seq = reader.head(str(self._original.journal))[0]

    def copy(self) -> Place:
        self._copies += 1
        place = Place(self._directory / f"copy-{self._copies}")
        shutil.copytree(self._original.directory, place.directory, symlinks=True)
        return place

    async def run(self, place: Place, action: str, point: str = "") -> int:
        case = Case(
            directory=str(place.directory), image_service=self._image_service, action=action, point=point
        )
        return await trio.to_thread.run_sync(self._children.run, case)

    async def after(self, action: str) -> Pool:
        if action not in self._after:
            place = self.copy()
            assert await self.run(place, action) == 0
            self._after[action] = look(place)
            shutil.rmtree(place.directory)
        return self._after[action]


@pytest.fixture(scope="module")
def shared_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Children() as children:
        yield Scene(tmp_path_factory.mktemp("scene"), children)


@pytest.fixture
async def scene(shared_scene: Scene, nursery: trio.Nursery) -> Scene:
    service = ImageService()
    await nursery.start(service.run)
    await shared_scene.prepare(service)
    return shared_scene


class Told(NamedTuple):
    """What the journal says of the one operation: None if it never began."""

    outcome: str | None
    error_type: str
    resumed: int


def told_by(place: Place, since: int) -> Told:
    events = files.events_of(place.journal, since + 1)
    started = [e.operation for e in events if isinstance(e.event, OperationStarted)]
    if not started:
        return Told(None, "", 0)
    (operation,) = started
    mine: list[Envelope] = [e for e in events if e.operation == operation]
    (finished,) = [e.event for e in mine if isinstance(e.event, OperationFinished)]
    resumed = sum(isinstance(e.event, OperationResumed) for e in mine)
    return Told(finished.outcome, finished.error_type, resumed)


def check_whole(place: Place) -> None:
    """Files, catalog, links, journal and state agree; nothing is left over or under way."""
    rows = files.rows_of(place.pool)
    assert files.strays_of(place.pool, rows) == []
    assert list((place.pool / ".imagestore" / "spool").iterdir()) == []
    events = files.events_of(place.journal)
    assert judge_journal(place, rows, files.destroyed_by(events), reader.replay(str(place.journal))) == []
    assert files.drift_in(events) == []


def has_happened(action: str, point: str) -> bool:
    """Whether the effect was whole when the store was killed."""
    if action == "PublishImage" and point.startswith(DRIVER):
        return False
    if action == "ResizeVolume" and point.startswith(DRIVER):
        return True  # once it is noted, opening the pool ends it
    if point.startswith(DRIVER):
        points = DRIVER_POINTS[action]
        return points.index(point.removeprefix(DRIVER)) >= points.index("committed")
    return point in ("after-effect", "after-outcome", "fetch-published", "fetch-finished", ANSWERED)


def due(action: str, point: str) -> tuple[str | None, bool]:
    """The outcome that the rule demands, and whether the pool is to be changed."""
    if point == "before-intent":
        return None, False
    goes_on = action.startswith("Delete") or action in (*FETCHES, *NOTES)
    if has_happened(action, point) or goes_on:
        return "succeeded", True
    return "failed", False


def is_resumed(action: str, point: str) -> bool:
    """Whether recovery had more to do than to write down that all was done."""
    if point in ("before-intent", "after-outcome", "fetch-finished", ANSWERED) or action in NOTES:
        return False
    if action in FETCHES:  # its datasets stand under the image's name once that is published
        return point != "fetch-published"
    return action.startswith("Delete") or not has_happened(action, point)


@pytest.mark.parametrize(("action", "point"), CASES)
async def test_row_13_what_the_pool_holds_after_a_kill_is_what_the_rule_says(
    scene: Scene, action: str, point: str
) -> None:
    place = scene.copy()
    assert await scene.run(place, action, point) == -signal.SIGKILL
    assert await scene.run(place, "settle") == 0
    check_whole(place)
    outcome, changed = due(action, point)
    assert look(place) == (await scene.after(action) if changed else scene.before)
    told = told_by(place, scene.seq)
    assert told.outcome == outcome
    assert told.error_type == ("Interrupted" if outcome == "failed" else "")
    assert told.resumed == is_resumed(action, point)
    hidden = {"raw"} if (action, outcome) == ("RetireImage", "succeeded") else set()
    assert set(reader.replay(str(place.journal)).retired) == hidden
    shutil.rmtree(place.directory)


REAPING = (*LIFE[:-1], DRIVER + "before commit", DRIVER + "committed", DRIVER + "files removed")


@pytest.mark.parametrize("point", REAPING)
async def test_a_retired_image_goes_once_after_its_last_clone_wherever_the_store_is_killed(
    scene: Scene, point: str
) -> None:
    """First right after the clone's deletion, then in the image's, which the next life begins with."""
    place = scene.copy()
    assert await scene.run(place, "RetireImage") == 0
    assert await scene.run(place, "DeleteGuestsDisks", "after-outcome") == -signal.SIGKILL
    assert "images/raw" in look(place)
    assert await scene.run(place, "settle", point) == -signal.SIGKILL
    assert await scene.run(place, "settle") == 0
    check_whole(place)
    assert not [name for name in look(place) if name.startswith("images/raw")]
    events = files.events_of(place.journal, scene.seq + 1)
    started = {
        e.operation: (e.event.method, e.cause) for e in events if isinstance(e.event, OperationStarted)
    }
    (deleted,) = [e.operation for e in events if isinstance(e.event, ImageDeleted)]
    assert started[started[deleted][1]][0] == "DeleteGuestsDisks"
    shutil.rmtree(place.directory)


async def test_row_13_a_kill_before_each_system_call_of_the_journal_leaves_the_pool_as_the_journal_says(
    scene: Scene,
) -> None:
    """Among them are the calls of rotation and checkpoints, and those after the answer."""
    action = "CreateGuestDisks"
    outcomes = []
    for number in itertools.count(1):
        place = scene.copy()
        status = await scene.run(place, action, f"{JOURNAL}{number}")
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert await scene.run(place, "settle") == 0
        check_whole(place)
        outcomes.append(told_by(place, scene.seq).outcome)
        changed = outcomes[-1] == "succeeded"
        assert look(place) == (await scene.after(action) if changed else scene.before), number
        shutil.rmtree(place.directory)
    assert outcomes[0] is None
    assert outcomes[-1] == "succeeded"
    in_order = [None, "failed", "succeeded"]
    assert outcomes == sorted(outcomes, key=in_order.index)


RECOVERIES = [
    ("CreateGuestDisks", "after-intent"),
    ("CreateGuestDisks", "after-effect"),
    ("RollbackSnapshot guest", DRIVER + "before commit"),
    ("RollbackSnapshot guest", DRIVER + "committed"),
    ("DeleteGuestsDisks", "after-intent"),
    ("DeleteGuestsDisks", DRIVER + "committed"),
    ("PublishImage", "after-intent"),
    ("PublishImage", DRIVER + "linked"),
    ("RequestImage", "fetch-staged"),
    ("RequestImage", "fetch-published"),
    ("RequestImage raw", DRIVER + "committed"),
    ("RequestImage raw", "fetch-staged"),
]

RECOVERY_POINTS = (
    "recovery-staging-destroyed",
    "recovery-settled",
    DRIVER + "before commit",
    DRIVER + "committed",
)


@pytest.mark.parametrize(("action", "point"), RECOVERIES)
async def test_row_13_recovery_that_dies_before_it_settles_anything_changes_nothing(
    scene: Scene, action: str, point: str
) -> None:
    place = scene.copy()
    assert await scene.run(place, action, point) == -signal.SIGKILL
    for _ in range(3):
        assert await scene.run(place, "settle", "recovery-staging-destroyed") == -signal.SIGKILL
    assert await scene.run(place, "settle") == 0
    check_whole(place)
    outcome, changed = due(action, point)
    assert told_by(place, scene.seq).outcome == outcome
    assert look(place) == (await scene.after(action) if changed else scene.before)
    shutil.rmtree(place.directory)


@pytest.mark.parametrize(("action", "point"), RECOVERIES)
async def test_row_18_recovery_that_dies_again_and_again_converges(
    scene: Scene, action: str, point: str
) -> None:
    """It may give up a deletion or a fetch after three lives, and then the pool is as it was."""
    place = scene.copy()
    chance = random.Random(f"{action} {point}")
    assert await scene.run(place, action, point) == -signal.SIGKILL
    for _ in range(5):
        assert await scene.run(place, "settle", chance.choice(RECOVERY_POINTS)) in (0, -signal.SIGKILL)
    assert await scene.run(place, "settle") == 0
    check_whole(place)
    told = told_by(place, scene.seq)
    changed = told.outcome == "succeeded"
    assert look(place) == (await scene.after(action) if changed else scene.before)
    shutil.rmtree(place.directory)
