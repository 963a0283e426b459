"""The tokens of the memory store."""

from imagestore import errors
from imagestore.access import ROLES, AccessRole
from imagestore.model import Token, TokenRequest, TokenResponse
from imagestore.service import LOCAL, Caller, Grant
from imagestore.tokens import digest_of


class MemoryTokens:
    """``grants`` is what tokens give, by their hashes."""

    def __init__(self) -> None:
        super().__init__()
        self.grants: dict[str, Grant] = {}

    def hand_out(self, secret: str, name: str, role: AccessRole, *, expired: bool = False) -> None:
        """Have ``secret`` be a token of that name."""
        self.grants[digest_of(secret)] = Grant(principal=f"token:{name}", role=role, expired=expired)

    def grant(self, sha256: str) -> Grant | None:
        return self.grants.get(sha256)

    async def create_token(self, request: TokenRequest, caller: Caller = LOCAL) -> TokenResponse:
        (role,) = (role for role in ROLES if role == (request.role or "reader"))
        self.hand_out(f"secret of {request.name}", request.name, role)
        token = Token(name=request.name, role=role, created="now", createdBy=caller.principal)
        return TokenResponse(tokens=(token,), secret=f"secret of {request.name}")

    async def list_tokens(self, request: TokenRequest, caller: Caller = LOCAL) -> TokenResponse:
        return TokenResponse(tokens=())

    async def revoke_token(self, request: TokenRequest, caller: Caller = LOCAL) -> TokenResponse:
        raise errors.NotFound
