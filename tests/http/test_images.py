"""``/images``: metadata in the image service's form, and an image's stream, whole and in parts."""

import json
from typing import Any

import pytest
import trio

from imagestore.actors.imageservice import NO_METADATA, parse_metadata
from imagestore.http import images
from imagestore.http.images import Path, metadata_of, read_path
from imagestore.model import Image, Progress, SnapshotRequest
from imagestore.service import LOCAL, Caller
from tests.http.conftest import Start
from tests.http.memory_store import MemoryStore
from tests.http.wire import Reply, Wire

Address = tuple[str, int]
CONTENT = bytes(range(256)) * 3000


async def get(
    address: Address, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> Reply:
    async with await Wire.open(address) as wire:
        return await wire.ask(method, path, headers or {})


def metadata(reply: Reply) -> Any:
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    return json.loads(reply.body)


@pytest.fixture
def store(store: MemoryStore) -> MemoryStore:
    store.hold("deb", CONTENT)
    store.aliases["stable"] = "deb"
    return store


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/images", Path("")),
        ("/images/", Path("")),
        ("/images/deb", Path("deb")),
        ("/images/deb/download", Path("deb", download=True)),
        ("/images//download", None),
        ("/images/a/b", None),
        ("/images/a/download/b", None),
        ("/imagesx", None),
        ("/", None),
        ("/x/images/deb", None),
    ],
)
def test_a_path_asks_for_all_images_for_one_or_for_a_stream(path: str, asked: Path | None) -> None:
    assert read_path(path) == asked


def test_metadata_of_a_fetch_tells_how_far_it_is() -> None:
    progress = Progress(done_bytes=3, total_bytes=10)
    told = metadata_of(Image(id="a", status="importing", progress=progress, source="https://x/y"), None)
    assert (told.status, told.size, told.expected_size) == ("downloading", 3, 10)
    assert (told.source, told.type, told.comment) == ("https://x/y", "kvm", "")
    told = metadata_of(Image(id="a", status="downloading", progress=Progress(done_bytes=3)), None)
    assert (told.size, told.expected_size) == (3, -1)


def test_metadata_of_an_image_without_times_says_so_as_the_service_does() -> None:
    told = metadata_of(Image(id="a", type="container", status="pending"), None)
    assert (told.download_start, told.download_end) == ("0001-01-01T00:00:00Z",) * 2
    assert (told.type, told.status, told.size, told.expected_size) == ("container", "pending", 0, -1)
    told = metadata_of(Image(id="a", status="complete", requested="1", completed="2"), 7)
    assert (told.download_start, told.download_end, told.size, told.expected_size) == ("1", "2", 7, 7)


async def test_metadata_is_in_the_form_that_the_store_itself_reads(address: Address) -> None:
    reply = await get(address, "/images/deb")
    assert list(metadata(reply)) == [
        "id",
        "source",
        "type",
        "comment",
        "status",
        "size",
        "expected_size",
        "download_start",
        "download_end",
    ]
    read = parse_metadata(reply.body)
    assert read != NO_METADATA
    assert (read.id, read.status, read.body_bytes) == ("deb", "complete", len(CONTENT))


async def test_an_alias_is_served_as_the_image_that_it_names(address: Address) -> None:
    assert metadata(await get(address, "/images/stable"))["id"] == "deb"
    assert (await get(address, "/images/stable/download")).body == CONTENT


async def test_the_list_has_all_images_and_measures_none(address: Address, store: MemoryStore) -> None:
    store.images["new"] = Image(id="new", status="downloading")
    assert [(each["id"], each["size"]) for each in metadata(await get(address, "/images"))] == [
        ("deb", 0),
        ("new", 0),
    ]
    assert store.measured == 0
    await get(address, "/images/deb")
    assert metadata(await get(address, "/images"))[0]["size"] == len(CONTENT)


class SlowToMeasure(MemoryStore):
    """Measuring takes for ever."""

    async def download_bytes(
        self, request: SnapshotRequest, caller: Caller = LOCAL, *, measure: bool = True
    ) -> int | None:
        await trio.sleep_forever()


async def test_metadata_does_not_wait_long_for_a_length(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MEASURE_SECONDS", 0.01)
    store = SlowToMeasure()
    store.hold("deb", CONTENT)
    told = metadata(await get((await start(store)).address, "/images/deb"))
    assert (told["status"], told["size"], told["expected_size"]) == ("complete", 0, -1)


async def test_a_stream_comes_whole_with_a_strong_etag(address: Address) -> None:
    reply = await get(address, "/images/deb/download")
    assert (reply.status, reply.body, reply.whole) == (200, CONTENT, True)
    assert reply.headers["etag"] == '"1f2e3d4c5b6a7988"'
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["content-type"] == "application/octet-stream"


async def test_a_stream_whose_length_is_known_comes_with_it(address: Address) -> None:
    assert "content-length" not in (await get(address, "/images/deb/download")).headers
    await get(address, "/images/deb")
    reply = await get(address, "/images/deb/download")
    assert reply.headers["content-length"] == str(len(CONTENT))
    assert reply.body == CONTENT


async def test_a_part_of_a_stream_comes_if_it_is_still_the_same(address: Address) -> None:
    etag = (await get(address, "/images/deb/download")).headers["etag"]
    reply = await get(address, "/images/deb/download", {"Range": "bytes=1000-", "If-Range": etag})
    assert (reply.status, reply.body) == (206, CONTENT[1000:])
    assert reply.headers["content-range"] == f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}"
    reply = await get(address, "/images/deb/download", {"Range": "bytes=1000-", "If-Range": '"other"'})
    assert (reply.status, reply.body) == (200, CONTENT)


@pytest.mark.parametrize("path", ["/images/unheard", "/images/unheard/download", "/images/new/download"])
async def test_what_is_not_complete_is_not_found(path: str, address: Address, store: MemoryStore) -> None:
    store.images["new"] = Image(id="new", status="downloading")
    reply = await get(address, path)
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_hidden_image_is_not_served(address: Address, store: MemoryStore) -> None:
    store.hold("old", CONTENT)
    store.images["old"] = Image(id="old", snapshot="images/old@image", status="complete", retired=True)
    for path in ("/images/old", "/images/old/download"):
        assert (await get(address, path)).status == 404
    assert [each["id"] for each in metadata(await get(address, "/images"))] == ["deb"]


async def test_images_are_only_read(address: Address) -> None:
    reply = await get(address, "/images/deb", method="DELETE")
    assert (reply.status, reply.headers["allow"]) == (405, "GET")
