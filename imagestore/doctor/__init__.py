"""The doctor: whether a store with these settings would work on this machine, looked at without starting one.

Owns the list of what is looked at and its order; each look is in the module
of its kind.  Promises: a look changes nothing but two files that it makes and
removes at once to try whether a file system shares blocks, never raises, and
names the command that mends what it finds.  A store may be running meanwhile.
"""

from collections.abc import Iterator

from imagestore.config import Config
from imagestore.doctor.finding import Finding
from imagestore.doctor.machine import look_at_clock, look_at_programs, look_at_python
from imagestore.doctor.network import look_at_image_service, look_at_port
from imagestore.doctor.places import look_at_directory_pool, look_at_journal, look_at_space
from imagestore.doctor.zfspool import look_at_zfs_pool

__all__ = ["Finding", "examine"]


def examine(config: Config) -> Iterator[Finding]:
    """What is found, look by look; the slow ones (the network) last.  Blocks."""
    yield look_at_python()
    yield look_at_clock()
    driver, place = config.pool_address
    yield from look_at_directory_pool(place) if driver == "dir" else look_at_zfs_pool(place)
    yield from look_at_journal(config)
    yield from look_at_space(config)
    yield from look_at_programs()
    yield look_at_port(config)
    yield look_at_image_service(config)
