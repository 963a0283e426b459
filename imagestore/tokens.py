"""Tokens: what one looks like, what is kept of it, how one is recognised.

A token is 256 bits from the system's random source behind a prefix by which
scanners for leaked secrets can find it.  The store draws it and tells it once;
what is kept is its SHA-256.  A slow hash would add nothing: it protects what
people choose, and can be guessed.

Tokens are recognised without telling by the time it takes how near a wrong
one was.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Protocol, TypeVar

from imagestore.errors import InvalidArgument

PREFIX = "imagestore_"

MOST_TOKENS = 1000
"""So many may be there at once: each is looked at whenever somebody brings one."""

MOST_CHARACTERS = 256
"""Of what is brought as a token; more is none."""

LONGEST_SECONDS = 100 * 366 * 86_400
"""Within which a token that expires does so."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


def new_secret() -> str:
    """A token that never was before."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """What is kept of a token, in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def check_name(name: str) -> None:
    """Raises InvalidArgument unless a token can be called so."""
    if not _NAME.match(name):
        raise InvalidArgument(
            "a token's name has 1 to 64 letters, digits and _ . -, and begins with a letter or digit"
        )


def principal_of(name: str) -> str:
    """Who acts with the token of that name, as events have it."""
    return f"token:{name}"


class Kept(Protocol):
    """What is kept of a token."""

    @property
    def sha256(self) -> str: ...


_Kept = TypeVar("_Kept", bound=Kept)


def recognised(digest: str, kept: Iterable[_Kept]) -> _Kept | None:
    """The one that ``digest`` is of.  All are looked at, each in constant time."""
    found: _Kept | None = None
    for each in kept:
        if hmac.compare_digest(each.sha256, digest):
            found = each
    return found
