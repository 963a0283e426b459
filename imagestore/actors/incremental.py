"""What a stream is to be incremental from: the base of a download, as it was named.

Pure: reads a view, decides nothing else.
"""

import re
from collections.abc import Callable

from imagestore import names
from imagestore.actors.view import View
from imagestore.errors import InvalidArgument, NotFound
from imagestore.pools.base import Dataset

_GUID = re.compile(r"(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})\Z")


def base_of(snapshot: Dataset, text: str, view: View, resolve: Callable[[str], Dataset | None]) -> Dataset:
    """The base that ``text`` means for ``snapshot``.

    ``text`` is a snapshot of the same volume (``a`` or ``@a``), any snapshot's
    name (``guests/x/disk-0@a``, looked up by ``resolve``), or a guid in
    decimal or 0xhex; of a snapshot ``20260101`` and a guid of that number the
    snapshot wins.

    Raises:
        NotFound: nothing is called so.
        InvalidArgument: it is no earlier snapshot of the volume, nor its origin.
    """
    candidates = bases(snapshot, view)
    volume = names.parent(snapshot.name)
    dataset, at, name = text.partition("@")
    found = view.get(f"{volume}@{name if at else text}") if not dataset or not at else resolve(text)
    if found is None and _GUID.match(text):
        guid = int(text, 16 if text[:2] in {"0x", "0X"} else 10)
        found = next((row for row in candidates if row.guid == guid), None)
    if found is None:
        raise NotFound(detail=f"no base {text} of {snapshot.name}")
    if found not in candidates:
        raise InvalidArgument(f"{found.name} is no earlier snapshot of {volume}, nor its origin")
    return found


def bases(snapshot: Dataset, view: View) -> list[Dataset]:
    """All that a stream of ``snapshot`` can be incremental from: older snapshots, then the origin."""
    volume = view.get(names.parent(snapshot.name))
    older = [row for row in view.snapshots(names.parent(snapshot.name)) if row.createtxg < snapshot.createtxg]
    origin = view.get(volume.origin) if volume is not None and volume.origin else None
    return older if origin is None else [*older, origin]
