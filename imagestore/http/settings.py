"""The limits of the HTTP server, each with its unit and default."""

from msgspec import Struct


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

    grace_seconds: float = 5.0
    """How long requests under way may go on once the server stops."""

    max_connections: int = 1024
    """Connections at once. For a further one the longest idle is closed; if none is idle, it gets a 503."""

    max_header_bytes: int = 32 << 10
    """Largest request line and headers together."""
