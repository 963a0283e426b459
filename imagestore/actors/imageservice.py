"""The image service that images come from: where it is, and what it says of them.

Owns the service's addresses (``HOST[:PORT]``, the port by SRV look-up when
none is given), the paths of its two documents, and the meaning of its
metadata.  Nothing is looked up before an image is wanted, so a service that
cannot be reached delays no start.  Knows nothing of bodies, tries or pools.
"""

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
import trio
from msgspec import Struct

from imagestore.errors import ConfigError

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

DEFAULT_SERVICE = "image.services.lochness.local"

DEFAULT_PORT = 80
"""Where the service is when the DNS says that there is no SRV record."""

LOOKUP_SECONDS = 3.0
"""How long the DNS may take to answer."""


HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?\Z")


class MayPass(Exception):
    """What went wrong may pass, another try is worth it.  The text is one line."""


class CannotReach(MayPass):
    """No connection came about, so that nothing else of this service can be had now either."""


class ServiceAddress(Struct, frozen=True, kw_only=True):
    """``port`` None: to be looked up."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


class ImageAddress(Struct, frozen=True, kw_only=True):
    """One image of an image service.  ``service`` is ``HOST`` or ``HOST:PORT``."""

    image: str
    service: str = DEFAULT_SERVICE


class Metadata(Struct, frozen=True, kw_only=True):
    """What the service says of an image.  Sizes in bytes, of the body as it is served."""

    id: str = ""
    type: str = ""
    status: str = ""
    size: int = 0
    expected_size: int = -1

    @property
    def body_bytes(self) -> int | None:
        """How long the complete body is; None where the service does not know yet."""
        return self.size if self.size > 0 and self.status in {"", "complete"} else None


NO_METADATA = Metadata()


def parse_service(text: str) -> ServiceAddress:
    """``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``.

    Raises:
        ConfigError: it is none of these.
    """
    host, port = _split(text)
    known = is_host(host) and (port is None or (port.isascii() and port.isdecimal() and len(port) <= 5))
    if not known:
        raise ConfigError(
            f"image service {text!r} is not HOST or HOST:PORT",
            detail=f"for example {DEFAULT_SERVICE}, 192.0.2.7:8080 or [2001:db8::7]:8080",
        )
    number = None if port is None else int(port)
    if number is not None and not 0 < number < 1 << 16:
        raise ConfigError(f"port {port} of image service {text!r} is not between 1 and 65535")
    return ServiceAddress(host=host, port=number)


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


def metadata_url(service: ServiceAddress, image: str) -> str:
    return f"http://{service}/images/{quote(image, safe='')}"


def download_url(service: ServiceAddress, image: str) -> str:
    return f"{metadata_url(service, image)}/download"


def parse_metadata(body: bytes) -> Metadata:
    """What ``body`` says; ``NO_METADATA`` for anything that is not the service's own form."""
    try:
        return msgspec.json.decode(body, type=Metadata)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return NO_METADATA


async def locate(service: ServiceAddress, resolver: "Resolver | None" = None) -> ServiceAddress:
    """The service with its port: the given one, that of its SRV record, or 80 if it has none.

    The record stands at the host's own name, as the original had it, and
    gives the port only.  ``resolver`` asks the DNS, by default as the system is configured.

    Raises:
        CannotReach: the DNS did not answer.
    """
    if service.port is not None:
        return service
    if service.host == "localhost" or is_ip_address(service.host):
        return ServiceAddress(host=service.host, port=DEFAULT_PORT)
    return ServiceAddress(host=service.host, port=await _look_up(service.host, resolver))


def is_host(text: str) -> bool:
    """Whether ``text`` is an IP address or can be the name of a host."""
    return is_ip_address(text) or (len(text) <= 253 and HOST_NAME.match(text) is not None)


def is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _load_resolver() -> None:
    import dns.asyncresolver
    import dns.rdtypes.IN.SRV  # noqa: F401 (else imported when the answer comes, on the event loop)


async def _look_up(host: str, resolver: "Resolver | None") -> int:
    # The DNS library takes 0.1 s to import: not on the event loop, and not before it is needed.
    await trio.to_thread.run_sync(_load_resolver)
    import dns.asyncresolver
    import dns.exception
    import dns.rdtypes.IN.SRV
    import dns.resolver

    try:
        resolver = resolver or dns.asyncresolver.Resolver()
        answer = await resolver.resolve(host, "SRV", lifetime=LOOKUP_SECONDS, search=True)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.resolver.NoResolverConfiguration):
        return DEFAULT_PORT
    except (dns.exception.DNSException, UnicodeError, OSError) as error:
        raise CannotReach(
            f"the DNS gave no answer on the port (SRV record) of image service {host}: "
            f"name it as {host}:PORT, or mend the DNS"
        ) from error
    records = [record for record in answer if isinstance(record, dns.rdtypes.IN.SRV.SRV)]
    best = min(records, key=lambda record: (record.priority, -record.weight))
    return best.port or DEFAULT_PORT
