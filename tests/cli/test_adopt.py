"""adopt and release: what they ask of the store, what they print, and what they do not let through."""

import json
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore

ADOPTED = [
    {"id": "tank/old/root", "role": "disk", "guest": "vm1", "disk": 0},
    {"id": "tank/old/root@monday", "role": "snapshot", "guest": "vm1"},
    {"id": "tank/images/a", "role": "image", "image": "a"},
]


class AdoptingStore(MemoryStore):
    """Answers ``answer`` to what is asked."""

    answer: dict[str, Any]

    def adopt_dataset(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.answer

    adopt_original = release_dataset = adopt_dataset


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, run: Run) -> Any:
    with AdoptingStore() as store:
        monkeypatch.setenv("IMAGESTORE_SERVER", store.address)
        store.answer = {"adopted": ADOPTED, "left": [], "commands": []}
        yield store


def test_a_disk_is_asked_for_by_guest_and_number_and_what_came_of_it_is_shown(
    run: Run, store: AdoptingStore
) -> None:
    ended = run("adopt", "old/root", "--guest", "vm1", "--disk", "0", "--force")
    assert ended.status == 0
    assert ended.out.splitlines() == [
        "DATASET               IS NOW",
        "tank/old/root         disk 0 of guest vm1",
        "tank/old/root@monday  snapshot",
        "tank/images/a         image a",
    ]
    ((method, request),) = store.calls
    assert method == "AdoptDataset"
    assert request == {
        "id": "old/root", "guest": "vm1", "disk": 0, "image": "", "type": "", "dryRun": False, "force": True,
    }  # fmt: skip


def test_a_dry_run_tells_what_would_happen_then_the_commands_and_on_stderr_that_nothing_was_done(
    run: Run, store: AdoptingStore
) -> None:
    store.answer["commands"] = ["zfs set imagestore:op=OPERATION tank/old/root"]
    store.answer["left"] = [{"id": "tank/images/b", "reason": "it has no snapshot"}]
    ended = run("adopt", "--original", "--dry-run")
    assert ended.out.splitlines() == [
        "would adopt tank/old/root: disk 0 of guest vm1",
        "would adopt tank/old/root@monday: snapshot",
        "would adopt tank/images/a: image a",
        "would leave tank/images/b: it has no snapshot",
        "  zfs set imagestore:op=OPERATION tank/old/root",
    ]
    assert "nothing was done" in ended.err
    assert "OPERATION will be its id" in ended.err
    assert store.calls[0][0] == "AdoptOriginal"
    assert store.calls[0][1]["dryRun"] is True


def test_what_was_left_is_shown_with_its_reason_and_as_json(run: Run, store: AdoptingStore) -> None:
    left = {"id": "tank/images/b", "reason": "it has no snapshot"}
    store.answer = {"adopted": [], "left": [left], "commands": []}
    assert run("adopt", "--original").out.splitlines() == [
        "NOT TAKEN      BECAUSE",
        "tank/images/b  it has no snapshot",
    ]
    assert json.loads(run("adopt", "--original", "-o", "json").out)["left"] == [left]
    assert json.loads(run("adopt", "--original", "-o", "jsonl").out) == left
    store.answer = {"adopted": [], "left": [], "commands": []}
    assert "nothing of the original program's is left" in run("adopt", "--original").err


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("old/root", "--guest", "vm1"),
        ("old/root", "--disk", "1"),
        ("old/root", "--guest", "vm1", "--disk", "-1"),
        ("old/root", "--guest", "vm1", "--disk", "one"),
        ("old/root", "--guest", "vm1", "--disk", "1", "--image", "a"),
        ("old/root", "--original"),
        ("--original", "--guest", "vm1", "--disk", "1"),
        ("-r",),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_asked(
    run: Run, store: AdoptingStore, words: tuple[str, ...]
) -> None:
    assert run("adopt", *words).status == 2
    assert store.calls == []


def test_a_name_like_an_option_reaches_the_store_as_a_name(run: Run, store: AdoptingStore) -> None:
    store.refusals["AdoptDataset"] = store.refusals["ReleaseDataset"] = "not a valid dataset"
    for words in (("adopt",), ("release",)):
        ended = run(*words, "--", "-r")
        assert ended.status == 2
        assert "imagestore: not a valid dataset" in ended.err
    assert [request["id"] for _, request in store.calls] == ["-r", "-r"]


@pytest.mark.parametrize(
    "text",
    [
        "dataset is the store's already: a (image a)",
        "dataset is not the store's: a",
        "dataset carries the tags of another store: a (disk of operation 7)",
        "image has no snapshot: images/a",
    ],
)
def test_what_stands_in_the_way_has_its_exit_code(run: Run, store: AdoptingStore, text: str) -> None:
    store.refusals["AdoptDataset"] = text
    ended = run("adopt", "a")
    assert (ended.status, ended.err) == (5, f"imagestore: {text}\n")


def test_a_release_tells_what_was_let_go_and_a_dry_run_what_would_be(run: Run, store: AdoptingStore) -> None:
    store.answer = {"released": ["tank/a", "tank/a@s"], "commands": []}
    assert run("release", "a").out.splitlines() == ["tank/a is released", "tank/a@s is released"]
    store.answer["commands"] = ["zfs inherit imagestore:op tank/a"]
    foreseen = run("release", "a", "--dry-run")
    assert foreseen.out.splitlines() == [
        "would release tank/a",
        "would release tank/a@s",
        "  zfs inherit imagestore:op tank/a",
    ]
    assert "nothing was done" in foreseen.err
    assert json.loads(run("release", "a", "-o", "json").out)["released"] == ["tank/a", "tank/a@s"]
