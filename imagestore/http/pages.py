"""The one page: ``/`` and its parts under ``/ui/``, files of this package in ``page/``.

Owns what a browser may do with them: nothing but what comes from this store.
The parts hold nothing of the store's, so anybody may have them; what the page
shows it asks for over RPC and the event feed, where everybody has to show who
they are.
"""

import os
from functools import cache

import msgspec
from msgspec import Struct

from imagestore.http.answer import NOSNIFF, Answer, Header, choose_coding, coded
from imagestore.http.exchange import Exchange
from imagestore.http.uploads import problem

DIRECTORY = os.path.join(os.path.dirname(__file__), "page")

PREFIX = "/ui/"

_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}

POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, in nobody's frame; and no text ever becomes markup."""

_SAFE: tuple[Header, ...] = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
    NOSNIFF,
)


class Part(Struct, frozen=True, kw_only=True):
    """A file of the page, ready to be sent."""

    content_type: bytes
    body: bytes


@cache
def parts() -> dict[str, Part]:
    """All parts by their paths."""
    found = {}
    for name in sorted(os.listdir(DIRECTORY)):
        content_type = _TYPES.get(os.path.splitext(name)[1])
        if content_type is None:
            continue
        with open(os.path.join(DIRECTORY, name), "rb") as file:
            body = file.read()
        path = "/" if name == "index.html" else PREFIX + name
        found[path] = Part(content_type=content_type, body=body)
    return found


def takes(path: str) -> bool:
    """Whether ``path`` is the page or one of its parts."""
    return path in parts()


def page_answer(exchange: Exchange) -> Answer:
    """The part that is asked for."""
    if exchange.method != "GET":
        refused = problem(405, "GET method required")
        return msgspec.structs.replace(refused, headers=(*refused.headers, (b"allow", b"GET")))
    part = parts()[exchange.path]
    headers = ((b"content-type", part.content_type), *_SAFE)
    answer = Answer(status=200, headers=headers, body=part.body)
    return coded(answer, choose_coding(exchange.accept_encoding))
