"""Clients: each works through its script, over crashes, and notes what it was told."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

import trio

from imagestore import names
from imagestore.errors import ImageStoreError, OutcomeUnknown
from imagestore.events.state import State
from imagestore.model import GuestRequest, ImageRequest, SnapshotRequest, VolumeRequest
from imagestore.service import Caller
from imagestore.store import Store
from tests.simulation import expected
from tests.simulation.book import Book, Wrong
from tests.simulation.calls import Call
from tests.simulation.machine import Machine
from tests.simulation.network import token_of
from tests.simulation.poolground import PoolGround
from tests.simulation.simulatedpool import SimulatedPool

AFTERMATH_SECONDS = 3.0
"""What a caller left behind that went away has begun by then, at the latest."""


class Place(Protocol):
    """What a client sees of the life that it works in."""

    @property
    def store(self) -> Store: ...
    @property
    def pool(self) -> SimulatedPool: ...
    @property
    def machine(self) -> Machine: ...
    def state(self) -> State: ...
    def told(self) -> None: ...


class Client:
    def __init__(self, book: Book, number: int, script: Sequence[Call]) -> None:
        self.call: Call | None = None
        """What it is waiting for."""
        self._book = book
        self._number = number
        self._script = script
        self._position = 0
        self._writes = 0

    async def work(self, life: Place) -> None:
        """Go on with the script; return at its end, or when it is of no use in this life."""
        while self._position < len(self._script):
            call = self._script[self._position]
            await trio.sleep(call.pause)
            self._position += 1
            self.call = call
            goes_on = await self._make(call, life)
            self.call = None
            if not goes_on:
                return

    async def _make(self, call: Call, life: Place) -> bool:
        if call.kind == "write":
            self._write(call.name, life)
            return True
        principal = f"client-{self._number}-{self._position}"
        entry = self._book.begin(self._number, call)
        life.pool.in_use |= (in_use := self._used_by(call))
        error: ImageStoreError | None = None
        with trio.CancelScope(deadline=trio.current_time() + (call.patience or float("inf"))) as scope:
            try:
                await _request(life.store, call, Caller(principal=principal))
            except ImageStoreError as refusal:
                error = refusal
        if life.machine.dead:
            await trio.sleep_forever()
        if scope.cancelled_caught:
            entry.abandoned()
            await self._await_end(principal, life)
            life.pool.in_use -= in_use
            if entry.is_own:
                for wrong in self._book.resolve(self._number, life.pool.ground):
                    raise Wrong(wrong)
            life.told()
            return True
        life.pool.in_use -= in_use
        if error is None:
            entry.succeeded()
        else:
            entry.failed(error)
        if not isinstance(error, OutcomeUnknown):
            _check_ended(principal, call, life.state())
        life.told()
        return not isinstance(error, OutcomeUnknown)

    async def _await_end(self, principal: str, life: Place) -> None:
        await trio.sleep(AFTERMATH_SECONDS)
        while any(record.principal == principal for record in life.state().operations.values()):
            await trio.sleep(0.1)

    def _used_by(self, call: Call) -> set[str]:
        if not call.in_use:
            return set()
        name = names.guest(call.name) if call.kind == "delete-guest" else call.name
        return set(expected.under(self._book.models[self._number], name))

    def _write(self, name: str, life: Place) -> None:
        """As a guest does, past the store."""
        life.machine.step("guest writes")
        self._write_to(name, life.pool.ground)

    def _write_to(self, name: str, ground: PoolGround) -> None:
        thing = self._book.models[self._number].get(name)
        if thing is not None and thing.size:
            self._writes += 1
            content = token_of(f"client {self._number} wrote {self._writes}")
            ground.write(name, content)
            self._book.wrote(self._number, name, content)

    def write_in_the_dark(self, ground: PoolGround) -> None:
        """Guests go on while the store is down: they write to disks whose rollback the crash overtook."""
        if self.call is None or self.call.kind != "rollback" or self._book.is_shared(self.call):
            return
        if self._book.resolve(self._number, ground):
            return  # it is half: whoever starts the store will say so
        for name in expected.under(self._book.models[self._number], self.call.name):
            self._write_to(name, ground)


def _check_ended(principal: str, call: Call, state: State) -> None:
    """No reply before the outcome is durable."""
    for record in state.operations.values():
        if record.principal == principal:
            raise Wrong(f"{call} was answered before its operation {record.id} had ended")


def _request(store: Store, call: Call, caller: Caller) -> Awaitable[object]:
    snapshot = f"{call.name}@{call.argument}"
    match call.kind:
        case "create":
            return store.create_volume(VolumeRequest(id=call.name, size=call.size), caller)
        case "clone":
            return store.clone_image(ImageRequest(id=call.argument, dest=call.name), caller)
        case "delete":
            return store.delete_dataset(VolumeRequest(id=call.name, force=call.force), caller)
        case "snapshot":
            request = SnapshotRequest(id=call.name, dest=call.argument, recursive=call.flag)
            return store.create_snapshot(request, caller)
        case "unsnapshot":
            return store.delete_snapshot(SnapshotRequest(id=snapshot), caller)
        case "rollback":
            request = SnapshotRequest(id=snapshot, destroyMoreRecent=call.flag, force=call.force)
            return store.rollback_snapshot(request, caller)
        case "create-guest":
            disks = [{"image": disk.image, "size": disk.size} for disk in call.disks]
            return store.create_guest_disks(GuestRequest(guest={"id": call.name, "disks": disks}), caller)
        case "delete-guest":
            return store.delete_guests_disks(GuestRequest(guest={"id": call.name}, force=call.force), caller)
        case "fetch":
            return store.request_image(ImageRequest(id=call.name, type="kvm"), caller)
        case "delete-image":
            return store.delete_image(ImageRequest(id=call.name), caller)
        case _:
            raise AssertionError(call.kind)
