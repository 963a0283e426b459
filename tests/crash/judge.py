"""The judgement after a crash: by the files, by what was answered, and by the journal.

Everything acknowledged is there, everything refused is not, what was cut off is
whole or absent, nothing deleted is back, nothing is stray; the journal is whole,
its state is the pool's, from a checkpoint as from nothing; the store's lists say
what the files say.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import trio
from msgspec import Struct
from msgspec.structs import replace

from imagestore import names
from imagestore.client import Client
from imagestore.errors import ImageStoreError
from imagestore.events import reader
from imagestore.events.state import State
from tests.crash import files
from tests.crash.content import IMAGES, Content, sha256_of
from tests.crash.files import Identity, Row
from tests.crash.imagebook import ImageBook, ImageState
from tests.crash.model import Model, settled
from tests.crash.process import Place
from tests.crash.workload import Worker

Fault = Literal["lost", "back", "half", "stray", "other"]


class Finding(Struct, frozen=True):
    fault: Fault
    text: str


class Shape(Struct, frozen=True):
    """A dataset without its bytes.  ``size`` in bytes; ``snapshots`` oldest first.

    ``whose``: the store's by its state and by the tags, snapshots included, or nobody's by both.
    """

    kind: str
    size: int = 0
    origin: str = ""
    snapshots: tuple[str, ...] = ()
    whose: Literal["ours", "nobody's", "half"] = "ours"
    retired: bool = False


def shapes_of_model(model: Model) -> dict[str, Shape]:
    return {
        name: Shape(
            dataset.kind,
            0 if dataset.content is None else dataset.content.size,
            dataset.origin,
            tuple(snapshot.name for snapshot in dataset.snapshots),
            "nobody's" if dataset.released else "ours",
            dataset.retired,
        )
        for name, dataset in model.items()
    }


def shapes_of_rows(rows: Iterable[Row], state: State) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    retired = {names.image(image) for image in state.retired}
    for row in rows:
        dataset, _, snapshot = row.name.partition("@")
        whose = _whose(row, state)
        if not snapshot:
            origin = row.origin.partition("@")[0].removeprefix(f"{names.IMAGES}/")
            shapes[dataset] = Shape(row.kind, row.volsize, origin, (), whose, dataset in retired)
        else:
            above = shapes[dataset]
            shapes[dataset] = replace(
                above,
                snapshots=(*above.snapshots, snapshot),
                whose=whose if whose == above.whose else "half",
            )
    return shapes


def _whose(row: Row, state: State) -> Literal["ours", "nobody's", "half"]:
    is_known = state.owned(row.name, row.guid, row.createtxg) is not None
    if is_known != bool(row.operation):
        return "half"
    return "ours" if is_known else "nobody's"


def contents_of(model: Model) -> list[tuple[str, Content]]:
    """Every volume and every snapshot of one, and what it holds."""
    found = []
    for name, dataset in model.items():
        if dataset.content is not None:
            found.append((name, dataset.content))
        found += [(f"{name}@{s.name}", s.content) for s in dataset.snapshots if s.content is not None]
    return found


def wrong_contents(
    place: Place, rows: Mapping[str, Row], model: Model, *, chance: random.Random, sample: int
) -> list[str]:
    """Names whose bytes are not what they should be, among ``sample`` of them."""
    contents = contents_of(model)
    chosen = chance.sample(contents, min(sample, len(contents)))
    return [name for name, content in chosen if place.sha256_of(rows[name]) != sha256_of(content)]


def judge_worker(
    worker: Worker,
    place: Place,
    rows: Mapping[str, Row],
    state: State,
    *,
    chance: random.Random,
    sample: int,
) -> list[Finding]:
    """Judge one client's part; settles its model when that is one of the two possible."""
    shapes = shapes_of_rows((row for row in rows.values() if worker.territory.owns(row.name)), state)
    worker.model = settled(worker.model)
    if worker.after_cut is not None:
        before, after = worker.model, settled(worker.after_cut)
        for model in (before, after):
            if shapes == shapes_of_model(model) and not wrong_contents(
                place, rows, model, chance=chance, sample=1 << 30
            ):
                worker.model, worker.after_cut = model, None
                return []
        difference = _differences(shapes, before, worker.history) or _differences(
            shapes, after, worker.history
        )
        told = "; ".join(finding.text for finding in difference) or "contents are of neither"
        return [Finding("half", f"{worker.cut_off}: neither before nor after: {told}")]
    found = _differences(shapes, worker.model, worker.history)
    if not found:
        wrong = wrong_contents(place, rows, worker.model, chance=chance, sample=sample)
        found = [Finding("lost", f"{name} does not hold what was written") for name in wrong]
    return found


