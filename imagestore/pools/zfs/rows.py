"""Datasets as OpenZFS tells of them: how it is asked, and what its answers mean.

A few datasets are looked at by a channel program without a transaction, which
costs no process; many by one ``zfs get``, which is three times as quick for
each.  Both tell a property's source, which ``zfs list`` does not: snapshots
and children inherit the user properties of their dataset and would seem to
carry its tags.  Ours are only those that stand on the dataset itself; a tag
that came with somebody's stream is none.
"""

import shlex
from collections.abc import Sequence
from typing import Final

from imagestore import names
from imagestore.errors import PoolError
from imagestore.pools.base import TAG_NAMES, Dataset, Kind, NewFilesystem, Retagging, Tags
from imagestore.pools.zfs.failures import relative
from imagestore.streams.nvlist import NvValue

PREFIX: Final = "imagestore:"

RECEIVING: Final = f"{PREFIX}receiving"
"""On a volume while snapshots come onto it: the guids of the base and of those, in hexadecimal."""

RECEIVING_PREFIX: Final = ".receiving-"
"""Datasets with such a component are on their way in and are not shown."""

_SEPARATOR: Final = "\x1f"
_FIELDS: Final = 9 + len(TAG_NAMES)

_KINDS: Final[dict[str, Kind]] = {"filesystem": "filesystem", "volume": "volume", "snapshot": "snapshot"}

LOOK: Final = """
args = ...
argv = args["argv"]
local native = { "type", "guid", "createtxg", "creation", "volsize", "written", "referenced", "origin",
    "refreservation" }
local tags = { "op", "kind", "image", "sha256", "guest", "disk", "last" }
for i, tag in ipairs(tags) do tags[i] = "imagestore:" .. tag end

local found = {}

function look(name)
    local fields = {}
    for _, property in ipairs(native) do
        local value = zfs.get_prop(name, property)
        fields[#fields + 1] = value == nil and "" or tostring(value)
    end
    for _, property in ipairs(tags) do
        local value, source = zfs.get_prop(name, property)
        fields[#fields + 1] = source == name and value or ""
    end
    found[name] = table.concat(fields, string.char(31))
end

for _, name in ipairs(argv) do
    if zfs.exists(name) then look(name) end
end
return found
"""
"""The program that looks at the datasets of its arguments; those that are not there are left out."""

_NATIVE: Final = (
    "type", "guid", "createtxg", "creation", "volsize", "written", "referenced", "origin", "refreservation",
)  # fmt: skip
_ASKED: Final = (*_NATIVE, *(PREFIX + name for name in TAG_NAMES))

GET: Final = (
    "zfs", "get", "-Hp", "-t", "filesystem,volume,snapshot", "-o", "name,property,value,source",
    ",".join(_ASKED),
)  # fmt: skip
"""The command that looks at the datasets whose names follow."""

LIST: Final = (*GET[:2], "-r", *GET[2:])
"""The command that looks at one dataset, its snapshots, and all below it; the name follows."""

FEW: Final = 6
"""Up to so many datasets are looked at more quickly by the program."""

FIND_RECEIVING: Final = """
args = ...
argv = args["argv"]
local found = {}

function descend(name)
    local last = string.match(name, "[^/]+$")
    if string.sub(last, 1, 11) == ".receiving-" then
        found[name] = ""
        return
    end
    local guid, source = zfs.get_prop(name, "imagestore:receiving")
    if guid ~= nil and source == name then found[name] = guid end
    for child in zfs.list.children(name) do descend(child) end
end
descend(argv[1])
return found
"""
"""Finds what is on its way in: hidden datasets ("") and volumes with ``RECEIVING`` (its value)."""


def all_rows(answer: NvValue, pool: str) -> list[Dataset]:
    """The datasets that a look has found, in listing order."""
    if not isinstance(answer, dict):
        raise PoolError(f"a look at pool {pool} gave an answer that is not understood: {answer!r}")
    found = [_row(relative(name, pool), fields, pool) for name, fields in answer.items()]
    return sorted(found, key=listing_key)


