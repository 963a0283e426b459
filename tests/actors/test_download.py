"""The one HTTP exchange: TLS, redirects, and what is left when a reader stops midway."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from imagestore.actors.download import Timeouts, opened, redirected
from imagestore.actors.imageservice import CannotReach, MayPass
from imagestore.errors import FetchFailed
from imagestore.guard import parse_allowed
from tests.imageservice import ImageService, answer, endless, head, redirect, sends

TIMEOUTS = Timeouts(connect=5.0, stall=5.0)
BRIEF = Timeouts(connect=0.1, stall=0.05)

SELF_SIGNED = """\
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUeYgeJX8p2vRKZCU2v1ToWWlvMwowCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNDA5MTgxMFoYDzIxMjYxMDMx
MDkxODEwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARYSgI8diKh6ePcPe3bcyQd6Feit2X2jYM8M+LN3Yh1XvaLHxEiFK11
ufTXYfm1fJZPbGHLWRWxlrTfOhpIVV0yo28wbTAdBgNVHQ4EFgQUL+OpZEyL7h8V
2QThPbgOtTxz1WMwHwYDVR0jBBgwFoAUL+OpZEyL7h8V2QThPbgOtTxz1WMwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhAM5YX+ZLzUgkr5hqH/rgVMmLioeP+uZ/R8TgQtv5rTuoAiEA
lBWI0bjjCmk259TSb2Dr0TRFx2cv5No/CAwCEtqUnsA=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgcD90+DOSS4G1XuuM
6BtHfhYIwXSSyTHH2/b8Ak9UkUihRANCAARYSgI8diKh6ePcPe3bcyQd6Feit2X2
jYM8M+LN3Yh1XvaLHxEiFK11ufTXYfm1fJZPbGHLWRWxlrTfOhpIVV0y
-----END PRIVATE KEY-----
"""
"""A certificate for localhost that nobody vouches for, and its key."""


@pytest.fixture
async def service(nursery: trio.Nursery) -> ImageService:
    service = ImageService()
    await nursery.start(service.run)
    return service


def url(service: ImageService, path: str = "/") -> str:
    return f"http://{service.address}{path}"


async def test_a_reader_that_stops_midway_leaves_no_connection(service: ImageService) -> None:
    service.on("/", endless(bytes(64 << 10)))
    async with opened(url(service), TIMEOUTS) as response:
        async for piece in response.body:
            assert piece
            break
    with trio.fail_after(10):
        await service.hung_up.wait()


async def test_a_reader_that_fails_midway_meets_its_own_error(service: ImageService) -> None:
    service.on("/", endless(bytes(64 << 10)))

    async def read() -> None:
        async with opened(url(service), TIMEOUTS) as response:
            async for piece in response.body:
                raise ZeroDivisionError(len(piece))

    with pytest.raises(ZeroDivisionError):
        await read()
    with trio.fail_after(10):
        await service.hung_up.wait()


async def test_the_body_of_a_redirect_is_not_read(service: ImageService) -> None:
    service.on("/", sends(head(302, Location="/there"), bytes(64 << 10)))
    service.on("/there", answer(b"here"))
    async with opened(url(service), TIMEOUTS) as response:
        assert b"".join([piece async for piece in response.body]) == b"here"


async def test_a_head_that_never_ends_is_given_up(service: ImageService) -> None:
    async def trickle(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")

    service.on("/", trickle)
    with pytest.raises(MayPass, match="no complete answer in time"):
        async with opened(url(service), BRIEF):
            raise AssertionError("there is no answer")


async def test_a_host_that_does_not_exist_cannot_be_reached() -> None:
    with pytest.raises(CannotReach, match=r"^nowhere\.invalid cannot be reached: "):
        async with opened("http://nowhere.invalid/", TIMEOUTS):
            raise AssertionError("there is no answer")


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    path = tmp_path / "both.pem"
    path.write_text(SELF_SIGNED)
    return str(path)


async def over_tls(nursery: trio.Nursery, certificate: str, body: bytes) -> int:
    """A service with the self-signed certificate; returns its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):  # a client that does not trust us hangs up
            await stream.receive_some()
            await stream.send_all(head(Content_Length=len(body)) + body)
        await trio.aclose_forcefully(stream)

    nursery.start_soon(trio.serve_listeners, serve, [trio.SSLListener(listener, context)])
    port: int = listener.socket.getsockname()[1]
    return port


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    service: ImageService, nursery: trio.Nursery, certificate: str
) -> None:
    port = await over_tls(nursery, certificate, b"secret")
    service.on("/", redirect(f"https://localhost:{port}/"))
    refused = f"^localhost:{port} cannot be reached: its certificate is not trusted"
    with pytest.raises(CannotReach, match=refused):
        async with opened(url(service), TIMEOUTS):
            raise AssertionError("there is no answer")


