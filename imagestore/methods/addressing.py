"""What every method needs: the running actors, what a name means, whom to ask, how rows are answered.

Knows nothing of any single method.
"""

import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct, structs

from imagestore import names
from imagestore.actors.archive import Archive
from imagestore.actors.base import Reply, deadline_in
from imagestore.actors.commands import (
    Command,
)
from imagestore.actors.decisions import decide
from imagestore.actors.fetcher import Fetcher
from imagestore.actors.guest import Guests
from imagestore.actors.history import Ticket
from imagestore.actors.imagedecisions import image_named
from imagestore.actors.keys import Keys
from imagestore.actors.mutator import Mutate
from imagestore.actors.operation import Operations
from imagestore.actors.plans import Plan, Settled, is_visible
from imagestore.actors.receptions import Receptions
from imagestore.actors.volumes import Volumes
from imagestore.errors import (
    ImageStoreError,
    NotFound,
    TemporarilyUnavailable,
)
from imagestore.events.feed import Feed
from imagestore.events.journal import Journal
from imagestore.model import (
    MIB,
    Snapshot,
    Volume,
)
from imagestore.pools.base import Dataset
from imagestore.service import Caller

_METHODS = {
    "DeleteGuestDisks": "DeleteGuestsDisks",
    "Adopt": "AdoptDataset",
    "Release": "ReleaseDataset",
    "ReapImage": "DeleteImage",
    "ReviveImage": "RequestImage",
    "SetAlias": "SetImageAlias",
    "RemoveAlias": "RemoveImageAlias",
}
"""What a command is called while it waits, where that is not its own name."""


class Actors:
    """The actors of a running store, as the methods address them."""

    def __init__(
        self,
        operations: Operations,
        fetcher: Fetcher,
        guests: Guests,
        volumes: Volumes,
        receptions: Receptions,
        archive: Archive,
        keys: Keys,
        feed: Feed,
        journal: Journal,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.operations = operations
        self.zpool = operations.zpool
        self.fetcher = fetcher
        self.guests = guests
        self.volumes = volumes
        self.receptions = receptions
        self.archive = archive
        self.keys = keys
        self.feed = feed
        self.journal = journal
        self.now_ns = now_ns


def unbound(caller: Caller) -> Caller:
    """For what is many operations and may be asked for again: none of them binds the caller's key."""
    return structs.replace(caller, binding=None)


class Foretold(Exception):
    """A dry run got to where the change would be asked for: how it was judged."""

    def __init__(self, judged: Settled | Plan) -> None:
        super().__init__("a dry run")
        self.judged = judged


class Addressing:
    """The base of all groups of methods."""

    _actors: Actors | None = None
    _not_serving: str = "store is not running"

    def _running(self) -> Actors:
        if self._actors is None:
            raise TemporarilyUnavailable(self._not_serving)
        return self._actors

    @property
    def pool_name(self) -> str:
        return self._running().zpool.pool

    def _relative(self, dataset: str) -> str:
        """A dataset's name as the journal has it; it need not exist any more."""
        pool = self.pool_name
        return "" if dataset == pool else dataset.removeprefix(f"{pool}/")

    def _full(self, name: str) -> str:
        return names.full(name, self.pool_name)

    def _resolve(self, text: str) -> str:
        """The relative name meant: an existing one wins. Raises NotValid."""
        candidates = names.candidates(text, self.pool_name)
        return next((name for name in candidates if self._row(name) is not None), candidates[-1])

    def _named(self, text: str) -> Dataset | None:
        return self._row(self._resolve(text))

    def _image_named(self, text: str) -> str:
        """The id of the image that ``text`` means, an id or an alias."""
        return image_named(text, self._running().operations.state)

    def _row(self, name: str) -> Dataset | None:
        """The row of a dataset that is listed."""
        actors = self._running()
        row = actors.zpool.view.get(name)
        return row if row is not None and is_visible(row, actors.operations.state) else None

    def _existing(self, text: str) -> Dataset:
        row = self._row(self._resolve(text))
        if row is None:
            raise NotFound(detail=text)
        return row

    def _listed(self, name: str) -> Sequence[Dataset]:
        actors = self._running()
        state = actors.operations.state
        return [row for row in actors.zpool.view.under(name) if is_visible(row, state)]

    def _queued(
        self,
        method: str,
        subject: str,
        caller: Caller,
        refuse: Callable[[ImageStoreError], None] | None = None,
        *,
        shown: Struct | None = None,
    ) -> str:
        """Give a change its operation. ``shown`` is what its answer shows although it will be gone."""
        binding = caller.binding
        ticket = Ticket(method=method, subject=subject, principal=caller.principal, receipt=caller.receipt)
        if binding is not None:
            text = "" if shown is None else msgspec.json.encode(shown).decode()
            ticket = structs.replace(ticket, key=binding.key, request=binding.request, shown=text)
        return self._running().operations.history.queue(ticket, refuse)

    async def _perform(
        self, name: str, command: Command, caller: Caller, *, shown: Struct | None = None
    ) -> Sequence[Dataset]:
        """Hand ``command`` to the actor that owns ``name`` and wait for its answer.

        Raises Foretold, if the caller only asks what would happen.
        """
        actors = self._running()
        if caller.dry_run:
            raise Foretold(decide(command, actors.operations.state, actors.zpool.view))
        reply: Reply[tuple[Dataset, ...]] = Reply()
        method = _METHODS.get(type(command).__name__, type(command).__name__)
        operation = self._queued(method, name, caller, reply.fail, shown=shown)
        message = Mutate(
            command=command,
            principal=caller.principal,
            deadline=deadline_in(caller.timeout),
            reply=reply,
            operation=operation,
        )
        try:
            self._post(name, message)
        except ImageStoreError:
            actors.operations.history.drop(operation)
            raise
        return await reply.wait()

    def _post(self, name: str, message: Mutate) -> None:
        actors = self._running()
        parts = name.partition("@")[0].split("/")
        if parts[0] == names.IMAGES and len(parts) > 1:
            actors.fetcher.post_nowait(message)
        elif parts[0] == names.GUESTS and len(parts) > 1:
            actors.guests.post_nowait(parts[1], message)
        else:
            actors.volumes.post_nowait(message)

    # -- answers ----------------------------------------------------------------------

    def _volume(self, row: Dataset) -> Volume:
        device = self._running().zpool.driver.device(row.name) if row.kind == "volume" else ""
        return Volume(id=self._full(row.name), size=row.volsize // MIB, device=device)

    def _snapshot(self, row: Dataset) -> Snapshot:
        return Snapshot(id=self._full(row.name), size=row.written // MIB)
