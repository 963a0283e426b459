"""Images as publishers have them, with the real tools: pulled by the command line, compared by qemu-img."""

import gzip
import hashlib
import lzma
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trio
import zstandard

from imagestore.errors import ContentRefused
from imagestore.model import GuestRequest, ImageRequest, SnapshotRequest, UploadRequest
from imagestore.store import Store
from tests.store.conftest import MIB, Run
from tests.streams.test_openpgp import Signer

pytestmark = pytest.mark.system

LOOPBACK = "127.0.0.0/8"


def call(*words: str | Path) -> bytes:
    return subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE).stdout


class Publisher:
    """A file server on loopback. ``directory`` is what it serves."""

    def __init__(self, directory: Path) -> None:
        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as in the base class)
                pass

        self.directory = directory
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
async def publisher(tmp_path: Path) -> AsyncIterator[Publisher]:
    (tmp_path / "published").mkdir()
    publisher = Publisher(tmp_path / "published")
    yield publisher
    await trio.to_thread.run_sync(publisher.stop)


@pytest.fixture
async def store(run: Run) -> AsyncIterator[Store]:
    async with run(allow_private_sources=LOOPBACK) as store:
        yield store


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk with an ext4 file system and some files, as an installer makes it."""
    files = tmp_path / "files" / "etc"
    files.mkdir(parents=True)
    (files / "os-release").write_text('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (files / "noise").write_bytes(random.Random(12).randbytes(3 * MIB))
    path = tmp_path / "disk.raw"
    call("truncate", "-s", "24M", path)
    call("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", tmp_path / "files", path)
    return path


async def imagestore(address: tuple[str, int], *words: str, stdin: bytes = b"") -> str:
    """Run a command of ours; what it printed."""
    server = f"http://{address[0]}:{address[1]}"
    command = [sys.executable, "-m", "imagestore", *words, "--server", server]
    finished = await trio.run_process(command, capture_stdout=True, stdin=stdin)
    return finished.stdout.decode()


async def test_a_debian_image_is_pulled_verified_and_made_a_guests_disk(
    store: Store, publisher: Publisher, disk: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    qcow2 = publisher.directory / "debian-12-generic-amd64.qcow2"
    call("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", disk, qcow2)
    sums = f"{hashlib.sha256(qcow2.read_bytes()).hexdigest()}  {qcow2.name}\n".encode()
    signer = await trio.to_thread.run_sync(Signer, tmp_path / "g")
    try:
        (publisher.directory / "SHA256SUMS").write_bytes(sums)
        (publisher.directory / "SHA256SUMS.sign").write_bytes(signer.gpg("--detach-sign", text=sums))
        (tmp_path / "keys.gpg").write_bytes(signer.gpg("--export"))
    finally:
        await trio.to_thread.run_sync(signer.stop)
    address = await nursery.start(store.run_http)
    verified = ("--sums", publisher.address("SHA256SUMS"), "--keyring", str(tmp_path / "keys.gpg"))
    pulled = await imagestore(
        address, "image", "pull", publisher.address(qcow2.name), "--as", "deb12", *verified
    )
    assert pulled.splitlines()[1].split() == ["deb12", "-", "24M", "complete", "pool/images/deb12@image"]
    await imagestore(address, "guest", "create", "vm1", "--disk", "image=deb12")
    compared = call(
        "qemu-img", "compare", "-f", "qcow2", "-F", "raw", qcow2, device(store, "guests/vm1/disk-0")
    )
    assert compared == b"Images are identical.\n"
    call("e2fsck", "-fn", device(store, "guests/vm1/disk-0"))
    await store.delete_guests_disks(GuestRequest(guest={"id": "vm1"}))


def device(store: Store, volume: str) -> str:
    return f"{store.config.pool.removeprefix('dir:')}/{volume}"


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
FORMS = {
    "qcow2": ("qcow2", "compat=1.1"),
    "vmdk": ("vmdk", "subformat=streamOptimized"),
    "vdi": ("vdi", "static=off"),
    "dynamic vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "fixed vhd": ("vpc", "subformat=fixed,force_size=on"),
    "fixed vhd by its geometry": ("vpc", "subformat=fixed"),
    "vhdx": ("vhdx", "subformat=dynamic"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pack", ["plain", "zstd"])
async def test_every_form_becomes_what_qemu_img_makes_of_it(
    form: str, pack: str, store: Store, publisher: Publisher, disk: Path, tmp_path: Path
) -> None:
    driver, options = FORMS[form]
    source, expected = tmp_path / "source", tmp_path / "expected"
    call("qemu-img", "convert", "-f", "raw", "-O", driver, "-o", options, disk, source)
    call("qemu-img", "convert", "-f", driver, "-O", "raw", source, expected)
    (publisher.directory / "disk").write_bytes(PACKERS[pack](source.read_bytes()))
    await store.request_image(ImageRequest(id="d", source=publisher.address("disk")))
    assert Path(device(store, "images/d")).read_bytes() == expected.read_bytes()
    assert left_over(store) == []


@pytest.mark.parametrize("pack", PACKERS)
async def test_a_qcow2_can_be_uploaded_packed_or_not(
    pack: str, store: Store, disk: Path, tmp_path: Path
) -> None:
    call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, tmp_path / "source")
    body = PACKERS[pack]((tmp_path / "source").read_bytes())
    async with store.upload_image(UploadRequest(id="d")) as upload:
        await upload.feed(body)
        await upload.finish()
    assert Path(device(store, "images/d")).read_bytes() == disk.read_bytes()
    assert left_over(store) == []


async def test_an_image_that_names_a_file_of_this_machine_gets_nothing_of_it(
    store: Store, publisher: Publisher, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret".ljust(MIB, b"."))
    bad = publisher.directory / "bad"
    call("qemu-img", "create", "-q", "-f", "qcow2", "-b", tmp_path / "secret", "-F", "raw", bad)
    with pytest.raises(ContentRefused, match="backing file"):
        await store.request_image(ImageRequest(id="bad", source=publisher.address("bad")))
    assert (await store.list_snapshots(SnapshotRequest())).snapshots == ()
    assert left_over(store) == []


def left_over(store: Store) -> list[str]:
    """Files of the spool."""
    pool = Path(store.config.pool.removeprefix("dir:"))
    places = [pool / ".imagestore", Path(f"{store.config.journal}.spool")]
    return [
        str(path)
        for place in places
        for path in place.rglob("*")
        if path.suffix in {".disk", ".unpacked", ".marks"}
    ]
