import random

from imagestore.actors.drift import drift
from imagestore.events.catalogue import DatasetLost, DatasetRenamed, Envelope
from imagestore.events.state import State, apply
from imagestore.pools.base import Dataset
from tests.actors.rows import MIB, record_of, row, view_of


def state_of(*rows: Dataset) -> State:
    return State(datasets={r.name: record_of(r) for r in rows})


def settled(state: State, *rows: Dataset) -> dict[str, tuple[int, int]]:
    """The state's names and identities after the drift was folded in."""
    for event in drift(state, view_of(*rows)):
        apply(state, Envelope(id="x", seq=state.seq + 1, time_ns=0, event=event))
    return {name: (record.guid, record.createtxg) for name, record in state.datasets.items()}


def test_a_pool_as_the_state_says_has_no_drift() -> None:
    rows = (row("v", volsize=MIB), row("v@s"))
    assert drift(state_of(*rows), view_of(*rows, row("foreign"))) == ()


def test_an_identity_that_is_nowhere_was_destroyed() -> None:
    ours = row("v", volsize=MIB)
    assert drift(state_of(ours), view_of()) == (
        DatasetLost(name="v", guid=ours.guid, createtxg=ours.createtxg),
    )


def test_a_foreign_dataset_of_that_name_is_not_ours() -> None:
    ours, foreign = row("v", volsize=MIB), row("v", volsize=MIB, guid=99)
    (event,) = drift(state_of(ours), view_of(foreign))
    assert isinstance(event, DatasetLost)


def test_a_renamed_dataset_and_its_snapshots_have_an_event_each() -> None:
    ours = (row("v", volsize=MIB, guid=1), row("v@s", guid=2, createtxg=7))
    there = (
        row("w", volsize=MIB, guid=1, createtxg=ours[0].createtxg),
        row("w@s", guid=2, createtxg=7),
    )
    assert drift(state_of(*ours), view_of(*there)) == (
        DatasetRenamed(name="v", new_name="w", guid=1, createtxg=ours[0].createtxg),
        DatasetRenamed(name="v@s", new_name="w@s", guid=2, createtxg=7),
    )


def test_two_that_swapped_their_names_are_both_found() -> None:
    a, b = row("a", volsize=MIB, guid=1, createtxg=1), row("b", volsize=MIB, guid=2, createtxg=2)
    there = (row("a", volsize=MIB, guid=2, createtxg=2), row("b", volsize=MIB, guid=1, createtxg=1))
    assert settled(state_of(a, b), *there) == {"a": (2, 2), "b": (1, 1)}


def test_whatever_others_did_the_state_then_names_what_is_there() -> None:
    rng = random.Random(3)
    for _ in range(300):
        names = rng.sample(["a", "a/b", "a/b@s", "c", "d", "d@s", "e"], rng.randrange(1, 7))
        ours = [row(name, "volume", guid=i + 1000, createtxg=i + 1) for i, name in enumerate(names)]
        kept = rng.sample(ours, rng.randrange(len(ours) + 1))
        shuffled = rng.sample([r.name for r in ours] + ["x", "y", "z/q"], len(kept))
        there = [
            row(n, "volume", guid=r.guid, createtxg=r.createtxg) for n, r in zip(shuffled, kept, strict=True)
        ]
        expected = {r.name: (r.guid, r.createtxg) for r in there}
        assert settled(state_of(*ours), *there) == expected
