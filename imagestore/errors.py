"""Every error a caller can meet, in one hierarchy.

Owns the mapping from an error to its four faces: the text on the old wire
(``str(error)``), the JSON-RPC 2.0 code, the HTTP status of the non-RPC
endpoints, and the exit code of the command line.  Nothing else in imagestore
chooses a status or an exit code.

``detail`` says what would be right; it never appears on the old wire, whose
texts are fixed by the contract, but the command line, the log and newer
clients show it.
"""

from collections.abc import Sequence
from typing import ClassVar


class ImageStoreError(Exception):
    """Base of every error that imagestore raises on purpose."""

    code: ClassVar[int] = -32000
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    text: ClassVar[str] = "internal error"

    def __init__(self, text: str | None = None, *, detail: str = "") -> None:
        super().__init__(text if text is not None else self.text)
        self.detail = detail
        self.operation = ""
        """The id of the accepted operation that it is the outcome of."""


# --- what a caller asked for is wrong -------------------------------------


class InvalidArgument(ImageStoreError):
    """The request is not acceptable whatever the state of the store (EINVAL)."""

    code = -32602
    http_status = 400
    exit_code = 2
    text = "invalid argument"


class NotValid(InvalidArgument):
    """A name that is no dataset's, or would leave the pool (ErrNotValid)."""

    text = "not a valid dataset"


class NotVolume(InvalidArgument):
    """The dataset exists and is not a volume (ErrNotVolume)."""

    text = "not a volume"


class NotSnapshot(InvalidArgument):
    """The dataset exists and is not a snapshot (ErrNotSnapshot)."""

    text = "not a snapshot"


class NotFound(ImageStoreError):
    """Nothing has that name (ErrNotFound)."""

    code = -32001
    http_status = 404
    exit_code = 3
    text = "not found"


class AlreadyExists(ImageStoreError):
    """The name is taken by something else than what was asked for (EEXIST)."""

    code = -32002
    http_status = 409
    exit_code = 4
    text = "dataset already exists"

    @classmethod
    def named(cls, name: str, *, detail: str = "") -> "AlreadyExists":
        return cls(f"dataset already exists: {name}", detail=detail)


# --- the state of the store forbids it now --------------------------------


class Blocked(ImageStoreError):
    """Something stands in the way; ``blockers`` names it, in a fixed order."""

    code = -32003
    http_status = 409
    exit_code = 5

    def __init__(self, text: str, *, blockers: Sequence[str] = (), detail: str = "") -> None:
        super().__init__(text, detail=detail)
        self.blockers = tuple(blockers)


class HasClones(Blocked):
    """Clones depend on a snapshot that was to be destroyed."""

    @classmethod
    def of(cls, what: str, clones: Sequence[str]) -> "HasClones":
        """``what`` is ``snapshot`` or ``image``."""
        return cls(f"{what} has dependent clones: {', '.join(clones)}", blockers=clones)


class NewerSnapshots(Blocked):
    """A rollback would destroy newer snapshots and was not told to."""

    @classmethod
    def named(cls, snapshots: Sequence[str]) -> "NewerSnapshots":
        return cls(
            f"more recent snapshots exist: {', '.join(snapshots)}",
            blockers=snapshots,
            detail="set destroyMoreRecent to destroy them",
        )


class Held(Blocked):
    """A hold keeps a snapshot from being destroyed."""

    @classmethod
    def named(cls, snapshots: Sequence[str]) -> "Held":
        return cls(f"snapshot is held: {', '.join(snapshots)}", blockers=snapshots)


class InUse(Blocked):
    """A process has the disk open for writing."""

    @classmethod
    def by(cls, name: str, processes: Sequence[str]) -> "InUse":
        """``processes`` are of the form ``pid 4242 qemu-system-x86``."""
        who = f" ({', '.join(processes)})" if processes else ""
        return cls(
            f"dataset is in use: {name}{who}",
            blockers=processes,
            detail='stop the process, or set "force": true in the request',
        )


class Modified(Blocked):
    """A volume was written since its newest snapshot, and a stream would undo that."""

    @classmethod
    def since(cls, name: str, snapshot: str) -> "Modified":
        return cls(
            f"dataset has been modified: {name} since {snapshot}",
            blockers=(name,),
            detail="what was written since would be lost; force discards it",
        )


class NoSpace(ImageStoreError):
    """There is no room, promises to sparse volumes and clones counted (ENOSPC)."""

    code = -32004
    http_status = 507
    exit_code = 6
    text = "no space left on device"


class TemporarilyUnavailable(ImageStoreError):
    """A bounded queue is full; the same request may succeed later (EAGAIN)."""

    code = -32000
    http_status = 503
    exit_code = 7
    retryable = True
    text = "resource temporarily unavailable"


