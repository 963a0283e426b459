"""Tokens: made, listed, revoked, and recognised when somebody brings one.

The token itself is in one answer and nowhere else: neither in the journal, nor
in an answer that is given again under its idempotency key.
"""

import datetime as dt
from collections.abc import Callable

from msgspec import UNSET

from imagestore import tokens
from imagestore.access import ROLES
from imagestore.actors.commands import CreateToken, RevokeToken
from imagestore.errors import InvalidArgument, NotFound
from imagestore.events.state import TokenRecord
from imagestore.methods.addressing import Addressing
from imagestore.model import Token, TokenRequest, TokenResponse
from imagestore.service import LOCAL, Caller, Grant


class TokenMethods(Addressing):
    """See the module."""

    _new_secret: Callable[[], str] = staticmethod(tokens.new_secret)

    async def create_token(self, request: TokenRequest, caller: Caller = LOCAL) -> TokenResponse:
        """Make a token; ``secret`` in the answer is told this once.

        Raises InvalidArgument, AlreadyExists, Blocked.
        """
        tokens.check_name(request.name)
        role = next((role for role in ROLES if role == request.role), None)
        if role is None:
            raise InvalidArgument(f"a token's role is one of {', '.join(ROLES)}")
        if request.expiresSeconds > tokens.LONGEST_SECONDS:
            raise InvalidArgument("a token's life is at most 100 years")
        secret, now_ns = self._new_secret(), self._running().now_ns()
        record = TokenRecord(
            name=request.name,
            role=role,
            sha256=tokens.digest_of(secret),
            created_ns=now_ns,
            created_by=caller.principal,
            expires_ns=now_ns + request.expiresSeconds * 1_000_000_000 if request.expiresSeconds else 0,
        )
        command = CreateToken(
            name=record.name, role=record.role, sha256=record.sha256, expires_ns=record.expires_ns
        )
        answer = TokenResponse(tokens=(self._told(record),))
        await self._perform(tokens.principal_of(request.name), command, caller, shown=answer)
        return TokenResponse(tokens=answer.tokens, secret=secret)

    async def list_tokens(self, request: TokenRequest, caller: Caller = LOCAL) -> TokenResponse:
        """Every token that is not revoked, without its secret."""
        return TokenResponse(tokens=self.known_tokens())

    async def revoke_token(self, request: TokenRequest, caller: Caller = LOCAL) -> TokenResponse:
        """Make a token good for nothing, from now on.

        Raises NotFound.
        """
        record = self._running().operations.state.tokens.get(request.name)
        if record is None:
            raise NotFound(detail=f"there is no token {request.name}")
        answer = TokenResponse(tokens=(self._told(record),))
        command = RevokeToken(name=request.name)
        await self._perform(tokens.principal_of(request.name), command, caller, shown=answer)
        return answer

    def known_tokens(self) -> tuple[Token, ...]:
        """Expired ones too."""
        return tuple(map(self._told, self._running().operations.state.tokens.values()))

    def grant(self, sha256: str) -> Grant | None:
        """See ``imagestore.service.Service.grant``."""
        actors = self._running()
        record = tokens.recognised(sha256, actors.operations.state.tokens.values())
        if record is None:
            return None
        expired = 0 < record.expires_ns <= actors.now_ns()
        return Grant(principal=tokens.principal_of(record.name), role=record.role, expired=expired)

    def _told(self, record: TokenRecord) -> Token:
        return Token(
            name=record.name,
            role=record.role,
            created=_time(record.created_ns),
            createdBy=record.created_by,
            expires=_time(record.expires_ns) if record.expires_ns else UNSET,
            expired=0 < record.expires_ns <= self._running().now_ns(),
        )


def _time(time_ns: int) -> str:
    """RFC 3339, in UTC, to the second."""
    return dt.datetime.fromtimestamp(time_ns // 1_000_000_000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
