"""Whether a caller may ask what it asks: of a method, or of an upload that overrides a safeguard."""

import logging

from msgspec import Struct

from imagestore.access import AccessRole, permit
from imagestore.errors import Forbidden
from imagestore.service import Caller, Method, needed_role

_log = logging.getLogger(__name__)


def check_call(caller: Caller, method: Method, request: Struct) -> None:
    """Raises Forbidden unless ``caller`` may ask this of ``method``."""
    needed = needed_role(method, request)
    check(caller, f"{method.name} with force" if needed != method.needs else method.name, needed)


def check(caller: Caller, what: str, needed: AccessRole) -> None:
    """Raises Forbidden, which is logged, unless ``caller`` may do ``what``."""
    try:
        permit(caller.principal, caller.role, what, needed)
    except Forbidden as error:
        _log.info("%s", error)
        raise
