"""Tokens of a whole store: made, told once, kept as hashes, recognised, revoked, over restarts."""

import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET, Struct

from imagestore import errors, tokens
from imagestore.config import Config
from imagestore.events import reader
from imagestore.events.catalogue import TokenCreated, TokenRevoked
from imagestore.model import TokenRequest
from imagestore.service import METHODS_BY_NAME, Caller, Grant
from imagestore.store import Store, Surroundings
from tests.store.conftest import Run, running

ALICE = Caller(principal="unix:alice")
CI = TokenRequest(name="ci", role="operator")


async def call(store: Store, method: str, request: Struct, *, key: str = "") -> Any:
    return await store.call(METHODS_BY_NAME[method], request, Caller(principal="unix:alice", key=key))


async def test_a_token_is_recognised_in_this_life_and_the_next(run: Run) -> None:
    async with run() as store:
        made = await store.create_token(CI, ALICE)
        assert isinstance(made.secret, str)
        digest = tokens.digest_of(made.secret)
        assert store.grant(digest) == Grant(principal="token:ci", role="operator")
        assert store.grant(tokens.digest_of("imagestore_other")) is None
        with pytest.raises(errors.AlreadyExists, match="token already exists: ci"):
            await store.create_token(CI, ALICE)
    async with run() as store:
        assert store.grant(digest) == Grant(principal="token:ci", role="operator")
        (listed,) = (await store.list_tokens(TokenRequest())).tokens
        assert (listed.name, listed.role, listed.createdBy) == ("ci", "operator", "unix:alice")
        assert (listed.expires, listed.expired) == (UNSET, False)
        gone = await store.revoke_token(TokenRequest(name="ci"), ALICE)
        assert [token.name for token in gone.tokens] == ["ci"]
        assert store.grant(digest) is None
        with pytest.raises(errors.NotFound):
            await store.revoke_token(TokenRequest(name="ci"), ALICE)
    async with run() as store:
        assert store.grant(digest) is None


async def test_the_journal_tells_who_made_and_revoked_it_and_not_the_token(run: Run, config: Config) -> None:
    async with run() as store:
        secret = (await call(store, "CreateToken", CI, key="k")).secret
        await call(store, "RevokeToken", TokenRequest(name="ci"))
    told = [envelope for envelope in reader.read(config.journal) if envelope.principal == "unix:alice"]
    facts = [each.event for each in told if isinstance(each.event, TokenCreated | TokenRevoked)]
    assert facts == [
        TokenCreated(name="ci", role="operator", sha256=tokens.digest_of(secret)),
        TokenRevoked(name="ci"),
    ]
    kept = b"".join(path.read_bytes() for path in Path(config.journal).parent.rglob("*") if path.is_file())
    assert secret.encode() not in kept
    assert tokens.digest_of(secret).encode() in kept


async def test_the_same_request_again_makes_no_other_token_and_tells_no_secret(run: Run) -> None:
    async with run() as store:
        first = await call(store, "CreateToken", CI, key="k")
        again = await call(store, "CreateToken", CI, key="k")
        assert (again.tokens, again.secret) == (first.tokens, UNSET)
        assert store.grant(tokens.digest_of(first.secret)) is not None


async def test_a_token_expires_at_its_time(config: Config) -> None:
    now = [time.time_ns()]
    async with running(config, surroundings=Surroundings(now_ns=lambda: now[0])) as store:
        made = await store.create_token(TokenRequest(name="ci", role="reader", expiresSeconds=60), ALICE)
        assert isinstance(made.secret, str)
        assert isinstance(made.tokens[0].expires, str)
        now[0] += 59_000_000_000
        grant = store.grant(tokens.digest_of(made.secret))
        assert grant is not None
        assert not grant.expired
        now[0] += 1_000_000_000
        grant = store.grant(tokens.digest_of(made.secret))
        assert grant is not None
        assert grant.expired
        assert [token.expired for token in (await store.list_tokens(TokenRequest())).tokens] == [True]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (TokenRequest(name="a b", role="reader"), "a token's name"),
        (TokenRequest(name="ci"), "a token's role is one of reader, operator, admin"),
        (TokenRequest(name="ci", role="root"), "a token's role"),
        (TokenRequest(name="ci", role="reader", expiresSeconds=1 << 60), "a token's life"),
    ],
)
async def test_what_cannot_be_a_token_is_refused(run: Run, request_: TokenRequest, says: str) -> None:
    async with run() as store:
        with pytest.raises(errors.InvalidArgument, match=says):
            await store.create_token(request_, ALICE)
        assert (await store.list_tokens(TokenRequest())).tokens == ()


async def test_there_are_not_more_tokens_than_can_be_looked_at(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagestore.actors.tokens.MOST_TOKENS", 1)
    async with run() as store:
        await store.create_token(CI, ALICE)
        with pytest.raises(errors.Blocked, match="too many tokens: there are 1"):
            await store.create_token(TokenRequest(name="other", role="reader"), ALICE)


async def test_a_store_that_does_not_run_knows_no_token(config: Config) -> None:
    with pytest.raises(errors.TemporarilyUnavailable):
        Store(config).grant("ab" * 32)
