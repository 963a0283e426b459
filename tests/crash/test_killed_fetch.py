"""kill -9 in the middle of a fetch: the next life goes on with it, and little is sent twice."""

import gzip
import os
import random
from pathlib import Path

import pytest
import trio

from imagestore.client import Client
from imagestore.events import reader
from imagestore.events.catalogue import OperationStarted
from tests.crash.process import Place, StoreProcess
from tests.imageservice import ImageService, Ranged

MIB = 1 << 20
RAW = random.Random(8).randbytes(48 * MIB)
GZIPPED = gzip.compress(RAW, 1)


async def until_spooled(place: Place, size: int) -> None:
    """Wait until the spool has so much of a body."""
    spool = place.pool / ".imagestore" / "spool"
    while True:
        bodies = [file for file in spool.iterdir() if not file.suffix] if spool.exists() else []
        if any(body.stat().st_size >= size for body in bodies):
            return
        await trio.sleep(0.01)


@pytest.mark.parametrize("body", [pytest.param(RAW, id="raw"), pytest.param(GZIPPED, id="gzip")])
async def test_row_13_a_fetch_killed_at_its_half_goes_on_behind_it(
    body: bytes, tmp_path: Path, nursery: trio.Nursery
) -> None:
    place = Place(tmp_path)
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
        nursery.start_soon(ask_in_vain, address)
        await until_spooled(place, len(body) // 2 - 2 * MIB)
        await store.kill()
        await store.spawn()
        address = await store.until_ready()
        image = await trio.to_thread.run_sync(lambda: Client(address).request_image("a"))
        assert image.status == "complete"
        assert (place.pool / "images" / "a").read_bytes() == RAW
        assert served.sent_bytes <= 1.1 * len(body)
        assert os.listdir(place.pool / ".imagestore" / "spool") == []
    finally:
        await store.kill()
    accepted = [
        envelope.operation
        for envelope in reader.read(str(place.journal))
        if isinstance(envelope.event, OperationStarted) and envelope.event.method == "RequestImage"
    ]
    assert len(accepted) == 1


async def ask_in_vain(address: str) -> None:
    """The store dies before it can answer."""
    with pytest.raises(Exception, match=r"ended|broke|answer|refused|closed"):
        await trio.to_thread.run_sync(lambda: Client(address).request_image("a"))
