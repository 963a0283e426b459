import random

import pytest

from imagestore.actors import view as view_module
from imagestore.actors.view import View, promised_bytes
from imagestore.pools.base import Dataset, Kind, Tags
from tests.actors.rows import MIB, row, view_of


def names_of(view: View, name: str = "") -> list[str]:
    return [r.name for r in view.under(name)]


def test_the_order_is_that_of_zfs_list() -> None:
    wanted = [
        row(""),
        row("a"),
        row("a@late", createtxg=9),
        row("a@zero", createtxg=3),
        row("a/b", volsize=MIB),
        row("a/b@s", createtxg=5),
        row("a/b-c"),
        row("a/b/c"),
        row("b"),
    ]
    view = View()
    random.Random(1).shuffle(wanted)
    view.put(wanted)
    assert names_of(view) == ["", "a", "a@zero", "a@late", "a/b", "a/b@s", "a/b/c", "a/b-c", "b"]


def test_a_subtree_is_the_dataset_its_snapshots_and_what_lies_below() -> None:
    view = view_of(row("g"), row("g@s"), row("g/d", volsize=MIB), row("g/d@s"), row("ga"), row("h"))
    assert names_of(view, "g") == ["g", "g@s", "g/d", "g/d@s"]
    assert names_of(view, "g/d@s") == ["g/d@s"]
    assert names_of(view, "nothing") == []


def test_snapshots_come_oldest_first_and_not_those_of_children() -> None:
    view = view_of(row("g"), row("g@b", createtxg=1), row("g@a", createtxg=2), row("g/d"), row("g/d@a"))
    assert [s.name for s in view.snapshots("g")] == ["g@b", "g@a"]


def test_clones_are_known_by_their_origin_and_forgotten_with_them() -> None:
    view = view_of(row("v", volsize=MIB), row("v@s"))
    view.put([row("d", volsize=MIB, origin="v@s"), row("c", volsize=MIB, origin="v@s")])
    assert view.clones("v@s") == ["c", "d"]
    view.remove(["c"])
    view.put([row("d", volsize=MIB)])
    assert view.clones("v@s") == []


def test_promises_count_what_sparse_volumes_may_still_write() -> None:
    assert promised_bytes(row("v", volsize=10 * MIB, written=3 * MIB)) == 7 * MIB
    assert promised_bytes(row("v", volsize=10 * MIB, written=30 * MIB)) == 0
    assert promised_bytes(row("v", volsize=10 * MIB, sparse=False)) == 0
    assert promised_bytes(row("v", volsize=10 * MIB, tags=Tags(kind="image"))) == 0
    assert promised_bytes(row("v@s", volsize=10 * MIB)) == 0


def test_the_sum_of_promises_follows_every_change() -> None:
    view = view_of(row("v", volsize=10 * MIB, written=3 * MIB), row("w", volsize=5 * MIB))
    assert view.promised_bytes == 12 * MIB
    view.put([row("v", volsize=10 * MIB, written=9 * MIB)])
    assert view.promised_bytes == 6 * MIB
    view.remove(["w", "absent"])
    assert view.promised_bytes == MIB


def test_a_refresh_brings_what_others_did() -> None:
    view = view_of(row("mine", volsize=MIB), row("theirs", volsize=MIB))
    view.begin_refresh()
    view.end_refresh([row(""), row("mine", volsize=2 * MIB), row("new", volsize=MIB)])
    assert names_of(view) == ["", "mine", "new"]
    assert view.promised_bytes == 3 * MIB


def test_a_refresh_never_undoes_rows_of_a_mutation_that_it_overlaps() -> None:
    view = view_of(row("changed", volsize=MIB), row("destroyed", volsize=MIB), row("gone", volsize=MIB))
    view.begin_refresh()
    view.put([row("changed", volsize=2 * MIB), row("made", volsize=MIB)])
    view.remove(["destroyed"])
    view.end_refresh([row(""), row("changed", volsize=MIB), row("destroyed", volsize=MIB), row("foreign")])
    assert names_of(view) == ["", "changed", "foreign", "made"]
    changed = view.get("changed")
    assert changed is not None
    assert changed.volsize == 2 * MIB


