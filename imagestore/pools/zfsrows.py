"""Datasets as OpenZFS tells of them: which properties are asked for, and what they mean.

One ``zfs get`` gives everything: ``zfs list`` does not tell a property's
source, and without it a snapshot or child would seem to carry the tags of its
dataset, whose user properties it inherits.  Ours are only those with the
source ``local``: a tag that came with somebody's stream (``received``) is none.

Pure: text in, rows out.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from imagestore.pools.base import Dataset, Kind, Tags
from imagestore.pools.zfsfailures import relative

PREFIX: Final = "imagestore:"
TAG_NAMES: Final = ("op", "kind", "image", "sha256", "guest", "disk", "last")

_NATIVE: Final = (
    "type", "guid", "createtxg", "creation", "volsize", "written", "referenced", "origin", "refreservation",
)  # fmt: skip

PROPERTIES: Final = ",".join((*_NATIVE, *(PREFIX + name for name in TAG_NAMES)))

GET: Final = (
    "get",
    "-Hp",
    "-t",
    "filesystem,volume,snapshot",
    "-o",
    "name,property,value,source",
    PROPERTIES,
)
"""Arguments of ``zfs``; names follow."""

_KINDS: Final[Mapping[str, Kind]] = {"filesystem": "filesystem", "volume": "volume", "snapshot": "snapshot"}

RECEIVING_PREFIX: Final = ".receiving-"
"""Datasets with such a component are on their way in and are not shown."""


def rows(text: str, pool: str) -> list[Dataset]:
    """The datasets of the output of ``zfs get``, in listing order, without those on their way in."""
    by_name: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        name, key, value, source = line.split("\t")
        properties = by_name.setdefault(name, {})
        if source == "local" or not key.startswith(PREFIX):
            properties[key] = value
    found = [_row(relative(name, pool), properties, pool) for name, properties in by_name.items()]
    return sorted((row for row in found if not is_receiving(row.name)), key=listing_key)


def listing_key(row: Dataset) -> tuple[str, bool, int, str]:
    """Sorts as ``zfs list`` does: a dataset, its snapshots (oldest first), what is below it."""
    dataset, at, snapshot = row.name.partition("@")
    return dataset, bool(at), row.createtxg if at else 0, snapshot


def is_receiving(name: str) -> bool:
    return RECEIVING_PREFIX in name and any(
        component.startswith(RECEIVING_PREFIX) for component in name.split("/")
    )


def _row(name: str, properties: Mapping[str, str], pool: str) -> Dataset:
    kind = _KINDS[properties["type"]]
    origin = properties.get("origin", "-")
    return Dataset(
        name=name,
        kind=kind,
        guid=int(properties["guid"]),
        createtxg=int(properties["createtxg"]),
        volsize=_number(properties, "volsize"),
        written=_number(properties, "written"),
        referenced=_number(properties, "referenced"),
        origin="" if origin in ("-", "") else relative(origin, pool),
        sparse=kind != "volume" or _number(properties, "refreservation") == 0,
        creation=_number(properties, "creation"),
        tags=Tags(**{tag: properties.get(PREFIX + tag, "") for tag in TAG_NAMES}),
    )


def _number(properties: Mapping[str, str], name: str) -> int:
    value = properties.get(name, "-")
    return int(value) if value.isdigit() else 0


def tag_pairs(tags: Tags) -> list[tuple[str, str]]:
    """Every tag's property and value; "" for those that are absent."""
    return [(PREFIX + name, getattr(tags, name)) for name in TAG_NAMES]


def tag_options(tags: Tags) -> list[str]:
    """``-o property=value`` for each tag that is there."""
    return [word for name, value in tag_pairs(tags) if value for word in ("-o", f"{name}={value}")]


def options(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [word for name, value in pairs for word in ("-o", f"{name}={value}")]
