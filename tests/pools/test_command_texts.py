"""The changes of a pool as an administrator would type them: each word for word, in an order that works."""

import pytest

from imagestore.pools.base import (
    NO_TAGS,
    CommandTexts,
    NewClone,
    NewFilesystem,
    NewVolume,
    Tags,
    Target,
)
from imagestore.pools.directory.texts import DirectoryTexts
from imagestore.pools.zfs.texts import ZfsTexts

ZFS = ZfsTexts(pool="tank", compression="lz4", volmode="dev", block_bytes=16384)
DIRECTORY = DirectoryTexts(path=lambda name: f"/p/{name}")
TAGS = Tags(op="OPERATION", kind="disk")


def target(name: str) -> Target:
    return Target(name=name, guid=1, createtxg=1)


def test_zfs_makes_what_the_store_makes() -> None:
    assert ZFS.created(
        [
            NewFilesystem(name="g", tags=NO_TAGS),
            NewVolume(name="g/d", size=3 << 20, tags=TAGS),
            NewVolume(name="g/t", size=512, tags=NO_TAGS, thick=True),
            NewClone(name="g/c", origin=target("images/i@image"), tags=NO_TAGS),
        ]
    ) == [
        "zfs create -o canmount=off -o volmode=dev tank/g",
        "zfs create -s -V 3145728 -o volblocksize=16384 -o compression=lz4 -o volmode=dev"
        " -o imagestore:op=OPERATION -o imagestore:kind=disk tank/g/d",
        "zfs create -V 512 -o volblocksize=512 -o compression=lz4 -o volmode=dev tank/g/t",
        "zfs clone -o compression=lz4 -o volmode=dev tank/images/i@image tank/g/c",
    ]


def test_zfs_changes_what_is_there() -> None:
    assert ZFS.snapshotted([target("a"), target("b")], "s", NO_TAGS) == ["zfs snapshot tank/a@s tank/b@s"]
    assert ZFS.rolled_back([target("a@s")], [target("a@t")]) == [
        "zfs destroy tank/a@t",
        "zfs rollback tank/a@s",
    ]
    assert ZFS.resized(target("a"), 1024) == ["zfs set volsize=1024 tank/a"]
    assert ZFS.copied(target("a@s"), "images/i") == ["zfs send tank/a@s | zfs receive tank/images/i"]


def test_a_directory_in_words_of_the_shell() -> None:
    copy = "cp --reflink=auto --sparse=always"
    assert DIRECTORY.created(
        [
            NewFilesystem(name="g", tags=NO_TAGS),
            NewVolume(name="g/d d", size=3 << 20, tags=TAGS),
            NewVolume(name="g/t", size=512, tags=NO_TAGS, thick=True),
            NewClone(name="g/c", origin=target("i@image"), tags=NO_TAGS),
        ]
    ) == [
        "mkdir /p/g",
        "truncate --size 3145728 '/p/g/d d'",
        "fallocate --length 512 /p/g/t",
        f"{copy} /p/i@image /p/g/c",
    ]
    assert DIRECTORY.snapshotted([target("a")], "s", NO_TAGS) == [f"{copy} /p/a /p/a@s"]
    assert DIRECTORY.rolled_back([target("a@s")], [target("a@t")]) == [
        "rm --dir /p/a@t",
        f"{copy} /p/a@s /p/a",
    ]
    assert DIRECTORY.resized(target("a"), 1024) == ["truncate --size 1024 /p/a"]
    assert DIRECTORY.copied(target("a@s"), "i") == [f"{copy} /p/a@s /p/i"]


@pytest.mark.parametrize("texts", [ZFS, DIRECTORY], ids=["zfs", "directory"])
def test_what_is_below_goes_before_what_is_above(texts: CommandTexts) -> None:
    lines = texts.destroyed([target("g"), target("g/d"), target("g/d@s")])
    assert [line.rpartition("/")[2] for line in lines] == ["d@s", "d", "g"]
