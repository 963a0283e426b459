"""Roles, the addresses of this machine, and tokens as texts."""

import pytest

from imagestore import tokens
from imagestore.access import allows, is_loopback, parse_client_roles, permit, source_of
from imagestore.errors import ConfigError, Forbidden, InvalidArgument
from imagestore.service import Grant


def test_each_role_may_what_the_ones_below_it_may() -> None:
    assert [allows("operator", needed) for needed in ("reader", "operator", "admin")] == [True, True, False]
    assert allows("reader", "reader")
    assert not allows("reader", "operator")
    assert allows("admin", "admin")


def test_a_refusal_says_who_lacks_what() -> None:
    permit("token:ci", "operator", "CreateVolume", "operator")
    with pytest.raises(
        Forbidden, match=r"^permission denied: CreateVolume needs the role operator, token:ci is reader$"
    ):
        permit("token:ci", "reader", "CreateVolume", "operator")


def test_client_roles_are_names_and_roles() -> None:
    assert parse_client_roles(" backup one=reader ,x=admin,*=operator,") == {
        "backup one": "reader",
        "x": "admin",
        "*": "operator",
    }
    assert parse_client_roles("") == {}


@pytest.mark.parametrize("text", ["backup", "=reader", "a=root", "a=reader,a=admin", "a=b=admin", "a=Reader"])
def test_client_roles_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="tls_client_roles"):
        parse_client_roles(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_in_every_spelling(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "localhost.example", ""])
def test_what_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_attempts_from_one_ipv6_network_are_of_one_source() -> None:
    assert source_of("2001:db8:1:2:3::4") == source_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert source_of("2001:db8:1:3::1") != source_of("2001:db8:1:2::1")
    assert source_of("192.0.2.1") == "192.0.2.1"
    assert source_of("unix:alice") == "unix:alice"


def test_a_token_is_long_random_and_known_by_its_beginning() -> None:
    made = {tokens.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith("imagestore_") and len(secret) == 11 + 43 for secret in made)


def test_a_token_is_recognised_by_its_hash_wherever_it_stands() -> None:
    class Kept:
        def __init__(self, secret: str) -> None:
            self.sha256 = tokens.digest_of(secret)

    kept = [Kept(secret) for secret in ("a", "b", "c")]
    for each, secret in zip(kept, "abc", strict=True):
        assert tokens.recognised(tokens.digest_of(secret), kept) is each
    assert tokens.recognised(tokens.digest_of("d"), kept) is None
    assert tokens.recognised(tokens.digest_of("a"), []) is None


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "a" * 65, "a\n", "ü", "a:b"])
def test_a_name_that_no_token_can_have(name: str) -> None:
    with pytest.raises(InvalidArgument, match="a token's name"):
        tokens.check_name(name)


def test_a_grant_is_good_unless_it_says_otherwise() -> None:
    assert not Grant(principal="token:x", role="reader").expired
