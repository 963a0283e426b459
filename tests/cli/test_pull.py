"""image pull and image source: what the store is asked for, and what is read here and sent to it."""

import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.memory_store import MemoryStore
from tests.streams.test_openpgp import Signer

ADDRESS = "https://cloud.example/images/debian-12.qcow2?arch=amd64"
DISK = bytes(range(251)) * 20_000
DIGEST = hashlib.sha256(DISK).hexdigest()
SUMS = f"{'0' * 64}  other.img\n{DIGEST} *disk.img\n"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(DISK)
    return path


def test_an_address_is_asked_for_with_what_it_must_be(run: Run, memory_store: MemoryStore) -> None:
    sums = "https://cloud.example/images/SHA256SUMS"
    assert run("image", "pull", ADDRESS, "--as", "deb12", "--type", "kvm", "--sums", sums).status == 0
    method, request = memory_store.calls[0]
    assert method == "RequestImage"
    wanted = {"id": "deb12", "type": "kvm", "source": ADDRESS, "sums": sums, "sha256": "", "keyring": ""}
    assert wanted.items() <= request.items()


def test_sums_that_lie_here_are_read_here(run: Run, memory_store: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "SUMS").write_text(f"{DIGEST}  debian-12.qcow2\n")
    assert run("image", "pull", ADDRESS, "--as", "deb12", "--sums", str(tmp_path / "SUMS")).status == 0
    _, request = memory_store.calls[0]
    assert (request["sha256"], request["sums"]) == (DIGEST, "")


def test_a_keyring_for_sums_elsewhere_goes_along(run: Run, memory_store: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"\x98keys")
    sums = "https://cloud.example/SHA256SUMS"
    run("image", "pull", ADDRESS, "--as", "d", "--sums", sums, "--keyring", str(tmp_path / "keys"))
    _, request = memory_store.calls[0]
    assert (request["sums"], base64.b64decode(request["keyring"])) == (sums, b"\x98keys")


def test_a_file_is_sent_with_its_length(run: Run, memory_store: MemoryStore, disk: Path) -> None:
    ended = run("image", "pull", str(disk), "--as", "golden", "--type", "kvm", "--sha256", DIGEST)
    assert (ended.status, ended.err) == (0, "")
    assert "golden  kvm" in ended.out
    assert memory_store.received == {"golden": DISK}
    assert memory_store.calls == [
        ("upload", {"id": "golden", "type": "kvm", "sha256": DIGEST, "announced": str(len(DISK))})
    ]


def test_standard_input_is_sent_without(memory_store: MemoryStore) -> None:
    command = [sys.executable, "-m", "imagestore", "image", "pull", "-", "--as", "golden"]
    subprocess.run([*command, "--server", memory_store.address], input=DISK, capture_output=True, check=True)
    assert memory_store.received == {"golden": DISK}
    assert memory_store.calls == [("upload", {"id": "golden", "announced": None})]


def test_a_file_is_looked_up_in_sums(run: Run, memory_store: MemoryStore, disk: Path) -> None:
    disk.with_name("SUMS").write_text(SUMS)
    assert run("image", "pull", str(disk), "--as", "g", "--sums", str(disk.with_name("SUMS"))).status == 0
    assert memory_store.calls[0][1]["sha256"] == DIGEST


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("-",), 2, "- needs an id\n  add --as ID"),
        (("./disk.img",), 2, "./disk.img needs an id"),
        ((ADDRESS,), 2, "needs an id"),
        (("no-such-file", "--as", "a"), 3, "no-such-file does not exist"),
        (("a", "--keyring", "k"), 2, "a keyring is for a sums file"),
        ((ADDRESS, "--as", "a", "--sums", "no-such-file"), 1, "no-such-file: No such file"),
        (("/dev/null", "--as", "a", "--sums", "https://x/SUMS"), 2, "have to lie here too"),
        (("-", "--as", "a", "--sums", "SUMS"), 2, "standard input has no name"),
        (("/dev/null", "--as", "a", "--sums", "SUMS", "--sha256", DIGEST), 2, "one of them is enough"),
        (("/x/other.iso", "--as", "a", "--sums", "SUMS"), 10, "lists no sha256 of other.iso"),
        (("/x/disk.img", "--as", "a", "--sums", "SUMS", "--keyring", "SUMS"), 10, "SUMS is not signed"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_asked(
    run: Run,
    memory_store: MemoryStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    (tmp_path / "SUMS").write_text(SUMS)
    monkeypatch.chdir(tmp_path)
    ended = run("image", "pull", *arguments)
    assert ended.status == status, ended.err
    assert said in ended.err
    assert memory_store.calls == []


@pytest.mark.parametrize(
    ("refusal", "status", "advice"),
    [
        ("the address of an image has a signed query, which would end up in the journal", 2, ""),
        ("sha256 'x' is not 64 hexadecimal digits", 2, ""),
        ("image already exists: deb12", 4, ""),
        (
            "cloud.example is in a private network (10.0.0.1), which images are not pulled from",
            10,
            "  the store's setting allow_private_sources allows it; image pull FILE --as ID goes without\n",
        ),
    ],
)
def test_a_refusal_has_its_exit_code(
    run: Run, memory_store: MemoryStore, refusal: str, status: int, advice: str
) -> None:
    memory_store.refusals["RequestImage"] = refusal
    ended = run("image", "pull", ADDRESS, "--as", "deb12")
    assert (ended.status, ended.err) == (status, f"imagestore: {refusal}\n{advice}")


def test_sources_are_added_listed_and_removed(run: Run, memory_store: MemoryStore) -> None:
    assert run("image", "source", "add", "deb12", ADDRESS, "--sha256", DIGEST).status == 0
    assert run("image", "source", "add", "b", "https://x/b", "--sums", "https://x/SUMS").status == 0
    lines = run("image", "source", "ls").out.splitlines()
    assert lines[0].split() == ["IMAGE", "SOURCE", "VERIFIED", "BY"]
    assert lines[1].split() == ["deb12", ADDRESS, "sha256", DIGEST]
    assert lines[2].split() == ["b", "https://x/b", "https://x/SUMS"]
    assert run("image", "source", "rm", "deb12", "--yes").status == 0
    assert run("image", "source", "rm", "deb12", "--yes").status == 3


@pytest.mark.system
def test_signed_sums_that_lie_here_are_checked_here(
    run: Run, memory_store: MemoryStore, disk: Path, tmp_path: Path
) -> None:
    signer = Signer(tmp_path / "g")
    try:
        (tmp_path / "keys").write_bytes(signer.gpg("--export", "--armor"))
        (tmp_path / "SUMS").write_text(SUMS)
        (tmp_path / "SUMS.sign").write_bytes(signer.gpg("--detach-sign", text=SUMS.encode()))
    finally:
        signer.stop()
    signed = ("--sums", str(tmp_path / "SUMS"), "--keyring", str(tmp_path / "keys"))
    assert run("image", "pull", str(disk), "--as", "g", *signed).status == 0
    assert memory_store.calls[0][1]["sha256"] == DIGEST
    (tmp_path / "SUMS").write_text(SUMS + "more\n")
    ended = run("image", "pull", str(disk), "--as", "g", *signed)
    assert (ended.status, ended.err) == (10, "imagestore: a signature does not fit its text\n")
