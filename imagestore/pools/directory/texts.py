"""What a directory pool's changes amount to, in words of the shell.  Pure; shown, never run.

The store itself makes each of these one step, together with the catalog.
"""

import shlex
from collections.abc import Callable, Sequence

from msgspec import Struct

from imagestore import names
from imagestore.pools.base import Creation, NewClone, NewFilesystem, Tags, Target

COPY = "cp --reflink=auto --sparse=always"


class DirectoryTexts(Struct, frozen=True, kw_only=True):
    """Implements :class:`imagestore.pools.base.CommandTexts`; ``path`` is where a dataset stands."""

    path: Callable[[str], str]

    def created(self, creations: Sequence[Creation]) -> Sequence[str]:
        return [self._created(creation) for creation in creations]

    def _created(self, creation: Creation) -> str:
        place = self._place(creation.name)
        if isinstance(creation, NewFilesystem):
            return f"mkdir {place}"
        if isinstance(creation, NewClone):
            return f"{COPY} {self._place(creation.origin.name)} {place}"
        if creation.thick:
            return f"fallocate --length {creation.size} {place}"
        return f"truncate --size {creation.size} {place}"

    def snapshotted(self, datasets: Sequence[Target], snapshot: str, tags: Tags) -> Sequence[str]:
        return [
            f"{COPY} {self._place(target.name)} {self._place(f'{target.name}@{snapshot}')}"
            for target in datasets
        ]

    def destroyed(self, targets: Sequence[Target]) -> Sequence[str]:
        return [f"rm --dir {self._place(target.name)}" for target in reversed(targets)]

    def rolled_back(self, snapshots: Sequence[Target], newer: Sequence[Target]) -> Sequence[str]:
        back = [
            f"{COPY} {self._place(target.name)} {self._place(names.parent(target.name))}"
            for target in snapshots
        ]
        return [*self.destroyed(newer), *back]

    def resized(self, volume: Target, size: int) -> Sequence[str]:
        return [f"truncate --size {size} {self._place(volume.name)}"]

    def copied(self, snapshot: Target, name: str) -> Sequence[str]:
        return [f"{COPY} {self._place(snapshot.name)} {self._place(name)}"]

    def _place(self, name: str) -> str:
        dataset, at, snapshot = name.partition("@")
        return shlex.quote(f"{self.path(dataset)}{at}{snapshot}")
