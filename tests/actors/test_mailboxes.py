"""What actors keep of those who ask: no more than they can bear, and an answer for everybody."""

import pytest
import trio
import trio.testing

from imagestore.actors import guest as guests_module
from imagestore.actors.base import NO_DEADLINE, Reply
from imagestore.actors.claims import Claim
from imagestore.actors.commands import Command, CreateVolume, DeleteDataset, DeleteGuestDisks
from imagestore.actors.fetch import Fetching
from imagestore.actors.fetcher import Fetcher, RequestImage
from imagestore.actors.guest import Guests
from imagestore.actors.mutator import Mutate
from imagestore.actors.operation import Operations
from imagestore.actors.transfer import TransferSettings
from imagestore.actors.zpool import ZpoolActor
from imagestore.errors import NotFound, OutcomeUnknown, TemporarilyUnavailable
from imagestore.pools.base import Dataset
from tests.actors.rows import MIB

Rows = tuple[Dataset, ...]


def mutate(command: Command) -> tuple[Mutate, Reply[Rows]]:
    reply: Reply[Rows] = Reply()
    return Mutate(command=command, principal="test", deadline=NO_DEADLINE, reply=reply), reply


@pytest.fixture
def fetcher(operations: Operations) -> Fetcher:
    return Fetcher(
        operations,
        Fetching(service="127.0.0.1:1", settings=TransferSettings()),
        workers=0,
        max_pending=9,
        mailbox=2,
    )


async def test_changes_below_images_are_served_so_many_at_a_time(
    fetcher: Fetcher, zpool: ZpoolActor, nursery: trio.Nursery
) -> None:
    await nursery.start(fetcher.run)
    replies = []
    async with zpool.claimed("other", Claim(exclusive=("images",))):
        for _ in range(3):
            message, reply = mutate(DeleteDataset(name="images/none"))
            fetcher.post_nowait(message)
            await trio.testing.wait_all_tasks_blocked()
            replies.append(reply)
        with pytest.raises(TemporarilyUnavailable):
            replies[2].result()
    for reply in replies[:2]:
        with pytest.raises(NotFound):
            await reply.wait()


async def test_callers_who_have_gone_are_forgotten(fetcher: Fetcher, nursery: trio.Nursery) -> None:
    """One who asks again and again, each time for a second, does not grow the store."""
    await nursery.start(fetcher.run)
    for _ in range(5):
        reply: Reply[None] = Reply()
        fetcher.post_nowait(
            RequestImage(image="deb", type="", principal="test", deadline=NO_DEADLINE, reply=reply)
        )
        with trio.move_on_after(0):
            await reply.wait()
        await trio.testing.wait_all_tasks_blocked()
    under_way = fetcher.under_way("deb")
    assert under_way is not None
    assert len(under_way.waiters) == 1


async def test_idle_guests_are_let_go_when_there_are_many(
    operations: Operations, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests_module, "MAX_IDLE", 3)
    guests = Guests(operations, idle_seconds=3600)
    await nursery.start(guests.run)
    for number in range(10):
        message, reply = mutate(DeleteGuestDisks(guest=f"g{number}"))
        guests.post_nowait(f"g{number}", message)
        await reply.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert len(guests) <= 3
    guests.close()


async def test_who_waits_for_a_change_that_the_end_cuts_off_is_told(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(operations.zpool, "execute", hang)
    guests = Guests(operations)
    message, reply = mutate(CreateVolume(name="guests/g/v", size=MIB))
    async with trio.open_nursery() as nursery:
        await nursery.start(guests.run)
        guests.post_nowait("g", message)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(OutcomeUnknown):
        reply.result()
