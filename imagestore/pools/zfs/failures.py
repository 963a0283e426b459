"""What the numbers of libzfs_core and the texts of ``zfs`` and ``zpool`` mean: one place for both.

The commands have no other error codes than their texts.  Those matched here
were recorded off OpenZFS 2.1.11 (``tests/pools/zfs_texts.jsonl``), in the C
locale.  A text that is not known becomes a ``PoolError`` that quotes it.
"""

import errno
import os
import re
from collections.abc import Callable, Sequence

from imagestore import names
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ImageStoreError,
    InUse,
    InvalidArgument,
    Modified,
    NoSpace,
    NotFound,
    NotValid,
    PoolError,
    StreamError,
)

Made = Callable[[str, str, str], ImageStoreError]
"""Makes the error from the dataset that the text names (relative), the pool, and the text."""

NOTHING_OVERRIDES = "stop the process; on ZFS nothing overrides a volume that is open"


def failure(words: Sequence[str], complaint: str, pool: str) -> ImageStoreError:
    """The error for a command that failed with ``complaint`` on stderr; ``words`` are its arguments."""
    text = " ".join(line.strip() for line in complaint.splitlines() if line.strip())
    for pattern, make in _MEANINGS:
        match = pattern.search(text)
        if match is not None:
            # The text of a failed rename names what was to be renamed, and not what is in its way.
            is_rename = tuple(words[:2]) == ("zfs", "rename")
            named = words[-1] if is_rename else _first_name(text)
            return make(relative(named, pool), pool, text)
    command = " ".join(words[:2])
    return PoolError(f"{command} failed: {text or 'it said nothing'}"[:600])


def failure_of_number(doing: str, number: int, name: str, pool: str) -> ImageStoreError:
    """The error for a call that failed with ``number``; ``name`` is what it was to make or change."""
    match number:
        case errno.EEXIST:
            return AlreadyExists.named(name)
        case errno.ENOENT:
            return NotFound(detail=f"{doing} {name}: it, its parent or its origin does not exist")
        case errno.ENOSPC | errno.EDQUOT:
            return NoSpace(detail=f"{doing} {name}: {os.strerror(number).lower()}")
        case errno.EBUSY:
            return in_use(name, ())
        case errno.EACCES:
            return locked(name, pool)
        case errno.EPERM:
            return _no_rights(name, pool, f"{doing} {name}".strip())
        case errno.ENOTSUP:
            return _lacks_feature(name, pool, f"{doing} {name}")
        case errno.EINVAL | errno.ENAMETOOLONG | errno.EDOM | errno.ERANGE:
            return InvalidArgument(detail=f"{doing} {name}: {os.strerror(number).lower()}")
        case errno.EAGAIN:
            return _suspended(name, pool, "")
        case errno.EROFS:
            return PoolError(
                f"pool {pool} is imported read-only", detail=f"zpool export {pool} && zpool import {pool}"
            )
        case 1033:  # ZFS_ERR_WRONG_PARENT
            return NotValid(detail=f"{names.parent(name)} is a volume and holds no other datasets")
    what = os.strerror(number) if number < 1024 else "see zfs_errno_t in OpenZFS's sys/fs/zfs.h"
    return PoolError(f"{doing} {name} failed with error {number}: {what}")


def relative(name: str, pool: str) -> str:
    """The name without the pool in front."""
    if name == pool:
        return ""
    if name.startswith((f"{pool}/", f"{pool}@")):
        return name[len(pool) :].lstrip("/")
    return name


def _first_name(text: str) -> str:
    match = _NAMED.search(text)
    return next((group for group in match.groups() if group), "") if match else ""


_NAMED = re.compile(
    r"'([^']+)'|snapshot ([^\s']+@[^\s']+):|destination (\S+) has been|most recent snapshot of (\S+) does"
)


def in_use(name: str, users: Sequence[str]) -> InUse:
    """``users`` are of the form ``pid 4242 qemu-system-x86``; may be empty."""
    error = InUse.by(name, users)
    error.detail = NOTHING_OVERRIDES
    return error


