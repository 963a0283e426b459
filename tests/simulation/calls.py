"""The calls that clients make: data, so that a history can be shown, cut and repeated."""

from msgspec import Struct

SHARED = "x"
"""Below this everybody works, at the same time."""


class Disk(Struct, frozen=True):
    """A clone of ``image``, or blank with ``size`` MiB."""

    image: str = ""
    size: int = 0


class Call(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of one client, ``pause`` seconds after its last one was answered.

    ``patience``: after so many seconds the caller goes away (0: never).
    ``in_use``: a guest has the disk open meanwhile.  ``keyed``: with an
    idempotency key; it is made again in the next life if its answer is lost.
    """

    kind: str
    name: str = ""
    argument: str = ""
    size: int = 0
    disks: tuple[Disk, ...] = ()
    flag: bool = False
    force: bool = False
    in_use: bool = False
    keyed: bool = False
    pause: float = 0.0
    patience: float = 0.0
