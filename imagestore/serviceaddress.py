"""The address of an image service as the settings have it, and what a host's name may be.  Pure."""

import ipaddress
import re

from msgspec import Struct

from imagestore.errors import ConfigError

DEFAULT_SERVICE = "image.services.lochness.local"

TLS = "https://"
"""What stands before the address of a service that speaks TLS."""

HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?\Z")


class ServiceAddress(Struct, frozen=True, kw_only=True):
    """``port`` None: to be looked up.  As a text it is ``HOST[:PORT]``."""

    host: str
    port: int | None = None
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_service(text: str) -> ServiceAddress:
    """``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``, perhaps after ``https://``.

    Raises:
        ConfigError: it is none of these.
    """
    place = text.removeprefix(TLS)
    host, port = _split(place)
    known = is_host(host) and (port is None or (port.isascii() and port.isdecimal() and len(port) <= 5))
    if not known:
        raise ConfigError(
            f"image service {text!r} is not HOST, HOST:PORT or https://HOST:PORT",
            detail=f"for example {DEFAULT_SERVICE}, 192.0.2.7:8080 or https://[2001:db8::7]:8443",
        )
    number = None if port is None else int(port)
    if number is not None and not 0 < number < 1 << 16:
        raise ConfigError(f"port {port} of image service {text!r} is not between 1 and 65535")
    return ServiceAddress(host=host, port=number, tls=place != text)


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            return "", None
        return host, rest[1:] if rest else None
    host, colon, port = text.partition(":")
    if ":" in port:  # a bare IPv6 address
        return text, None
    return host, port if colon else None


def is_host(text: str) -> bool:
    """Whether ``text`` is an IP address or can be the name of a host."""
    return is_ip_address(text) or (len(text) <= 253 and HOST_NAME.match(text) is not None)


def is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
