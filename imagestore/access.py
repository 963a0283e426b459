"""Roles: what each of them may do, and who is given which.

Pure.  A ``reader`` may look and download, an ``operator`` may also change
things, an ``admin`` may also decide what is the store's, override its
safeguards (``force``), and say who may ask.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Literal, get_args

from imagestore.errors import ConfigError, Forbidden

AccessRole = Literal["reader", "operator", "admin"]

ROLES: tuple[AccessRole, ...] = get_args(AccessRole)
"""From the one that may least to the one that may all."""

EVERYBODY_ELSE = "*"

_GIVEN = re.compile(r"\s*(?P<name>[^=,]*[^=,\s])\s*=\s*(?P<role>[a-z]+)\s*\Z")


def allows(role: AccessRole, needed: AccessRole) -> bool:
    """Whether ``role`` may do what needs ``needed``."""
    return ROLES.index(role) >= ROLES.index(needed)


def permit(principal: str, role: AccessRole, what: str, needed: AccessRole) -> None:
    """Raises Forbidden unless ``role`` may do ``what``, which needs ``needed``."""
    if not allows(role, needed):
        raise Forbidden.lacking(principal, role, what, needed)


def parse_client_roles(text: str) -> Mapping[str, AccessRole]:
    """The roles of TLS clients by the common names of their certificates: ``backup=reader, *=operator``.

    ``*`` is everybody who is not named; without it they are refused.

    Raises:
        ConfigError: it is not of that form, or names somebody twice.
    """
    roles: dict[str, AccessRole] = {}
    for part in filter(str.strip, text.split(",")):
        given = _GIVEN.match(part)
        role = next((role for role in ROLES if given is not None and role == given["role"]), None)
        if given is None or role is None or given["name"] in roles:
            raise ConfigError(
                f"tls_client_roles: {part.strip()!r} does not give one name one role",
                detail="for example: backup=reader, orchestrator=operator; * is everybody else",
            )
        roles[given["name"]] = role
    return roles


def is_loopback(host: str) -> bool:
    """Whether only this machine can use the address ``host``, in every spelling the system knows."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def source_of(host: str) -> str:
    """Who is behind the address ``host`` when attempts are counted: an IPv6 host has a whole /64 of them."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
    return str(address)
