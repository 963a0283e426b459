"""The steps of the demo, in order, each with what must be seen.

Knows the store only as everybody does: through RPC, the download endpoint,
the files of the pool, and the offline commands.
"""

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading

from msgspec import UNSET, Struct

from imagestore.cli.download import Wanted, fetch_file
from imagestore.cli.imageservice import Hold, ImageService
from imagestore.cli.narrator import Narrator
from imagestore.cli.progress import progress
from imagestore.cli.storeprocess import StoreProcess
from imagestore.client import Client
from imagestore.errors import ImageStoreError, InUse
from imagestore.model import MIB
from imagestore.sizes import show_bytes

GUEST = "vm1"
SNAPSHOT = f"guests/{GUEST}@before"
BLANK_MIB = 64
WAIT_SECONDS = 30.0
"""No wait of the demo takes so long when all is well."""

NOTE = b"a guest wrote this after the snapshot"


class DemoImage(Struct, frozen=True, kw_only=True):
    """An image, and the sha256 (hex) of the disk that it unpacks to."""

    id: str
    sha256: str


class DemoImages(Struct, frozen=True, kw_only=True):
    """What the image service of the demo has: one to use, one whose download is held up."""

    directory: str
    main: DemoImage
    held: DemoImage


class Scene(Struct, frozen=True, kw_only=True):
    """Everybody who takes part."""

    narrator: Narrator
    store: StoreProcess
    service: ImageService
    hold: Hold
    images: DemoImages


def make_images(directory: str) -> DemoImages:
    """Make two images on the spot, gzipped, where the image service finds them.

    One is a ZFS send stream of a volume, the other a raw disk.
    """
    images = os.path.join(directory, "images")
    os.makedirs(images, exist_ok=True)
    main, held = _disk("demo", 16), _disk("second", 8)
    _pack(os.path.join(images, "demo"), _stream(main))
    _pack(os.path.join(images, "second"), held)
    return DemoImages(
        directory=images,
        main=DemoImage(id="demo", sha256=hashlib.sha256(main).hexdigest()),
        held=DemoImage(id="second", sha256=hashlib.sha256(held).hexdigest()),
    )


def _disk(image: str, size_mib: int) -> bytes:
    """A disk with data at both ends and a hole between; the same bytes every time."""
    data = random.Random(image).randbytes(3 * MIB)  # noqa: S311 (content, no secret)
    disk = bytearray(size_mib * MIB)
    disk[: len(data)] = data
    disk[:512] = f"imagestore demo image {image}".encode().ljust(512, b"\0")
    disk[-MIB:] = data[:MIB]
    return bytes(disk)


def _stream(disk: bytes) -> bytes:
    """What ``zfs send tank/demo@v1`` would say of a volume with that content."""
    from imagestore.streams.snapshot import SnapshotInfo
    from imagestore.streams.writer import write_stream

    snapshot = SnapshotInfo(name="tank/demo@v1", guid=0x1DEA, volsize=len(disk), volblocksize=8192)
    with tempfile.TemporaryFile() as content:
        content.write(disk)
        content.flush()
        return b"".join(bytes(piece) for piece in write_stream(content.fileno(), snapshot))


