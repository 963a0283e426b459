"""Files of SHA-256 sums: which digest a publisher lists for a file.

Reads what ``sha256sum`` writes (text and binary mark, names escaped or not)
and the BSD form (``SHA256 (name) = …``), mixed with comments and the sums of
other algorithms.  Pure.
"""

import re
from typing import Final

from imagestore.errors import FetchFailed, InvalidArgument

MOST_BYTES: Final = 4 << 20
"""A longer file is no list of sums."""

_GNU: Final = re.compile(r"(\\?)([0-9A-Fa-f]{64}) [ *](.+)\Z")
_BSD: Final = re.compile(r"(\\?)SHA256 ?\((.+)\) ?= ?([0-9A-Fa-f]{64})\Z")
_BARE: Final = re.compile(r"[0-9A-Fa-f]{64}\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_ESCAPES: Final = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


def check_sha256(text: str) -> str:
    """A SHA-256 digest as somebody gave it, in lower case. Raises InvalidArgument."""
    digest = text.strip().lower().removeprefix("sha256:")
    if not _DIGEST.match(digest):
        raise InvalidArgument(f"sha256 {text[:80]!r} is not 64 hexadecimal digits")
    return digest


def digest_of(sums: bytes, name: str) -> str:
    """The SHA-256 digest that the file ``sums`` lists for the file ``name``, in lower case.

    A file that holds one digest and no name at all is of whatever it lies beside.

    Raises:
        FetchFailed: it lists none, or two different ones.
    """
    text = sums.decode("utf-8", "replace")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    found = {digest for line in lines for listed, digest in _entry(line) if _last(listed) == name}
    said = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found and len(said) == 1 and _BARE.match(said[0]):
        found = {said[0].lower()}
    if not found:
        raise FetchFailed(f"the sums file lists no sha256 of {name}")
    if len(found) > 1:
        raise FetchFailed(f"the sums file lists {len(found)} different sha256 of {name}")
    return found.pop()


def _entry(line: str) -> list[tuple[str, str]]:
    """The name and digest of a line; nothing for any other line."""
    if (gnu := _GNU.match(line)) is not None:
        return [(_unescaped(gnu[3], gnu[1]), gnu[2].lower())]
    if (bsd := _BSD.match(line)) is not None:
        return [(_unescaped(bsd[2], bsd[1]), bsd[3].lower())]
    return []


def _unescaped(name: str, mark: str) -> str:
    return re.sub(r"\\[\\nr]", lambda found: _ESCAPES[found[0]], name) if mark else name


def _last(name: str) -> str:
    return name.rpartition("/")[2]
