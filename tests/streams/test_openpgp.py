"""Sums signed with real keys, checked by the real gpgv; what it says is judged in any case."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagestore.errors import ConfigError, ContentRefused
from imagestore.streams.openpgp import is_clearsigned, judge, verified

SUMS = f"{'a1' * 32}  debian.qcow2\n".encode()
GOOD = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 74 Sums\n[GNUPG:] VALIDSIG 39A2 2026-11-24\n"


@pytest.mark.parametrize(
    "status", [GOOD, "[GNUPG:] PLAINTEXT 74 0\n" + GOOD, GOOD + "[GNUPG:] ERRSIG 12 1 8\n"]
)
def test_a_good_signature_is_enough(status: str) -> None:
    judge(status)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("", "not signed"),
        ("[GNUPG:] ERRSIG 74\n[GNUPG:] NO_PUBKEY 74\n", "not signed"),
        (GOOD.replace("[GNUPG:] VALIDSIG", "VALIDSIG"), "not signed"),
        (GOOD + "[GNUPG:] BADSIG 74 Sums\n", "does not fit"),
        (GOOD.replace("GOODSIG", "EXPKEYSIG"), "expired or was revoked"),
        (GOOD.replace("GOODSIG", "REVKEYSIG"), "expired or was revoked"),
        (GOOD.replace("GOODSIG", "EXPSIG"), "has expired"),
        ("[GNUPG:] PLAINTEXT 74 0\n" * 2 + GOOD, "several parts"),
    ],
)
def test_anything_else_is_refused(status: str, reason: str) -> None:
    with pytest.raises(ContentRefused, match=reason):
        judge(status)


# --- the real gpgv ----------------------------------------------------------------------


class Signer:
    """A person with a key of their own."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self._environment = {**os.environ, "GNUPGHOME": str(home)}
        self.gpg(
            "--passphrase", "", "--quick-generate-key", "Sums <sums@example.net>", "ed25519", "sign", "0"
        )

    def gpg(self, *words: str, text: bytes = b"") -> bytes:
        command = ["gpg", "--batch", "--quiet", *words]
        return subprocess.run(
            command, input=text, stdout=-1, stderr=-1, check=True, env=self._environment
        ).stdout

    def stop(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], check=True, env=self._environment)


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    signer = Signer(tmp_path / "g")
    yield signer
    signer.stop()


@pytest.mark.system
@pytest.mark.parametrize("armor", [(), ("--armor",)], ids=["binary", "armored"])
def test_what_a_trusted_key_signed_is_given(signer: Signer, armor: tuple[str, ...]) -> None:
    keyring = signer.gpg(*armor, "--export")
    assert verified(SUMS, signer.gpg(*armor, "--detach-sign", text=SUMS), keyring) == SUMS
    clearsigned = signer.gpg("--clearsign", text=SUMS)
    assert is_clearsigned(clearsigned)
    assert not is_clearsigned(SUMS)
    # Text around the signed part is not signed, and not given.
    assert verified(b"\n" + clearsigned + b"\nmore", None, keyring) == SUMS


@pytest.mark.system
def test_what_was_changed_after_it_was_signed_is_refused(signer: Signer) -> None:
    keyring = signer.gpg("--export")
    with pytest.raises(ContentRefused, match="does not fit its text"):
        verified(SUMS + b"more\n", signer.gpg("--detach-sign", text=SUMS), keyring)
    with pytest.raises(ContentRefused, match="does not fit its text"):
        verified(signer.gpg("--clearsign", text=SUMS).replace(b"a1a1", b"a2a1"), None, keyring)


@pytest.mark.system
def test_what_a_stranger_signed_is_refused(signer: Signer, tmp_path: Path) -> None:
    stranger = Signer(tmp_path / "s")
    try:
        with pytest.raises(ContentRefused, match="not signed by a key of the keyring"):
            verified(SUMS, stranger.gpg("--detach-sign", text=SUMS), signer.gpg("--export"))
    finally:
        stranger.stop()


@pytest.mark.system
def test_what_nobody_signed_is_refused(signer: Signer) -> None:
    with pytest.raises(ContentRefused, match="not signed"):
        verified(SUMS, b"no signature", signer.gpg("--export"))
    with pytest.raises(ContentRefused, match="not signed"):
        verified(SUMS, None, signer.gpg("--export"))


@pytest.mark.parametrize("keyring", [b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nnothing\n", bytes(1 << 20)])
def test_what_is_no_keyring_is_refused(keyring: bytes) -> None:
    with pytest.raises(ConfigError, match="keyring"):
        verified(SUMS, None, keyring)


def test_without_gpgv_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("imagestore.streams.openpgp.SEARCH_PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs gpgv, which is not installed: apt-get install gpgv"):
        verified(SUMS, None, b"\x98")
