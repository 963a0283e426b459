"""The catalog's one connection: what a listing of many pages shows, and that nothing is mapped."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from imagestore.pools.base import Dataset, Kind
from imagestore.pools.directory.catalog import Catalog, Entry, create_catalog

MANY = 1000


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A root, an image with a snapshot, and many guests with a clone of it each, made out of order."""
    create_catalog(str(tmp_path / "catalog.sqlite"))
    catalog = Catalog(str(tmp_path / "catalog.sqlite"))
    catalog.begin()
    for name in ("", "image"):
        catalog.insert(entry(name))
    origin = catalog.insert(entry("image@s"))
    for number in reversed(range(MANY)):
        catalog.insert(entry(f"g{number:04}"))
        catalog.insert(entry(f"g{number:04}/disk", origin_txg=origin.dataset.createtxg))
    catalog.commit()
    yield catalog
    catalog.close()


def entry(name: str, origin_txg: int | None = None) -> Entry:
    kind: Kind = "snapshot" if "@" in name else "filesystem"
    return Entry(
        dataset=Dataset(name=name, kind=kind, guid=1, createtxg=0, creation=0), origin_txg=origin_txg
    )


def guests() -> list[str]:
    return [name for number in range(MANY) for name in (f"g{number:04}", f"g{number:04}/disk")]


def test_a_list_of_many_pages_is_whole_and_in_order(catalog: Catalog) -> None:
    datasets = list(catalog.all())
    assert [dataset.name for dataset in datasets] == ["", *guests(), "image", "image@s"]
    for dataset in datasets:
        assert dataset.origin == ("image@s" if dataset.name.endswith("/disk") else "")


async def test_a_change_is_made_while_a_list_is_read(catalog: Catalog) -> None:
    def change() -> None:
        with catalog.lock:
            catalog.begin()
            catalog.delete(catalog.require(seen[1].target))
            catalog.insert(entry("later"))
            catalog.commit()

    datasets = catalog.all()
    seen = [next(datasets) for _ in range(10)]
    await trio.to_thread.run_sync(change)
    seen.extend(datasets)
    assert [dataset.name for dataset in seen] == ["", *guests(), "image", "image@s", "later"]
    assert catalog.find("g0000") is None


def test_a_catalog_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    path = str(tmp_path / "catalog.sqlite")
    create_catalog(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE dataset DROP COLUMN thick")
        connection.execute("PRAGMA user_version = 1")
        connection.execute(
            "INSERT INTO dataset VALUES (1, 'v', '', 'volume', 7, 8, 512, 0, 0, NULL, 'f', 0, 8192, NULL, "
            "'op', 'volume', '', '', '', '', '')"
        )
        connection.commit()
    for _ in range(2):
        catalog = Catalog(path)
        found = catalog.find("v")
        assert found is not None
        assert (found.dataset.volsize, found.dataset.tags.op, found.dataset.sparse) == (512, "op", True)
        catalog.close()


def test_no_part_of_it_is_mapped_into_memory(catalog: Catalog, tmp_path: Path) -> None:
    assert {path.name for path in tmp_path.iterdir()} == {"catalog.sqlite", "catalog.sqlite-wal"}
    assert "catalog.sqlite" not in Path("/proc/self/maps").read_text()
