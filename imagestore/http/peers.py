"""Who is at the other end of a connection, as far as the transport knows.

Owns what a Unix socket tells (the peer's user, from the kernel), what a TLS
client's certificate tells (its common name), and what an address is worth:
one of this machine is trusted as the settings say, any other is not.
"""

import pwd
import socket
import ssl
import struct
from collections.abc import Mapping

import trio
from msgspec import Struct

from imagestore.access import EVERYBODY_ELSE, AccessRole, is_loopback, source_of
from imagestore.http.incidents import one_line
from imagestore.http.settings import AccessSettings

PEER = "imagestore.peer"
"""The key in an ASGI scope's ``state`` under which the server puts the peer."""

MOST_NAME_CHARACTERS = 128
"""Of a common name, in events and logs."""

_CREDENTIALS = struct.Struct("3i")
"""``struct ucred`` of Linux: process, user, group."""


class Peer(Struct, frozen=True, kw_only=True):
    """``principal`` goes into events; ``role`` None: it has to show a token first.

    ``source`` is what its failed attempts are counted by.
    """

    principal: str
    role: AccessRole | None
    source: str


class Users:
    """The names of this machine's users, each asked for once: the answer may come from far away."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    async def peer_of(self, connection: trio.socket.SocketType) -> Peer:
        """The peer of a Unix socket, which the socket's mode has let in. Raises OSError."""
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(packed)
        if user not in self._names:
            self._names[user] = await trio.to_thread.run_sync(_name_of, user)
        principal = f"unix:{self._names[user]}"
        return Peer(principal=principal, role="admin", source=principal)


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def peer_of_address(host: str, access: AccessSettings) -> Peer:
    """The peer of a TCP connection, known by nothing but where it comes from."""
    role: AccessRole | None = None
    if is_loopback(host):
        role = access.loopback_role
    elif access.allow_unauthenticated:
        role = "admin"
    return Peer(principal=host, role=role, source=source_of(host))


def peer_of_certificate(host: str, certificate: Mapping[str, object], access: AccessSettings) -> Peer:
    """The peer of a TLS connection, by a certificate that was verified.

    Whoever the settings give no role has to show a token besides.
    """
    name = common_name(certificate)
    if not name:
        return peer_of_address(host, access)
    role = access.client_roles.get(name, access.client_roles.get(EVERYBODY_ELSE))
    return Peer(principal=f"cert:{one_line(name)}", role=role, source=source_of(host))


def common_name(certificate: Mapping[str, object]) -> str:
    """The one common name of a certificate, as :meth:`ssl.SSLSocket.getpeercert` shows it.

    "" if it has none, several, or one that no event should have.
    """
    subject = certificate.get("subject", ())
    assert isinstance(subject, tuple)
    names = [value for part in subject for key, value in part if key == "commonName"]
    if len(names) != 1 or not names[0].isprintable() or len(names[0]) > MOST_NAME_CHARACTERS:
        return ""
    return str(names[0])


def certificate_of(stream: trio.SSLStream[trio.SocketStream]) -> Mapping[str, object]:
    """The client's certificate, {} if it showed none.  It was verified: no other gets this far."""
    shown = stream.getpeercert()
    return {} if shown is None else dict(shown)


def was_unverified(error: BaseException) -> bool:
    """Whether a handshake failed because the client's certificate was not good."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__
    return False
