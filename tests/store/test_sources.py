"""Images from any address, and from a client: through a whole store, over a real network."""

import bz2
import gzip
import hashlib
import lzma
from collections.abc import AsyncIterator, Callable

import pytest
import trio

from imagestore.config import Config
from imagestore.errors import (
    AlreadyExists,
    Blocked,
    ConfigError,
    ContentRefused,
    FetchFailed,
    InvalidArgument,
    NotFound,
    Stopping,
)
from imagestore.events import reader
from imagestore.model import (
    AliasRequest,
    Image,
    ImageRequest,
    OperationRequest,
    Source,
    SourceRequest,
    UploadRequest,
    VolumeRequest,
)
from imagestore.store import Store, create
from tests.imageservice import ImageService, answer, redirect
from tests.store.conftest import Run, raw_image

RAW = raw_image()
DIGEST = hashlib.sha256(RAW).hexdigest()
LOOPBACK = "127.0.0.0/8"


@pytest.fixture
async def store(run: Run, service: ImageService) -> AsyncIterator[Store]:
    """A store that may ask this machine."""
    async with run(image_service=service.address, allow_private_sources=LOOPBACK) as store:
        yield store


def address(service: ImageService, path: str = "/deb.img") -> str:
    return f"http://{service.address}{path}"


async def pull(
    store: Store, source: str, image: str = "deb", *, sha256: str = "", sums: str = "", keyring: str = ""
) -> Image:
    request = ImageRequest(id=image, source=source, sha256=sha256, sums=sums, keyring=keyring)
    return (await store.request_image(request)).images[0]


def content(config: Config, image: str = "deb") -> bytes:
    with open(f"{config.pool.removeprefix('dir:')}/images/{image}", "rb") as volume:
        return volume.read()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
async def test_an_image_is_pulled_from_an_address(
    store: Store, service: ImageService, config: Config, pack: Callable[[bytes], bytes]
) -> None:
    body = pack(RAW)
    service.on("/deb.img", answer(body))
    service.on("/SHA256SUMS", answer(f"{hashlib.sha256(body).hexdigest()} *deb.img\n".encode()))
    pulled = await pull(store, address(service), sums=address(service, "/SHA256SUMS"))
    assert pulled.status == "complete"
    assert content(config) == RAW
    # A digest is of the body as it came; it was fetched once and is there.
    assert (await pull(store, address(service), sha256=hashlib.sha256(body).hexdigest())).status == "complete"
    assert service.requests == ["/SHA256SUMS", "/deb.img"]


async def test_what_was_pulled_is_registered_and_pulled_from_there_again(
    store: Store, service: ImageService
) -> None:
    service.on("/deb.img", answer(b"gone", 404), answer(RAW))
    with pytest.raises(FetchFailed):
        await pull(store, address(service))
    assert (await pull(store, "")).status == "complete"
    known = (await store.list_sources(SourceRequest())).sources
    assert known == (Source(id="deb", source=address(service)),)


async def test_sources_are_journaled_and_survive(run: Run, service: ImageService, config: Config) -> None:
    here = SourceRequest(id="deb", source=address(service), sums=address(service, "/SHA256SUMS"))
    service.on("/deb.img", answer(RAW))
    service.on("/SHA256SUMS", answer(f"{DIGEST}  deb.img\n".encode()))
    async with run(allow_private_sources=LOOPBACK) as store:
        await store.register_source(here)
        await store.register_source(here)
        with pytest.raises(AlreadyExists):
            await store.register_source(SourceRequest(id="deb", source=address(service, "/other")))
    async with run(allow_private_sources=LOOPBACK) as store:
        assert (await store.list_sources(SourceRequest(id="deb"))).sources[0].source == address(service)
        assert (await pull(store, "")).status == "complete"
        await store.remove_source(SourceRequest(id="deb"))
        assert (await store.list_sources(SourceRequest())).sources == ()
        with pytest.raises(NotFound):
            await store.remove_source(SourceRequest(id="deb"))
    said = [type(envelope.event).__name__ for envelope in reader.read(config.journal)]
    assert (said.count("SourceRegistered"), said.count("SourceRemoved")) == (1, 1)


