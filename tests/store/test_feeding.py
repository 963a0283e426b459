"""One host feeds another: a store fetches from a store, over HTTP, also when the connection breaks off."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from msgspec.structs import replace

from imagestore.config import Config
from imagestore.errors import FetchFailed
from imagestore.model import (
    AliasRequest,
    GuestRequest,
    Image,
    ImageRequest,
    PublishRequest,
    SnapshotRequest,
    TokenRequest,
)
from imagestore.service import Caller
from imagestore.store import Store
from tests.imageservice import ImageService, answer
from tests.store.conftest import MIB, raw_image, running

SIZE = 24 * MIB
DEB = ImageRequest(id="deb")


def incompressible(size: int = SIZE) -> bytes:
    return random.Random(7).randbytes(size)


class Line:
    """The network between two stores: everything goes through, but the first ``cuts`` downloads
    break off after ``cut_after`` bytes.  ``carried_bytes`` came from the first store in all."""

    def __init__(self, upstream_port: int, *, cuts: int = 0, cut_after: int = 0) -> None:
        self.port = 0
        self.carried_bytes = 0
        self.heads: list[str] = []
        self._upstream_port = upstream_port
        self._cuts = cuts
        self._cut_after = cut_after

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._carry, listeners)

    async def _carry(self, client: trio.SocketStream) -> None:
        async with client, await trio.open_tcp_stream("127.0.0.1", self._upstream_port) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                data = await client.receive_some()
                if not data:
                    return
                head += data
            self.heads.append(head.decode())
            await server.send_all(head)
            left = SIZE * 2
            if b"/download " in head and self._cuts:
                self._cuts -= 1
                left = self._cut_after
            try:
                async for piece in server:
                    await client.send_all(piece[:left])
                    self.carried_bytes += len(piece[:left])
                    left -= len(piece)
                    if left <= 0:
                        return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the client has what it wants

    @property
    def ranges(self) -> list[str]:
        lines = [line for head in self.heads for line in head.split("\r\n")]
        return [line.partition(": ")[2] for line in lines if line.lower().startswith("range:")]


@asynccontextmanager
async def serving(config: Config, nursery: trio.Nursery) -> AsyncIterator[tuple[Store, int]]:
    """A store with HTTP, and its port."""
    async with running(config) as store:
        _, port = await nursery.start(store.run_http)
        yield store, port


@pytest.fixture
async def first(
    config: Config, service: ImageService, nursery: trio.Nursery
) -> AsyncIterator[tuple[Store, int]]:
    """The store that has ``deb``."""
    service.download("deb", answer(incompressible()))
    async with serving(replace(config, image_service=service.address), nursery) as (store, port):
        await store.request_image(DEB)
        yield store, port


@asynccontextmanager
async def second(
    config: Config, tmp_path: Path, port: int, *, token_file: str = "", ca_file: str = ""
) -> AsyncIterator[Store]:
    """A store that fetches from ``port``, over TLS if there is an authority for it."""
    of_its_own = replace(
        config,
        pool=f"dir:{tmp_path}/second",
        journal=f"{tmp_path}/journal-second",
        image_service=f"{'https://' if ca_file else ''}127.0.0.1:{port}",
        image_service_token=token_file,
        image_service_ca=ca_file,
        fetch_tries=3,
    )
    async with running(of_its_own) as store:
        yield store


async def content(store: Store, image: str) -> bytes:
    clone = ImageRequest(id=image, dest=f"clone-of-{image}")
    return Path((await store.clone_image(clone)).volumes[0].device).read_bytes()


async def snapshot_guid(store: Store, image: Image) -> str:
    assert isinstance(image.snapshot, str)
    async with store.download(SnapshotRequest(id=image.snapshot)) as download:
        return download.etag


async def test_a_store_fetches_from_a_store(
    first: tuple[Store, int], config: Config, tmp_path: Path, nursery: trio.Nursery
) -> None:
    feeding, port = first
    line = Line(port)
    await nursery.start(line.run)
    async with second(config, tmp_path, line.port) as store:
        (image,) = (await store.request_image(DEB)).images
        assert (image.status, image.size) == ("complete", SIZE // MIB)
        assert await content(store, "deb") == incompressible()
        (origin,) = (await feeding.get_image(DEB)).images
        assert await snapshot_guid(store, image) == await snapshot_guid(feeding, origin)
    assert [head.split(" ")[1] for head in line.heads] == ["/images/deb", "/images/deb/download"]


async def test_a_fetch_that_breaks_off_goes_on_where_it_was(
    first: tuple[Store, int], config: Config, tmp_path: Path, nursery: trio.Nursery
) -> None:
    _, port = first
    line = Line(port, cuts=2, cut_after=SIZE * 45 // 100)
    await nursery.start(line.run)
    async with second(config, tmp_path, line.port) as store:
        await store.request_image(DEB)
        assert await content(store, "deb") == incompressible()
    assert len(line.ranges) == 2
    assert line.carried_bytes < SIZE * 1.1


async def test_an_alias_and_a_published_image_are_fetched_as_any_other(
    first: tuple[Store, int], config: Config, tmp_path: Path
) -> None:
    feeding, port = first
    await feeding.create_guest_disks(GuestRequest(guest={"id": "g", "disks": [{"image": "deb"}]}))
    await feeding.create_snapshot(SnapshotRequest(id="guests/g/disk-0", dest="gold"))
    await feeding.publish_image(PublishRequest(id="gold", snapshot="guests/g/disk-0@gold"))
    await feeding.set_image_alias(AliasRequest(alias="stable", id="gold"))
    async with second(config, tmp_path, port) as store:
        for image in ("gold", "stable"):
            await store.request_image(ImageRequest(id=image))
            assert await content(store, image) == incompressible()


async def test_what_the_first_store_does_not_have_is_not_to_be_had(
    first: tuple[Store, int], service: ImageService, config: Config, tmp_path: Path
) -> None:
    feeding, port = first
    service.download("bad", answer(b"not an image at all" * 100))
    with pytest.raises(FetchFailed):
        await feeding.request_image(ImageRequest(id="bad"))
    async with second(config, tmp_path, port) as store:
        with pytest.raises(FetchFailed, match="not found"):
            await store.request_image(ImageRequest(id="unheard"))
        with pytest.raises(FetchFailed, match="in error at the image service"):
            await store.request_image(ImageRequest(id="bad"))
        service.download("bad", answer(raw_image(MIB)))
        await feeding.request_image(ImageRequest(id="bad"))
        await store.request_image(ImageRequest(id="bad"))


async def test_a_store_shows_the_other_its_token_and_keeps_it_to_itself(
    config: Config, service: ImageService, tmp_path: Path, nursery: trio.Nursery
) -> None:
    service.download("deb", answer(raw_image(MIB)))
    guarded = replace(config, image_service=service.address, loopback_role="none")
    file = tmp_path / "feeding.token"
    async with serving(guarded, nursery) as (feeding, port):
        await feeding.request_image(DEB)
        made = await feeding.create_token(
            TokenRequest(name="host2", role="reader"), Caller(principal="local")
        )
        assert isinstance(made.secret, str)
        async with second(config, tmp_path, port) as store:
            with pytest.raises(FetchFailed, match="answered with status 401"):
                await store.request_image(DEB)
        async with second(config, tmp_path, port, token_file=str(file)) as store:
            with pytest.raises(FetchFailed, match=r"token cannot be read: .*feeding\.token"):
                await store.request_image(DEB)
            file.write_text("no\ntoken\n")
            with pytest.raises(FetchFailed, match="holds no token"):
                await store.request_image(DEB)
            file.write_text(f"{made.secret}\n")
            assert (await store.request_image(DEB)).images[0].status == "complete"
    for kept in tmp_path.rglob("*"):
        assert kept == file or not kept.is_file() or made.secret.encode() not in kept.read_bytes()


async def test_a_store_fetches_from_one_that_speaks_tls(
    config: Config, service: ImageService, tmp_path: Path, nursery: trio.Nursery
) -> None:
    service.download("deb", answer(incompressible()))
    ca, both, token = (str(tmp_path / name) for name in ("ca.pem", "both.pem", "second.token"))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(both)
    guarded = replace(config, image_service=service.address, tls_certificate=both, loopback_role="none")
    async with serving(guarded, nursery) as (feeding, port):
        await feeding.request_image(DEB)
        made = await feeding.create_token(
            TokenRequest(name="host2", role="reader"), Caller(principal="local")
        )
        assert isinstance(made.secret, str)
        Path(token).write_text(made.secret)
        async with second(config, tmp_path, port, token_file=token, ca_file=ca) as store:
            await store.request_image(DEB)
            assert await content(store, "deb") == incompressible()
