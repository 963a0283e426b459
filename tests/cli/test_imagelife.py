"""image show, alias, publish, rm --when-unused and gc: what they ask of the store and what they print."""

import json

import pytest

from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore

FULL = {
    "id": "deb",
    "type": "kvm",
    "size": 2048,
    "status": "complete",
    "snapshot": "tank/images/deb@made",
    "sha256": "ab" * 32,
    "source": "https://images.test/deb",
    "size_bytes": 700 << 20,
    "clones": ["tank/guests/a/disk-0", "tank/guests/b/disk-0"],
    "requested": "2030-01-31T12:00:00Z",
    "completed": "2030-01-31T12:05:00Z",
    "last_used": "2030-02-01T09:00:00Z",
    "retired": True,
}


def test_show_tells_all_that_is_known_each_clone_on_a_line(run: Run, memory_store: MemoryStore) -> None:
    memory_store.images["deb"] = FULL
    memory_store.aliases["stable"] = "deb"
    ended = run("image", "show", "stable")
    assert [line.split(maxsplit=1) for line in ended.out.splitlines()] == [
        ["FIELD", "VALUE"],
        ["id", "deb"],
        ["type", "kvm"],
        ["status", "complete, removed when its last clone goes"],
        ["size", "2G, takes 700M"],
        ["sha256", "ab" * 32],
        ["source", "https://images.test/deb"],
        ["snapshot", "tank/images/deb@made"],
        ["requested", "2030-01-31T12:00:00Z"],
        ["completed", "2030-01-31T12:05:00Z"],
        ["last", "used  2030-02-01T09:00:00Z"],
        ["alias", "stable"],
        ["clone", "tank/guests/a/disk-0"],
        ["clone", "tank/guests/b/disk-0"],
    ]
    shown = json.loads(run("image", "show", "deb", "-o", "json").out)
    assert shown == {**FULL, "aliases": ["stable"]}


def test_show_of_an_unknown_image_is_not_found(run: Run, memory_store: MemoryStore) -> None:
    ended = run("image", "show", "unheard")
    assert (ended.status, ended.err.splitlines()[0]) == (3, "imagestore: not found")


def test_an_alias_is_set_listed_and_removed(run: Run, memory_store: MemoryStore) -> None:
    run("image", "pull", "deb-1")
    out = run("image", "alias", "set", "deb", "deb-1").out
    assert out.splitlines() == ["IMAGE  ALIASES", "deb-1  deb"]
    assert memory_store.calls[-1] == ("SetImageAlias", {"alias": "deb", "id": "deb-1"})
    assert run("image", "alias", "ls").out.splitlines() == ["ALIAS  IMAGE", "deb    deb-1"]
    assert json.loads(run("image", "alias", "ls", "-o", "jsonl").out) == {"alias": "deb", "image": "deb-1"}
    assert run("image", "alias", "rm", "deb").status == 0
    assert memory_store.aliases == {}


@pytest.mark.parametrize(
    ("text", "status"),
    [("image has aliases: stable", 5), ("image already exists: deb", 4), ("alias already exists: deb", 4)],
)
def test_a_refusal_is_the_error_that_it_was_in_the_store(
    text: str, status: int, run: Run, memory_store: MemoryStore
) -> None:
    memory_store.refusals["DeleteImage"] = text
    ended = run("image", "rm", "deb")
    assert (ended.status, ended.err) == (status, f"imagestore: {text}\n")


def test_a_snapshot_is_published_under_an_id(run: Run, memory_store: MemoryStore) -> None:
    memory_store.snapshots["guests/g/disk-0@gold"] = 3
    ended = run("image", "publish", "guests/g/disk-0@gold", "--as", "golden", "--type", "kvm")
    assert ended.out.splitlines()[1].split() == ["golden", "kvm", "2G", "complete", "tank/images/golden@made"]
    wanted = {"id": "golden", "snapshot": "guests/g/disk-0@gold", "type": "kvm"}
    assert memory_store.calls == [("PublishImage", wanted)]
    assert run("image", "publish", "guests/g/disk-0", "--as", "golden").status == 2


def test_rm_when_unused_says_so_to_the_store(run: Run, memory_store: MemoryStore) -> None:
    for flags, when_unused in (([], False), (["--when-unused"], True)):
        run("image", "pull", "deb")
        run("image", "rm", "deb", *flags)
        assert memory_store.calls[-1][1]["whenUnused"] is when_unused


def test_gc_says_what_would_go_and_how_much_and_then_does_it(run: Run, memory_store: MemoryStore) -> None:
    for image in ("a", "b"):
        run("image", "pull", image)
    dry = run("image", "gc", "--unused", "30d", "--dry-run").out.splitlines()
    assert [line.split()[:2] for line in dry[:3]] == [["IMAGE", "TAKES"], ["a", "3M"], ["b", "3M"]]
    assert dry[3] == "2 images, 6M would be freed"
    assert memory_store.calls[-1] == ("CollectImages", {"unusedSeconds": 30 * 86_400, "dryRun": True})
    assert sorted(memory_store.images) == ["a", "b"]
    assert run("image", "gc", "--unused", "12h").out.splitlines()[3] == "2 images, 6M were freed"
    assert memory_store.calls[-1] == ("CollectImages", {"unusedSeconds": 12 * 3600, "dryRun": False})
    assert memory_store.images == {}
    assert run("image", "gc", "--unused", "8w", "-o", "json").out == "[]\n"


@pytest.mark.parametrize("age", ["", "30", "d", "-1d", "1y", "1.5h"])
def test_an_age_that_is_none_is_refused_with_what_would_be_one(
    age: str, run: Run, memory_store: MemoryStore
) -> None:
    ended = run("image", "gc", "--unused", age)
    assert ended.status == 2
    assert "write 12h, 30d or 8w" in ended.err
    assert memory_store.calls == []
