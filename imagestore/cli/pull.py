"""``imagestore image pull``: images from the image service, any address, a file or a pipe.

What lies on this machine is read here and sent to the store, which may be
another machine; sums files and keyrings that lie here are read here as well.
"""

import base64
import os
import sys
import threading
from collections.abc import Callable, Iterator

import click
from msgspec import UNSET, Struct

from imagestore.cli.connection import changing, examples
from imagestore.cli.images import IMAGE_COLUMNS, image
from imagestore.cli.output import Format, output_option, show_one
from imagestore.cli.progress import Report, progress, shows_progress
from imagestore.client import PIECE_BYTES, Client
from imagestore.errors import FetchFailed, ImageStoreError, InvalidArgument
from imagestore.model import Image, UploadRequest

POLL_SECONDS = 0.5
"""How often a progress bar asks."""

STANDARD_INPUT = "-"


class Proof(Struct, frozen=True, kw_only=True):
    """What the content must be.  ``sums`` and ``keyring`` as they were given: addresses or paths."""

    sha256: str = ""
    sums: str = ""
    keyring: str = ""


@image.command(
    epilog=examples(
        "imagestore image pull deb12",
        "imagestore image pull https://cloud.example/deb12.qcow2 --as deb12 --sha256 9f2c…",
        "imagestore image pull https://cloud.example/deb12.img --as d --sums SHA256SUMS --keyring keys.gpg",
        "imagestore image pull ./disk.vmdk --as appliance",
        "xz -dc disk.img.xz | imagestore image pull - --as golden",
    )
)
@click.argument("source", metavar="ID|URL|FILE|-")
@click.option("--as", "image_id", metavar="ID", help="The image's id; with an ID to pull, that is it.")
@click.option("--type", "image_type", default="", metavar="TYPE", help="What the image is for, e.g. kvm.")
@click.option("--sha256", default="", metavar="HEX", help="What the file's sha256 must be.")
@click.option("--sums", default="", metavar="URL|FILE", help="A SHA256SUMS file that lists it.")
@click.option("--keyring", default="", metavar="FILE", help="Public keys, one of which signed the sums.")
@output_option
@changing
def pull(
    client: Client,
    source: str,
    image_id: str | None,
    image_type: str,
    sha256: str,
    sums: str,
    keyring: str,
    output: Format,
) -> None:
    """Bring an image into the store, and wait until it is usable.

    An ID is fetched from its registered source, or from the image service. A URL, a FILE or standard
    input (-) needs --as. Taken are ZFS send streams of a volume, raw disks, qcow2, vmdk, vdi, vhd and
    vhdx, packed with gzip, xz, zstd, bzip2 or not; sums are of the file as it is served.

    Giving up here does not stop the store: the same command again joins the same fetch. An upload ends.
    """
    proof = Proof(sha256=sha256, sums=sums, keyring=keyring)
    if keyring and not sums:
        raise InvalidArgument("a keyring is for a sums file, and none is given", detail="add --sums")
    if image_id is None:
        if source == STANDARD_INPUT or "/" in source:
            raise InvalidArgument(f"{source} needs an id", detail="add --as ID")
        show_one(_request(client, source, image_type, "", proof), IMAGE_COLUMNS, output)
    elif _is_address(source):
        show_one(_request(client, image_id, image_type, source, proof), IMAGE_COLUMNS, output)
    else:
        show_one(_send(client, source, image_id, image_type, proof), IMAGE_COLUMNS, output)


def _is_address(text: str) -> bool:
    return "://" in text


# --- fetched by the store ----------------------------------------------------------------


def _request(client: Client, image_id: str, image_type: str, source: str, proof: Proof) -> Image:
    sha256, sums, keyring = proof.sha256, proof.sums, ""
    if sums and not _is_address(sums):
        sha256, sums = _listed_here(proof, source.partition("?")[0].rpartition("/")[2]), ""
    elif proof.keyring:
        keyring = base64.b64encode(_read(proof.keyring)).decode()

    def ask() -> Image:
        return client.request_image(
            image_id, type=image_type, source=source, sha256=sha256, sums=sums, keyring=keyring
        )

    if client.changing.dry_run or not shows_progress():
        return ask()
    with progress(image_id) as report:
        return _watched(client, image_id, ask, report)


def _watched(client: Client, image_id: str, ask: Callable[[], Image], report: Report) -> Image:
    """Wait in a thread for the answer, and here ask how far it is."""
    answers: list[Image | BaseException] = []

    def wait() -> None:
        try:
            answers.append(ask())
        except BaseException as problem:
            answers.append(problem)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(POLL_SECONDS)
        try:
            seen = client.get_image(image_id)
        except ImageStoreError:
            continue  # not known yet, or the other thread will say what is wrong
        if seen.progress is not UNSET:
            status = seen.status if seen.status is not UNSET else ""
            report(status, seen.progress.done_bytes, seen.progress.total_bytes)
    (answer,) = answers
    if isinstance(answer, BaseException):
        raise answer
    return answer


# --- sent from here -----------------------------------------------------------------------


def _send(client: Client, path: str, image_id: str, image_type: str, proof: Proof) -> Image:
    from imagestore.streams.landing import opened

    if path == STANDARD_INPUT and sys.stdin.isatty():
        raise InvalidArgument("a terminal sends no image", detail="name a FILE, or use a pipe")
    sha256 = proof.sha256
    if proof.sums:
        sha256 = _listed_here(proof, "" if path == STANDARD_INPUT else os.path.basename(path))
    with opened(path) as file, progress(image_id) as report:
        size = os.fstat(file).st_size if os.path.isfile(path) else None
        request = UploadRequest(id=image_id, type=image_type, sha256=sha256)
        return client.upload_image(request, _pieces(file, size, report), size)


def _pieces(file: int, size: int | None, report: Report) -> Iterator[bytes]:
    done = 0
    while piece := os.read(file, PIECE_BYTES if size is None else min(PIECE_BYTES, size - done)):
        yield piece
        done += len(piece)
        report("sending", done, size)
    if size is not None and done < size:
        raise FetchFailed("the file became shorter while it was read")
    report("verifying", done, size)


# --- sums that lie here ---------------------------------------------------------------------


def _listed_here(proof: Proof, name: str) -> str:
    """The digest that a sums file on this machine lists for ``name``, signed if a keyring is given."""
    from imagestore.streams import openpgp, sums

    if proof.sha256:
        raise InvalidArgument("a sha256 and a sums file are given; one of them is enough")
    if _is_address(proof.sums):
        raise InvalidArgument(
            "the sums of what lies here have to lie here too", detail="--sums FILE, or --sha256"
        )
    if not name:
        raise InvalidArgument("standard input has no name that sums could list", detail="use --sha256")
    listed = _read(proof.sums)
    if proof.keyring:
        signature = None if openpgp.is_clearsigned(listed) else _signature(proof.sums)
        listed = openpgp.verified(listed, signature, _read(proof.keyring))
    return sums.digest_of(listed, name)


def _signature(path: str) -> bytes:
    from imagestore.streams.openpgp import SIGNATURE_SUFFIXES

    for suffix in SIGNATURE_SUFFIXES:
        if os.path.exists(path + suffix):
            return _read(path + suffix)
    raise FetchFailed(
        f"{path} is not signed: no signature in it, nor beside it ({', '.join(SIGNATURE_SUFFIXES)})"
    )


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
