"""Renaming, resizing and tagging datasets of a directory pool."""

import re
import shlex
from collections.abc import Sequence
from functools import partial

import trio
from msgspec.structs import replace

from imagestore.errors import InvalidArgument, NotVolume
from imagestore.pools.base import TAG_NAMES, Dataset, Retagging, Target
from imagestore.pools.directory import rules
from imagestore.pools.directory.ground import Ground
from imagestore.pools.directory.groupcommit import Step
from imagestore.pools.directory.opening import finish_resize
from imagestore.pools.inuse import Leases


async def rename(ground: Ground, target: Target, name: str) -> Sequence[Dataset]:
    """See ``PoolDriver.rename``."""
    return await ground.change(partial(_record_rename, ground, target, name))


def _record_rename(ground: Ground, target: Target, name: str, step: Step) -> Sequence[Dataset]:
    moves = rules.check_rename(step.catalog, target, name)
    moved = []
    for entry, new_name in moves:
        step.catalog.set_name(entry, new_name)
        if entry.dataset.kind != "snapshot" and ground.tree.make(new_name, entry.file):
            step.undo.callback(ground.tree.remove, [new_name])
        moved.append(ground.measure(replace(entry, dataset=replace(entry.dataset, name=new_name))))
    old = [entry.dataset.name for entry, _ in moves if entry.dataset.kind != "snapshot"]
    step.after.append(lambda: ground.tree.remove(old))
    return moved


async def resize(ground: Ground, volume: Target, size: int) -> Dataset:
    """See ``PoolDriver.resize``."""
    rules.check_size(size)
    async with ground.turn([volume]), ground.leased() as leases:
        await ground.work("resizing a volume", partial(_check_resize, ground, volume, size, leases))
        with trio.CancelScope(shield=True):
            await ground.change(lambda step: step.catalog.set_resize(step.catalog.require(volume), size))
            await ground.work("resizing a volume", partial(_finish, ground, volume, size, leases))
    return await ground.look("measuring a volume", lambda: ground.measure(ground.catalog.require(volume)))


def _check_resize(ground: Ground, volume: Target, size: int, leases: Leases) -> None:
    entry = ground.catalog.require(volume)
    if entry.dataset.kind != "volume":
        raise NotVolume(detail=volume.name)
    if ground.files.is_shared(entry.file):
        raise InvalidArgument(f"{volume.name} was received to be read only", detail="resize a clone of it")
    if size < entry.dataset.volsize:
        ground.lease([entry], leases)


def _finish(ground: Ground, volume: Target, size: int, leases: Leases) -> None:
    ground.checkpoint("resize noted")
    # Our own lease would make our own truncate wait.
    leases.release()
    with ground.catalog.lock:
        finish_resize(ground.opened, ground.catalog.require(volume), size)


async def retag(ground: Ground, changes: Sequence[Retagging]) -> Sequence[Dataset]:
    """See ``PoolDriver.retag``."""
    return await ground.change(partial(_record_tags, ground, changes))


def _record_tags(ground: Ground, changes: Sequence[Retagging], step: Step) -> Sequence[Dataset]:
    changed = []
    for change in changes:
        entry = step.catalog.require(change.target)
        step.catalog.set_tags(entry, change.tags)
        changed.append(ground.measure(replace(entry, dataset=replace(entry.dataset, tags=change.tags))))
    return changed


def retag_command(ground: Ground, change: Retagging) -> str:
    """What changes the catalog as :func:`retag` does."""
    columns = ", ".join(f"tag_{name} = {_literal(getattr(change.tags, name))}" for name in TAG_NAMES)
    statement = f"UPDATE dataset SET {columns} WHERE createtxg = {change.target.createtxg}"  # noqa: S608 (shown, not run)
    quoted = re.sub(r'([\\"$`])', r"\\\1", statement)
    return f'sqlite3 {shlex.quote(ground.layout.catalog)} "{quoted}"'


def _literal(text: str) -> str:
    """``text`` as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
