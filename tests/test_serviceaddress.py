"""The address of an image service, as the settings have it."""

import pytest

from imagestore.errors import ConfigError
from imagestore.serviceaddress import ServiceAddress, parse_service


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("image.services.lochness.local", "image.services.lochness.local", None),
        ("localhost:8080", "localhost", 8080),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("[::1]", "::1", None),
        ("2001:db8::7", "2001:db8::7", None),
        ("a_b.c.", "a_b.c.", None),
        ("https://a.example", "a.example", None),
        ("https://[::1]:8443", "::1", 8443),
    ],
)
def test_a_service_is_a_host_and_perhaps_a_port(text: str, host: str, port: int | None) -> None:
    tls = text.startswith("https://")
    assert parse_service(text) == ServiceAddress(host=host, port=port, tls=tls)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "a:",
        "a:b",
        "a:0",
        "a:65536",
        "a:1:2",
        "http://a",
        "https://",
        "https://a/",
        "https://https://a",
        "https://u:p@a",
        "a/b",
        "u@a",
        "a b",
        "-a",
        "[::1",
        "[a]:1",
        "a\0",
        "a:\u0661",
    ],
)
def test_anything_else_is_a_mistake_in_the_settings(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_service(text)
