"""The changes of a ZFS pool: what each is made of, and in what order.

==============  ===============================================================================
create          one call each, in order; undone when a later one fails
snapshot        one call for all
destroy         one channel program: checks all, by guid and createtxg, then destroys all
rollback        one channel program: checks, destroys newer, rolls back, sets ``imagestore:last``
rename, resize  one call or command, after a look at the identity
tag             one channel program
==============  ===============================================================================

Tags are user properties, set in the call that makes the dataset.  None of
these is cancellable once it has begun.
"""

from collections.abc import Sequence
from functools import partial

from imagestore import names
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ImageStoreError,
    InvalidArgument,
    NotSnapshot,
    NotVolume,
)
from imagestore.pools.base import (
    Creation,
    Dataset,
    NewClone,
    NewFilesystem,
    NewVolume,
    Tags,
    Target,
)
from imagestore.pools.zfs import programs
from imagestore.pools.zfs.core import Properties
from imagestore.pools.zfs.failures import in_use
from imagestore.pools.zfs.ground import (
    COMPRESSIONS,
    VOLMODE,
    ZfsGround,
    check_name,
    check_size,
    uncancelled,
)
from imagestore.pools.zfs.programs import Setting
from imagestore.pools.zfs.rows import tag_pairs, tag_properties


async def create(ground: ZfsGround, creations: Sequence[Creation]) -> Sequence[Dataset]:
    """See ``PoolDriver.create``."""
    for creation in creations:
        check_name(creation.name, ground.pool)
        if isinstance(creation, NewVolume):
            check_size(creation.size)
    origins = [creation.origin for creation in creations if isinstance(creation, NewClone)]
    for row in await ground.meant(origins):
        if row.kind != "snapshot":
            raise NotSnapshot(detail=f"{row.name}: clones are made of snapshots")
        if not row.volsize:
            raise NotVolume(detail=f"{row.name} is a file system's snapshot")
    return await uncancelled(_create, ground, creations)


async def _create(ground: ZfsGround, creations: Sequence[Creation]) -> Sequence[Dataset]:
    made: list[str] = []
    volumes = [creation.name for creation in creations if not isinstance(creation, NewFilesystem)]
    flickers = False
    try:
        for creation in creations:
            given = await _properties(ground, creation, made)
            await ground.call("creating", creation.name, partial(_make, ground, creation, given))
            made.append(creation.name)
            flickers = flickers or (creation.name in volumes and "volmode" in given)
        await ground.wait_for_nodes(volumes, flickers=flickers)
        return await ground.rows(made)
    except ImageStoreError:
        for row in reversed(await ground.existing(made)):
            await ground.retry_busy([row.name], partial(programs.destroy, ground.commands, [row.target]))
        raise


async def _properties(ground: ZfsGround, creation: Creation, made: Sequence[str]) -> Properties:
    """What a new dataset is made with, its tags among it."""
    given = tag_properties(creation.tags)
    if isinstance(creation, NewFilesystem):
        return given | {"canmount": 0, "volmode": VOLMODE[1]}
    given |= {"compression": COMPRESSIONS[ground.compression]}
    parent = names.parent(creation.name)
    if parent not in made and not await ground.has_volmode(parent):
        given |= {"volmode": VOLMODE[1]}
    if isinstance(creation, NewVolume):
        given |= {"volsize": creation.size, "volblocksize": block_dividing(creation.size, ground.block_bytes)}
    return given


def _make(ground: ZfsGround, creation: Creation, given: Properties) -> int:
    core, name = ground.commands.core, ground.full(creation.name)
    match creation:
        case NewFilesystem():
            return core.create(name, "filesystem", given)
        case NewClone():
            return core.clone(name, ground.full(creation.origin.name), given)
        case NewVolume():
            return core.create(name, "volume", given)


def block_dividing(size: int, block_bytes: int) -> int:
    """The largest block of at most ``block_bytes`` of which ``size`` is a multiple, as OpenZFS demands."""
    while size % block_bytes:
        block_bytes //= 2
    return block_bytes


