"""What making and revoking a token means for the journal.  Pure."""

from imagestore.actors.commands import CreateToken, RevokeToken
from imagestore.actors.plans import Plan
from imagestore.errors import AlreadyExists, Blocked, NotFound
from imagestore.events.catalogue import NoteIntent, TokenCreated, TokenRevoked
from imagestore.events.state import State
from imagestore.tokens import MOST_TOKENS, principal_of


def create_token(command: CreateToken, state: State) -> Plan:
    """Raises AlreadyExists, an expired one included; Blocked: there are too many."""
    if command.name in state.tokens:
        raise AlreadyExists(f"token already exists: {command.name}", detail="revoke it, or take another name")
    if len(state.tokens) >= MOST_TOKENS:
        raise Blocked(f"too many tokens: there are {MOST_TOKENS}", detail="revoke those that are not needed")
    fact = TokenCreated(
        name=command.name, role=command.role, sha256=command.sha256, expires_ns=command.expires_ns
    )
    return Plan(method="CreateToken", subject=principal_of(command.name), intent=NoteIntent(fact=fact))


def revoke_token(command: RevokeToken, state: State) -> Plan:
    """Raises NotFound."""
    if command.name not in state.tokens:
        raise NotFound(detail=f"there is no token {command.name}")
    fact = TokenRevoked(name=command.name)
    return Plan(method="RevokeToken", subject=principal_of(command.name), intent=NoteIntent(fact=fact))