def _differences(shapes: Mapping[str, Shape], model: Model, history: set[str]) -> list[Finding]:
    due = shapes_of_model(model)
    found = [Finding("lost", f"{name} is gone") for name in due if name not in shapes]
    for name, shape in shapes.items():
        if name not in due:
            found.append(Finding("back" if name in history else "stray", f"{name} is there"))
        elif shape != due[name]:
            fault: Fault = "back" if set(shape.snapshots) > set(due[name].snapshots) else "lost"
            found.append(Finding(fault, f"{name} is {shape}, due is {due[name]}"))
    return found


# --- images -----------------------------------------------------------------------------


async def end_fetches(client: Client, images: ImageBook) -> None:
    """Ask for what is being fetched again since the restart: the answer comes when it has ended."""
    for image in await trio.to_thread.run_sync(client.list_images):
        if image.status in ("pending", "downloading", "importing"):
            images.possible[image.id] |= {"complete" if IMAGES[image.id].is_good else "error"}
            try:
                await trio.to_thread.run_sync(client.request_image, image.id)
            except ImageStoreError:
                images.possible[image.id] |= {"error"}


def judge_images(
    images: ImageBook, told: Mapping[str, str], place: Place, rows: Mapping[str, Row], *, complete: bool
) -> list[Finding]:
    """``told`` is the status of each image by the store; ``complete`` compares every content.

    ``rows`` are all but the clients'.
    """
    found = []
    for image, served in IMAGES.items():
        there = [row for row in rows.values() if names.is_within(row.name, names.image(image))]
        state: ImageState = "complete" if there else "error" if image in told else "absent"
        if state not in images.possible[image]:
            fault: Fault = "back" if state == "complete" else "lost"
            found.append(
                Finding(fault, f"image {image} is {state}, it may be {sorted(images.possible[image])}")
            )
        if told.get(image, "absent") != state:
            found.append(Finding("other", f"image {image} is {state}, the store says {told.get(image)}"))
        if there:
            whole = [row.kind for row in there] == ["volume", "snapshot"] and there[0].tag == "image"
            looked_at = there if complete else there[:1]
            held = {place.sha256_of(row) for row in looked_at}
            if not whole or held != {sha256_of(Content(len(served.raw), image))}:
                found.append(Finding("half", f"image {image} is not whole: {there}"))
        images.settle(image, state)
    known = {names.image(image) for image in IMAGES}
    strangers = [n for n in rows if n.startswith("images/") and n.partition("@")[0] not in known]
    return found + [Finding("stray", f"{name} is there") for name in strangers]


def judge_published(worker: Worker, told: Mapping[str, str]) -> list[Finding]:
    """What the store says of a client's own images, whose model is settled."""
    due = {
        image
        for image in worker.territory.published
        if (there := worker.model.get(names.image(image))) is not None and not there.retired
    }
    shown = {image for image in worker.territory.published if told.get(image) == "complete"}
    return [Finding("other", f"the store's list is wrong about image {image}") for image in due ^ shown]


# --- the journal, the lists, and the whole -------------------------------------------------


