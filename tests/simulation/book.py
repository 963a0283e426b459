"""What the clients were told, and what follows from it for the pool.

Each client has a part of the pool of its own, of which all is known
(``expected``); what everybody works on is judged by ``sightings``.
"""

from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from imagestore import names
from imagestore.errors import (
    FetchFailed,
    ImageStoreError,
    JournalError,
    NoSpace,
    NotFound,
    OutcomeUnknown,
    PoolError,
    ReadOnly,
    Stopping,
    TemporarilyUnavailable,
)
from tests.simulation import expected
from tests.simulation.calls import SHARED, Call
from tests.simulation.expected import Model, Thing
from tests.simulation.network import TOKEN_BYTES
from tests.simulation.poolground import PoolGround
from tests.simulation.sightings import Change, Sightings

PASSING = (NoSpace, TemporarilyUnavailable, ReadOnly, Stopping, JournalError)
"""Refusals that any call may meet."""


STAGING = f"{names.IMAGES}/{names.STAGING_PREFIX}"


class Wrong(AssertionError):
    """The store has not done what it must."""


class Book:
    def __init__(self, clients: int, *, pool_trouble: bool) -> None:
        self.models: list[Model] = [{} for _ in range(clients)]
        self.maybe: list[Model | None] = [None for _ in range(clients)]
        """The model if the client's last call, whose outcome nobody knows, did happen."""
        self.happened: list[bool | None] = [None for _ in range(clients)]
        """Whether that call did happen, once that was seen; None if nobody can tell."""
        self._hidden: list[bool] = [False for _ in range(clients)]
        """Whether it may have happened before anybody could tell, and been written over since."""
        self.shared = Sightings()
        self.now = 0
        self.acknowledged = self.refused = self.unknown = 0
        self.may_pass = (*PASSING, PoolError) if pool_trouble else PASSING

    def tick(self) -> int:
        self.now += 1
        return self.now

    # -- calls ------------------------------------------------------------------------

    def begin(self, client: int, call: Call, *, again: bool = False) -> "Entry":
        """``again``: the call of an earlier life, which must not happen twice."""
        changes = _shared_changes(call, self.tick())
        for change in changes:
            change.sure &= not again  # it may have happened before, and been undone by others since
            self.shared.add(change)
        if not changes:
            try:
                self.maybe[client] = expected.after(self.models[client], call)
            except ImageStoreError:
                self.maybe[client] = None
        if again and self.happened[client]:
            self.maybe[client] = None  # it must not happen twice
        self._hidden[client] = again and self.happened[client] is None
        if not again:
            self.happened[client] = None
        return Entry(self, client, call, changes, again=again)

    def resolve(self, client: int, ground: PoolGround) -> list[str]:
        """See what came of a client's last call, which has ended; says what is wrong."""
        return self._compare_own(client, ground)

    @staticmethod
    def is_shared(call: Call) -> bool:
        """Whether it is about what everybody works on."""
        return bool(_shared_changes(call, 0))

    def wrote(self, client: int, name: str, content: bytes) -> None:
        self.models[client] = expected.written(self.models[client], name, content)

    # -- looks ------------------------------------------------------------------------

    def compare(self, ground: PoolGround, *, fetching: set[str]) -> list[str]:
        """What is wrong with the pool; what is right is taken for known.

        Nothing is under way but the fetches of the images ``fetching``.
        """
        wrong = []
        for client in range(len(self.models)):
            wrong += self._compare_own(client, ground)
        seen = set(_shared_names(ground))
        for name in sorted({*self.shared.made_names(), *seen}):
            fault = self.shared.fault(name, there=name in seen)
            if fault:
                wrong.append(fault)
        self.shared.settle(seen, self.tick(), being_made={names.image(image) for image in fetching})
        return wrong

    def stranger_made(self, name: str) -> None:
        self.shared.know(name, self.tick())

    def stranger_took(self, name: str) -> None:
        self.shared.know_gone(name, self.tick())

    def _compare_own(self, client: int, ground: PoolGround) -> list[str]:
        actual = own_part(client, ground)
        before, after = self.models[client], self.maybe[client]
        self.maybe[client] = None
        if after is not None and after != before:
            self.happened[client] = actual == after or (None if self._hidden[client] else False)
        if actual == before:
            return []
        if after is not None and actual == after:
            self.models[client] = after
            return []
        return [f"client {client}: {difference(before, after, actual)}"]


