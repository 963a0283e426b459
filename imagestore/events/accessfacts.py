"""The events about who may ask: tokens made and revoked.

A part of the catalogue, whose rules hold here.  Of a token the journal has the
SHA-256 and nothing else.  A plain hash is enough, and no slow one is needed:
tokens are 256 random bits that the store itself drew, so there is nothing to
guess that the hash could be tried against.
"""

from imagestore.access import AccessRole
from imagestore.events.record import Record


class TokenCreated(Record, frozen=True, kw_only=True, tag="token-created", tag_field="event"):
    """Whoever brings the token may do what ``role`` may, as ``token:NAME``.

    ``sha256`` (hex) is of the token; ``expires_ns`` in nanoseconds since 1970, 0 is never.
    """

    name: str
    role: AccessRole
    sha256: str
    expires_ns: int = 0


class TokenRevoked(Record, frozen=True, kw_only=True, tag="token-revoked", tag_field="event"):
    name: str
