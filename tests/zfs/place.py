"""A place with a ZFS pool for the crash test's load and judge, which see it through ``zfs`` alone."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagestore.streams.applier import StreamApplier
from tests.crash.files import Row
from tests.crash.process import Place
from tests.zfs.pools import pool_on_file
from tests.zfs.seen import rows_of

PIECE_BYTES = 1 << 20


class ZfsPlace(Place, frozen=True, kw_only=True):
    """``zfs`` is the pool's name."""

    zfs: str

    @property
    def address(self) -> str:
        return f"zfs:{self.zfs}"

    @property
    def pool_name(self) -> str:
        return self.zfs

    @property
    def disks(self) -> str:
        return f"/dev/zvol/{self.zfs}"

    @property
    def flushes(self) -> bool:
        return True

    @property
    def force_overrides(self) -> bool:
        return False

    def rows(self) -> dict[str, Row]:
        return rows_of(self.zfs)

    def sha256_of(self, row: Row) -> str:
        """Of a volume by its node, as a hypervisor reads it; of a snapshot as it is sent."""
        if row.kind == "snapshot":
            return sha256_sent(f"{self.zfs}/{row.name}")
        with open(f"{self.disks}/{row.name}", "rb") as node:
            return hashlib.file_digest(node, "sha256").hexdigest()

    def strays(self, rows: dict[str, Row]) -> list[str]:
        found = [f"on its way: {name}" for name in rows if "/." in name]
        found += [
            f"{row.name} has no node"
            for row in rows.values()
            if row.kind == "volume" and not os.path.exists(f"{self.disks}/{row.name}")
        ]
        return found


def sha256_sent(snapshot: str) -> str:
    """Of what a full send stream of a snapshot holds (a clone's too)."""
    with (
        subprocess.Popen(["zfs", "send", snapshot], stdout=subprocess.PIPE) as sending,
        tempfile.TemporaryFile() as file,
    ):
        assert sending.stdout is not None
        applier = StreamApplier(file.fileno())
        while piece := sending.stdout.read(PIECE_BYTES):
            applier.feed(piece)
        applier.finish()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def zfs_place(directory: Path) -> Iterator[ZfsPlace]:
    """A place with a new ZFS pool, destroyed at the end."""
    name = directory.name.replace("-", "")
    with pool_on_file(name, directory) as pool:
        yield ZfsPlace(directory=directory, zfs=pool)