async def snapshot(ground: ZfsGround, volumes: Sequence[Target], name: str, tags: Tags) -> Sequence[Dataset]:
    """See ``PoolDriver.snapshot``."""
    if not volumes:
        return ()
    found = await ground.meant(volumes)
    if any(row.kind == "snapshot" for row in found):
        raise InvalidArgument("cannot create a snapshot of a snapshot")
    taken = [f"{row.name}@{name}" for row in found]
    if len(set(taken)) != len(taken):
        raise InvalidArgument(detail="a dataset is named twice")

    there = await ground.existing(taken)
    if there:
        raise AlreadyExists.named(there[0].name)
    take = partial(ground.commands.core.snapshot, [ground.full(name) for name in taken], tag_properties(tags))

    async def go() -> Sequence[Dataset]:
        await ground.call("snapshotting", taken[0], take)
        return await ground.rows(taken)

    return await uncancelled(go)


async def destroy(ground: ZfsGround, targets: Sequence[Target]) -> None:
    """See ``PoolDriver.destroy``; nothing is forced."""
    if any(target.name == "" for target in targets):
        raise Blocked("the pool's root cannot be destroyed")
    ground.check_not_sending(targets)

    async def go() -> None:
        every = [target.name for target in targets]
        await ground.retry_busy(every, partial(programs.destroy, ground.commands, targets))
        await ground.wait_until_gone(every)

    if targets:
        await uncancelled(go)


async def rollback(
    ground: ZfsGround, snapshots: Sequence[Target], newer: Sequence[Target], operation: str
) -> Sequence[Dataset]:
    """See ``PoolDriver.rollback``; nothing is forced."""
    if any("@" not in target.name for target in snapshots):
        raise NotSnapshot(detail="a rollback goes to a snapshot")
    datasets = [names.parent(target.name) for target in snapshots]
    if len(set(datasets)) != len(datasets):
        raise InvalidArgument(detail="two snapshots of one dataset")
    ground.check_not_sending(newer)

    async def go() -> Sequence[Dataset]:
        program = partial(programs.rollback, ground.commands, snapshots, newer, operation)
        await ground.retry_busy(datasets, program)
        return await ground.rows(datasets)

    return await uncancelled(go)


async def rename(ground: ZfsGround, target: Target, name: str) -> Sequence[Dataset]:
    """See ``PoolDriver.rename``."""
    (row,) = await ground.meant([target])
    _check_rename(row, name, ground.pool)

    async def go() -> Sequence[Dataset]:
        if row.kind == "snapshot":
            await ground.change("zfs", "rename", ground.full(row.name), ground.full(name))
            return await ground.rows([name])
        before = await ground.under(row.name)
        if row.kind == "volume":
            await ground.rename(row.name, name)
        else:  # file systems of others may be mounted
            await ground.change("zfs", "rename", ground.full(row.name), ground.full(name))
        moved = await ground.under(name)
        await ground.wait_until_gone(d.name for d in before if d.kind == "volume")
        await ground.wait_for_nodes(d.name for d in moved if d.kind == "volume")
        return moved

    return await uncancelled(go)


def _check_rename(row: Dataset, name: str, pool: str) -> None:
    """Raises InvalidArgument, AlreadyExists."""
    if row.name == "":
        raise InvalidArgument(detail="the pool's root has no other name")
    if row.kind == "snapshot":
        if names.parent(name) != names.parent(row.name) or "@" not in name:
            raise InvalidArgument(detail="a snapshot stays with its dataset")
        return
    if "@" in name or name.startswith(f"{row.name}/"):
        raise InvalidArgument(detail=f"{row.name} cannot become {name}")
    check_name(name, pool)


async def resize(ground: ZfsGround, volume: Target, size: int) -> Dataset:
    """See ``PoolDriver.resize``; the size must be a multiple of the volume's block size."""
    check_size(size)
    (row,) = await ground.meant([volume])
    if row.kind != "volume":
        raise NotVolume(detail=f"{row.name} is a {row.kind}")
    if size < row.volsize and (users := await ground.users(row.name)):
        raise in_use(row.name, users)

    async def go() -> Dataset:
        await ground.change("zfs", "set", f"volsize={size}", ground.full(row.name))
        return await ground.get(row.name)

    return await uncancelled(go)


async def tag(ground: ZfsGround, target: Target, tags: Tags) -> Dataset:
    """See ``PoolDriver.tag``."""

    async def go() -> Dataset:
        await programs.set_properties(ground.commands, [Setting(target, tag_pairs(tags))])
        return await ground.get(target.name)

    return await uncancelled(go)
