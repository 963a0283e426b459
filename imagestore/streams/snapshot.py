"""What a send stream says about the snapshot it carries.

Owns one Struct that reader, writer and pool drivers share.  It knows neither
records nor files.
"""

from msgspec import Struct


class SnapshotInfo(Struct, frozen=True, kw_only=True, gc=False):
    """One snapshot of a volume, as a stream names it.

    ``name`` is the stream's full name, ``pool/volume@snapshot`` (the dataset
    part is the sender's and may be anything).  ``guid`` identifies the
    snapshot for ever, ``from_guid`` its base (0 for a full stream).  Sizes are
    bytes, ``creation_seconds`` counts from 1970.  ``is_clone`` tells that the
    base lives in another dataset, the clone's origin.
    """

    name: str
    guid: int
    volsize: int
    volblocksize: int
    creation_seconds: int = 0
    from_guid: int = 0
    is_clone: bool = False

    @property
    def dataset(self) -> str:
        """The sender's dataset, ``pool/volume``."""
        return self.name.partition("@")[0]

    @property
    def snapshot(self) -> str:
        """What stands after the ``@``."""
        return self.name.partition("@")[2]
