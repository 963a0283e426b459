"""Opens a ZFS pool: who may, what must be true of it, which blocks suit it.

One lock file per pool, for the whole computer and not beside one journal: two
stores with different journals must not share a pool either, and a child of an
earlier life is waited for whatever journal that had.  The lock is an flock
that every child inherits; the kernel releases it when the last of them has
ended.  (The directory is emptied when the computer starts; children do not
survive that.)
"""

import fcntl
import os
import re
from collections.abc import Sequence
from typing import Final

import trio

from imagestore.errors import ConfigError, PoolBusy, PoolError
from imagestore.pools.inuse import writers
from imagestore.pools.zfs.commands import Commands

LOCK_DIRECTORY: Final = "/run/lock"

_POOL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_:.-]*\Z")
_POLL_SECONDS: Final = 0.05

FEATURE: Final = "feature@lz4_compress"
"""Of all features the one that new volumes need."""

SMALLEST_BLOCK_BYTES: Final = 16 << 10
"""What newer versions of OpenZFS give volumes; 8 KiB, the default of 2.1, wastes space."""

LARGEST_BLOCK_BYTES: Final = 128 << 10


async def take_lock(pool: str, directory: str, deadline_seconds: float) -> int:
    """The open, locked file.

    Raises:
        ConfigError: that is no pool's name.
        PoolBusy: a store, or a child of an earlier one, still has it after ``deadline_seconds``.
    """
    if not _POOL_NAME.match(pool):
        raise ConfigError(
            f"{pool!r} is not the name of a ZFS pool",
            detail="for example --pool zfs:tank; datasets of it are made there",
        )
    path = os.path.join(directory, f"imagestore-zfs-{pool}.lock")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise PoolError(f"the lock {path} cannot be opened: {error.strerror}") from error
    deadline = trio.current_time() + deadline_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if trio.current_time() < deadline:
                await trio.sleep(_POLL_SECONDS)
                continue
            own = f"pid {os.getpid()} "
            holders = [who for who in await trio.to_thread.run_sync(writers, path) if not who.startswith(own)]
            os.close(file)
            raise PoolBusy(
                f"pool {pool} is held by {', '.join(holders) or 'another process'}",
                detail="stop that store, or wait for what an earlier one had begun; then start again",
            ) from None
        except BaseException:
            os.close(file)
            raise
        return file


async def check_pool(commands: Commands) -> int:
    """Whether the pool is there, works, and can do what is needed; its sector size in bytes.

    Raises PoolError, which says what to do.
    """
    pool = commands.pool
    asked = f"health,readonly,version,ashift,{FEATURE}"
    text = await commands.look("zpool", "get", "-Hp", "-o", "property,value", asked, pool)
    properties = dict(line.split("\t")[:2] for line in text.splitlines())
    if properties.get("readonly") == "on":
        raise PoolError(
            f"pool {pool} is imported read-only",
            detail=f"zpool export {pool} && zpool import {pool}",
        )
    if properties.get("health") not in ("ONLINE", "DEGRADED"):
        raise PoolError(
            f"pool {pool} is {properties.get('health', 'in an unknown state')}",
            detail=f"see zpool status {pool}",
        )
    if properties.get("version", "-") not in ("-", "", "5000"):
        raise PoolError(
            f"pool {pool} has the old format {properties['version']} without feature flags",
            detail=f"zpool upgrade {pool} (older systems cannot import it afterwards)",
        )
    if properties.get(FEATURE) == "disabled":
        raise PoolError(
            f"pool {pool} lacks the feature {FEATURE.partition('@')[2]}",
            detail=f"zpool set {FEATURE}=enabled {pool} (older systems cannot import it afterwards)",
        )
    return 1 << max(int(properties.get("ashift", "0")), 12)


async def block_bytes(commands: Commands, sector_bytes: int) -> int:
    """The ``volblocksize`` of new volumes for this pool's geometry."""
    return block_bytes_for(data_disks(await commands.look("zpool", "status", commands.pool)), sector_bytes)


def block_bytes_for(disks: int, sector_bytes: int) -> int:
    """At least a sector on each data disk, so that parity and padding stay in proportion."""
    size = SMALLEST_BLOCK_BYTES
    while size < disks * sector_bytes and size < LARGEST_BLOCK_BYTES:
        size *= 2
    return size


def data_disks(status: str) -> int:
    """How many disks of the widest RAIDZ or dRAID hold data, from ``zpool status``; else 1."""
    widest = 1
    parity = members = member_indent = 0
    for line in _configuration(status):
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        raidz = re.match(r"raidz([123])-\d+\Z", name)
        draid = re.match(r"draid[123]?:(\d+)d", name)
        if draid:
            widest = max(widest, int(draid.group(1)))
        if raidz:
            widest = max(widest, members - parity)
            parity, members, member_indent = int(raidz.group(1)), 0, indent + 2
        elif parity and indent == member_indent:
            members += 1
        elif parity and indent < member_indent:
            widest = max(widest, members - parity)
            parity = members = 0
    return max(widest, members - parity)


def _configuration(status: str) -> Sequence[str]:
    lines = status.splitlines()
    for number, line in enumerate(lines):
        if line.split()[:2] == ["NAME", "STATE"]:
            return [line.replace("\t", "") for line in lines[number + 1 :] if line.strip()]
    return []
