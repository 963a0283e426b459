"""What the original program left: its database, read without trust, and what is taken by it and by names."""

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from imagestore.actors.commands import Adopt
from imagestore.actors.original import METHOD, survey, tell_of_original
from imagestore.actors.originaldatabase import FILE_NAME, Original, OriginalImage, read
from imagestore.events.state import ImageRecord, State
from imagestore.pools.base import Tags
from tests.actors.rows import MIB, row, view_of

ABSENT = Original(found="absent")


def write_database(directory: Path, rows: Sequence[tuple[object, object, object]]) -> None:
    """As the original makes it; ``rows`` are keys, buckets and values."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        connection.execute('CREATE TABLE "mistify-agent-image" (key, bucket, value)')
        connection.executemany('INSERT INTO "mistify-agent-image" VALUES (?, ?, ?)', rows)
        connection.commit()


def value(image: str, **more: object) -> str:
    known = {
        "id": image,
        "type": "kvm",
        "volume": f"tank/images/{image}",
        "snapshot": f"tank/images/{image}@s",
        "size": 8,
        "status": "complete",
    }
    return json.dumps(known | more)


# --- the database ----------------------------------------------------------------------


def test_its_images_are_read_in_order_as_text_and_as_bytes(tmp_path: Path) -> None:
    write_database(
        tmp_path,
        [
            ("b", "images", value("b").encode()),
            ("a", "images", value("a")),
            ("other", "guests", "{}"),
        ],
    )
    before = sorted(os.listdir(tmp_path))
    original = read(str(tmp_path))
    assert (original.found, original.unread) == ("read", ())
    assert [image.id for image in original.images] == ["b", "a"]
    assert original.images[0] == OriginalImage(
        id="b", type="kvm", volume="tank/images/b", snapshot="tank/images/b@s", status="complete"
    )
    assert sorted(os.listdir(tmp_path)) == before


def test_what_is_no_image_gets_a_line_each(tmp_path: Path) -> None:
    bad = [
        ("a", "images", "{"),
        ("b", "images", b"\xff\xfe"),
        ("c", "images", 7),
        ("d", "images", None),
        ("e", "images", value("other")),
        ("../f", "images", value("../f")),
        ("g", "images", value("g", type=3)),
        ("h", "images", " " * (65 << 10)),
        (9, "images", value("i")),
        ("j\n", "images", "[]"),
        ("k", "images", "[" * 50_000),
    ]
    write_database(tmp_path, [*bad, ("good", "images", value("good"))])
    original = read(str(tmp_path))
    assert [image.id for image in original.images] == ["good"]
    assert len(original.unread) == len(bad)
    assert all(entry.reason.isprintable() and entry.key.isprintable() for entry in original.unread)
    assert original.unread[4].reason == "its value is of another image, other"


def test_no_database_is_absent_and_a_broken_one_is_unreadable(tmp_path: Path) -> None:
    assert read("") == read(str(tmp_path)) == ABSENT
    database = tmp_path / FILE_NAME
    database.write_bytes(b"SQLite format 3\0" + bytes(200))
    assert read(str(tmp_path)).found == "unreadable"
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE other (x)")
    original = read(str(tmp_path))
    assert original.found == "unreadable"
    assert "no such table: mistify-agent-image" in original.reason
    database.unlink()
    database.symlink_to("/etc/passwd")
    assert "is not a file" in read(str(tmp_path)).reason


def test_a_database_that_never_comes_to_an_end_is_given_up(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute(
            'CREATE VIEW "mistify-agent-image" AS WITH RECURSIVE n(x) AS '
            "(SELECT 1 UNION ALL SELECT x + 1 FROM n) "
            "SELECT x AS rowid, 'a' AS key, iif(x < 0, 'images', '') AS bucket, '' AS value FROM n"
        )
    original = read(str(tmp_path))
    assert original.found == "unreadable"
    assert "interrupted" in original.reason


# --- the survey ------------------------------------------------------------------------


VOLUME = row("images/a", volsize=8 * MIB)
SNAPSHOT = row("images/a@s", volsize=8 * MIB)
STATE = State(pool="tank")


def test_without_a_database_images_and_guests_are_taken_by_their_names() -> None:
    view = view_of(
        VOLUME,
        SNAPSHOT,
        row("guests/vm1"),
        row("guests/vm1/disk-0", volsize=MIB),
        row("guests/vm1/disk-10", volsize=MIB),
        row("guests/vm1/disk-01", volsize=MIB),
        row("guests/vm1/scratch", volsize=MIB),
        row("guests/vm2"),
        row("elsewhere", volsize=MIB),
    )
    found = survey(ABSENT, STATE, view)
    assert found.takes == (
        Adopt(volumes=("images/a",), image="a", method=METHOD),
        Adopt(volumes=("guests/vm1/disk-0", "guests/vm1/disk-10"), guest="vm1", disks=(0, 10), method=METHOD),
    )
    assert found.left == ()


def test_what_is_tagged_or_on_its_way_is_not_the_originals() -> None:
    tags = Tags(op="op", kind="disk", guest="vm1", disk="0")
    view = view_of(
        row("images/.staging-1", volsize=MIB),
        row("images/a", volsize=MIB, tags=Tags(op="op", kind="image", image="a")),
        row("guests/vm1"),
        row("guests/vm1/disk-0", volsize=MIB, tags=tags),
    )
    assert survey(ABSENT, STATE, view).takes == ()


def known(**more: str) -> Original:
    entry = {"id": "a", "type": "kvm", "volume": "tank/images/a", "snapshot": "tank/images/a@s"} | more
    return Original(found="read", images=(OriginalImage(**entry),))


def test_the_database_tells_type_and_snapshot() -> None:
    older = row("images/a@cron", volsize=8 * MIB, createtxg=1)
    (take,) = survey(known(status="complete"), STATE, view_of(VOLUME, older, SNAPSHOT)).takes
    assert take == Adopt(volumes=("images/a",), image="a", snapshot="s", type="kvm", method=METHOD)


@pytest.mark.parametrize(
    ("original", "reason"),
    [
        (known(status="error"), "the database says that its status is 'error'"),
        (known(volume="tank/images/b"), "the database says that its volume is 'tank/images/b'"),
        (known(snapshot="tank/images/a@t"), "snapshot is 'tank/images/a@t', which is not there"),
        (known(snapshot="elsewhere@s"), "snapshot is 'elsewhere@s', which is not there"),
    ],
)
def test_an_image_of_which_the_database_says_something_else_is_left(original: Original, reason: str) -> None:
    found = survey(original, STATE, view_of(VOLUME, SNAPSHOT))
    assert found.takes == ()
    assert [(left.name, reason in left.reason) for left in found.left] == [("images/a", True)]


def test_what_is_gone_is_no_volume_or_has_no_snapshot_is_left_with_a_line() -> None:
    view = view_of(VOLUME, row("images/files"), row("guests/vm1"), row("guests/vm1/disk-0"))
    gone = Original(found="read", images=(OriginalImage(id="gone"),))
    found = survey(gone, STATE, view)
    assert found.takes == ()
    assert {left.name: left.reason for left in found.left} == {
        "images/gone": "the database names it, and it is gone",
        "images/a": "it has no snapshot",
        "images/files": "it is a filesystem, not a volume",
        "guests/vm1/disk-0": "it is a filesystem, not a volume",
    }
    taken = State(pool="tank", images={"a": ImageRecord(id="a")})
    (left,) = survey(ABSENT, taken, view_of(VOLUME, SNAPSHOT)).left
    assert left.reason == "the store has an image of that id"


def test_the_log_says_once_what_could_be_adopted_and_how(caplog: pytest.LogCaptureFixture) -> None:
    tell_of_original(STATE, view_of())
    assert caplog.text == ""
    tell_of_original(
        STATE, view_of(VOLUME, SNAPSHOT, row("guests/vm1"), row("guests/vm1/disk-0", volsize=MIB))
    )
    assert "holds 1 images and 1 guests" in caplog.text
    assert "imagestore adopt --original --dry-run" in caplog.text
