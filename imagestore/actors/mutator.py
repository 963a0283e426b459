"""Taking commands out of a mailbox and answering them.

Owns what every actor that changes datasets does alike: perform the command,
answer, and let what must end the process through.
"""

import trio
from msgspec import Struct

from imagestore.actors.base import Reply
from imagestore.actors.commands import Command
from imagestore.actors.operation import Operations
from imagestore.errors import Cancelled, ImageStoreError, OutcomeUnknown
from imagestore.pools.base import Dataset


class Mutate(Struct, frozen=True, kw_only=True):
    """Perform ``command``.  ``deadline`` is a trio time before which it must be begun.

    ``operation`` is the id that :class:`~imagestore.actors.history.History`
    gave it, "" if it is not to be known before it is accepted.
    """

    command: Command
    principal: str
    deadline: float
    reply: Reply[tuple[Dataset, ...]]
    operation: str = ""


async def serve(message: Mutate, operations: Operations) -> None:
    """Perform one command and answer it.

    An error of imagestore is the answer.  Anything else ends the process, or is
    its end: it may have struck between intent and outcome, and the answer says so.
    One that was cancelled while it waited is passed over.
    """
    if message.reply.is_set:
        return
    with trio.CancelScope() as scope:
        operations.history.take_up(message.operation, scope)
        await _perform(message, operations, scope)


async def _perform(message: Mutate, operations: Operations, scope: trio.CancelScope) -> None:
    error: ImageStoreError | None = None
    try:
        rows = await operations.perform(
            message.command,
            principal=message.principal,
            deadline=message.deadline,
            operation=message.operation,
        )
    except ImageStoreError as refused:
        error = refused
        message.reply.fail(error)
    except BaseException:
        if scope.cancel_called:
            error = Cancelled()
            message.reply.fail(error)
        else:
            message.reply.fail(OutcomeUnknown("store ended before the outcome was known"))
        raise
    else:
        message.reply.put(rows)
    finally:
        operations.history.conclude(message.operation, error)