async def test_a_body_comes_over_tls_as_well(nursery: trio.Nursery, certificate: str) -> None:
    body = bytes(range(256)) * 8192
    port = await over_tls(nursery, certificate, body)
    async with opened(f"https://localhost:{port}/", TIMEOUTS, ca_file=certificate) as response:
        assert b"".join([piece async for piece in response.body]) == body


async def test_an_authority_vouches_for_the_address_it_is_given_for_and_no_other(
    service: ImageService, nursery: trio.Nursery, certificate: str
) -> None:
    port = await over_tls(nursery, certificate, b"secret")
    service.on("/", redirect(f"https://localhost:{port}/"))
    with pytest.raises(CannotReach, match="its certificate is not trusted"):
        async with opened(url(service), TIMEOUTS, ca_file=certificate):
            raise AssertionError("there is no answer")


async def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(FetchFailed, match=r"authority's file cannot be read: .*ca\.pem: No such file"):
        async with opened("https://127.0.0.1:1/", TIMEOUTS, ca_file=str(file)):
            raise AssertionError("there is no answer")
    file.write_text("no certificate\n")
    with pytest.raises(FetchFailed, match="no PEM file that can be used"):
        async with opened("https://127.0.0.1:1/", TIMEOUTS, ca_file=str(file)):
            raise AssertionError("there is no answer")


async def test_every_address_is_checked_before_it_is_connected_to(service: ImageService) -> None:
    """At redirects as well, by the name that was given and the address that it means."""
    service.on("/", redirect(f"http://localhost:{service.port}/there"))
    service.on("/there", answer(b"here"))
    asked: list[tuple[str, str]] = []

    def check(host: str, address: str) -> None:
        asked.append((host, address))
        assert len(service.requests) == len({name for name, _ in asked}) - 1, (
            "asked before it is connected to"
        )

    async with opened(url(service), TIMEOUTS, check_address=check) as response:
        assert b"".join([piece async for piece in response.body]) == b"here"
    assert asked[0] == ("127.0.0.1", "127.0.0.1")
    assert ("localhost", "127.0.0.1") in asked[1:]


async def test_a_secret_goes_to_the_address_it_is_meant_for_and_nowhere_else(service: ImageService) -> None:
    service.on("/", redirect("/here"))
    service.on("/here", redirect(f"http://localhost:{service.port}/there"))
    service.on("/there", redirect(url(service) + "back"))
    service.on("/back", answer(b"x"))
    async with opened(
        url(service), TIMEOUTS, headers={"Range": "bytes=0-"}, authorization={"Authorization": "Bearer s"}
    ) as response:
        assert response.status == 200
    told = {head.split(" ")[1]: "bearer s" in head.lower() for head in service.heads}
    assert told == {"/": True, "/here": True, "/there": False, "/back": True}
    assert all("bytes=0-" in head for head in service.heads)


async def test_an_address_that_is_refused_is_not_connected_to(service: ImageService) -> None:
    service.on("/", redirect(f"http://localhost:{service.port}/secret"))

    def check(host: str, address: str) -> None:
        if host == "localhost":
            raise FetchFailed("localhost is in a private network")

    with pytest.raises(FetchFailed, match=r"^localhost is in a private network$"):
        async with opened(url(service), TIMEOUTS, check_address=check):
            raise AssertionError("there is no answer")
    assert service.requests == ["/"]


