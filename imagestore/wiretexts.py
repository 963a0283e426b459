"""What the store means with the one line that an error is on the old wire.

The old wire carries no types: a client knows an error by its text, whose
beginnings stand here and stay as they are.  Pure.
"""

import re

from imagestore import errors

EXACT: dict[str, type[errors.ImageStoreError]] = {
    "not found": errors.NotFound,
    "not a valid dataset": errors.NotValid,
    "not a volume": errors.NotVolume,
    "not a snapshot": errors.NotSnapshot,
    "invalid argument": errors.InvalidArgument,
    "need an id": errors.InvalidArgument,
    "need id": errors.InvalidArgument,
    "need dest": errors.InvalidArgument,
    "need an alias": errors.InvalidArgument,
    "need a source": errors.InvalidArgument,
    "need a snapshot": errors.InvalidArgument,
    "need a dest": errors.InvalidArgument,
    "need a guest": errors.InvalidArgument,
    "need a disk": errors.InvalidArgument,
    "need a valid size": errors.InvalidArgument,
    "invalid snapshot dest": errors.InvalidArgument,
    "cannot create a snapshot of a snapshot": errors.InvalidArgument,
    errors.NoSpace.text: errors.NoSpace,
    errors.TemporarilyUnavailable.text: errors.TemporarilyUnavailable,
    errors.DeadlineExceeded.text: errors.DeadlineExceeded,
    errors.ReadOnly.text: errors.ReadOnly,
    errors.Stopping.text: errors.Stopping,
    errors.Cancelled.text: errors.Cancelled,
    errors.KeyReused.text: errors.KeyReused,
    "operation cannot be cancelled any more": errors.TooLate,
    "store is starting": errors.TemporarilyUnavailable,
    "store is not running": errors.TemporarilyUnavailable,
    "store has ended": errors.TemporarilyUnavailable,
}
"""Whole texts."""

BEGINNINGS: tuple[tuple[str, type[errors.ImageStoreError]], ...] = (
    ("dataset already exists", errors.AlreadyExists),
    ("operation has ended: ", errors.TooLate),
    ("permission denied: ", errors.Forbidden),
    ("token already exists: ", errors.AlreadyExists),
    ("too many tokens: ", errors.Blocked),
    ("a token's ", errors.InvalidArgument),
    ("Idempotency-Key must have ", errors.InvalidArgument),
    ("the journal ends at seq ", errors.InvalidArgument),
    ("snapshot has dependent clones: ", errors.HasClones),
    ("image has dependent clones: ", errors.HasClones),
    ("more recent snapshots exist: ", errors.NewerSnapshots),
    ("snapshot is held: ", errors.Held),
    ("dataset is in use: ", errors.InUse),
    ("dataset has been modified: ", errors.Modified),
    ("dataset has children: ", errors.Blocked),
    ("dataset cannot be destroyed: ", errors.Blocked),
    ("dataset belongs to image ", errors.Blocked),
    ("dataset is the store's already: ", errors.Blocked),
    ("dataset is not the store's: ", errors.Blocked),
    ("dataset carries the tags of another store: ", errors.Blocked),
    ("image has no snapshot: ", errors.Blocked),
    ("image is being fetched: ", errors.Blocked),
    ("image has aliases: ", errors.Blocked),
    ("image already exists: ", errors.AlreadyExists),
    ("image exists already: ", errors.AlreadyExists),
    ("alias already exists: ", errors.AlreadyExists),
    ("source already exists: ", errors.AlreadyExists),
    ("volume is larger: ", errors.InvalidArgument),
    ("the address of an image ", errors.InvalidArgument),
    ("a sha256 and a sums file ", errors.InvalidArgument),
    ("a sums file is of a source", errors.InvalidArgument),
    ("sha256 '", errors.InvalidArgument),
    ("the keyring ", errors.ConfigError),
    ("no space left on device for the journal", errors.Rejected),
    ("the journal's queue was full", errors.Rejected),
    ("the journal's disk was busy", errors.Rejected),
    ("the journal's disk did not answer", errors.OutcomeUnknown),
    ("the journal failed: ", errors.OutcomeUnknown),
    ("the outcome of ", errors.OutcomeUnknown),
    ("something that is not the store's is in the way: ", errors.PoolError),
    ("the pool's catalog failed", errors.PoolError),
)
"""Texts that go on with a name."""

_POOL_FAILED = re.compile(
    r"[a-z ]+ failed: |pool \S+ (is|lacks|has) |.* is encrypted and its key is not loaded|not permitted: "
)
"""How the pool says what it was doing when the kernel or SQLite refused, and what is the matter with it."""


_NO_BASE = re.compile(r"\S+ is no earlier snapshot of ")


def error_of(text: str) -> errors.ImageStoreError:
    """The error that the store meant with the one line it sent."""
    exact = EXACT.get(text)
    if exact is not None:
        return exact(text)
    for beginning, kind in BEGINNINGS:
        if text.startswith(beginning):
            return kind(text)
    if _NO_BASE.match(text):
        return errors.InvalidArgument(text)
    if _POOL_FAILED.match(text):
        return errors.PoolError(text)
    return errors.ImageStoreError(text)
