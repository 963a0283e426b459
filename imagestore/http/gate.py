"""The gate that every request goes through: who asks, and whether they may.

Owns the order of it: what anybody may ask (health; the page, which is empty
until it asks itself; images, if the settings say so), a token, what the
connection itself is worth.  A token that is not good is a refusal also where
none is needed.  After some of those nothing from the same source is looked at
for a while.

What needs more than to be let in is judged where it is known: RPC methods by
:mod:`imagestore.http.permission`, uploads by themselves.
"""

import logging
import math

import msgspec
import trio

from imagestore.access import AccessRole, permit
from imagestore.errors import Forbidden, ImageStoreError, TooManyAttempts, Unauthenticated
from imagestore.http import downloads, images, pages
from imagestore.http.answer import Answer, Header
from imagestore.http.attempts import Attempts
from imagestore.http.exchange import RPC_PATH, Exchange
from imagestore.http.problems import problem_answer
from imagestore.http.settings import AccessSettings
from imagestore.service import Caller, Service
from imagestore.tokens import MOST_CHARACTERS, digest_of

_log = logging.getLogger(__name__)

OPEN_PATHS = ("/healthz", "/readyz")

_READING = ("GET", "HEAD")
_CHALLENGE: Header = (b"www-authenticate", b'Bearer realm="imagestore"')
_OWN_PAGES = ("same-origin", "none")


class Gate:
    """See the module. One for all connections of a server."""

    def __init__(self, service: Service, settings: AccessSettings) -> None:
        self._service = service
        self._settings = settings
        self._attempts = Attempts(trio.current_time)

    def admit(self, exchange: Exchange) -> Answer | None:
        """Put into ``exchange.caller`` who asks; the refusal instead if it is not let in."""
        if self._is_open(exchange):
            return None
        try:
            exchange.caller = self._caller_of(exchange)
            permit(exchange.caller.principal, exchange.caller.role, exchange.path, _needed_at(exchange))
        except ImageStoreError as error:
            return self._refusal(exchange, error)
        return None

    def distrust(self, source: str, principal: str, reason: str) -> None:
        """Note that somebody at ``source`` showed what is not good."""
        failures = self._attempts.failed(source)
        _log.warning("refused %s: %s; %d of late", principal, reason, failures, extra={"source": source})

    def _is_open(self, exchange: Exchange) -> bool:
        if exchange.path in OPEN_PATHS or pages.takes(exchange.path):
            return True
        is_image = exchange.method == "GET" and images.read_path(exchange.path) is not None
        return is_image and self._settings.open_images and "authorization" not in exchange.headers

    def _caller_of(self, exchange: Exchange) -> Caller:
        """Raises Unauthenticated, TooManyAttempts, Forbidden, TemporarilyUnavailable."""
        peer = exchange.peer
        scheme, _, secret = exchange.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._bearer(exchange, secret.strip())
        if peer.role is None:
            raise Unauthenticated(
                detail=f"{peer.principal} shows neither; an admin makes a token with: imagestore token create"
            )
        _check_origin(exchange)
        return Caller(principal=peer.principal, role=peer.role)

    def _bearer(self, exchange: Exchange, secret: str) -> Caller:
        peer = exchange.peer
        wait = self._attempts.wait_seconds(peer.source)
        if wait > 0:
            raise TooManyAttempts(detail=f"try again in {math.ceil(wait)} s")
        sha256 = digest_of(secret) if len(secret) <= MOST_CHARACTERS else ""
        grant = self._service.grant(sha256) if sha256 else None
        if grant is None or grant.expired:
            reason = "a token that is not known" if grant is None else f"{grant.principal} has expired"
            self.distrust(peer.source, peer.principal, reason)
            raise Unauthenticated(
                "the token is not known" if grant is None else "the token has expired",
                detail="an admin makes one with: imagestore token create",
            )
        self._attempts.succeeded(peer.source)
        exchange.token_sha256 = sha256
        return Caller(principal=grant.principal, role=grant.role)

    def _refusal(self, exchange: Exchange, error: ImageStoreError) -> Answer:
        answer = problem_answer(error)
        headers = list(answer.headers)
        if isinstance(error, Unauthenticated):
            headers.append(_CHALLENGE)
        if isinstance(error, TooManyAttempts):
            wait = self._attempts.wait_seconds(exchange.peer.source)
            headers.append((b"retry-after", b"%d" % math.ceil(wait)))
        if isinstance(error, Forbidden):
            _log.info("%s", error)
        return msgspec.structs.replace(answer, headers=tuple(headers))


def _needed_at(exchange: Exchange) -> AccessRole:
    """What a path needs of whoever asks there, at least."""
    if exchange.method in _READING or exchange.path in (RPC_PATH, downloads.PATH):
        return "reader"
    return "operator"


def _check_origin(exchange: Exchange) -> None:
    """Whoever is known by the connection alone must not be used by a web page from elsewhere.

    Raises Forbidden. Browsers say where a request comes from; other clients do not, and need not.
    """
    site = exchange.headers.get("sec-fetch-site", "none")
    if site not in _OWN_PAGES and exchange.method not in _READING:
        raise Forbidden("permission denied: a page of another site asks")