def _pack(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(gzip.compress(content, compresslevel=1, mtime=0))


def play(scene: Scene) -> None:
    """The whole life.

    Raises:
        ImageStoreError: something was not as it must be, or did not work at all.
    """
    client = _start(scene)
    _fetch(scene, client)
    disks = _make_disks(scene, client)
    _snapshot(scene, client)
    _write_and_roll_back(scene, client, disks)
    _download(scene, client)
    _kill_during_a_fetch(scene, client)
    client = _restart(scene, disks)
    _audit(scene)
    _clean_up(scene, client)


def sha256(path: str) -> str:
    """The sha256 of a file, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _start(scene: Scene) -> Client:
    tell = scene.narrator
    tell.step("Start a store in an empty directory, and an image service beside it")
    tell.command(f"cd {scene.store.directory}")
    tell.command(f"imagestore {' '.join(scene.store.arguments)}")
    client = scene.store.start()
    tell.saw(f"the store is pid {scene.store.pid}, at {client.server}")
    tell.must(client.ready(), "the store says that it is ready")
    tell.must(client.list_images() == (), "it has no images yet")
    return client


def _fetch(scene: Scene, client: Client) -> None:
    tell, main = scene.narrator, scene.images.main
    tell.step("Fetch an image")
    tell.command(f"imagestore image pull {main.id}")
    image = client.request_image(main.id, type="kvm")
    packed = os.path.getsize(os.path.join(scene.images.directory, main.id))
    tell.saw(f"{image.snapshot}: {image.size}M, from {show_bytes(packed)} gzipped")
    tell.must(image.status == "complete", "the image is complete")
    assert image.volume is not UNSET
    device = client.get_volume(image.volume).device
    tell.must(sha256(device) == main.sha256, "its bytes are those of the disk that was packed")


def _make_disks(scene: Scene, client: Client) -> list[str]:
    """Returns where the guest's disks can be opened."""
    tell, main = scene.narrator, scene.images.main
    tell.step("Give a guest two disks: a clone of the image, and a blank one")
    tell.command(f"imagestore guest create {GUEST} --disk image={main.id} --disk size={BLANK_MIB}M")
    wanted = {"id": GUEST, "disks": [{"image": main.id}, {"size": BLANK_MIB}], "note": "comes back as sent"}
    guest = client.create_guest_disks(wanted)
    disks = [str(disk["source"]) for disk in guest["disks"]]
    for disk in guest["disks"]:
        tell.saw(f"{disk['volume']}  {disk['size']}M  {disk['source']}")
    tell.must(
        guest["note"] == wanted["note"], "what the store does not know of a guest comes back as it was sent"
    )
    tell.must(sha256(disks[0]) == main.sha256, "the first disk has the image's content")
    tell.must(os.path.getsize(disks[1]) == BLANK_MIB * MIB, f"the second is {BLANK_MIB} MiB long")
    tell.must(client.create_guest_disks(wanted) == guest, "asking for the same again changes nothing")
    return disks


def _snapshot(scene: Scene, client: Client) -> None:
    tell = scene.narrator
    tell.step("Take a snapshot of all disks of the guest, at one instant")
    tell.command(f"imagestore snap create {SNAPSHOT}")
    dataset, _, name = SNAPSHOT.partition("@")
    for snapshot in client.create_snapshot(dataset, name, recursive=True):
        tell.saw(snapshot.id)
    taken = {snapshot.id.partition("/")[2] for snapshot in client.list_snapshots(dataset)}
    wanted = {f"{dataset}/disk-{number}@{name}" for number in range(2)}
    tell.must(wanted <= taken, "each disk has its snapshot")


def _write_and_roll_back(scene: Scene, client: Client, disks: list[str]) -> None:
    tell, main = scene.narrator, scene.images.main
    tell.step("Write to both disks, as a guest would, and go back")
    for disk in disks:
        with open(disk, "r+b") as file:
            file.seek(MIB)
            file.write(NOTE)
    tell.must(sha256(disks[0]) != main.sha256, "the first disk has changed")
    tell.command(f"imagestore snap rollback {SNAPSHOT}")
    with open(disks[0], "r+b"):
        try:
            client.rollback_snapshot(SNAPSHOT)
        except InUse as refusal:
            tell.saw(str(refusal))
            refused = f"pid {os.getpid()}" in str(refusal)
        else:
            refused = False
    tell.must(refused, "a disk that somebody has open is not pulled away; the refusal says who")
    client.rollback_snapshot(SNAPSHOT)
    tell.must(sha256(disks[0]) == main.sha256, "now it is closed, the first disk is what it was")
    with open(disks[1], "rb") as file:
        file.seek(MIB)
        tell.must(file.read(len(NOTE)) == bytes(len(NOTE)), "the second as well: one step for both")


def _download(scene: Scene, client: Client) -> None:
    tell, main = scene.narrator, scene.images.main
    disk = SNAPSHOT.replace("@", "/disk-0@")
    tell.step("Download a disk's snapshot as a ZFS send stream")
    tell.command(f"imagestore send {disk} -o disk-0.zfs")
    path = os.path.join(os.path.dirname(scene.images.directory), "disk-0.zfs")
    with progress(disk) as report:
        fetch_file(client, Wanted(server=client.server, snapshot=disk), path, report)
    tell.saw(f"disk-0.zfs  {show_bytes(os.path.getsize(path))}")
    name, unpacked = _unpack(path)
    tell.must(unpacked == main.sha256, f"every checksum in it is right, and {name} unpacks to the same bytes")


def _unpack(path: str) -> tuple[str, str]:
    """The name in the stream, and the sha256 of what it unpacks to."""
    from imagestore.streams.applier import StreamApplier

    raw = f"{path}.raw"
    with open(path, "rb") as stream, open(raw, "w+b") as target:
        applier = StreamApplier(target.fileno())
        applier.read_from(stream.fileno())
        (snapshot,) = applier.finish().snapshots
    return snapshot.name, sha256(raw)


def _kill_during_a_fetch(scene: Scene, client: Client) -> None:
    tell, held = scene.narrator, scene.images.held
    tell.step("kill -9 in the middle of fetching another image")
    tell.command(f"imagestore image pull {held.id} &")
    ends: list[ImageStoreError] = []

    def pull() -> None:
        try:
            client.request_image(held.id)
        except ImageStoreError as problem:
            ends.append(problem)

    pulling = threading.Thread(target=pull, daemon=True)
    pulling.start()
    tell.must(scene.hold.reached.wait(WAIT_SECONDS), "its download has begun")
    image = client.get_image(held.id)
    tell.saw(f"{image.id}: {image.status}")
    tell.must(image.status in ("pending", "downloading", "importing"), "the store says that it is under way")
    tell.command(f"kill -9 {scene.store.pid}")
    scene.store.kill()
    pulling.join(WAIT_SECONDS)
    tell.must(len(ends) == 1, "who waited for it was told nothing but that the connection broke")
    tell.saw(str(ends[0]))
    scene.hold.release()


def _restart(scene: Scene, disks: list[str]) -> Client:
    tell, main, held = scene.narrator, scene.images.main, scene.images.held
    tell.step("Start it again on the same pool and journal")
    tell.command(f"imagestore {' '.join(scene.store.arguments)}")
    client = scene.store.start()
    tell.must(client.get_image(main.id).status == "complete", "the first image is there")
    tell.must(sha256(disks[0]) == main.sha256, "the guest's disk is there, byte for byte")
    tell.must(len(client.list_snapshots(f"guests/{GUEST}")) >= 2, "so are its snapshots")
    tell.command(f"imagestore image pull {held.id}")
    image = client.request_image(held.id)
    assert image.volume is not UNSET
    content = sha256(client.get_volume(image.volume).device)
    tell.must(content == held.sha256, "the interrupted fetch went on by itself and is whole")
    return client


def _audit(scene: Scene) -> None:
    tell, held = scene.narrator, scene.images.held
    tell.step("Read in the journal what happened")
    tell.saw(_offline(scene, "log", "--journal", "journal", "--image", held.id))
    lines = _offline(scene, "log", "--journal", "journal", "-o", "jsonl", quiet=True).splitlines()
    events = [json.loads(line) for line in lines]
    resumed = [entry["operation"] for entry in events if entry["event"]["event"] == "operation-resumed"]
    tell.must(len(resumed) == 1, "one operation was resumed in the second life: the fetch")
    ends = [
        entry["event"]["outcome"]
        for entry in events
        if entry["event"]["event"] == "operation-finished" and entry.get("operation") == resumed[0]
    ]
    tell.must(ends == ["succeeded"], "and it ended once, well")
    tell.saw(_offline(scene, "journal", "verify", "--journal", "journal"))


def _offline(scene: Scene, *arguments: str, quiet: bool = False) -> str:
    """What an offline command prints. Raises ImageStoreError if it fails."""
    if not quiet:
        scene.narrator.command(f"imagestore {' '.join(arguments)}")
    ended = subprocess.run(  # noqa: S603 (our own interpreter and arguments)
        [sys.executable, "-m", "imagestore", *arguments],
        cwd=scene.store.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise ImageStoreError(f"imagestore {arguments[0]} failed", detail=ended.stderr.strip())
    return ended.stdout


def _clean_up(scene: Scene, client: Client) -> None:
    tell = scene.narrator
    tell.step("Remove the guest, then the image, and stop")
    tell.command(f"imagestore guest rm {GUEST}; imagestore image rm {scene.images.main.id}")
    client.delete_guests_disks({"id": GUEST})
    client.delete_image(scene.images.main.id)
    tell.must(
        [image.id for image in client.list_images()] == [scene.images.held.id],
        "only the second image is left",
    )
    tell.command(f"kill {scene.store.pid}")
    tell.must(scene.store.stop() == 0, "the store ended with status 0")
