"""A slice of the long crash test (``make crash``): a few rounds of load, SIGKILL, restart and judgement."""

import random
import secrets
from pathlib import Path

import pytest
from msgspec.structs import replace

from imagestore.client import Client
from imagestore.events.state import DatasetRecord, State
from imagestore.model import Volume
from tests.crash import model
from tests.crash.choosing import Call
from tests.crash.content import MIB, Content, sha256_of
from tests.crash.files import Row
from tests.crash.imagebook import ImageBook
from tests.crash.judge import judge_published, judge_worker
from tests.crash.process import Place
from tests.crash.rounds import run
from tests.crash.workload import Statistics, Worker, WrongAnswer
from tests.pools.directories import loop_mount

ROUNDS = 6
ROUNDS_ON_XFS = 3


async def crash(directory: Path, rounds: int) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    summary = await run(directory, seed=seed, rounds=rounds)
    print(summary.line)
    assert summary.rounds == rounds
    assert summary.statistics.acknowledged
    assert summary.findings == []


async def test_a_store_killed_under_load_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    await crash(tmp_path, ROUNDS)


@pytest.mark.system
async def test_a_store_killed_under_load_on_a_reflink_file_system_loses_nothing(tmp_path: Path) -> None:
    with loop_mount(tmp_path, "xfs", 2048 * MIB) as mounted:
        await crash(mounted, ROUNDS_ON_XFS)


# --- would it see a store that lies? ----------------------------------------------------


class Pool:
    """A pool of files that no store has made, as a judge sees it."""

    def __init__(self, directory: Path) -> None:
        self.place = Place(directory)
        self.place.pool.mkdir(parents=True)
        self.rows: dict[str, Row] = {}
        self.state = State()

    def hold(self, name: str, content: Content | None, *, origin: str = "") -> None:
        path = self.place.pool / name
        if content is None:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(content.size))
        number = len(self.rows) + 1
        self.rows[name] = Row(
            name=name,
            kind="filesystem" if content is None else "volume",
            guid=number,
            createtxg=number,
            volsize=0 if content is None else content.size,
            origin=origin,
            file="" if content is None else f"{number}",
            operation="an operation",
            tag="",
        )
        self.own(name)

    def own(self, name: str) -> None:
        row = self.rows[name]
        self.state.datasets[name] = DatasetRecord(
            name=name, kind="volume", role="volume", guid=row.guid, createtxg=row.createtxg
        )

    def release(self, name: str, *, tags: bool = True, record: bool = True) -> None:
        if tags:
            self.rows[name] = replace(self.rows[name], operation="")
        if record:
            del self.state.datasets[name]

    def faults(self, worker: Worker) -> list[str]:
        found = judge_worker(worker, self.place, self.rows, self.state, chance=random.Random(0), sample=100)
        return [finding.fault for finding in found]


BLANK = Content(MIB)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


@pytest.fixture
def worker(pool: Pool) -> Worker:
    worker = Worker(0, 0, str(pool.place.pool), ImageBook(), Statistics())
    worker.model = model.create_volume({}, "c0/a", size=MIB)
    return worker


def test_a_pool_as_answered_is_right(pool: Pool, worker: Worker) -> None:
    pool.hold("c0", None)
    pool.hold("c0/a", BLANK)
    assert pool.faults(worker) == []


def test_what_was_acknowledged_and_is_gone_is_lost(pool: Pool, worker: Worker) -> None:
    pool.hold("c0", None)
    assert pool.faults(worker) == ["lost"]


def test_what_was_written_and_is_gone_is_lost(pool: Pool, worker: Worker) -> None:
    pool.hold("c0", None)
    pool.hold("c0/a", BLANK)
    worker.model = {**worker.model, "c0/a": model.Dataset(content=BLANK.written(3, 7))}
    assert pool.faults(worker) == ["lost"]


def test_what_was_deleted_and_is_there_is_back(pool: Pool, worker: Worker) -> None:
    pool.hold("c0", None)
    pool.hold("c0/a", BLANK)
    worker.history = set(worker.model)
    worker.model = model.delete_dataset(worker.model, "c0/a")
    assert pool.faults(worker) == ["back"]


def test_what_nobody_made_is_stray(pool: Pool, worker: Worker) -> None:
    pool.hold("c0", None)
    pool.hold("c0/a", BLANK)
    pool.hold("c0/b", BLANK)
    assert pool.faults(worker) == ["stray"]


