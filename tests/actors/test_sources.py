"""Where images may come from: addresses without secrets, registered in the journal."""

import pytest

from imagestore.actors.commands import RegisterSource, RemoveSource
from imagestore.actors.plans import Plan, Settled
from imagestore.actors.sources import (
    check_address,
    checked,
    last_component,
    origin_of,
    register_source,
    remove_source,
)
from imagestore.errors import AlreadyExists, InvalidArgument, NotFound
from imagestore.events.catalogue import NoteIntent, SourceRegistered, SourceRemoved
from imagestore.events.state import SourceRecord, State

ADDRESS = "https://example.net/images/debian-12.qcow2"
DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (ADDRESS, ADDRESS),
        ("http://192.0.2.7:8080/a%20b.img", "http://192.0.2.7:8080/a%20b.img"),
        ("https://[2001:db8::7]/x", "https://[2001:db8::7]/x"),
        ("HTTPS://Example.NET", "https://example.net/"),
        ("https://example.net/x#part", "https://example.net/x"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        (
            "https://example.net/get?file=debian-12.qcow2&arch=amd64",
            "https://example.net/get?file=debian-12.qcow2&arch=amd64",
        ),
    ],
)
def test_an_address_is_used_as_it_is_meant(given: str, used: str) -> None:
    assert check_address(given) == used


SECRETS = [
    "https://user:hunter2@example.net/x",
    "https://hunter2@example.net/x",
    "https://example.net/x?X-Amz-Signature=hunter2",
    "https://example.net/x?x-amz-security-token=hunter2",
    "https://example.net/x?sv=2023&sig=hunter2",
    "https://example.net/x?X-Goog-Credential=hunter2",
    "https://example.net/x?Expires=1&Key-Pair-Id=hunter2",
    "https://example.net/x?AWSAccessKeyId=hunter2",
    "https://example.net/x?access_token=hunter2",
    "https://example.net/x?a=1;token=hunter2",
    "https://example.net/x?%74oken=hunter2",
    "https://example.net/x?v=hunter2hunter2hunter2hunter2hunter2",
]


@pytest.mark.parametrize("address", SECRETS)
def test_an_address_with_a_secret_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(InvalidArgument, match="would end up in the journal") as raised:
        check_address(address)
    assert "hunter2" not in str(raised.value) + raised.value.detail


@pytest.mark.parametrize(
    "address",
    [
        "",
        "debian",
        "ftp://example.net/x",
        "file:///etc/shadow",
        "https://",
        "https:///x",
        "https://exa mple/x",
        "https://example.net/a b",
        "https://example.net/a\nb",
        "https://example.net:99999/",
        "https://[::1/x",
        "https://example.net/" + "x" * 3000,
    ],
)
def test_what_is_no_http_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument):
        check_address(address)


def test_sums_list_the_last_component() -> None:
    assert last_component("https://example.net/a/b%20c.img?x=/y") == "b c.img"


def test_a_digest_and_sums_are_one_too_many() -> None:
    with pytest.raises(InvalidArgument, match="one of them is enough"):
        checked(ADDRESS, DIGEST, "https://example.net/SHA256SUMS")


def test_a_source_is_checked_whole() -> None:
    assert checked(ADDRESS, DIGEST.upper(), "") == SourceRecord(address=ADDRESS, sha256=DIGEST)
    with pytest.raises(InvalidArgument, match="credentials"):
        checked(ADDRESS, "", "https://u:p@example.net/SHA256SUMS")
    with pytest.raises(InvalidArgument, match="need a source"):
        checked("", "", "")


def test_a_source_is_registered_once() -> None:
    state = State()
    command = RegisterSource(image="deb", address=ADDRESS, sha256=DIGEST)
    plan = register_source(command, state)
    assert isinstance(plan, Plan)
    assert plan.intent == NoteIntent(fact=SourceRegistered(image="deb", address=ADDRESS, sha256=DIGEST))
    state.sources["deb"] = SourceRecord(address=ADDRESS, sha256=DIGEST)
    assert isinstance(register_source(command, state), Settled)


def test_another_source_replaces_it_only_when_told_to() -> None:
    state = State(sources={"deb": SourceRecord(address=ADDRESS)})
    with pytest.raises(AlreadyExists, match="source already exists: deb"):
        register_source(RegisterSource(image="deb", address="https://other.example/"), state)
    replaced = register_source(
        RegisterSource(image="deb", address="https://other.example/", replace=True), state
    )
    assert isinstance(replaced, Plan)


def test_a_source_is_removed() -> None:
    state = State(sources={"deb": SourceRecord(address=ADDRESS)})
    assert remove_source(RemoveSource(image="deb"), state).intent == NoteIntent(
        fact=SourceRemoved(image="deb")
    )
    with pytest.raises(NotFound):
        remove_source(RemoveSource(image="other"), state)


def test_an_image_without_a_source_is_the_image_services() -> None:
    assert origin_of(None).is_service
    assert origin_of(SourceRecord(address=ADDRESS, sha256=DIGEST)).sha256 == DIGEST