class DeadlineExceeded(TemporarilyUnavailable):
    """The request's deadline passed before work on it began."""

    text = "deadline exceeded before the request was begun"


class ReadOnly(ImageStoreError):
    """The journal can no longer be written; the store changes nothing any more."""

    code = -32005
    http_status = 503
    exit_code = 8
    text = "store is read-only: the journal failed; restart it after mending the disk"


class Stopping(ImageStoreError):
    """The store is shutting down and takes no new work."""

    code = -32006
    http_status = 503
    exit_code = 7
    retryable = True
    text = "store is shutting down"


class Cancelled(ImageStoreError):
    """The operation was cancelled by an explicit request."""

    code = -32007
    http_status = 409
    exit_code = 9
    text = "operation was cancelled"


class TooLate(Blocked):
    """An operation has gone too far to be cancelled, or has ended."""


class KeyReused(ImageStoreError):
    """An idempotency key came with another request than the one that it stands for."""

    code = -32008
    http_status = 422
    exit_code = 12
    text = "idempotency key stands for another request"


# --- who may do what -------------------------------------------------------


class Unauthenticated(ImageStoreError):
    """Nobody that the store knows asks: no token or certificate, or one that is not, or no longer, good."""

    code = -32050
    http_status = 401
    exit_code = 13
    text = "a token or a client certificate is needed"


class Forbidden(ImageStoreError):
    """The caller is known, and its role does not allow it."""

    code = -32051
    http_status = 403
    exit_code = 14
    text = "permission denied"

    @classmethod
    def lacking(cls, principal: str, has: str, what: str, needed: str) -> "Forbidden":
        return cls(
            f"permission denied: {what} needs the role {needed}, {principal} is {has}",
            detail="ask an admin of the store for a token of that role",
        )


class TooManyAttempts(ImageStoreError):
    """So many tokens from this address were wrong that no other is looked at for a while."""

    code = -32052
    http_status = 429
    exit_code = 15
    retryable = True
    text = "too many failed attempts from this address"


# --- images and streams ----------------------------------------------------


class FetchFailed(ImageStoreError):
    """An image could not be fetched; the text is one line and says why."""

    code = -32010
    http_status = 502
    exit_code = 10


class FetchUnreachable(FetchFailed):
    """The source did not answer, or broke off; a later try may succeed."""

    retryable = True


class ContentRefused(FetchFailed):
    """The bytes arrived and are not an image that may be stored."""

    http_status = 422


class StreamError(ContentRefused):
    """A send stream is malformed, damaged, or of a kind that is refused."""

    exit_code = 11


# --- the journal -------------------------------------------------------------


class JournalError(ImageStoreError):
    """Base of the journal's errors."""

    code = -32020
    http_status = 503
    exit_code = 20


class Rejected(JournalError):
    """The batch was certainly not written; the journal is as it was."""


class OutcomeUnknown(JournalError):
    """The batch may or may not survive; only a restart decides."""


class Corrupt(JournalError):
    """The journal is damaged: file, offset, seq, and the command to run next."""

    exit_code = 21


class JournalLocked(JournalError):
    """Another process has the journal open; names its pid."""

    exit_code = 22


class JournalTooNew(JournalError):
    """Written by a newer imagestore; refused, data untouched."""

    exit_code = 23


# --- the pool ------------------------------------------------------------------


class PoolError(ImageStoreError):
    """The pool refused or failed a command for a reason of its own."""

    code = -32030
    exit_code = 30


class PoolMismatch(PoolError):
    """Pool and journal do not belong together; names the command that settles it."""

    exit_code = 31


class PoolStuck(PoolError):
    """A change has not ended in time; whether it happens is seen when the pool's disks answer again."""


class PoolBusy(PoolError):
    """Another store, or a child of an earlier one, still holds the pool."""

    exit_code = 32


# --- starting up -----------------------------------------------------------------


class ConfigError(ImageStoreError):
    """A setting is unknown, of the wrong type, or cannot work."""

    code = -32602
    http_status = 400
    exit_code = 2


# --- talking to a store, on the client's side ----------------------------------------


class Unreachable(ImageStoreError):
    """No store answers at the address."""

    code = -32040
    http_status = 502
    exit_code = 40
    retryable = True


class BrokenOff(Unreachable):
    """The connection ended before the answer or the stream did."""

    exit_code = 41


class AnswerTimeout(Unreachable):
    """The store did not answer in the time given; an accepted operation goes on there."""

    exit_code = 42


# The names of the original program, for callers that embed the store.
EAGAIN = TemporarilyUnavailable
EEXIST = AlreadyExists
ENOSPC = NoSpace
EINVAL = InvalidArgument
ErrNotFound = NotFound
ErrNotVolume = NotVolume
ErrNotSnapshot = NotSnapshot
ErrNotValid = NotValid
