"""The send streams that clients bring: one of a whole volume, and one from its snapshot to the next."""

from functools import cache

from imagestore.streams.snapshot import SnapshotInfo
from imagestore.streams.writer import write_stream
from tests.simulation.memoryreceiver import memory_file
from tests.simulation.network import token_of
from tests.simulation.poolground import BLOCK_BYTES, as_blocks

SIZE_BYTES = 16 * BLOCK_BYTES
FULL, INCREMENT = "a", "b"
"""The snapshots that they bring; the second stream is from the first one's."""

CONTENTS = {FULL: token_of("brought as a"), INCREMENT: token_of("brought as b")}


@cache
def stream(snapshot: str) -> bytes:
    """The stream that brings ``snapshot``."""
    base = _info(FULL) if snapshot == INCREMENT else None
    info = _info(snapshot, from_guid=base.guid if base is not None else 0)
    with memory_file(as_blocks(CONTENTS[snapshot]), SIZE_BYTES) as file:
        if base is None:
            return b"".join(map(bytes, write_stream(file, info)))
        with memory_file(as_blocks(CONTENTS[FULL]), SIZE_BYTES) as before:
            return b"".join(map(bytes, write_stream(file, info, base=base, base_fd=before)))


def _info(snapshot: str, *, from_guid: int = 0) -> SnapshotInfo:
    return SnapshotInfo(
        name=f"elsewhere/volume@{snapshot}",
        guid=1000 + ord(snapshot),
        volsize=SIZE_BYTES,
        volblocksize=8192,
        creation_seconds=1_600_000_000,
        from_guid=from_guid,
    )
