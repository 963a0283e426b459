"""What a stream is written from.

Owns the Structs that the writer's two halves share; knows no records.
"""

from typing import Literal

from msgspec import Struct

from imagestore.streams.snapshot import SnapshotInfo

Compression = Literal["lz4"]


class PackageMember(Struct, frozen=True, kw_only=True):
    """One snapshot: where its content is, and what it is incremental from."""

    source_fd: int
    snapshot: SnapshotInfo
    base_fd: int | None = None
    base: SnapshotInfo | None = None
