"""The changes of a ZFS pool: what each is made of, and in what order.

==============  ===============================================================================
create          one call each, in order; undone when a later one fails
snapshot        one call for all
destroy         unmounts what is mounted; then one channel program: checks all, by guid and
                createtxg, then destroys all
rollback        one channel program: checks, destroys newer, rolls back, sets ``imagestore:last``
rename, resize  one call or command, after a look at the identity
retag           one channel program for all
==============  ===============================================================================

Tags are user properties, set in the call that makes the dataset.  None of
these is cancellable once it has begun.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from imagestore import names
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ImageStoreError,
    InvalidArgument,
    NotSnapshot,
    NotVolume,
    PoolError,
    PoolStuck,
)
from imagestore.pools.base import (
    Creation,
    Dataset,
    NewClone,
    NewFilesystem,
    NewVolume,
    Retagging,
    Tags,
    Target,
)
from imagestore.pools.zfs import devices, programs
from imagestore.pools.zfs.core import Properties
from imagestore.pools.zfs.failures import in_use
from imagestore.pools.zfs.ground import (
    COMPRESSIONS,
    VOLMODES,
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
        with ground.changing(creation.name for creation in creations) as done:
            for creation in creations:
                given = await _properties(ground, creation, made)
                await ground.call("creating", creation.name, partial(_make, ground, creation, given))
                made.append(creation.name)
                flickers = flickers or (creation.name in volumes and "volmode" in given)
            try:
                await ground.wait_for_nodes(volumes, flickers=flickers)
            except PoolError:
                await ground.check_unlocked(volumes)
                raise
            done()
            return await ground.rows(made)
    except PoolStuck:
        raise  # nothing can be undone now
    except ImageStoreError:
        for row in reversed(await ground.existing(made)):
            await ground.retry_busy([row.name], partial(programs.destroy, ground.commands, [row.target]))
        raise


async def _properties(ground: ZfsGround, creation: Creation, made: Sequence[str]) -> Properties:
    """What a new dataset is made with, its tags among it."""
    given = tag_properties(creation.tags)
    if isinstance(creation, NewFilesystem):
        return given | {"canmount": 0, "volmode": VOLMODES[ground.volmode]}
    given |= {"compression": COMPRESSIONS[ground.compression]}
    parent = names.parent(creation.name)
    if parent not in made and not await ground.has_volmode(parent):
        given |= {"volmode": VOLMODES[ground.volmode]}
    if isinstance(creation, NewVolume):
        block_bytes = block_dividing(creation.size, ground.block_bytes)
        given |= {"volsize": creation.size, "volblocksize": block_bytes}
        if creation.thick:
            given |= {"refreservation": await _thick_bytes(ground, creation, block_bytes)}
    return given


async def _thick_bytes(ground: ZfsGround, creation: NewVolume, block_bytes: int) -> int:
    """What a thick volume must reserve: its size, and what parity and metadata may take beside it.

    ``zfs create`` knows that, for every geometry, and says it without creating anything.
    """
    words = ("-V", str(creation.size), "-o", f"volblocksize={block_bytes}", ground.full(creation.name))
    text = await ground.look("zfs", "create", "-n", "-P", *words)
    for line in text.splitlines():
        match line.split():
            case ["property", "refreservation", number] if number.isdecimal():
                return int(number)
    raise PoolError(f"zfs create -n gave an answer that is not understood: {text!r}")


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
        with ground.changing(taken) as done:
            await ground.call("snapshotting", taken[0], take)
            done()
            return await ground.rows(taken)

    return await uncancelled(go)


async def destroy(ground: ZfsGround, targets: Sequence[Target]) -> None:
    """See ``PoolDriver.destroy``; nothing is forced."""
    if any(target.name == "" for target in targets):
        raise Blocked("the pool's root cannot be destroyed")
    ground.check_not_sending(targets)

    async def go() -> None:
        every = [target.name for target in targets]
        async with _unmounted(ground, targets):
            with ground.changing(every) as done:
                await ground.retry_busy(every, partial(programs.destroy, ground.commands, targets))
                done()
        await ground.wait_until_gone(every)

    if targets:
        await uncancelled(go)


@asynccontextmanager
async def _unmounted(ground: ZfsGround, targets: Sequence[Target]) -> AsyncIterator[None]:
    """File systems of others may be mounted, and a channel program destroys none that is.

    If the destruction is refused they are mounted again.  Raises InUse.
    """
    mounted = [t for t in targets if "@" not in t.name and devices.mountpoint(ground.full(t.name))]
    if mounted:
        await ground.meant(mounted)
    undone: list[str] = []
    try:
        # Those below others first: whatever the targets' order, a name that is longer is never above.
        for target in sorted(mounted, key=lambda target: -len(target.name)):
            await ground.change("zfs", "unmount", ground.full(target.name))
            undone.append(target.name)
        yield
    except ImageStoreError:
        for name in reversed(undone):
            with suppress(ImageStoreError):
                await ground.change("zfs", "mount", ground.full(name))
        raise


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
        with ground.changing([*datasets, *(target.name for target in newer)]) as done:
            await ground.retry_busy(datasets, program)
            done()
            return await ground.rows(datasets)

    return await uncancelled(go)


async def rename(ground: ZfsGround, target: Target, name: str) -> Sequence[Dataset]:
    """See ``PoolDriver.rename``."""
    (row,) = await ground.meant([target])
    _check_rename(row, name, ground.pool)

    return await uncancelled(_rename, ground, row, name)


async def _rename(ground: ZfsGround, row: Dataset, name: str) -> Sequence[Dataset]:
    with ground.changing([row.name, name]) as done:
        if row.kind == "snapshot":
            await ground.change("zfs", "rename", ground.full(row.name), ground.full(name))
            done()
            return await ground.rows([name])
        before = await ground.under(row.name)
        if row.kind == "volume":
            await ground.rename(row.name, name)
        else:  # file systems of others may be mounted
            await ground.change("zfs", "rename", ground.full(row.name), ground.full(name))
        done()
        moved = await ground.under(name)
    await ground.wait_until_gone(d.name for d in before if d.kind == "volume")
    await ground.wait_for_nodes(d.name for d in moved if d.kind == "volume")
    return moved


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
        with ground.changing([row.name]) as done:
            await ground.change("zfs", "set", f"volsize={size}", ground.full(row.name))
            done()
            return await ground.get(row.name)

    return await uncancelled(go)


async def retag(ground: ZfsGround, changes: Sequence[Retagging]) -> Sequence[Dataset]:
    """See ``PoolDriver.retag``."""

    async def go() -> Sequence[Dataset]:
        settings = [Setting(change.target, tag_pairs(change.tags)) for change in changes]
        changed = [change.target.name for change in changes]
        with ground.changing(changed) as done:
            await programs.set_properties(ground.commands, settings)
            done()
            return await ground.rows(changed)

    return await uncancelled(go) if changes else ()
