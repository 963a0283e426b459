"""``imagestore token`` and what others are let in with, against a real store that trusts no address."""

import getpass
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from imagestore.cli.storeprocess import StoreProcess
from imagestore.client import Client
from imagestore.errors import ImageStoreError
from imagestore.model import Token, TokenResponse
from tests.cli.conftest import Run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Certificates: the authority's, the store's, and one of a client called ``ops``."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "store.pem")
    )
    client = authority.issue_cert("client.example", common_name="ops")
    client.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "ops.pem"))
    return tmp_path


@pytest.fixture
def https(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The store's address; commands find the authority of its certificate."""
    settings = {
        "loopback_role": "none",
        "tls_certificate": place / "store.pem",
        "tls_client_ca": place / "ca.pem",
        "tls_client_roles": "ops=operator",
    }
    more = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    monkeypatch.setenv("IMAGESTORE_CA_FILE", str(place / "ca.pem"))
    with StoreProcess(str(place), "127.0.0.1:9", more=("--socket", "store.sock", *more)) as process:
        address = process.start().server
        assert address.startswith("https://127.0.0.1:")
        yield address
        assert process.stop() == 0
    assert not (place / "store.sock").exists()


def test_from_the_first_token_to_its_end(https: str, place: Path, run: Run) -> None:
    user, here = f"unix:{getpass.getuser()}", ("--server", f"unix:{place}/store.sock")
    in_clear = run("volume", "ls", "--server", https.replace("https:", "http:"))
    assert (in_clear.status, f"name it as {https} if" in in_clear.err) == (41, True)
    elsewhere = run("volume", "ls", "--server", https.replace("127.0.0.1", "localhost"))
    assert "not valid for 'localhost'" in elsewhere.err
    assert "name the store as its certificate does" in elsewhere.err
    refused = run("volume", "ls", "--server", https)
    assert refused.status == 13
    assert "imagestore token create" in refused.err

    file = place / "ci.token"
    made = run("token", "create", "ci", "--role", "operator", "--expires", "90d", "--to", str(file), *here)
    assert (made.status, stat.S_IMODE(file.stat().st_mode)) == (0, 0o600)
    secret = file.read_text().strip()
    assert secret not in made.out + made.err
    printed = run("token", "create", "watch", "--role", "reader", *here)
    (place / "watch.token").write_text(printed.out)
    assert run("token", "create", "ci", "--role", "admin", *here).status == 4

    ci = ("--server", https, "--token-file", str(file))
    watch = ("--server", https, "--token-file", str(place / "watch.token"))
    assert run("volume", "create", "a/b", "1M", *ci).status == 0
    assert "a/b" in run("volume", "ls", *watch).out
    assert run("volume", "rm", "a/b", "--yes", *watch).status == 14
    assert run("volume", "rm", "a/b", "--yes", "--force", *ci).status == 14
    assert run("token", "ls", *ci).status == 14
    by_certificate = run("volume", "create", "c", "1M", "--server", https, "--cert-file", f"{place}/ops.pem")
    assert by_certificate.status == 0

    listed = json.loads(run("token", "ls", "-o", "json", *here).out)
    assert [(each["name"], each["role"], each["createdBy"]) for each in listed] == [
        ("ci", "operator", user),
        ("watch", "reader", user),
    ]
    assert run("token", "revoke", "ci", "--yes", *here).status == 0
    assert run("volume", "ls", *ci).status == 13

    log = run("log", "--journal", str(place / "journal"), "-o", "jsonl").out
    assert secret not in log + (place / "store.log").read_text()
    events = [json.loads(line) for line in log.splitlines()]
    who = {(each["principal"], each["event"]["event"]) for each in events if each.get("principal")}
    assert {
        (user, "token-created"),
        (user, "token-revoked"),
        ("token:ci", "dataset-created"),
        ("cert:ops", "dataset-created"),
    } <= who
    shown = run("log", "--journal", str(place / "journal")).out
    assert "the token ci gives the role operator until " in shown
    assert "the token ci is worth nothing any more" in shown


def test_an_address_where_nobody_is_let_in_is_not_served(tmp_path: Path) -> None:
    more = ("--set", "loopback_role=none")
    with StoreProcess(str(tmp_path), "127.0.0.1:9", more=more) as process:
        with pytest.raises(ImageStoreError, match="the store did not start") as caught:
            process.start()
    assert "nobody could be let in at 127.0.0.1" in caught.value.detail
    assert "imagestore token create" in caught.value.detail


def test_a_token_that_has_no_place_is_not_made(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "there.token"
    file.write_text("precious")
    ended = run(
        "token", "create", "ci", "--role", "reader", "--to", str(file), "--server", f"unix:{tmp_path}/none"
    )
    assert ended.status == 1
    assert "exists" in ended.err
    assert file.read_text() == "precious"


def test_a_token_that_was_not_made_leaves_no_file(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "new.token"
    ended = run(
        "token", "create", "ci", "--role", "reader", "--to", str(file), "--server", f"unix:{tmp_path}/none"
    )
    assert ended.status == 40
    assert f"unix:{tmp_path}/none" in ended.err
    assert not file.exists()


def test_an_answer_that_was_lost_says_how_to_go_on(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Token(name="ci", role="reader", created="2026-11-24T00:00:00Z", createdBy="local")
    told = TokenResponse(tokens=(record,))

    def again(self: Client, request: Any) -> TokenResponse:
        return told

    monkeypatch.setattr(Client, "create_token", again)
    ended = run("token", "create", "ci", "--role", "reader")
    assert ended.status == 41
    assert "imagestore token revoke ci --yes" in ended.err


@pytest.mark.parametrize("life", ["90", "d", "0d", "1y", "-1d", "90 d"])
def test_a_life_is_a_number_and_a_unit(life: str, run: Run) -> None:
    ended = run("token", "create", "ci", "--role", "reader", "--expires", life)
    assert ended.status == 2
    assert "is no time such as 90d" in ended.err
