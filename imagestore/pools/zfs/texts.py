"""What a ZFS pool is told, as an administrator would type it.  Pure; shown, never run.

The store itself makes each of these one step, with calls and channel programs.
"""

import shlex
from collections.abc import Sequence

from msgspec import Struct

from imagestore import names
from imagestore.pools.base import Creation, NewClone, NewFilesystem, Tags, Target
from imagestore.pools.zfs.changing import block_dividing
from imagestore.pools.zfs.rows import options, tag_pairs


class ZfsTexts(Struct, frozen=True, kw_only=True):
    """Implements :class:`imagestore.pools.base.CommandTexts`."""

    pool: str
    compression: str
    volmode: str
    block_bytes: int

    def created(self, creations: Sequence[Creation]) -> Sequence[str]:
        return [self._created(creation) for creation in creations]

    def _created(self, creation: Creation) -> str:
        tags = _tags(creation.tags)
        visible = ["-o", f"volmode={self.volmode}"]
        packed = ["-o", f"compression={self.compression}"]
        if isinstance(creation, NewFilesystem):
            return self._line("zfs", "create", "-o", "canmount=off", *visible, *tags, of=[creation.name])
        if isinstance(creation, NewClone):
            both = [creation.origin.name, creation.name]
            return self._line("zfs", "clone", *packed, *visible, *tags, of=both)
        kind = [] if creation.thick else ["-s"]
        size = ["-V", str(creation.size)]
        blocks = ["-o", f"volblocksize={block_dividing(creation.size, self.block_bytes)}"]
        words = [*kind, *size, *blocks, *packed, *visible, *tags]
        return self._line("zfs", "create", *words, of=[creation.name])

    def snapshotted(self, datasets: Sequence[Target], snapshot: str, tags: Tags) -> Sequence[str]:
        taken = [f"{target.name}@{snapshot}" for target in datasets]
        return [self._line("zfs", "snapshot", *_tags(tags), of=taken)]

    def destroyed(self, targets: Sequence[Target]) -> Sequence[str]:
        return [self._line("zfs", "destroy", of=[target.name]) for target in reversed(targets)]

    def rolled_back(self, snapshots: Sequence[Target], newer: Sequence[Target]) -> Sequence[str]:
        back = [self._line("zfs", "rollback", of=[target.name]) for target in snapshots]
        return [*self.destroyed(newer), *back]

    def resized(self, volume: Target, size: int) -> Sequence[str]:
        return [self._line("zfs", "set", f"volsize={size}", of=[volume.name])]

    def copied(self, snapshot: Target, name: str) -> Sequence[str]:
        sent = self._line("zfs", "send", of=[snapshot.name])
        return [f"{sent} | {self._line('zfs', 'receive', of=[name])}"]

    def _line(self, *words: str, of: Sequence[str]) -> str:
        return shlex.join([*words, *(names.full(name, self.pool) for name in of)])


def _tags(tags: Tags) -> list[str]:
    return options([pair for pair in tag_pairs(tags) if pair[1]])
