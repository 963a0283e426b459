"""Whether a directory lies on a file system whose flush means something.

Owns the one case known to lie on purpose: a ZFS dataset with ``sync=disabled``.
"""

import logging
import os
import re
import subprocess
from collections.abc import Callable

from imagestore.errors import JournalError

logger = logging.getLogger("imagestore.journal")

_OCTAL = re.compile(r"\\([0-7]{3})")


def mount_of(mountinfo: str, path: str) -> tuple[str, str]:
    """Type and source of the mount that ``path`` (absolute, resolved) lies on.

    ``mountinfo`` is the text of /proc/self/mountinfo.  Of mounts on one another
    the last one counts.  ("", "") if none fits.
    """
    best = ""
    found = ("", "")
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        if not dash or len(fields) < 5 or len(more) < 2:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best = point
            found = (more[0], _OCTAL.sub(lambda match: chr(int(match[1], 8)), more[1]))
    return found


def sync_property(dataset: str) -> str:
    """The ZFS property ``sync`` of ``dataset``, "" if it cannot be asked for."""
    try:
        answer = subprocess.run(  # noqa: S603 (a fixed command, no shell, the dataset comes from the kernel)
            ["zfs", "get", "-Hp", "-o", "value", "sync", dataset],  # noqa: S607 (found by PATH, as everywhere)
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def _mountinfo() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def refuse_unsafe(
    directory: str,
    *,
    allow: bool,
    mountinfo: Callable[[], str] = _mountinfo,
    sync: Callable[[str], str] = sync_property,
) -> None:
    """Refuse a journal directory whose flushes are no-ops; with ``allow`` only complain.  Blocks.

    Raises:
        JournalError: it lies on a ZFS dataset with sync=disabled.
    """
    kind, dataset = mount_of(mountinfo(), os.path.realpath(directory))
    if kind != "zfs" or sync(dataset) != "disabled":
        return
    text = f"journal {directory} lies on ZFS dataset {dataset} with sync=disabled: nothing would be durable"
    if not allow:
        raise JournalError(text, detail=f"run: zfs set sync=standard {dataset}; or move the journal")
    logger.critical("%s; going on because the settings allow it", text)