async def test_an_address_with_a_secret_is_written_nowhere(store: Store, config: Config, run: Run) -> None:
    for source in ("https://u:hunter2@example.net/x", "https://example.net/x?X-Amz-Signature=hunter2"):
        with pytest.raises(InvalidArgument):
            await pull(store, source)
        with pytest.raises(InvalidArgument):
            await store.register_source(SourceRequest(id="deb", source=source))
    assert not [envelope for envelope in reader.read(config.journal) if "hunter2" in repr(envelope)]


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({"sha256": "0" * 64}, ContentRefused, "wanted is 0000"),
        ({"sha256": "none"}, InvalidArgument, "64 hexadecimal digits"),
        ({"sums": "ftp://example.net/SHA256SUMS"}, InvalidArgument, "not http:// or https://"),
        ({"keyring": "%"}, InvalidArgument, "not base64"),
    ],
)
async def test_what_cannot_be_verified_is_not_there(
    store: Store, service: ImageService, fields: dict[str, str], error: type[Exception], reason: str
) -> None:
    service.on("/deb.img", answer(RAW))
    with pytest.raises(error, match=reason):
        await pull(store, address(service), **fields)
    images = (await store.list_images(ImageRequest())).images
    assert "complete" not in [image.status for image in images]
    assert (await store.list_volumes(VolumeRequest())).volumes == ()


async def test_a_list_of_sums_that_has_another_digest_refuses_the_image(
    store: Store, service: ImageService
) -> None:
    service.on("/deb.img", answer(RAW))
    service.on("/SHA256SUMS", answer(f"{'0' * 64}  deb.img\n".encode()), answer(b"nothing of it"))
    with pytest.raises(ContentRefused, match=f"has sha256 {DIGEST}, wanted is 0000"):
        await pull(store, address(service), sums=address(service, "/SHA256SUMS"))
    with pytest.raises(FetchFailed, match=r"lists no sha256 of deb\.img"):
        await pull(store, address(service), sums=address(service, "/SHA256SUMS"))


async def test_an_image_that_is_here_is_not_replaced_by_another(store: Store, service: ImageService) -> None:
    service.on("/deb.img", answer(RAW))
    await pull(store, address(service))
    with pytest.raises(AlreadyExists):
        await pull(store, address(service, "/other.img"))
    with pytest.raises(AlreadyExists, match="known with another content"):
        await pull(store, address(service), sha256="0" * 64)


# --- who may be asked ---------------------------------------------------------------------


async def test_private_networks_are_not_asked_but_the_image_service_is(
    run: Run, service: ImageService
) -> None:
    service.on("/deb.img", answer(RAW))
    service.download("own", redirect("/deb.img"))
    async with run(image_service=service.address) as store:
        with pytest.raises(FetchFailed, match=r"private network \(127\.0\.0\.1\)"):
            await pull(store, address(service))
        assert service.requests == []
        assert (await pull(store, "", "own")).status == "complete"


async def test_a_redirect_into_a_private_network_is_not_followed(run: Run, service: ImageService) -> None:
    service.on("/deb.img", redirect(f"http://127.0.0.2:{service.port}/secret"))
    async with run(allow_private_sources="127.0.0.1/32") as store:
        with pytest.raises(FetchFailed, match=r"private network \(127\.0\.0\.2\)"):
            await pull(store, address(service))
    assert service.requests == ["/deb.img"]


async def test_an_address_in_a_private_network_is_refused_before_anything_is_journaled(
    run: Run, config: Config
) -> None:
    async with run() as store:
        before = len(list(reader.read(config.journal)))
        for source in ("http://10.0.0.7/x", "https://[fd00::7]/x", "http://169.254.169.254/latest"):
            with pytest.raises(FetchFailed, match="private network"):
                await pull(store, source)
            with pytest.raises(FetchFailed, match="private network"):
                await store.register_source(SourceRequest(id="deb", source=source))
        assert len(list(reader.read(config.journal))) == before
        # A name is looked up when it is asked; till then it is as good as any.
        await store.register_source(SourceRequest(id="deb", source="https://cloud.example/x"))