def test_an_abandoned_refresh_changes_nothing() -> None:
    view = view_of(row("v", volsize=MIB))
    view.begin_refresh()
    view.abandon_refresh()
    assert "v" in view


def test_random_changes_equal_a_view_made_afresh() -> None:
    rng = random.Random(7)
    view = View()
    rows: dict[str, Dataset] = {}
    for _ in range(400):
        name = rng.choice("abc") + rng.choice(["", "/d", "/d/e", "@s", "/d@s"])
        if name in rows and rng.random() < 0.4:
            del rows[name]
            view.remove([name])
        else:
            kind: Kind = "snapshot" if "@" in name else "volume"
            made = row(name, kind, volsize=rng.randrange(9) * MIB, createtxg=rng.randrange(1, 99))
            rows[name] = made
            view.put([made])
        fresh = View()
        fresh.put(rows.values())
        assert list(view.under("")) == list(fresh.under(""))
        assert view.promised_bytes == fresh.promised_bytes


@pytest.mark.parametrize("many", [0, 3, 1_000_000], ids=["at once", "either way", "one by one"])
def test_however_many_changes_come_the_view_is_as_if_made_afresh(
    many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "MANY_ROWS", many)
    rng = random.Random(11)
    view = View()
    names = [f"{a}{b}" for a in "abc" for b in ("", "/d", "/d/e", "/d@s", "/d@t", "/d/e@s")]
    for _ in range(200):
        listed = {
            name: row(
                name,
                "snapshot" if "@" in name else "volume",
                volsize=rng.randrange(3) * MIB,
                createtxg=rng.randrange(1, 4),
                origin=rng.choice(["", "a/d@s"]) if "@" not in name else "",
            )
            for name in rng.sample(names, rng.randrange(1, len(names)))
        }
        view.begin_refresh()
        gone = rng.sample(names, rng.randrange(4))
        own = row(rng.choice("abc"), "volume", volsize=5 * MIB)
        view.remove(gone)
        view.put([own])
        view.end_refresh(list(listed.values()))
        rows = {name: made for name, made in listed.items() if name not in gone} | {own.name: own}
        fresh = View()
        fresh.put(rows.values())
        assert list(view.under("")) == list(fresh.under(""))
        assert view.promised_bytes == fresh.promised_bytes
        assert view.clones("a/d@s") == fresh.clones("a/d@s")


def test_a_look_at_some_leaves_the_others_alone() -> None:
    view = view_of(row("a", volsize=MIB), row("b", volsize=MIB), row("c", volsize=MIB))
    view.begin_refresh()
    view.put([row("c", volsize=3 * MIB)])
    view.end_refresh([row("a", volsize=2 * MIB), row("c", volsize=MIB)], of={"a", "b", "c", "absent"})
    assert {"a", "b", "c"} & set(names_of(view)) == {"a", "c"}
    assert view.promised_bytes == 5 * MIB


def test_what_loses_snapshots_is_its_dataset_and_what_follows_them() -> None:
    snapshots = [row(f"v@{name}", createtxg=txg) for txg, name in enumerate("abcdef", 1)]
    view = view_of(row("v", volsize=MIB), *snapshots, row("w", volsize=MIB), row("w@a"))
    assert view.bereft_of({"v@b", "v@c", "v@f"}) == ["v", "v@d"]
    assert view.bereft_of({"w", "w@a"}) == []


def test_a_snapshot_that_changed_affects_its_dataset_what_follows_and_its_clones() -> None:
    view = view_of(row("v", volsize=MIB), row("v@a", createtxg=1), row("v@b", createtxg=2))
    view.put([row("c", volsize=MIB, origin="v@a")])
    assert view.affected_by(["v@a"]) == ["v@a", "v", "v@b", "c"]
    assert view.affected_by(["v@new"]) == ["v@new", "v"]
    assert view.affected_by(["w"]) == ["w"]
