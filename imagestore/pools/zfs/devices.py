"""Device nodes of volumes: when they are there, and who has them open.

``/dev/zvol/POOL/NAME`` is a link that udev makes after the kernel has made the
node: it can come late, and one of a destroyed or renamed volume can linger.
So whoever makes a volume waits for its link, and whoever takes one away waits
until the link is gone, both up to a deadline.

Users of an open volume are processes, and the kernel itself: a mounted file
system, swap, a device mapper above it.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

import trio

from imagestore import names
from imagestore.errors import PoolError
from imagestore.pools.inuse import seen_written_to, writers

NODES: Final = "/dev/zvol"

_UDEV_QUEUE: Final = "/run/udev/queue"
"""There while udev has events to deal with."""

_MODULE_MODE: Final = "/sys/module/zfs/parameters/zvol_volmode"

_ATTEMPTS: Final = 10

_FIRST_WAIT_SECONDS: Final = 0.002
_LONGEST_WAIT_SECONDS: Final = 0.1


def node(pool: str, name: str) -> str:
    """Where a volume can be opened."""
    return f"{NODES}/{names.full(name, pool)}"


def are_shown(volmode: str) -> bool:
    """Whether volumes of that mode get nodes; ``default`` leaves it to the kernel module."""
    if volmode == "default":
        with suppress(OSError), open(_MODULE_MODE, encoding="ascii") as file:
            return file.read().strip() != "3"
    return volmode != "none"


def mountpoint(dataset: str) -> str:
    """Where the file system ``dataset`` (its full name) is mounted now, "" if nowhere.

    Not the property: that says where it would be, and not under which root.
    """
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            kind, source, *_ = after.split(" ")
            if kind == "zfs" and _unescaped(source) == dataset:
                return _unescaped(before.split(" ")[4])
    return ""


def _unescaped(text: str) -> str:
    """A field of ``mountinfo``: blanks and the like stand in it as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


async def wait_for_nodes(paths: Sequence[str], deadline_seconds: float, *, flickers: bool) -> None:
    """Return when all are there to stay.

    A volume whose ``volmode`` is set when it is made appears, disappears and
    appears again; with ``flickers`` udev must have nothing more to do, too.
    Udev asks each new node for its name once, and makes no link when the node
    cannot be opened just then: it is told again.

    Raises:
        PoolError: they did not come in time.
    """
    missing = list(paths)
    for attempt in range(_ATTEMPTS):
        is_done = _is_settled if flickers else os.path.exists
        missing = await _wait(missing, is_done, deadline_seconds / _ATTEMPTS)
        missing = [path for path in missing if not os.path.exists(path)]
        if not missing:
            return
        if attempt + 1 < _ATTEMPTS:
            await trio.to_thread.run_sync(_tell_udev_again)
    raise PoolError(
        f"the device {missing[0]} did not appear within {deadline_seconds:.0f} seconds",
        detail="udev makes it: see that systemd-udevd runs and knows 60-zvol.rules (zfsutils-linux)",
    )


def _tell_udev_again() -> None:
    """A change of every volume's node that has no link yet."""
    with suppress(OSError):
        for device in os.listdir("/sys/block"):
            if not device.startswith("zd"):
                continue
            with suppress(OSError):
                with open(f"/sys/block/{device}/dev", encoding="ascii") as file:
                    number = file.read().strip()
                if not _has_link(number):
                    with open(f"/sys/block/{device}/uevent", "w", encoding="ascii") as file:
                        file.write("change")


def _has_link(number: str) -> bool:
    """Whether udev has made a link for the block device ``major:minor``."""
    try:
        with open(f"/run/udev/data/b{number}", encoding="utf-8", errors="replace") as lines:
            return any(line.startswith("S:zvol/") for line in lines)
    except FileNotFoundError:
        return False


async def wait_until_gone(paths: Sequence[str], deadline_seconds: float) -> None:
    """Return when none is there any more, or after the deadline: a link that lingers harms nobody."""
    await _wait(paths, lambda path: not os.path.lexists(path), deadline_seconds)


async def wait_until_hidden(paths: Sequence[str], deadline_seconds: float) -> Sequence[str]:
    """Those that are there once udev has nothing more to do, or after the deadline."""
    return await _wait(paths, _is_hidden, deadline_seconds)


def _is_hidden(path: str) -> bool:
    return not os.path.lexists(path) and not os.path.exists(_UDEV_QUEUE)


def _is_settled(path: str) -> bool:
    return os.path.exists(path) and not os.path.exists(_UDEV_QUEUE)


async def _wait(paths: Sequence[str], is_done: Callable[[str], bool], deadline_seconds: float) -> list[str]:
    """Those of ``paths`` for which it was not so before the deadline."""
    left = [path for path in paths if not is_done(path)]
    pause = _FIRST_WAIT_SECONDS
    with trio.move_on_after(deadline_seconds):
        while left:
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_WAIT_SECONDS)
            left = [path for path in left if not is_done(path)]
    return left


def users(path: str) -> list[str]:
    """Who has the volume at ``path`` open for writing, as ``pid 4242 qemu-system-x86``; blocks.

    A volume without a node has none.
    """
    try:
        number = os.stat(path).st_rdev
    except OSError:
        return []
    return [*writers(path), *_mounts(number), *_holders(number)]


def used(paths: Sequence[str]) -> set[str]:
    """Those of the volumes at ``paths`` that somebody has open for writing; blocks."""
    found = seen_written_to(paths)
    for path in paths:
        with suppress(OSError):
            number = os.stat(path).st_rdev
            if next(_mounts(number), None) or next(_holders(number), None):
                found.add(path)
    return found


def _mounts(number: int) -> Iterator[str]:
    """Where the volume or a partition of it is mounted."""
    numbers = {f"{os.major(part)}:{os.minor(part)}" for part in (number, *_partitions(number))}
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            words = line.split()
            if words[2] in numbers:
                yield f"mounted at {words[4]}"


def _partitions(number: int) -> Iterator[int]:
    block = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    with suppress(OSError):
        for entry in os.listdir(block):
            with suppress(OSError, ValueError), open(f"{block}/{entry}/dev", encoding="ascii") as file:
                major, minor = file.read().split(":")
                yield os.makedev(int(major), int(minor))


def _holders(number: int) -> Iterator[str]:
    """Device mapper, RAID and such that are built on it."""
    with suppress(OSError):
        for holder in sorted(os.listdir(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/holders")):
            yield f"/dev/{holder}"
