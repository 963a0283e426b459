"""What a ZFS pool holds, as ``zfs list`` shows it: for judges that use no code of the driver."""

from collections.abc import Iterable

from tests.crash.files import Row
from tests.zfs.pools import command

NATIVE = ("name", "type", "guid", "createtxg", "volsize", "origin")
TAGS = ("imagestore:op", "imagestore:kind")


def rows_of(pool: str) -> dict[str, Row]:
    """Every dataset but the root, by name without the pool; a dataset's snapshots come oldest first.

    A snapshot shows its dataset's tags where it has none: its own are those
    whose source is local.
    """
    own = {
        (name, key)
        for name, key, source in _lines(
            command("zfs", "get", "-Hp", "-r", "-o", "name,property,source", ",".join(TAGS), pool)
        )
        if source == "local"
    }
    rows = {}
    text = command("zfs", "list", "-Hp", "-r", "-t", "all", "-o", ",".join((*NATIVE, *TAGS)), pool)
    for name, kind, guid, createtxg, volsize, origin, operation, tag in _lines(text):
        relative = name.removeprefix(pool).lstrip("/")
        if relative:
            rows[relative] = Row(
                name=relative,
                kind=kind,
                guid=int(guid),
                createtxg=int(createtxg),
                volsize=0 if volsize == "-" else int(volsize),
                origin="" if origin == "-" else origin.removeprefix(f"{pool}/"),
                file="",
                operation=operation if (name, "imagestore:op") in own else "",
                tag=tag if (name, "imagestore:kind") in own else "",
            )
    return rows


def _lines(text: str) -> Iterable[list[str]]:
    return (line.split("\t") for line in text.splitlines())
