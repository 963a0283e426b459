"""Making file systems, blank volumes and clones in a directory pool.

Data files are made first, side by side with those of other calls; one change
of the catalog then names them all.
"""

from collections.abc import Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from imagestore.pools.base import Creation, Dataset, Kind, NewClone, NewVolume
from imagestore.pools.directory import rules
from imagestore.pools.directory.catalog import Entry
from imagestore.pools.directory.ground import Ground
from imagestore.pools.directory.groupcommit import Step

BLOCK_SIZE_BYTES = 16384
"""volblocksize of blank and raw volumes: the default of current OpenZFS; costs RAIDZ less than 8 KiB."""


class _Made(Struct, frozen=True):
    """The data file of a creation, "" for a file system, and the bytes it has allocated."""

    file: str
    allocated: int


async def create(ground: Ground, creations: Sequence[Creation]) -> Sequence[Dataset]:
    """See ``PoolDriver.create``."""
    async with ground.new_files() as made:
        files = await ground.copying("creating datasets", partial(_make_files, ground, creations, made))
        return await ground.change(partial(_record, ground, creations, files), made)


def _make_files(ground: Ground, creations: Sequence[Creation], made: list[str]) -> list[_Made]:
    with ground.catalog.lock:
        origins = rules.check_creations(ground.catalog, creations)
    for creation in creations:
        ground.tree.check_free(creation.name, directory=not isinstance(creation, NewVolume | NewClone))
    files: list[_Made] = []
    for creation, origin in zip(creations, origins, strict=True):
        if origin is not None:
            file = ground.copy(origin, made)
            files.append(_Made(file, ground.files.allocated(file)))
        elif isinstance(creation, NewVolume):
            file = ground.files.blank(creation.size)
            made.append(file)
            if creation.thick:
                ground.files.fill(file)
            files.append(_Made(file, ground.files.allocated(file)))
        else:
            files.append(_Made("", 0))
    ground.checkpoint("files made")
    return files


def _record(
    ground: Ground, creations: Sequence[Creation], files: Sequence[_Made], step: Step
) -> Sequence[Dataset]:
    created = []
    for creation, made in zip(creations, files, strict=True):
        (origin,) = rules.check_creations(step.catalog, [creation])
        created.append(ground.publish(_entry(ground, creation, made, origin), step).dataset)
    return created


def _entry(ground: Ground, creation: Creation, made: _Made, origin: Entry | None) -> Entry:
    kind: Kind = "volume" if made.file else "filesystem"
    dataset = ground.new_dataset(creation.name, kind, creation.tags)
    if isinstance(creation, NewVolume):
        return Entry(
            dataset=replace(
                dataset, volsize=creation.size, referenced=made.allocated, sparse=not creation.thick
            ),
            file=made.file,
            baseline=made.allocated,
            block_size=BLOCK_SIZE_BYTES,
        )
    if origin is None:
        return Entry(dataset=dataset)
    return Entry(
        dataset=replace(
            dataset,
            volsize=origin.dataset.volsize,
            referenced=made.allocated,
            origin=origin.dataset.name,
        ),
        file=made.file,
        origin_txg=origin.dataset.createtxg,
        baseline=made.allocated,
        block_size=origin.block_size,
    )
