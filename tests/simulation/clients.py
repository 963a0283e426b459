"""Clients: each works through its script, over crashes, and notes what it was told."""

import contextlib
from collections.abc import Sequence
from typing import Protocol

import trio
from msgspec import Struct

from imagestore import names
from imagestore.errors import ImageStoreError, OutcomeUnknown
from imagestore.events.catalogue import FetchIntent
from imagestore.events.state import State
from imagestore.model import (
    GuestRequest,
    ImageRequest,
    OperationRequest,
    ReceiveRequest,
    SnapshotRequest,
    VolumeRequest,
)
from imagestore.service import METHODS, Caller
from imagestore.store import Store
from tests.simulation import expected
from tests.simulation.book import Book, Wrong
from tests.simulation.calls import Call
from tests.simulation.machine import Machine
from tests.simulation.network import token_of
from tests.simulation.poolground import PoolGround
from tests.simulation.simulatedpool import SimulatedPool
from tests.simulation.streamed import stream

BY_ATTRIBUTE = {method.attribute: method for method in METHODS}

AFTERMATH_SECONDS = 1.5
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
        if self.call is not None and self.call.keyed and self._position:
            if not await self._make(self.call, life, again=True):
                return
            self.call = None
        while self._position < len(self._script):
            call = self._script[self._position]
            await trio.sleep(call.pause)
            self._position += 1
            self.call = call
            if not await self._make(call, life):
                return
            self.call = None

    async def _make(self, call: Call, life: Place, *, again: bool = False) -> bool:
        """Make a call; ``again``: with its key, because nobody knows what came of it in another life."""
        if call.kind == "write":
            self._write(call.name, life)
            return True
        if call.kind == "cancel":
            await self._cancel(call.name, life)
            return True
        principal = f"client-{self._number}-{self._position}"
        entry = self._book.begin(self._number, call, again=again)
        life.pool.in_use |= (in_use := self._used_by(call))
        error: ImageStoreError | None = None
        with trio.CancelScope(deadline=trio.current_time() + (call.patience or float("inf"))) as scope:
            try:
                key = f"key-{self._position}" if call.keyed else ""
                await _carry_out(call, life.store, Caller(principal=principal, key=key))
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
            entry.succeeded(life.pool.ground)
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

    async def _cancel(self, image: str, life: Place) -> None:
        """Cancel the fetch of an image; whoever waits for it is told, and that is judged."""
        for record in life.state().operations.values():
            if isinstance(record.intent, FetchIntent) and record.intent.image == image:
                with contextlib.suppress(ImageStoreError):
                    await life.store.cancel_operation(OperationRequest(id=record.id))
                return

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


async def _carry_out(call: Call, store: Store, caller: Caller) -> None:
    if call.kind == "receive":
        async with store.receive(ReceiveRequest(id=call.name), caller) as upload:
            await upload.feed(stream(call.argument))
            await upload.finish()
        return
    attribute, request = _request(call)
    await store.call(BY_ATTRIBUTE[attribute], request, caller)


def _request(call: Call) -> tuple[str, Struct]:
    """The method's attribute in the table, and what it is asked."""
    snapshot = f"{call.name}@{call.argument}"
    match call.kind:
        case "create":
            return "create_volume", VolumeRequest(id=call.name, size=call.size)
        case "clone":
            return "clone_image", ImageRequest(id=call.argument, dest=call.name)
        case "delete":
            return "delete_dataset", VolumeRequest(id=call.name, force=call.force)
        case "snapshot":
            request = SnapshotRequest(id=call.name, dest=call.argument, recursive=call.flag)
            return "create_snapshot", request
        case "unsnapshot":
            return "delete_snapshot", SnapshotRequest(id=snapshot)
        case "rollback":
            request = SnapshotRequest(id=snapshot, destroyMoreRecent=call.flag, force=call.force)
            return "rollback_snapshot", request
        case "create-guest":
            disks = [{"image": disk.image, "size": disk.size} for disk in call.disks]
            return "create_guest_disks", GuestRequest(guest={"id": call.name, "disks": disks})
        case "delete-guest":
            return "delete_guests_disks", GuestRequest(guest={"id": call.name}, force=call.force)
        case "fetch":
            return "request_image", ImageRequest(id=call.name, type="kvm")
        case "delete-image":
            return "delete_image", ImageRequest(id=call.name)
        case _:
            raise AssertionError(call.kind)