def listed_rows(text: str, pool: str) -> list[Dataset]:
    """The datasets in the output of ``LIST``, as :func:`rows`."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        name, key, value, source = line.split("\t")
        properties = found.setdefault(name, {})
        if value != "-" and (source == "local" or not key.startswith(PREFIX)):
            properties[key] = value
    answer: NvValue = {
        name: _SEPARATOR.join(properties.get(key, "") for key in _ASKED) for name, properties in found.items()
    }
    return rows(answer, pool)


def rows(answer: NvValue, pool: str) -> list[Dataset]:
    """As :func:`all_rows`, without those on their way in."""
    return [row for row in all_rows(answer, pool) if not is_receiving(row.name)]


def listing_key(row: Dataset) -> tuple[str, bool, int, str]:
    """Sorts as ``zfs list`` does: a dataset, its snapshots (oldest first), what is below it."""
    dataset, at, snapshot = row.name.partition("@")
    return dataset, bool(at), row.createtxg if at else 0, snapshot


def is_receiving(name: str) -> bool:
    return RECEIVING_PREFIX in name and any(
        component.startswith(RECEIVING_PREFIX) for component in name.split("/")
    )


def _row(name: str, text: NvValue, pool: str) -> Dataset:
    fields = text.split(_SEPARATOR) if isinstance(text, str) else []
    if len(fields) != _FIELDS or fields[0] not in _KINDS:
        raise PoolError(f"a look at {name} in pool {pool} gave {text!r}, which is not understood")
    kind = _KINDS[fields[0]]
    guid, createtxg, creation, volsize, written, referenced = map(unsigned, fields[1:7])
    return Dataset(
        name=name,
        kind=kind,
        guid=guid,
        createtxg=createtxg,
        volsize=volsize,
        written=written,
        referenced=referenced,
        origin=relative(fields[7], pool) if fields[7] else "",
        sparse=kind != "volume" or unsigned(fields[8]) == 0,
        creation=creation,
        tags=Tags(**dict(zip(TAG_NAMES, fields[9:], strict=True))),
    )


def unsigned(text: str) -> int:
    """A channel program's integer, which is signed, as the unsigned one that is meant; "" is 0."""
    return int(text) & 0xFFFF_FFFF_FFFF_FFFF if text else 0


def signed(number: int) -> int:
    """An unsigned 64-bit number as a channel program's integer has it."""
    return number - (1 << 64) if number >= 1 << 63 else number


def tag_pairs(tags: Tags) -> list[tuple[str, str]]:
    """Every tag's property and value; "" for those that are absent."""
    return [(PREFIX + name, getattr(tags, name)) for name in TAG_NAMES]


def tag_properties(tags: Tags) -> dict[str, int | str]:
    """The properties of the tags that are there."""
    return {name: value for name, value in tag_pairs(tags) if value}


def retag_commands(change: Retagging, pool: str) -> list[str]:
    """The commands that give a dataset its tags and take off those it is not to have."""
    name = shlex.quote(names.full(change.target.name, pool))
    pairs = tag_pairs(change.tags)
    given = " ".join(shlex.quote(f"{key}={value}") for key, value in pairs if value)
    return [f"zfs set {given} {name}"] if given else [f"zfs inherit {key} {name}" for key, _ in pairs]


def create_command(parent: NewFilesystem, pool: str, native: Sequence[str]) -> str:
    """The command that makes a file system with its tags; ``native`` are its other options."""
    tags = options([pair for pair in tag_pairs(parent.tags) if pair[1]])
    return shlex.join(["zfs", "create", *native, *tags, names.full(parent.name, pool)])


def options(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """``-o property=value`` for each."""
    return [word for name, value in pairs for word in ("-o", f"{name}={value}")]
