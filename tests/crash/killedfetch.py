"""kill -9 in the middle of a fetch: the next life goes on with it, and little is sent twice."""

import hashlib
import os
from pathlib import Path

import pytest
import trio

from imagestore.client import Client
from imagestore.events import reader
from imagestore.events.catalogue import OperationStarted
from tests.crash.process import Place, StoreProcess
from tests.imageservice import ImageService, Ranged

MIB = 1 << 20


async def fetch_killed_at_its_half(
    place: Place, spool: Path, body: bytes, content: bytes, nursery: trio.Nursery
) -> None:
    """Kill a store at half of ``body``; the next one ends the same operation, and ``content`` is there."""
    service = ImageService()
    await nursery.start(service.run)
    served = Ranged(service, body, cuts=[len(body) // 2])

    async def half(stream: trio.SocketStream) -> None:
        await served(stream)
        await service.until_hung_up(stream)

    service.download("a", half, served)
    store = StoreProcess(place, service.address)
    try:
        await store.spawn()
        address = await store.until_ready()
        nursery.start_soon(_ask_in_vain, address)
        await _until_spooled(spool, len(body) // 2 - 2 * MIB)
        await store.kill()
        await store.spawn()
        address = await store.until_ready()
        image = await trio.to_thread.run_sync(lambda: Client(address).request_image("a"))
        assert image.status == "complete"
        row = place.rows()["images/a"]
        assert place.sha256_of(row) == hashlib.sha256(content).hexdigest()
        assert served.sent_bytes <= 1.1 * len(body)
        assert os.listdir(spool) == []
    finally:
        await store.kill()
    accepted = [
        envelope.operation
        for envelope in reader.read(str(place.journal))
        if isinstance(envelope.event, OperationStarted) and envelope.event.method == "RequestImage"
    ]
    assert len(accepted) == 1


async def _until_spooled(spool: Path, size: int) -> None:
    """Wait until the spool has so much of a body."""
    while True:
        bodies = [file for file in spool.iterdir() if not file.suffix] if spool.exists() else []
        if any(body.stat().st_size >= size for body in bodies):
            return
        await trio.sleep(0.01)


async def _ask_in_vain(address: str) -> None:
    """The store dies before it can answer."""
    with pytest.raises(Exception, match=r"ended|broke|answer|refused|closed"):
        await trio.to_thread.run_sync(lambda: Client(address).request_image("a"))
