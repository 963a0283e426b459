"""Taking commands out of a mailbox and answering them.

Owns what every actor that changes datasets does alike: perform the command,
answer, and let what must end the process through.
"""

from msgspec import Struct

from imagestore.actors.base import Reply
from imagestore.actors.commands import Command
from imagestore.actors.operation import Operations
from imagestore.errors import ImageStoreError, OutcomeUnknown
from imagestore.pools.base import Dataset


class Mutate(Struct, frozen=True, kw_only=True):
    """Perform ``command``.  ``deadline`` is a trio time before which it must be begun."""

    command: Command
    principal: str
    deadline: float
    reply: Reply[tuple[Dataset, ...]]


async def serve(message: Mutate, operations: Operations) -> None:
    """Perform one command and answer it.

    An error of imagestore is the answer.  Anything else ends the process, or is
    its end: it may have struck between intent and outcome, and the answer says so.
    """
    try:
        rows = await operations.perform(
            message.command, principal=message.principal, deadline=message.deadline
        )
    except ImageStoreError as error:
        message.reply.fail(error)
    except BaseException:
        message.reply.fail(OutcomeUnknown("store ended before the outcome was known"))
        raise
    else:
        message.reply.put(rows)