async def test_what_was_checked_is_connected_to_whatever_the_dns_says_next(
    service: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that means another machine a moment later gains nothing by it."""
    answers = ["127.0.0.1", "192.0.2.1"]
    looked_up: list[str] = []

    async def look_up(host: str, port: int, **_: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        looked_up.append(host)
        return [(None, None, 0, "", (answers.pop(0), port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", look_up)
    service.on("/", answer(b"here"))
    checked: list[str] = []

    def check(host: str, address: str) -> None:
        checked.append(address)
        monkeypatch.undo()  # an address that is connected to is looked up as a number

    address = f"http://rebinding.example:{service.port}/"
    async with opened(address, TIMEOUTS, check_address=check) as response:
        assert b"".join([piece async for piece in response.body]) == b"here"
    assert (looked_up, checked) == (["rebinding.example"], ["127.0.0.1"])


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b", "http://a:81/b"),
        ("b?c=d e", "http://a:81/x/b?c=d%20e"),
        ("//other", "http://other/"),
        ("https://b\u00fccher.example/\u00e9#f", "https://xn--bcher-kva.example/%C3%A9"),
        ("http://[::1]:80/%2F", "http://[::1]:80/%2F"),
        ("?q", "http://a:81/x/y?q"),
        ("", "http://a:81/x/y"),
    ],
)
def test_a_redirect_leads_where_it_says(location: str, target: str) -> None:
    assert redirected("http://a:81/x/y", location) == target


@pytest.mark.parametrize(
    "location",
    [
        "gopher://b/",
        "javascript:alert(1)",
        "http://u@b/",
        "http://:p@b/",
        "http://b:0x50/",
        "http://b..c/",
        "http://" + "b" * 64 + "/",
        "http://b c/",
        "http://[::1/",
    ],
)
def test_a_redirect_to_nowhere_is_refused_without_repeating_it(location: str) -> None:
    with pytest.raises(FetchFailed, match=r"^a redirects to ") as caught:
        redirected("http://a:81/x", location)
    assert location not in str(caught.value) or len(location) < 8


def test_a_redirect_to_plain_http_is_refused_where_https_was_asked_for() -> None:
    assert redirected("https://a/x", "//b/y") == "https://b/y"
    with pytest.raises(FetchFailed, match="a redirects from https to http"):
        redirected("https://a/x", "http://a/x")


# --- who may be asked -------------------------------------------------------------------


class Changing(trio.abc.HostnameResolver):
    """A DNS that answers otherwise each time, as one does that means harm."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def getaddrinfo(  # type: ignore[override]  # the base class's types are those of socket, with enums
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 (as in the base class)
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        self.asked += 1
        found = self.answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0))) for address in found]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_what_was_checked_is_what_is_connected_to_whatever_the_dns_says_later(
    service: ImageService,
) -> None:
    dns = Changing(["127.0.0.1"], ["127.0.0.2"])
    trio.socket.set_custom_hostname_resolver(dns)
    service.on("/", answer(b"here"))
    guard = parse_allowed("127.0.0.1/32")
    async with opened(
        f"http://mirror.example:{service.port}/", TIMEOUTS, check_address=guard.check
    ) as response:
        assert b"".join([bytes(piece) async for piece in response.body]) == b"here"
    assert dns.asked == 1


async def test_a_host_with_one_private_address_is_not_asked_at_the_others_either(
    service: ImageService,
) -> None:
    trio.socket.set_custom_hostname_resolver(Changing(["127.0.0.1", "10.0.0.1"]))
    with pytest.raises(FetchFailed, match=r"mirror\.example is in a private network \(10\.0\.0\.1\)"):
        async with opened(
            f"http://mirror.example:{service.port}/",
            TIMEOUTS,
            check_address=parse_allowed("127.0.0.1/32").check,
        ):
            raise AssertionError
    assert service.requests == []
