"""What a memory pool holds, apart from who drives it: it outlives the store that crashes over it.

Names, identities and tags are entries of the directory driver's kind, so that
its rules judge here too; contents are blocks by number, shared between a
volume, its snapshots and its clones until one of them is written.
"""

import random
from collections.abc import Iterator, Mapping
from typing import cast

from msgspec.structs import replace

from imagestore.errors import NoSpace, NotFound
from imagestore.pools.base import Dataset, Kind, Mark, Tags, Target
from imagestore.pools.directory.catalog import Catalog, Entry

BLOCK_BYTES = 4096

Blocks = Mapping[int, bytes]
"""A content: its blocks that are not all zeros, by number."""

NOTHING: Blocks = {}
_ZEROS = bytes(BLOCK_BYTES)
_CONTENT = "memory"
"""Stands for a data file: what has it is a volume or a volume's snapshot."""


class PoolGround:
    """Implements what ``pools.directory.rules`` asks of a catalog."""

    def __init__(self, name: str, chance: random.Random, *, total_bytes: int = 1 << 40) -> None:
        self.name = name
        self.total_bytes = total_bytes
        self.mark: Mark | None = None
        self.changed: list[str] = []
        """Names of what another hand has changed or written, until the driver was asked for them."""
        self.entries: dict[str, Entry] = {}
        self.blocks: dict[int, Blocks] = {}
        """Contents, by createtxg."""
        self.baselines: dict[int, Blocks] = {}
        """What a volume's ``written`` counts from."""
        self._chance = chance
        self._last_txg = 0
        self._insert("", "filesystem", Tags(), 0)

    # -- what the rules ask -------------------------------------------------------

    def as_catalog(self) -> Catalog:
        return cast("Catalog", self)

    def find(self, name: str) -> Entry | None:
        return self.entries.get(name)

    def require(self, target: Target) -> Entry:
        """Raises NotFound."""
        entry = self.entries.get(target.name)
        if entry is None or entry.dataset.identity != target.identity:
            raise NotFound(detail=f"{target.name} with guid {target.guid}")
        return entry

    def snapshots(self, dataset: str) -> list[Entry]:
        found = [entry for name, entry in self.entries.items() if name.startswith(f"{dataset}@")]
        return sorted(found, key=lambda entry: entry.dataset.createtxg)

    def subtree(self, dataset: str) -> list[Entry]:
        inside = (f"{dataset}/", f"{dataset}@")
        return self._in_order(
            [entry for name, entry in self.entries.items() if name == dataset or name.startswith(inside)]
        )

    def clones(self, origin: Entry) -> list[Entry]:
        txg = origin.dataset.createtxg
        found = [entry for entry in self.entries.values() if entry.origin_txg == txg]
        return sorted(found, key=lambda entry: entry.dataset.name)

    # -- looking --------------------------------------------------------------------

    def all(self) -> list[Dataset]:
        """In the order of ``zfs list``."""
        return [self.measured(entry) for entry in self._in_order(list(self.entries.values()))]

    def existing(self, name: str) -> Entry:
        """Raises NotFound."""
        entry = self.entries.get(name)
        if entry is None:
            raise NotFound(detail=name)
        return entry

    def measured(self, entry: Entry) -> Dataset:
        """The dataset as it is now: its origin's name, its sizes."""
        dataset = entry.dataset
        if entry.origin_txg is not None:
            dataset = replace(dataset, origin=self._name_of(entry.origin_txg))
        if dataset.kind != "volume":
            return dataset
        now = self.blocks[dataset.createtxg]
        written = changed_bytes(now, self.baselines[dataset.createtxg])
        referenced = len(now) * BLOCK_BYTES
        if (written, referenced) == (dataset.written, dataset.referenced):
            return dataset
        return replace(dataset, written=min(written, dataset.volsize), referenced=referenced)

    def available_bytes(self) -> int:
        """Nothing is shared in this account, and all of a thick volume is taken."""
        used = BLOCK_BYTES * sum(map(len, self.blocks.values()))
        thick = sum(entry.dataset.volsize for entry in self.entries.values() if not entry.dataset.sparse)
        return max(0, self.total_bytes - used - thick)

    def check_room(self, size: int) -> None:
        """Raises NoSpace."""
        if size > self.available_bytes():
            raise NoSpace(detail=f"{size} bytes are wanted")

    # -- changing -------------------------------------------------------------------

    def add(
        self,
        name: str,
        kind: Kind,
        tags: Tags,
        creation: int,
        *,
        volsize: int = 0,
        blocks: Blocks | None = None,
        baseline: Blocks = NOTHING,
        written: int = 0,
        guid: int = 0,
        origin: Entry | None = None,
        block_size: int = 0,
        sparse: bool = True,
    ) -> Dataset:
        """``blocks`` None: a file system or its snapshot."""
        self._last_txg += 1
        dataset = Dataset(
            name=name,
            kind=kind,
            guid=guid or self._chance.getrandbits(63) + 1,
            createtxg=self._last_txg,
            volsize=volsize,
            written=written,
            referenced=0 if blocks is None else len(blocks) * BLOCK_BYTES,
            origin="" if origin is None else origin.dataset.name,
            sparse=sparse,
            creation=creation,
            tags=tags,
        )
        entry = Entry(
            dataset=dataset,
            file="" if blocks is None else _CONTENT,
            origin_txg=None if origin is None else origin.dataset.createtxg,
            block_size=block_size,
        )
        self.entries[name] = entry
        if blocks is not None:
            self.blocks[self._last_txg] = blocks
            self.baselines[self._last_txg] = baseline
        return self.measured(entry)

    def remove(self, entry: Entry) -> None:
        dataset = entry.dataset
        del self.entries[dataset.name]
        self.blocks.pop(dataset.createtxg, None)
        self.baselines.pop(dataset.createtxg, None)

    def set_content(self, entry: Entry, blocks: Blocks, volsize: int, tags: Tags) -> Dataset:
        """A volume has another content now, all of it of a snapshot."""
        txg = entry.dataset.createtxg
        self.blocks[txg] = self.baselines[txg] = blocks
        return self.set(entry, replace(entry.dataset, volsize=volsize, tags=tags))

    def set(self, entry: Entry, dataset: Dataset) -> Dataset:
        changed = replace(entry, dataset=dataset)
        if dataset.name != entry.dataset.name:
            del self.entries[entry.dataset.name]
        self.entries[dataset.name] = changed
        return self.measured(changed)

    def write(self, name: str, data: bytes, offset: int = 0) -> None:
        """Write whole blocks as a guest does that waits until they are on the disk."""
        txg = self.existing(name).dataset.createtxg
        blocks = dict(self.blocks[txg])
        for at in range(0, len(data), BLOCK_BYTES):
            _set(blocks, (offset + at) // BLOCK_BYTES, data[at : at + BLOCK_BYTES])
        self.blocks[txg] = blocks
        self.changed.append(name)

    def read(self, name: str, length: int, offset: int = 0) -> bytes:
        return content(self.blocks[self.existing(name).dataset.createtxg], offset + length)[offset:]

    # -- inside ---------------------------------------------------------------------

    def _insert(self, name: str, kind: Kind, tags: Tags, creation: int) -> None:
        self.add(name, kind, tags, creation)

    def _name_of(self, createtxg: int) -> str:
        return next(
            (name for name, entry in self.entries.items() if entry.dataset.createtxg == createtxg), ""
        )

    @staticmethod
    def _in_order(entries: list[Entry]) -> list[Entry]:
        return sorted(entries, key=_place)


def _place(entry: Entry) -> tuple[str, int]:
    dataset, at, _ = entry.dataset.name.partition("@")
    return dataset, entry.dataset.createtxg if at else 0


def changed_bytes(now: Blocks, before: Blocks) -> int:
    if now is before:
        return 0
    return BLOCK_BYTES * sum(before.get(number) != block for number, block in now.items())


def content(blocks: Blocks, length: int) -> bytes:
    """The first ``length`` bytes."""
    return b"".join(blocks.get(number, _ZEROS) for number in range(-(-length // BLOCK_BYTES)))[:length]


def as_blocks(data: bytes | memoryview) -> Blocks:
    blocks: dict[int, bytes] = {}
    for at in range(0, len(data), BLOCK_BYTES):
        _set(blocks, at // BLOCK_BYTES, bytes(data[at : at + BLOCK_BYTES]))
    return blocks


def pieces(blocks: Blocks) -> Iterator[tuple[int, bytes]]:
    """Offsets and blocks, in order."""
    for number in sorted(blocks):
        yield number * BLOCK_BYTES, blocks[number]


def _set(blocks: dict[int, bytes], number: int, data: bytes) -> None:
    block = data.ljust(BLOCK_BYTES, b"\0")
    if block == _ZEROS:
        blocks.pop(number, None)
    else:
        blocks[number] = block
