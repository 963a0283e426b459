"""Where a store is: the spellings of an address, and the files that say who asks."""

from pathlib import Path

import pytest

from imagestore.endpoint import Credentials, Endpoint
from imagestore.errors import ConfigError


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("127.0.0.1:80", "http://127.0.0.1:80"),
        ("http://store", "http://store"),
        ("https://store:1", "https://store:1"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:///run/x.sock", "unix:/run/x.sock"),
        ("http+unix://%2Frun%2Fx.sock", "unix:/run/x.sock"),
        ("http+unix://%2Frun%2Fx.sock/", "unix:/run/x.sock"),
        ("http+unix:///run/x.sock", "unix:/run/x.sock"),
        ("unix:x.sock", f"unix:{Path.cwd()}/x.sock"),
    ],
)
def test_every_spelling_of_an_address(server: str, shown: str) -> None:
    assert Endpoint(server).shown == shown


@pytest.mark.parametrize(
    "server", ["ftp://x", "http://", "http://x/path", "http://x:99999", "unix:", "http+unix://x", ""]
)
def test_what_is_no_address(server: str) -> None:
    with pytest.raises(ConfigError, match="server"):
        Endpoint(server)


def test_a_token_is_the_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("imagestore_abc\n")
    endpoint = Endpoint("http://x", Credentials(token_file=str(file)))
    assert endpoint.headers == {"Authorization": "Bearer imagestore_abc"}
    assert Endpoint("http://x").headers == {}


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"\xff", b"a\x00b", b"x" * 300])
def test_what_is_no_token_is_not_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"token holds no token"):
        Endpoint("http://x", Credentials(token_file=str(file)))


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(token_file="/none/file"),
        Credentials(ca_file="/none/file"),
        Credentials(certificate_file="/none/file"),
    ],
)
def test_a_file_that_is_missing_is_named(credentials: Credentials) -> None:
    with pytest.raises(ConfigError, match="cannot use /none/file"):
        Endpoint("https://x", credentials)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"cannot use .*junk\.pem"):
        Endpoint("https://x", Credentials(certificate_file=str(junk)))