@pytest.mark.parametrize(("disks", "faults"), [(0, []), (1, ["half"]), (2, [])])
def test_what_was_cut_off_is_whole_or_absent(
    pool: Pool, worker: Worker, disks: int, faults: list[str]
) -> None:
    wanted = [model.Disk(size=MIB), model.Disk(size=MIB)]
    worker.model = {}
    worker.after_cut = model.create_guest({}, "c0-g0", wanted)
    if disks:
        pool.hold("guests/c0-g0", None)
    for number in range(disks):
        pool.hold(f"guests/c0-g0/disk-{number}", BLANK)
    assert pool.faults(worker) == faults
    if not faults:
        assert len(worker.model) == (disks + 1 if disks else 0)


@pytest.mark.parametrize(("tags", "record", "faults"), [(1, 1, []), (1, 0, ["half"]), (0, 1, ["half"])])
def test_what_was_cut_off_while_it_was_let_go_is_ours_or_nobodys(
    pool: Pool, worker: Worker, tags: int, record: int, faults: list[str]
) -> None:
    pool.hold("c0", None)
    pool.hold("c0/a", BLANK)
    worker.after_cut = model.release(worker.model, "c0/a")
    pool.release("c0/a", tags=bool(tags), record=bool(record))
    assert pool.faults(worker) == faults
    assert worker.model["c0/a"].released == (not faults)


def test_what_was_let_go_and_is_ours_is_noticed(pool: Pool, worker: Worker) -> None:
    pool.hold("c0", None)
    pool.hold("c0/a", BLANK)
    worker.model = model.release(worker.model, "c0/a")
    assert pool.faults(worker) == ["lost"]


IMAGE = model.Dataset(content=BLANK, published="c0/a@1")


def test_a_retired_image_is_there_as_long_as_its_clones_and_no_longer(pool: Pool, worker: Worker) -> None:
    pool.hold("images/c0-p0", BLANK)
    pool.state.retired["c0-p0"] = ""
    pool.hold("c0", None)
    pool.hold("c0/b", BLANK, origin="images/c0-p0@s0")
    cloned = model.clone_published({"images/c0-p0": IMAGE}, "c0-p0", "c0/b")
    worker.model = model.delete_image(cloned, "c0-p0", when_unused=True)
    worker.history = set(worker.model)
    assert pool.faults(worker) == []
    worker.model = model.delete_dataset(worker.model, "c0/b")
    del pool.rows["c0/b"]
    assert pool.faults(worker) == ["back"]
    del pool.rows["images/c0-p0"]
    assert pool.faults(worker) == []


def test_an_image_that_was_to_be_retired_and_is_not_is_noticed(pool: Pool, worker: Worker) -> None:
    pool.hold("images/c0-p0", BLANK)
    pool.hold("c0", None)
    pool.hold("c0/b", BLANK, origin="images/c0-p0@s0")
    cloned = model.clone_published({"images/c0-p0": IMAGE}, "c0-p0", "c0/b")
    worker.model = model.delete_image(cloned, "c0-p0", when_unused=True)
    assert pool.faults(worker) == ["lost"]


def test_the_list_of_images_that_lacks_a_published_one_is_noticed(worker: Worker) -> None:
    worker.model = {"images/c0-p0": IMAGE, "images/c0-p1": replace(IMAGE, retired=True)}
    assert judge_published(worker, {"c0-p0": "complete"}) == []
    assert len(judge_published(worker, {})) == 1
    assert len(judge_published(worker, {"c0-p0": "complete", "c0-p1": "complete"})) == 1


class LyingClient(Client):
    """Says that whatever is asked was done."""

    def create_volume(self, volume: str, *, size_mib: int, thick: bool = False) -> Volume:
        return Volume(id=volume, size=size_mib, device="")


async def test_an_acknowledgement_of_what_had_to_be_refused_is_noticed(worker: Worker) -> None:
    call = Call(
        method="CreateVolume",
        perform=lambda client: client.create_volume("c0/a", size_mib=2),
        after=lambda before: model.create_volume(before, "c0/a", size=2 * MIB),
        text="CreateVolume c0/a of another size",
    )
    with pytest.raises(WrongAnswer, match="succeeded, due was: AlreadyExists"):
        await worker.call(LyingClient(), call)


def test_contents_are_told_apart_by_their_last_byte() -> None:
    assert sha256_of(BLANK) != sha256_of(BLANK.written(BLANK.blocks - 1, 1))
