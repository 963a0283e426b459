"""Looks at directories: a directory pool, the journal, the room on their disks."""

import os
import pwd
import shlex
from collections.abc import Iterator

from imagestore.config import Config
from imagestore.doctor.finding import Finding, fine, note, problem
from imagestore.errors import ImageStoreError
from imagestore.events.filesystem import mount_of, refuse_unsafe
from imagestore.events.reader import head
from imagestore.pools.directory.datafile import can_reflink
from imagestore.pools.directory.opening import Layout
from imagestore.sizes import show_bytes

SHARING = ("xfs", "btrfs")
"""File systems whose files can share blocks."""

FLEETING = ("tmpfs", "ramfs", "overlay")
"""What is gone with the machine, or with the container."""

LEAST_POOL_BYTES = 1 << 30
LEAST_JOURNAL_BYTES = 256 << 20
"""Four segments of the journal."""


def look_at_directory_pool(path: str) -> Iterator[Finding]:
    layout = Layout(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        yield problem("pool", f"{path} is not a directory", f"mv {shlex.quote(path)} {shlex.quote(path)}.old")
        return
    if not os.path.isdir(path):
        yield _to_be_made("pool", path)
        if os.path.isdir(os.path.dirname(path)):
            yield _sharing(os.path.dirname(path))
        return
    inside = layout.private if os.path.isdir(layout.private) else path
    yield _writable("pool", inside, f"{path} is there and can be written")
    yield _sharing(inside)


def _to_be_made(what: str, path: str) -> Finding:
    """A place that the store will make, if it may: its parent has to be there."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        return problem(what, f"{parent} does not exist", f"mkdir -p {shlex.quote(parent)}")
    return _writable(what, parent, f"{path} will be made")


def _writable(what: str, directory: str, found: str) -> Finding:
    if os.access(directory, os.W_OK | os.X_OK):
        return fine(what, found)
    user = _user()
    return problem(what, f"{directory} cannot be written by {user}", f"chown {user} {shlex.quote(directory)}")


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def filesystem_of(directory: str) -> str:
    """The type of the file system, "" if the kernel does not say."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return mount_of(file.read(), os.path.realpath(directory))[0]


def _sharing(directory: str) -> Finding:
    kind = filesystem_of(directory)
    try:
        shares = can_reflink(directory, f".doctor-{os.getpid()}")
    except OSError as error:
        shares = kind in SHARING
        if not shares:
            return note("clones", f"not tried in {directory}: {error.strerror}", "sudo imagestore doctor")
    if shares:
        return fine(
            "clones",
            f"{kind or 'the file system'} shares blocks: a clone or a snapshot is instant and takes no room",
        )
    return note(
        "clones",
        f"{kind or 'the file system'} does not share blocks: a clone or a snapshot is a full copy",
        "put the pool on XFS or Btrfs (mkfs.xfs DEVICE), or use --pool zfs:NAME",
    )


def look_at_journal(config: Config) -> Iterator[Finding]:
    path = config.journal
    if not os.path.isdir(path):
        if os.path.lexists(path):
            moved = f"mv {shlex.quote(path)} {shlex.quote(path)}.old"
            yield problem("journal", f"{path} is not a directory", moved)
            return
        yield _to_be_made("journal", path)
    else:
        yield _known(path)
    there = _nearest(path)
    kind = filesystem_of(there) or "a file system that the kernel does not name"
    try:
        refuse_unsafe(there, allow=False)
    except ImageStoreError as error:
        yield problem("flushes", str(error), error.detail.removeprefix("run: "))
        return
    if kind in FLEETING:
        elsewhere = f"imagestore init --pool {shlex.quote(config.pool)} --journal DIRECTORY-ON-A-DISK"
        yield note("flushes", f"{there} lies on {kind}, which does not outlast the machine", elsewhere)
    else:
        yield fine("flushes", f"{there} lies on {kind}")


def _known(path: str) -> Finding:
    """A journal that is there: whether it can be read and written."""
    right = _writable("journal", path, "")
    if right.verdict != "ok":
        return right
    try:
        seq, _ = head(path)
    except ImageStoreError as error:
        return problem("journal", str(error), f"imagestore journal verify --journal {shlex.quote(path)}")
    except OSError as error:
        return problem(
            "journal", f"{error.filename or path}: {error.strerror}", f"ls -la {shlex.quote(path)}"
        )
    return fine("journal", f"{path} is there, up to seq {seq}")


def _nearest(path: str) -> str:
    """``path``, or the nearest directory above it that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def look_at_space(config: Config) -> Iterator[Finding]:
    driver, place = config.pool_address
    if driver == "dir":
        yield _room("room in the pool", place, LEAST_POOL_BYTES)
    yield _room("room for the journal", config.journal, LEAST_JOURNAL_BYTES)


def _room(what: str, path: str, least_bytes: int) -> Finding:
    there = _nearest(path)
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    if free < least_bytes:
        found = f"{show_bytes(free)} are free, {show_bytes(least_bytes)} are little enough"
        return problem(what, found, f"du -xh --max-depth=2 {shlex.quote(there)} | sort -h | tail")
    return fine(what, f"{show_bytes(free)} are free")