def judge_journal(
    place: Place,
    rows: Mapping[str, Row],
    destroyed: Mapping[Identity, str],
    state: State,
    workers: Sequence[Worker] = (),
) -> list[Finding]:
    """The state is the pool's, but for what clients have let go; what the journal calls destroyed is."""
    found = [Finding("other", f"journal: {text}") for text in files.damage_of(place.journal)]
    from_nothing = files.state_from_nothing(place.journal)
    if from_nothing != state or list(from_nothing.images) != list(state.images):
        found.append(Finding("other", "the state from a checkpoint is not the state from nothing"))
    found += [
        Finding("other", f"{record.method} {record.subject} is under way for ever")
        for record in state.operations.values()
    ]
    ours = {(name, record.guid, record.createtxg) for name, record in state.datasets.items()}
    there = {(row.name, row.guid, row.createtxg) for row in rows.values()}
    found += [Finding("lost", f"{name} is in the state and not in the pool") for name, *_ in ours - there]
    found += [
        Finding("stray", f"{name} is in the pool and not in the state")
        for name, *_ in there - ours
        if not _is_a_clients(name, workers)
    ]
    found += [
        Finding("back", f"{row.name} was destroyed as {destroyed[row.identity]} and is there")
        for row in rows.values()
        if row.identity in destroyed
    ]
    return found


def _not_of(workers: Sequence[Worker], rows: Mapping[str, Row]) -> dict[str, Row]:
    return {name: row for name, row in rows.items() if not _is_a_clients(name, workers)}


def _is_a_clients(name: str, workers: Sequence[Worker]) -> bool:
    return any(worker.territory.owns(name) for worker in workers)


async def judge_lists(client: Client, pool: str, rows: Mapping[str, Row]) -> list[Finding]:
    """What the store lists is what the files say."""
    volumes = await trio.to_thread.run_sync(client.list_volumes)
    snapshots = await trio.to_thread.run_sync(client.list_snapshots)
    found = []
    for told, kind in (([v.id for v in volumes], "volume"), ([s.id for s in snapshots], "snapshot")):
        due = [f"{pool}/{row.name}" for row in rows.values() if row.kind == kind]
        if sorted(told) != sorted(due):
            differing = sorted(set(told) ^ set(due))
            found.append(Finding("other", f"the store's {kind}s are not the pool's: {differing}"))
    return found


class Judge:
    """Judges one pool and journal again and again; remembers what the journal called destroyed."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self._place = place
        self._chance = chance
        self._seq = 0
        self._destroyed: dict[Identity, str] = {}

    async def judge(
        self, client: Client, workers: Sequence[Worker], images: ImageBook, *, complete: bool = False
    ) -> list[Finding]:
        """The store runs and nobody asks it anything else."""
        await end_fetches(client, images)
        told = {i.id: str(i.status) for i in await trio.to_thread.run_sync(client.list_images)}
        found = await trio.to_thread.run_sync(self._judge_files, workers, images, told, complete)
        rows = await trio.to_thread.run_sync(self._place.rows)
        return found + await judge_lists(client, self._place.pool_name, rows)

    def _judge_files(
        self, workers: Sequence[Worker], images: ImageBook, told: Mapping[str, str], complete: bool
    ) -> list[Finding]:
        place = self._place
        events = files.events_of(place.journal, self._seq + 1)
        self._seq = events[-1].seq if events else self._seq
        self._destroyed |= files.destroyed_by(events)
        rows, state = place.rows(), reader.replay(str(place.journal))
        found = judge_journal(place, rows, self._destroyed, state, workers)
        found += [Finding("other", f"drift without a stranger: {text}") for text in files.drift_in(events)]
        found += [Finding("stray", text) for text in place.strays(rows)]
        others = _not_of(workers, rows)
        found += [
            Finding("stray", f"{row.name} carries no tag") for row in others.values() if not row.operation
        ]
        if found:
            return found
        found += judge_images(images, told, place, others, complete=complete)
        for worker in workers:
            sample = 1 << 30 if complete else 12
            found += judge_worker(worker, place, rows, state, chance=self._chance, sample=sample)
            found += judge_published(worker, told)
        return found


def count(findings: Iterable[Finding]) -> Counter[str]:
    return Counter(finding.fault for finding in findings)
