"""What may be pulled from: the Internet, and what the settings allow."""

import pytest

from imagestore.errors import ConfigError, FetchFailed
from imagestore.guard import AddressGuard, parse_allowed

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "151.101.2.132",
    "2a04:4e42::644",
    "2606:4700::1111",
    "::ffff:1.1.1.1",
    "64:ff9b::808:808",
]
PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "224.0.1.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:0a00:1::",
    "not an address",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_may_be_asked(address: str) -> None:
    AddressGuard().check("host", address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_networks_may_not(address: str) -> None:
    with pytest.raises(FetchFailed, match=r"^host ") as raised:
        AddressGuard().check("host", address)
    assert "\n" not in str(raised.value)


def test_networks_can_be_allowed_one_by_one() -> None:
    guard = parse_allowed("10.1.0.0/16, fd00:12::/32 127.0.0.1")
    for address in ("10.1.2.3", "fd00:12::7", "127.0.0.1", "::ffff:10.1.2.3", "1.1.1.1"):
        guard.check("host", address)
    for address in ("10.2.0.1", "fd00:13::1", "127.0.0.2", "::1"):
        with pytest.raises(FetchFailed):
            guard.check("host", address)


@pytest.mark.parametrize("text", ["all", "true", " ALL "])
def test_all_can_be_allowed(text: str) -> None:
    for address in PRIVATE:
        parse_allowed(text).check("host", address)


@pytest.mark.parametrize("text", ["", "none", "false"])
def test_nothing_is_allowed_by_default(text: str) -> None:
    assert parse_allowed(text) == AddressGuard()


@pytest.mark.parametrize("text", ["yes", "10.0.0.1/8", "10.0.0.0/8,loopback", "10.0.0.0/33"])
def test_what_is_no_list_of_networks_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="allow_private_sources"):
        parse_allowed(text)
