"""What the settings mean for a server, and whether anybody could ever be let in."""

import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from imagestore.config import Config
from imagestore.errors import ConfigError
from imagestore.http import doors
from imagestore.http.doors import access_of, check_way_in, open_doors


def config(**settings: Any) -> Config:
    return Config(pool="dir:/p", journal="/j", **settings)


async def test_by_hand_there_is_no_socket_and_no_tls() -> None:
    async with open_doors(config()) as opened:
        assert (opened.unix, opened.tls, opened.socket) == (None, None, "")


async def test_the_socket_that_nobody_named_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "DEFAULT_SOCKET", str(tmp_path / "run" / "x.sock"))
    async with open_doors(config(socket="auto")) as first:
        assert first.socket == str(tmp_path / "run" / "x.sock")
        async with open_doors(config(socket="auto")) as second:
            assert (second.unix, second.socket) == (None, "")
        with pytest.raises(ConfigError, match="another store listens"):
            async with open_doors(config(socket=first.socket)):
                pass


async def test_sockets_that_are_handed_over_stand_for_the_settings_of_their_kind(tmp_path: Path) -> None:
    path = str(tmp_path / "handed.sock")
    handed = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
    address = handed[0].getsockname()
    handed[1].bind(path)
    handed[1].listen()
    async with open_doors(config(socket=str(tmp_path / "other.sock")), handed) as opened:
        assert [each.socket.getsockname() for each in opened.tcp] == [address]
        assert (opened.socket, opened.widest_host("192.0.2.1")) == (path, "127.0.0.1")
    assert [each.name for each in tmp_path.iterdir()] == ["handed.sock"], "its name is the manager's"


async def test_an_address_that_others_reach_is_judged_as_such() -> None:
    handed = [socket.create_server((host, 0)) for host in ("127.0.0.1", "0.0.0.0")]
    async with open_doors(config(), handed) as opened:
        assert opened.widest_host("127.0.0.1") == "0.0.0.0"


async def test_what_takes_no_connections_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ConfigError, match="takes no connections"):
            async with open_doors(config(), [datagrams]):
                pass
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match="takes no connections"):
            async with open_doors(config(), [bound]):
                pass


def test_the_settings_say_whom_to_trust() -> None:
    assert access_of(config()).loopback_role == "admin"
    assert access_of(config(loopback_role="none")).loopback_role is None
    assert access_of(config(tls_client_roles="*=admin")).client_roles == {}, "of no authority"
    roles = access_of(config(tls_client_ca="ca.pem", tls_client_roles="a=admin")).client_roles
    assert roles == {"a": "admin"}


@pytest.mark.parametrize("host", ["192.0.2.1", "store.example"])
def test_where_nobody_could_be_let_in_is_not_served(host: str) -> None:
    with pytest.raises(ConfigError, match="nobody could be let in at") as caught:
        check_way_in(config(host=host), socket="", tokens=False)
    assert "imagestore token create" in caught.value.detail


def test_loopback_without_trust_needs_another_way() -> None:
    with pytest.raises(ConfigError, match="nobody could be let in"):
        check_way_in(config(loopback_role="none"), socket="", tokens=False)
    check_way_in(config(loopback_role="none"), socket="/x", tokens=False)


@pytest.mark.parametrize(
    ("settings", "socket", "tokens", "said"),
    [
        ({}, "", False, []),
        ({"host": "192.0.2.1", "tls_certificate": "c"}, "", True, []),
        ({"host": "192.0.2.1", "tls_certificate": "c", "tls_client_ca": "c"}, "", False, []),
        ({"host": "192.0.2.1"}, "", True, ["unencrypted"]),
        ({"host": "192.0.2.1", "tls_certificate": "c"}, "/x", False, ["--server unix:/x"]),
        ({"host": "0.0.0.0", "tls_certificate": "c"}, "", False, ["make a token"]),
        ({"host": "::", "tls_certificate": "c"}, "", False, ["make a token"]),
        ({"host": "192.0.2.1", "allow_unauthenticated": True}, "", False, ["everybody who reaches"]),
    ],
)
def test_what_is_half_done_is_said(
    settings: dict[str, Any], socket: str, tokens: bool, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check_way_in(config(**settings), socket=socket, tokens=tokens)
    assert len(caplog.messages) == len(said)
    assert all(part in message for part, message in zip(said, caplog.messages, strict=True))
