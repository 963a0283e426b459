"""Whole files that become data files of a directory pool, without being copied.

A file gets a second name among the data files; one transaction makes the
volume and its snapshot of it.  A crash before that leaves a data file that
nobody names, which the next open removes; the file itself stays where it was.
"""

import os
from functools import partial

from imagestore.errors import ContentRefused
from imagestore.pools.base import Dataset, Tags
from imagestore.pools.directory import rules
from imagestore.pools.directory.creating import BLOCK_SIZE_BYTES
from imagestore.pools.directory.datafile import SNAPSHOT_MODE, VOLUME_MODE
from imagestore.pools.directory.ground import Ground
from imagestore.pools.directory.links import check_name
from imagestore.pools.directory.receiving import Arrived, NewVolume
from imagestore.pools.directory.sinks import Brought


class DirectoryIntake:
    """A :class:`imagestore.pools.base.Intake`."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    @property
    def directory(self) -> str:
        return self._ground.layout.spool

    async def take_over(
        self, path: str, size: int, name: str, tags: Tags, *, snapshot: str, snapshot_tags: Tags
    ) -> tuple[Dataset, ...]:
        ground = self._ground
        volume = NewVolume(ground, name, tags, snapshot_tags)

        def check() -> None:
            if size <= 0 or size % rules.SECTOR_BYTES:
                raise ContentRefused(
                    f"a raw disk image of {size} bytes: the length must be a nonzero multiple of "
                    f"{rules.SECTOR_BYTES}"
                )
            volume.check()
            check_name(f"{name}@{snapshot}")

        await ground.look("receiving a volume", check)
        async with ground.new_files() as made:
            file = await ground.work("receiving a volume", partial(self._name, path, made))
            brought = Brought(snapshot=snapshot, file=made[-1], volsize=size, block_size=BLOCK_SIZE_BYTES)
            return await volume.publish(Arrived(file=file, brought=[brought], made=made))

    def _name(self, path: str, made: list[str]) -> str:
        """Make the file durable, and the volume's and the snapshot's data file of it."""
        files = self._ground.files
        os.chmod(path, VOLUME_MODE)
        made.append(files.adopt(path))
        files.sync(made[0])
        self._ground.checkpoint("received")
        if files.reflink:
            made.append(files.copy(made[0], mode=SNAPSHOT_MODE))
        else:
            made.append(files.link(made[0], mode=SNAPSHOT_MODE))
        return made[0]
