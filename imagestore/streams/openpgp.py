"""Whether a text is signed by somebody who is trusted: ``gpgv`` and a keyring that is given.

A text is clearsigned, or has a detached signature beside it.  Trusted are the
keys of the keyring and nobody else; what an expired or revoked key signed is
not.  ``gpgv`` runs without a shell, with limits of the kernel, on copies in a
directory of its own.  Blocks; call it in a thread.
"""

import base64
import binascii
import os
import re
import shutil
import subprocess
import tempfile
from typing import Final

from imagestore.errors import ConfigError, ContentRefused

SEARCH_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
SECONDS: Final = 30
MEMORY_BYTES: Final = 512 << 20
MOST_KEYRING_BYTES: Final = 512 << 10
SIGNATURE_SUFFIXES: Final = (".gpg", ".sign", ".asc", ".sig")
"""What publishers call the detached signature of a list of sums, after the list's own name."""

CLEARSIGNED: Final = b"-----BEGIN PGP SIGNED MESSAGE-----"

_ARMOR: Final = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(.+?)(?:\r?\n=[^\r\n]+)?\r?\n-----END",
    re.DOTALL,
)
_BAD: Final = {"BADSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG"}


def is_clearsigned(text: bytes) -> bool:
    return text.lstrip().startswith(CLEARSIGNED)


def verified(text: bytes, signature: bytes | None, keyring: bytes) -> bytes:
    """What of ``text`` a key of ``keyring`` (binary or armored) signed: all of it, or the clearsigned part.

    Raises:
        ContentRefused: nobody of the keyring did, or a signature is bad.
        ConfigError: the keyring is none, or gpgv is not installed.
    """
    keys = _unarmored(keyring)
    gpgv, prlimit = _find("gpgv", "gpgv"), _find("prlimit", "util-linux")
    with tempfile.TemporaryDirectory(prefix="imagestore-gpgv-") as directory:
        place = {name: os.path.join(directory, name) for name in ("keys.gpg", "text", "signature", "signed")}
        for name, content in (("keys.gpg", keys), ("text", text), ("signature", signature)):
            if content is not None:
                with open(place[name], "wb") as file:
                    file.write(content)
        what = ["--output", place["signed"], "--", place["text"]]
        if signature is not None:
            what = ["--", place["signature"], place["text"]]
        limits = [f"--as={MEMORY_BYTES}", f"--cpu={SECONDS}", f"--fsize={len(text) + 1}", "--core=0", "--"]
        try:
            finished = subprocess.run(  # noqa: S603 (no shell, a fixed program, paths of our own)
                [prlimit, *limits, gpgv, "--status-fd", "1", "--keyring", place["keys.gpg"], *what],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": SEARCH_PATH, "LC_ALL": "C", "GNUPGHOME": directory},
                cwd="/",
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ContentRefused("the signature could not be checked in time") from None
        judge(finished.stdout.decode("utf-8", "replace"))
        if signature is not None:
            return text
        with open(place["signed"], "rb") as file:
            return file.read()


def judge(status: str) -> None:
    """Raises ContentRefused unless gpgv's status lines tell of a good signature and of no bad one.

    Signatures by keys that the keyring does not have are passed over: publishers sign with several.
    """
    said = [line.split()[1:] for line in status.splitlines() if line.startswith("[GNUPG:] ")]
    words = [words[0] for words in said if words]
    bad = _BAD.intersection(words)
    if bad:
        why = {"BADSIG": "does not fit its text", "EXPSIG": "has expired"}
        raise ContentRefused(
            f"a signature {why.get(bad.pop(), 'is of a key that has expired or was revoked')}"
        )
    if words.count("PLAINTEXT") > 1:
        raise ContentRefused("the signed text has several parts")
    if "GOODSIG" not in words or "VALIDSIG" not in words:
        raise ContentRefused("the sums are not signed by a key of the keyring")


def _unarmored(keyring: bytes) -> bytes:
    if len(keyring) > MOST_KEYRING_BYTES:
        raise ConfigError(f"the keyring has over {MOST_KEYRING_BYTES} bytes")
    if not keyring.lstrip().startswith(b"-----BEGIN"):
        return keyring
    blocks = _ARMOR.findall(keyring)
    try:
        keys = b"".join(base64.b64decode(block, validate=False) for block in blocks)
    except binascii.Error:
        keys = b""
    if not keys:
        raise ConfigError("the keyring holds no public key")
    return keys


def _find(name: str, package: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SEARCH_PATH}")
    if path is None:
        raise ConfigError(
            f"checking signatures needs {name}, which is not installed: apt-get install {package}"
        )
    return path
