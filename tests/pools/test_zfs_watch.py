"""What the events of a pool mean, from those that OpenZFS 2.1.11 told, and what the watch makes of them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from imagestore.pools.zfs import watch as watch_module
from imagestore.pools.zfs.history import UNKNOWN, Change, change_of, split
from imagestore.pools.zfs.watch import MUCH_BYTES, Polled, Watch

RECORDED, REST = split((Path(__file__).parent / "zfs_events.txt").read_text())


def event(what: str, about: str, txg: int, details: str = " ") -> str:
    """As ``zpool events -v`` prints it."""
    return (
        f"Nov 24 2026 12:47:57.108000000\tsysevent.fs.zfs.history_event\n        version = 0x0\n"
        f'        class = "sysevent.fs.zfs.history_event"\n        history_dsname = "tank/{about}"\n'
        f'        history_internal_str = "{details}"\n        history_internal_name = "{what}"\n'
        f"        history_txg = {txg:#x}\n        time = 0x1 0x2\n"
    )


class Commands:
    """Of a pool without a child to watch it."""

    pool = "tank"


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    class NoChild:
        def __init__(self, *given: object) -> None:
            pass

    monkeypatch.setattr(watch_module, "EventChild", NoChild)
    monkeypatch.setattr(watch_module, "_synced_txg", lambda pool: 10)
    return Watch(Commands())  # type: ignore[arg-type]  # what the watch needs of it


def tell(watch: Watch, *events: str, written: Sequence[str] = (), is_resized: bool = False) -> Sequence[str]:
    watch.take(Polled(events, written, is_resized))
    return watch.changes()


def test_every_event_that_was_recorded_is_understood() -> None:
    found = [change for event in RECORDED if (change := change_of(event, "tank")) is not None]
    assert REST == ""
    assert UNKNOWN not in found
    told = [change.names for change in found]
    assert told == [
        ("v",),  # create, and the properties given with it
        ("v",),
        ("v@s",),
        ("v@s",),
        ("c",),
        ("v@s", "v@t"),
        ("c",),
        ("v@u",),
        ("v",),  # rollback: a clone is swapped in and destroyed
        ("v",),
        ("r",),
        ("r",),
        ("r@u",),
        ("v@w",),
        ("r",),  # an incremental reception works under a clone, too
        ("r",),
        ("r",),
        ("r@w",),
        ("r",),
        ("d",),
        ("d",),
        ("r@u",),
        ("r@w",),
        ("r",),
    ]
    assert [c.names for c in found if c.reaches_further] == [("c",), ("d",)]  # renamed, promoted
    assert [c.txg for c in found] == sorted(c.txg for c in found)


@pytest.mark.parametrize(
    "text", ["", "dropped 17 events", "nonsense", event("set", "v", 1).replace("history_txg", "something")]
)
def test_what_is_not_understood_means_anything(text: str) -> None:
    assert change_of(text, "tank") == UNKNOWN


def test_other_events_are_no_changes() -> None:
    scrub = '\n        class = "sysevent.fs.zfs.scrub_finish"\n        pool = "tank"\n'
    assert change_of(scrub, "tank") is None
    assert change_of(event("hold", "v@s", 3), "tank") is None


def test_what_is_on_its_way_in_is_nothing_to_see() -> None:
    assert change_of(event("receive", "images/.receiving-01", 5), "tank") is None
    renamed = change_of(event("rename", "images/.receiving-01", 5, "-> tank/images/a"), "tank")
    assert renamed == Change(names=("images/.receiving-01",), txg=5, reaches_further=True)


def test_a_foreign_change_is_told_once(watch: Watch) -> None:
    assert tell(watch, event("snapshot", "v@cron", 5)) == ["v@cron"]
    assert tell(watch) == []
    assert watch.generation == 0


def test_what_was_listed_since_is_not_told(watch: Watch) -> None:
    watch.listed(7)
    assert tell(watch, event("create", "a", 7), event("create", "b", 8)) == ["b"]


def test_own_changes_are_not_told(watch: Watch) -> None:
    with watch.changing(["v@s"]) as done:
        assert tell(watch, event("snapshot", "v@s", 9)) == []  # it may be ours: nobody knows yet
        done()
    assert tell(watch) == []
    assert tell(watch, event("destroy", "v@s", 11)) == ["v@s"]


def test_a_change_that_failed_hides_nothing(watch: Watch) -> None:
    with watch.changing(["v@s"]):
        assert tell(watch, event("snapshot", "v@s", 9)) == []
    assert tell(watch) == ["v@s"]


def test_two_own_changes_of_one_dataset_are_both_waited_for(watch: Watch) -> None:
    with watch.changing(["v"]):
        with watch.changing(["v"]):
            pass
        assert tell(watch, event("set", "v", 9)) == []
    assert tell(watch) == ["v"]


def test_own_renames_do_not_make_everything_looked_at(watch: Watch) -> None:
    with watch.changing(["v", "w"]) as done:
        assert tell(watch, event("rename", "v", 9, "-> tank/w")) == []
        done()
    assert tell(watch) == []
    assert watch.generation == 0
    assert tell(watch, event("rename", "w", 12, "-> tank/x")) == []
    assert watch.generation == 1


def test_what_guests_wrote_much_to_is_told_and_a_resize_makes_all_looked_at(watch: Watch) -> None:
    assert tell(watch, written=["guests/g/disk-0"]) == ["guests/g/disk-0"]
    assert watch.generation == 0
    tell(watch, is_resized=True)
    assert watch.generation == 1


def test_what_was_read_is_forgotten_when_it_is_of_no_use_any_more(watch: Watch) -> None:
    for number in range(100):
        with watch.changing([f"v{number}"]) as done:
            done()
    assert tell(watch, event("snapshot", "w@s", 50)) == ["w@s"]
    assert watch._read == {}


def test_what_much_was_written_to_and_what_was_resized_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]
    monkeypatch.setattr(watch_module, "_KSTAT", str(tmp_path))
    monkeypatch.setattr(watch_module, "_BLOCK", str(tmp_path / "block"))
    (tmp_path / "tank").mkdir()

    def block_device(name: str, sequence: int, sectors: int) -> Path:
        directory = tmp_path / "block" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "diskseq").write_text(f"{sequence}\n")
        (directory / "size").write_text(f"{sectors}\n")
        return directory

    def wrote(name: str, count: int) -> None:
        (tmp_path / "tank" / f"objset-{len(name)}").write_text(
            f"12 1 0x01 7 2160 5 6\nname type data\ndataset_name 7 tank/{name}\nnwritten 4 {count}\n"
        )

    statistics = watch_module.Statistics("tank", lambda: now[0])
    wrote("v", MUCH_BYTES - 1)
    wrote("w w", 0)
    block_device("zd0", 7, 2048)
    assert statistics.read() == ([], False)
    wrote("w w", MUCH_BYTES)
    block_device("zd0", 7, 4096)
    assert statistics.read() == ((), False)  # not so soon again
    now[0] = 5.0
    assert statistics.read() == (["w w"], True)
    block_device("zd16", 9, 2048)  # a new volume is no resized one
    now[0] = 10.0
    assert statistics.read() == ([], False)
    block_device("zd16", 10, 8192)  # nor is one that got a number which was another's
    now[0] = 15.0
    assert statistics.read() == ([], False)
    block_device("zd16", 10, 0)  # nor is one that is being removed: the kernel makes it 0 sectors long first
    now[0] = 20.0
    assert statistics.read() == ([], False)
    (block_device("zd0", 7, 4096) / "size").unlink()
    now[0] = 25.0
    assert statistics.read() == ([], False)