class Entry:
    """A call under way."""

    def __init__(self, book: Book, client: int, call: Call, changes: list[Change], *, again: bool) -> None:
        self._again = again and not changes
        self._book = book
        self._client = client
        self._call = call
        self._changes = changes

    def succeeded(self, ground: PoolGround) -> None:
        """Raises Wrong if it should have been refused, or was done twice."""
        book, now = self._book, self._book.tick()
        book.acknowledged += 1
        for change in self._changes:
            change.ended = now
            change.happened = True
        if self._changes:
            return
        if self._again:
            self._check_once(ground)
            return
        after = book.maybe[self._client]
        if after is None:
            raise Wrong(f"client {self._client}: {self._call} succeeded and should have been refused")
        book.models[self._client] = after
        book.maybe[self._client] = None

    def _check_once(self, ground: PoolGround) -> None:
        """What is there now is right if the call has happened once, in whichever life."""
        book, client = self._book, self._client
        happened = book.happened[client]
        if happened:
            book.maybe[client] = None
        elif happened is False and book.maybe[client] is not None:
            book.models[client] = book.maybe[client] or {}
        book.happened[client] = None
        for wrong in book.resolve(client, ground):
            raise Wrong(f"{self._call} was made again with its key: {wrong}")

    def failed(self, error: ImageStoreError) -> None:
        """Raises Wrong if it should not have been refused, or not for that."""
        book, call = self._book, self._call
        if isinstance(error, OutcomeUnknown):
            book.unknown += 1
            return
        book.refused += 1
        for change in self._changes:
            book.shared.drop(change)
        if self._changes:
            return
        book.maybe[self._client] = None
        if self._again and book.happened[self._client] and not isinstance(error, book.may_pass):
            raise Wrong(f"{call} had succeeded, and was refused when it was made again: {error}")
        if isinstance(error, book.may_pass) or expected.is_refusal(error, call, book.models[self._client]):
            return
        if expected.needs_image(call) and isinstance(error, NotFound | FetchFailed):
            return
        raise Wrong(f"client {self._client}: {call} was refused: {type(error).__name__}: {error}")

    def abandoned(self) -> None:
        """The caller has gone away: nobody knows what comes of it."""
        self._book.unknown += 1

    @property
    def is_own(self) -> bool:
        """Whether it is about the client's own part of the pool."""
        return not self._changes


def _shared_changes(call: Call, now: int) -> list[Change]:
    """What a call may do to names that are everybody's; nothing if it is about a client's own."""
    if call.kind == "fetch":
        return [Change("made", names.image(call.name), now, exact=True)]
    if call.kind == "delete-image":
        return [Change("gone", names.image(call.name), now)]
    if not names.is_within(call.name, SHARED):
        return []
    snapshot = f"@{call.argument}"
    match call.kind:
        case "create" | "clone":
            return [Change("made", call.name, now, exact=True)]
        case "snapshot":
            taken = [Change("made", call.name + snapshot, now, exact=True)]
            if call.flag:
                taken.append(Change("made", call.name, now, suffix=snapshot, sure=False))
            return taken
        case "unsnapshot":
            return [Change("gone", call.name + snapshot, now)]
        case "delete":
            return [Change("gone", call.name, now)]
        case "rollback":
            newer = ("@s", "@t", "@u")
            return [Change("gone", call.name, now, suffix=one, sure=False) for one in newer]
        case _:
            raise AssertionError(call.kind)


def _shared_names(ground: PoolGround) -> Iterator[str]:
    for name in ground.entries:
        is_image = names.parent(name) == names.IMAGES and "@" not in name
        if (is_image and not name.startswith(STAGING)) or name.startswith((f"{SHARED}/", f"{SHARED}@")):
            yield name


def own_part(client: int, ground: PoolGround) -> Model:
    """What is in a client's part of the pool."""
    top, guests = f"c{client}", f"{names.GUESTS}/g{client}"
    found: dict[str, Thing] = {}
    snapshots: dict[str, list[tuple[int, str, bytes]]] = {}
    for name, entry in ground.entries.items():
        if not (names.is_within(name, top) or name.startswith(guests)):
            continue
        dataset, at, snapshot = name.partition("@")
        is_disk = bool(entry.file)
        content = ground.read(name, TOKEN_BYTES) if is_disk else expected.BLANK
        if at:
            snapshots.setdefault(dataset, []).append((entry.dataset.createtxg, snapshot, content))
        else:
            origin = entry.dataset.origin.partition("@")[0].removeprefix(f"{names.IMAGES}/")
            found[name] = Thing(size=entry.dataset.volsize, origin=origin, content=content)
    return {
        name: replace(thing, snapshots=_in_order(snapshots.get(name, ()))) for name, thing in found.items()
    }


def _in_order(snapshots: Iterable[tuple[int, str, bytes]]) -> tuple[tuple[str, bytes], ...]:
    return tuple((snapshot, content) for _, snapshot, content in sorted(snapshots))


def difference(before: Mapping[str, Thing], after: Model | None, actual: Model) -> str:
    """Names and things that are neither before nor after."""
    wrong = []
    for name in sorted({*before, *actual, *(after or {})}):
        if actual.get(name) != before.get(name):
            may = f" or {after.get(name)}" if after is not None else ""
            wrong.append(f"{name} is {actual.get(name)}, not {before.get(name)}{may}")
    return "; ".join(wrong)
