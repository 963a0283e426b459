"""Where the image service is, and what it says."""

from collections.abc import Callable

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio
from msgspec.structs import replace

from imagestore.actors.imageservice import (
    NO_METADATA,
    CannotReach,
    download_url,
    locate,
    metadata_url,
    parse_metadata,
)
from imagestore.serviceaddress import ServiceAddress

HOST = "image.services.example"


def test_an_id_stays_one_component() -> None:
    service = ServiceAddress(host="::1", port=81)
    assert metadata_url(service, "../x?y#z") == "http://[::1]:81/images/..%2Fx%3Fy%23z"
    assert download_url(service, "a") == "http://[::1]:81/images/a/download"


def test_a_service_with_tls_is_asked_over_https() -> None:
    service = ServiceAddress(host="a", port=8443, tls=True)
    assert download_url(service, "b") == "https://a:8443/images/b/download"


def test_the_size_counts_when_the_image_is_complete() -> None:
    form = b'{"id":"a","source":"","type":"kvm","comment":"","status":"%s","size":%d,"expected_size":-1}'
    assert parse_metadata(form % (b"complete", 7)).body_bytes == 7
    assert parse_metadata(form % (b"complete", 0)).body_bytes is None
    assert parse_metadata(form % (b"downloading", 7)).body_bytes is None
    assert parse_metadata(b'{"size":7}').body_bytes == 7
    assert parse_metadata(b'{"size":"7"}') is NO_METADATA


# --- the port ---------------------------------------------------------------------

Answer = Callable[[dns.message.Message], dns.message.Message]


async def resolver_of(nursery: trio.Nursery, answer: Answer) -> dns.asyncresolver.Resolver:
    """A resolver that asks a name server of this test on loopback."""
    server = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
    await server.bind(("127.0.0.1", 0))

    async def serve() -> None:
        with server:
            while True:
                wire, client = await server.recvfrom(4096)
                await server.sendto(answer(dns.message.from_wire(wire)).to_wire(), client)

    nursery.start_soon(serve)
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = server.getsockname()[1]
    return resolver


def records(*texts: str) -> Answer:
    def answer(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(f"{HOST}.", 60, "IN", "SRV", *texts))
        return response

    return answer


def code(rcode: dns.rcode.Rcode) -> Answer:
    def answer(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        return response

    return answer


async def test_the_port_is_that_of_the_first_srv_record(nursery: trio.Nursery) -> None:
    answer = records("20 9 1111 other.", "10 1 2222 other.", "10 5 8080 other.")
    resolver = await resolver_of(nursery, answer)
    assert await locate(ServiceAddress(host=HOST), resolver) == ServiceAddress(host=HOST, port=8080)


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.NOERROR])
async def test_without_a_record_the_port_is_that_of_http(
    nursery: trio.Nursery, rcode: dns.rcode.Rcode
) -> None:
    resolver = await resolver_of(nursery, code(rcode))
    assert await locate(ServiceAddress(host=HOST), resolver) == ServiceAddress(host=HOST, port=80)


async def test_a_dns_that_is_broken_is_no_answer(nursery: trio.Nursery) -> None:
    resolver = await resolver_of(nursery, code(dns.rcode.SERVFAIL))
    with pytest.raises(CannotReach, match=f"{HOST}: name it as {HOST}:PORT"):
        await locate(ServiceAddress(host=HOST), resolver)


@pytest.mark.parametrize(
    ("service", "port"),
    [
        (ServiceAddress(host=HOST, port=81), 81),
        (ServiceAddress(host="::1"), 80),
        (ServiceAddress(host="localhost"), 80),
        (ServiceAddress(host=HOST, tls=True), 443),
        (ServiceAddress(host=HOST, port=8443, tls=True), 8443),
    ],
)
async def test_nobody_is_asked_where_nothing_is_open(
    nursery: trio.Nursery, service: ServiceAddress, port: int
) -> None:
    def nobody(query: dns.message.Message) -> dns.message.Message:
        raise AssertionError(f"asked {query.question}")

    resolver = await resolver_of(nursery, nobody)
    assert await locate(service, resolver) == replace(service, port=port)
