"""Whether a journal and a pool belong together: decided before either is changed.

A pool carries the UUID of its journal and how often that journal had been
opened.  Pure; every refusal names the command that settles it.
"""

from msgspec import Struct

from imagestore.errors import PoolMismatch
from imagestore.pools.base import Mark


class JournalSide(Struct, frozen=True, kw_only=True):
    """What the journal says, as recovered and before this life's opening is journaled.

    ``pool`` is the pool that it was attached to, "" if to none yet.
    """

    directory: str
    uuid: str
    epoch: int
    pool: str


def check(journal: JournalSide, mark: Mark | None, address: str) -> None:
    """Raises PoolMismatch unless ``journal`` may be served on the pool at ``address``."""
    anew = f"to give the pool a new journal, its history lost: {_recover(address, 'NEW-DIRECTORY')}"
    if mark is None:
        if journal.pool:
            raise PoolMismatch(
                f"journal {journal.directory} describes pool {journal.pool}, "
                f"and {address} carries no mark of it",
                detail=f"restore that pool, or begin afresh: imagestore serve --pool {address} "
                "--journal NEW-DIRECTORY",
            )
        return
    if journal.epoch == 0:
        raise PoolMismatch(
            f"pool {address} belongs to journal {mark.journal}, and {journal.directory} is empty",
            detail="give the directory of that journal with --journal; if it is lost: "
            + _recover(address, journal.directory),
        )
    if mark.journal != journal.uuid:
        raise PoolMismatch(
            f"pool {address} belongs to journal {mark.journal}, not to {journal.uuid} in {journal.directory}",
            detail=f"give the directory of that journal with --journal; {anew}",
        )
    if mark.epoch > journal.epoch:
        raise PoolMismatch(
            f"journal {journal.directory} is older than pool {address}: it was opened {journal.epoch} times, "
            f"the pool saw opening {mark.epoch}",
            detail=f"restore the newest copy of the journal; {anew}",
        )


def _recover(address: str, directory: str) -> str:
    return f"imagestore recover --pool {address} --journal {directory}"
