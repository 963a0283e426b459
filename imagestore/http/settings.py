"""The limits of the HTTP server, each with its unit and default, and whom it trusts."""

from collections.abc import Mapping

from msgspec import Struct

from imagestore.access import AccessRole


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Limits of :func:`imagestore.http.server.serve_http`."""

    max_body_bytes: int = 1 << 20
    """Largest request body."""

    body_seconds: float = 30.0
    """Within which a request's body must be whole."""

    stall_seconds: float = 300.0
    """A client that takes nothing for so long is cut off."""

    least_upload_bytes: int = 64 << 10
    """A client that sends less in ``stall_seconds`` of waiting for it is cut off."""

    keep_alive_seconds: float = 60.0
    """An idle connection, or one whose request headers are not whole, is closed after this."""

    handshake_seconds: float = 10.0
    """Within which a TLS client must have said who it is."""

    grace_seconds: float = 5.0
    """How long requests under way may go on once the server stops."""

    max_connections: int = 1024
    """Connections at once. For a further one the longest idle is closed; if none is idle, it gets a 503."""

    max_header_bytes: int = 32 << 10
    """Largest request line and headers together."""


class AccessSettings(Struct, frozen=True, kw_only=True):
    """Who is let in without a token, and as what."""

    loopback_role: AccessRole | None = "admin"
    """Whoever connects from this machine by TCP; None: needs a token, too."""

    allow_unauthenticated: bool = False
    """Whether everybody is an admin: the network itself is guarded."""

    open_images: bool = False
    """Whether anybody may fetch images, as other hosts' stores do."""

    client_roles: Mapping[str, AccessRole] = {}
    """TLS clients by the common names of their certificates; ``*`` is everybody else."""