def test_a_setting_that_is_no_network_stops_the_start(config: Config) -> None:
    with pytest.raises(ConfigError, match="allow_private_sources"):
        create(Config(pool=config.pool, journal=config.journal, allow_private_sources="lan"))


# --- uploads -------------------------------------------------------------------------------


async def send(store: Store, body: bytes, **fields: str) -> Image:
    request = UploadRequest(id="deb", **fields)
    async with store.upload_image(request, content_length=len(body)) as upload:
        for at in range(0, len(body), 100_000):
            await upload.feed(body[at : at + 100_000])
        return (await upload.finish()).images[0]


async def test_an_image_is_uploaded(store: Store, config: Config) -> None:
    sent = await send(store, gzip.compress(RAW), type="kvm", sha256="")
    assert (sent.status, sent.type, sent.size) == ("complete", "kvm", 2)
    assert content(config) == RAW


async def test_an_upload_is_verified(store: Store) -> None:
    with pytest.raises(ContentRefused, match="wanted is 0000"):
        await send(store, RAW, sha256="0" * 64)
    assert (await send(store, RAW, sha256=DIGEST)).status == "complete"


async def test_an_upload_of_what_is_here_is_refused(store: Store) -> None:
    await send(store, RAW)
    with pytest.raises(AlreadyExists):
        await send(store, RAW * 2)


async def test_an_upload_that_breaks_off_leaves_nothing_and_the_next_starts_clean(
    store: Store, config: Config
) -> None:
    async with store.upload_image(UploadRequest(id="deb")) as upload:
        await upload.feed(RAW[: 1 << 20])
    assert "broke off" in str((await until_settled(store)).reason)
    assert (await send(store, RAW)).status == "complete"
    assert content(config) == RAW


async def test_an_upload_does_not_go_on_in_another_life_and_says_so(run: Run, config: Config) -> None:
    async with run() as store:
        async with store.upload_image(UploadRequest(id="deb")) as upload:
            await upload.feed(RAW[: 1 << 20])
            await store.destroy()
            with pytest.raises(Stopping):
                await upload.finish()
    async with run() as store:
        image = await until_settled(store)
        assert image.status == "error"
        assert "broken off by a restart of the store" in str(image.reason)
        assert (await send(store, RAW)).status == "complete"


async def until_settled(store: Store) -> Image:
    with trio.fail_after(10):
        while True:
            (image,) = (await store.get_image(ImageRequest(id="deb"))).images
            if image.status in {"error", "complete"}:
                return image
            await trio.lowlevel.checkpoint()


async def test_two_uploads_of_one_image_do_not_mix(store: Store) -> None:
    async with store.upload_image(UploadRequest(id="deb")) as first:
        await first.feed(RAW)
        with pytest.raises(Blocked, match="image is being fetched: deb"):
            await send(store, RAW)
        assert (await first.finish()).images[0].status == "complete"


async def test_an_alias_is_no_id_of_an_image_of_its_own(store: Store) -> None:
    await send(store, RAW)
    await store.set_image_alias(AliasRequest(alias="stable", id="deb"))
    with pytest.raises(AlreadyExists, match="alias already exists: stable"):
        async with store.upload_image(UploadRequest(id="stable")):
            raise AssertionError
    with pytest.raises(AlreadyExists, match="alias already exists: stable"):
        await store.register_source(SourceRequest(id="stable", source="https://cloud.example/x"))


async def test_an_upload_with_a_digest_that_is_none_is_refused_at_once(store: Store) -> None:
    with pytest.raises(InvalidArgument, match="64 hexadecimal digits"):
        await send(store, RAW, sha256="abc")
    assert (await store.list_operations(OperationRequest(of="RequestImage"))).operations == ()


@pytest.mark.parametrize(("request_", "error"), [({"id": ""}, "need id"), ({"id": "../x"}, "not a valid")])
async def test_an_upload_needs_an_id(store: Store, request_: dict[str, str], error: str) -> None:
    with pytest.raises(InvalidArgument, match=error):
        async with store.upload_image(UploadRequest(**request_)):
            raise AssertionError
