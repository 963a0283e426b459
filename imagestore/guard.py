"""Which machines a pulled address may lead to.

Whoever may pull an image names an address, and the store asks it with its own
place in the network.  So addresses of this machine and of the networks that
are not the Internet's are refused, unless the settings allow them.  Judged is
the IP address that is connected to, at every redirect, not the name.  The
configured image service is not asked about here.  Pure.
"""

import ipaddress
from collections.abc import Iterator

from msgspec import Struct

from imagestore.errors import ConfigError, FetchFailed

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NOT_GLOBAL: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)
"""Special-purpose networks (IANA), some of which older Pythons take for global."""


class AddressGuard(Struct, frozen=True, kw_only=True):
    """``allowed`` networks may be asked although they are private; with ``allows_all``, all may."""

    allowed: tuple[Network, ...] = ()
    allows_all: bool = False

    def check(self, host: str, address: str) -> None:
        """See ``actors.origin.CheckAddress``. Raises FetchFailed."""
        if self.allows_all:
            return
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            raise FetchFailed(f"{host} has no IP address that could be judged") from None
        for seen in _meanings(ip):
            allowed = any(seen in network for network in self.allowed if network.version == seen.version)
            if not allowed and not _is_global(seen):
                raise FetchFailed(
                    f"{host} is in a private network ({seen}), which images are not pulled from",
                    detail="allow its network in the setting allow_private_sources",
                )


def parse_allowed(text: str) -> AddressGuard:
    """The guard that the setting ``allow_private_sources`` means: ``none``, ``all``, or networks with
    commas between them (``10.1.0.0/16, fd00:12::/32``).

    Raises:
        ConfigError: it is none of these.
    """
    word = text.strip().lower()
    if word in {"", "none", "false"}:
        return AddressGuard()
    if word in {"all", "true"}:
        return AddressGuard(allows_all=True)
    try:
        networks = tuple(ipaddress.ip_network(part) for part in word.replace(",", " ").split())
    except ValueError as error:
        raise ConfigError(
            f"allow_private_sources {text!r} is not none, all or a list of networks",
            detail=f"for example 10.1.0.0/16, fd00:12::/32; {error}",
        ) from error
    return AddressGuard(allowed=networks)


def _meanings(ip: Address) -> Iterator[Address]:
    """The address, or the IPv4 addresses that an IPv6 one leads to."""
    if isinstance(ip, ipaddress.IPv4Address):
        yield ip
        return
    low = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.ipv4_mapped is not None:
        yield ip.ipv4_mapped
    elif ip in _NAT64 or (ip in _V4_COMPATIBLE and int(ip) > 1):
        yield low
    elif ip.sixtofour is not None:
        yield ip.sixtofour
    elif ip.teredo is not None:
        yield from ip.teredo
    else:
        yield ip


def _is_global(ip: Address) -> bool:
    if ip.is_multicast or ip.is_unspecified or ip.is_reserved or ip.is_loopback or ip.is_link_local:
        return False
    if any(ip in network for network in _NOT_GLOBAL if network.version == ip.version):
        return False
    return ip.is_global
