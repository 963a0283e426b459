"""Disk formats on their way: a whole file first, then another program, then the pool."""

import gzip
import os
import random
from pathlib import Path

import pytest
import trio

from imagestore.actors.spool import Spools
from imagestore.actors.targets import Destination
from imagestore.actors.transfer import Order, Transferred, TransferSettings, transfer
from imagestore.errors import ContentRefused, NoSpace
from imagestore.pools.base import Dataset
from imagestore.streams.signatures import DiskFormat
from tests.imageservice import ImageService, Ranged, answer
from tests.receivers import MemorySink

OPERATION = "01a20db3-7b2b-7000-b1f6-e452cc7f8af7"
MIB = 1 << 20
DISK = random.Random(4).randbytes(2 * MIB)
QCOW2 = b"QFI\xfb" + DISK
FORMS = [pytest.param(QCOW2, id="as it is"), pytest.param(gzip.compress(QCOW2, 1), id="packed")]


class Converter:
    """A program that makes a raw disk of a file by leaving out its first four bytes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, DiskFormat, int | None]] = []
        self.failure: Exception | None = None

    async def __call__(self, source: str, kind: DiskFormat, raw: str, most: int | None) -> None:
        self.calls.append((Path(source).name, kind, most))
        assert not Path(raw).exists()
        if self.failure is not None:
            raise self.failure
        Path(raw).write_bytes(Path(source).read_bytes()[4:])


@pytest.fixture
async def service(nursery: trio.Nursery) -> ImageService:
    service = ImageService()
    await nursery.start(service.run)
    return service


@pytest.fixture
def spools(tmp_path: Path) -> Spools:
    spools = Spools(str(tmp_path / "spool"), quota_bytes=64 * MIB)
    spools.prepare(())
    return spools


async def fetch(
    service: ImageService, spools: Spools, destination: Destination, convert: Converter
) -> Transferred:
    spool = spools.open(OPERATION)
    settings = TransferSettings(wait_seconds=0.0, max_image_bytes=32 * MIB, convert=convert)
    order = Order(image="a", service=service.address)
    try:
        return await transfer(order, destination, settings=settings, progress=lambda *_: None, spool=spool)
    finally:
        spool.remove()


@pytest.mark.parametrize("body", FORMS)
async def test_a_disk_format_is_converted_from_a_whole_file_and_fed_to_the_pool(
    service: ImageService, spools: Spools, body: bytes
) -> None:
    service.download("a", answer(body))
    sink, convert = MemorySink(whole=DISK), Converter()
    transferred = await fetch(service, spools, Destination(sink=sink), convert)
    assert transferred.content == "qcow2"
    assert [receiver.kind for receiver in sink.receivers] == ["raw"]
    name = OPERATION if body is QCOW2 else f"{OPERATION}.unpacked"
    assert convert.calls == [(name, "qcow2", 32 * MIB)]
    assert os.listdir(spools.directory) == []
    assert spools.used_bytes == 0


@pytest.mark.parametrize("body", FORMS)
async def test_a_pool_that_can_takes_the_converted_file_over(
    service: ImageService, spools: Spools, body: bytes
) -> None:
    service.download("a", answer(body))
    taken: list[bytes] = []

    async def take_over(path: str, size: int) -> tuple[Dataset, ...]:
        taken.append(Path(path).read_bytes())
        assert size == len(taken[0])
        return (Dataset(name="images/a", kind="volume", guid=1, createtxg=1, volsize=size),)

    sink = MemorySink()
    await fetch(service, spools, Destination(sink=sink, take_over=take_over), Converter())
    assert taken == [DISK]
    assert sink.receivers == []


@pytest.mark.parametrize("body", FORMS)
async def test_a_broken_connection_does_not_begin_a_disk_format_anew(
    service: ImageService, spools: Spools, body: bytes
) -> None:
    served = Ranged(service, body, cuts=[MIB])
    service.download("a", served)
    await fetch(service, spools, Destination(sink=MemorySink(whole=DISK)), Converter())
    assert served.starts[1] > 0


@pytest.mark.parametrize("body", FORMS)
async def test_a_disk_format_over_the_quota_has_no_room(
    service: ImageService, tmp_path: Path, body: bytes
) -> None:
    spools = Spools(str(tmp_path), quota_bytes=MIB)
    service.download("a", answer(body))
    with pytest.raises(NoSpace, match="no space left in the spool"):
        await fetch(service, spools, Destination(sink=MemorySink()), Converter())
    assert os.listdir(tmp_path) == []
    assert spools.used_bytes == 0


async def test_what_the_program_refuses_is_not_tried_again(service: ImageService, spools: Spools) -> None:
    service.download("a", answer(QCOW2))
    convert = Converter()
    convert.failure = ContentRefused("qcow2 image needs other files")
    with pytest.raises(ContentRefused, match="needs other files"):
        await fetch(service, spools, Destination(sink=MemorySink()), convert)
    assert service.downloads == len(convert.calls) == 1