def _suspended(_name: str, pool: str, _text: str) -> ImageStoreError:
    return PoolError(
        f"pool {pool} is suspended: its disks do not answer",
        detail=f"see zpool status {pool}; when the disks are back: zpool clear {pool}",
    )


def _missing_pool(_name: str, pool: str, _text: str) -> ImageStoreError:
    return PoolError(
        f"there is no pool {pool}",
        detail=f"zpool list shows those there are; one that was exported: zpool import {pool}",
    )


NEEDS_ROOT = (
    "run the store as root: OpenZFS lets only root run channel programs, which rollbacks and deletions are "
    "made of; no zfs allow grants that"
)


def _no_rights(name: str, pool: str, text: str) -> ImageStoreError:
    """What is denied to root is locked: OpenZFS has the same words for both."""
    if os.geteuid() == 0:
        return locked(name, pool)
    return PoolError(f"not permitted: {text}", detail=NEEDS_ROOT)


def locked(name: str, pool: str, _text: str = "") -> ImageStoreError:
    # What was to be made is not there; what it was to be in has the same key.
    above = names.full(names.parent(name), pool)
    return PoolError(
        f"{name or 'a dataset'} is encrypted and its key is not loaded",
        detail=f'zfs load-key "$(zfs get -H -o value encryptionroot {above})"',
    )


def _lacks_feature(_name: str, pool: str, text: str) -> ImageStoreError:
    return PoolError(
        f"pool {pool} lacks a feature: {text}",
        detail=f"zpool upgrade {pool} (older systems cannot import it afterwards)",
    )


def _not_loaded(_name: str, _pool: str, _text: str) -> ImageStoreError:
    return PoolError(
        "OpenZFS is installed, but its kernel module is not loaded",
        detail="load it: modprobe zfs (Debian: apt-get install zfs-dkms and the kernel's headers build it)",
    )


def _quoted(kind: type[ImageStoreError]) -> Made:
    return lambda _name, _pool, text: kind(detail=text)


_MEANINGS: tuple[tuple[re.Pattern[str], Made], ...] = tuple(
    (re.compile(pattern), make)
    for pattern, make in (
        (r"pool I/O is currently suspended", _suspended),
        (r"(ZFS|zfs) modules? (cannot be auto-loaded|are not loaded|is not loaded)", _not_loaded),
        (r"no such pool", _missing_pool),
        (r"[Pp]ermission denied|[Oo]peration not permitted", _no_rights),
        (r"must be upgraded to", _lacks_feature),
        (
            r"out of space|No space left on device|quota exceeded|Disk quota exceeded|"
            r"size is greater than available space|exceeds? (the )?quota|reservation exceeds",
            lambda name, _pool, text: NoSpace(detail=text),
        ),
        (
            r"already exists|destination '[^']*' exists",
            lambda name, _pool, text: AlreadyExists.named(name, detail=text),
        ),
        (r"dataset is busy|Device or resource busy|pool or dataset is busy", lambda n, _p, _t: in_use(n, ())),
        (
            r"(parent|parent '[^']*') is not a filesystem",
            _quoted(NotValid),
        ),
        (
            r"has been modified",
            lambda name, _pool, _text: Modified.since(name, "its newest snapshot"),
        ),
        (
            r"does not match incremental source",
            lambda name, _pool, text: Blocked(
                f"a newer snapshot of {name} than the stream's base exists", blockers=[name], detail=text
            ),
        ),
        (
            r"does not exist|no such dataset|could not find any snapshots",
            _quoted(NotFound),
        ),
        (
            r"invalid (dataset|snapshot|character)|name is too long|missing dataset name|bad numeric value|"
            r"must be a multiple|must be power of 2|is too large|does not apply to datasets|missing '@'",
            _quoted(InvalidArgument),
        ),
        (
            r"invalid stream|invalid backup stream|incomplete stream|failed to read from stream|"
            r"checksum mismatch|bad magic number|stream has unsupported feature",
            lambda _name, _pool, text: StreamError(f"zfs receive refused the stream: {text}"),
        ),
        (
            r"has (children|dependent clones)|filesystem has children",
            lambda _name, _pool, text: Blocked(text),
        ),
        (
            r"encryption root|key (is )?not loaded|[Kk]ey must be loaded",
            locked,
        ),
    )
)
