"""What the events of a ZFS pool tell: which dataset was changed, in which transaction group.

``zpool events -v`` prints each event as lines ``name = value`` and an empty
line.  Those of the pool's history come when the change is in the pool, in the
order of transaction groups; their words were recorded off OpenZFS 2.1.11.
They are a reason to look, and never the truth: what is not understood means
that anything may have changed.  Pure functions; they know no process.
"""

import re
from typing import Final

from msgspec import Struct

from imagestore import names
from imagestore.pools.zfs.failures import relative
from imagestore.pools.zfs.rows import is_receiving

HISTORY: Final = "sysevent.fs.zfs.history_event"

_CHANGES_ONE: Final = frozenset(
    {"clone", "create", "destroy", "finish receiving", "inherit", "receive", "set", "snapshot"}
)
_CHANGES_NOTHING_SHOWN: Final = frozenset(
    {"hold", "release", "bookmark", "remove bookmark", "permission update", "permission remove"}
)
_SWAPPED_IN: Final = ("%rollback", "%recv")
"""Clones under which a rollback and a reception work; they take the place of their parent."""

_FIELD: Final = re.compile(r'^\s+(\w+) = "?(.*?)"?$', re.MULTILINE)


class Change(Struct, frozen=True, kw_only=True):
    """Names (relative) whose rows may differ since transaction group ``txg``.

    ``reaches_further`` tells that names or origins of others may differ, too.
    """

    names: tuple[str, ...]
    txg: int
    reaches_further: bool = False


UNKNOWN: Final = Change(names=(), txg=1 << 64, reaches_further=True)
"""Anything may have changed, now."""


def split(text: str) -> tuple[list[str], str]:
    """The events that are whole in ``text``, and what is left of it."""
    *whole, rest = text.split("\n\n")
    return whole, rest


def change_of(event: str, pool: str) -> Change | None:
    """What an event tells; None: nothing that is shown."""
    if event.lstrip().startswith("dropped "):  # more came than the kernel keeps
        return UNKNOWN
    fields: dict[str, str] = {found[1]: found[2] for found in _FIELD.finditer(event)}
    if "class" not in fields:
        return UNKNOWN
    if fields["class"] != HISTORY or "history_dsname" not in fields:
        return None
    try:
        txg = int(fields["history_txg"], 16)
    except (KeyError, ValueError):
        return UNKNOWN
    return _change(
        relative(fields["history_dsname"], pool),
        fields.get("history_internal_name", ""),
        fields.get("history_internal_str", ""),
        txg,
    )


def _change(about: str, what: str, details: str, txg: int) -> Change | None:
    above, _, last = about.rpartition("/")
    if last.partition("@")[0] in _SWAPPED_IN:
        return Change(names=(above,), txg=txg)
    if what == "rename" and "@" in about:
        renamed = f"{names.parent(about)}{details.removeprefix('-> ')}"
        return Change(names=(about, renamed), txg=txg)
    if what in _CHANGES_NOTHING_SHOWN or (is_receiving(about) and what != "rename"):
        return None
    return Change(names=(about,), txg=txg, reaches_further=what not in _CHANGES_ONE)
