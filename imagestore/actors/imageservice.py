"""The image service that images come from: where it is, and what it says of them.

Owns the look-up of its port (by SRV, when none is given), the paths of its two
documents, and the meaning of its metadata.  Nothing is looked up before an image is wanted, so a service that
cannot be reached delays no start.  Knows nothing of bodies, tries or pools.
"""

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
import trio
from msgspec import Struct, structs

from imagestore.serviceaddress import DEFAULT_SERVICE, ServiceAddress, is_ip_address

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

DEFAULT_PORT = 80
"""Where the service is when the DNS says that there is no SRV record."""

TLS_PORT = 443

LOOKUP_SECONDS = 3.0
"""How long the DNS may take to answer."""


class MayPass(Exception):
    """What went wrong may pass, another try is worth it.  The text is one line."""


class CannotReach(MayPass):
    """No connection came about, so that nothing else of this service can be had now either."""


class ImageAddress(Struct, frozen=True, kw_only=True):
    """One image of an image service.  ``service`` is the setting ``image_service``."""

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


def metadata_url(service: ServiceAddress, image: str) -> str:
    scheme = "https" if service.tls else "http"
    return f"{scheme}://{service}/images/{quote(image, safe='')}"


def download_url(service: ServiceAddress, image: str) -> str:
    return f"{metadata_url(service, image)}/download"


def parse_metadata(body: bytes) -> Metadata:
    """What ``body`` says; ``NO_METADATA`` for anything that is not the service's own form."""
    try:
        return msgspec.json.decode(body, type=Metadata)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return NO_METADATA


async def locate(service: ServiceAddress, resolver: "Resolver | None" = None) -> ServiceAddress:
    """The service with its port: the given one, that of its SRV record, or 80 if it has none; 443 with TLS.

    The record stands at the host's own name, as the original had it, and
    gives the port only.  ``resolver`` asks the DNS, by default as the system is configured.

    Raises:
        CannotReach: the DNS did not answer.
    """
    if service.port is not None:
        return service
    if service.tls:
        return structs.replace(service, port=TLS_PORT)
    if service.host == "localhost" or is_ip_address(service.host):
        return ServiceAddress(host=service.host, port=DEFAULT_PORT)
    return ServiceAddress(host=service.host, port=await _look_up(service.host, resolver))


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
