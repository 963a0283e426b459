"""The driver protocol: what a pool can do, and what it promises.

Drivers know datasets and bytes.  They know nothing of images, guests, journals
or HTTP.  Names are relative to the pool (see ``imagestore.names``); the caller
has checked them.  One conformance suite, ``tests/pools/conformance``, runs
against every driver, on the real thing.

What every driver promises:

* A method that returned is durable: it survives power loss.
* A dataset's identity is guid plus createtxg, never its name.  A method that
  changes or destroys something takes a :class:`Target` and touches nothing
  whose identity differs: it raises ``NotFound`` instead.
* A snapshot's guid travels with its stream, so a guid may stand twice in one
  pool; guid and createtxg together do not.
* Everything created carries its tags from the same step that created it.
* ``snapshot``, ``destroy``, ``rollback``, ``rename`` and ``retag`` are all or
  nothing, also when the process dies.  ``create`` is all or nothing, but a process that
  dies in it may leave a prefix of what was asked, each with its tags.
* Cancelling a call never leaves half of it: it happens, or it does not.
* Every refusal is an error of ``imagestore.errors`` and is found before
  anything is changed.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, Protocol

from msgspec import Struct

from imagestore.pipes import InPipe

Kind = Literal["filesystem", "volume", "snapshot"]


class Identity(Struct, frozen=True, order=True, gc=False):
    """What a dataset is, whatever its name."""

    guid: int
    createtxg: int


class Tags(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the store wrote on a dataset when it made it (``imagestore:*``).

    Empty means absent.  ``op`` is the operation that made it, ``last`` the
    operation that last rolled it back.  ``kind`` is ``image``, ``disk``,
    ``volume``, ``parent``, ``snapshot`` or ``staging``.
    """

    op: str = ""
    kind: str = ""
    image: str = ""
    sha256: str = ""
    guest: str = ""
    disk: str = ""
    last: str = ""


NO_TAGS = Tags()

TAG_NAMES: Final = ("op", "kind", "image", "sha256", "guest", "disk", "last")
"""The fields of :class:`Tags`, in the order in which they are written."""


class Dataset(Struct, frozen=True, kw_only=True, gc=False):
    """One row of the pool.  Sizes in bytes.

    ``volsize`` is 0 for a file system; of a snapshot it is the volume's size
    when it was taken.  ``written`` counts since the latest snapshot before it,
    ``referenced`` all that it can read.  ``origin`` is the snapshot it is a
    clone of (name), "" if none.  ``sparse`` tells that space for all of a
    volume is not reserved.  ``creation`` is in seconds since 1970.
    """

    name: str
    kind: Kind
    guid: int
    createtxg: int
    volsize: int = 0
    written: int = 0
    referenced: int = 0
    origin: str = ""
    sparse: bool = True
    creation: int = 0
    tags: Tags = NO_TAGS

    @property
    def identity(self) -> Identity:
        return Identity(self.guid, self.createtxg)

    @property
    def target(self) -> "Target":
        return Target(name=self.name, guid=self.guid, createtxg=self.createtxg)


class Target(Struct, frozen=True, kw_only=True, gc=False):
    """A dataset named for a change: the name where it is expected, and what it must be."""

    name: str
    guid: int
    createtxg: int

    @property
    def identity(self) -> Identity:
        return Identity(self.guid, self.createtxg)


class NewFilesystem(Struct, frozen=True, kw_only=True, tag="filesystem"):
    name: str
    tags: Tags


class NewVolume(Struct, frozen=True, kw_only=True, tag="volume"):
    """A blank volume; ``size`` in bytes, a multiple of 512.

    ``thick``: room for all of it is set aside now and stays so, whatever is
    snapshotted, rolled back or received later.
    """

    name: str
    size: int
    tags: Tags
    thick: bool = False


class NewClone(Struct, frozen=True, kw_only=True, tag="clone"):
    """A writable clone of ``origin``, a snapshot of a volume."""

    name: str
    origin: Target
    tags: Tags


Creation = NewFilesystem | NewVolume | NewClone


class Retagging(Struct, frozen=True, kw_only=True, gc=False):
    """A dataset, and all the tags that it is to have."""

    target: Target
    tags: Tags


class Space(Struct, frozen=True, kw_only=True):
    """Bytes. ``available`` is what can still be written, reservations taken off; ``total`` is that and
    what is used, as ``df`` has it: what the file system keeps for root is in neither."""

    total: int
    available: int


class Mark(Struct, frozen=True, kw_only=True):
    """Which journal a pool belongs to, and how often that journal was opened."""

    journal: str
    epoch: int


class Receiver(Protocol):
    """Content on its way into the pool.  Nothing is visible before :meth:`finish`.

    ``feed`` and ``finish`` raise ``StreamError`` or ``ContentRefused`` for
    content that is wrong and ``NoSpace`` when the pool is full; after any
    error only ``abort`` may be called.  Leaving the context manager that gave
    the receiver without ``finish`` is ``abort``.
    """

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; any length. Returns when ``data`` may be reused."""

    async def finish(self) -> tuple[Dataset, ...]:
        """Verify the end, make the volume and its snapshots visible, durably.

        Returns the volume, then its snapshots, oldest first.
        """

    async def abort(self) -> None:
        """Throw away what came. Never raises for being called twice or late."""


class Intake(Protocol):
    """Where a pool takes whole files over as its own, without copying them."""

    @property
    def directory(self) -> str:
        """An absolute path in the pool's own storage, that is there and in which the pool itself makes
        nothing. Files that are to be taken over must lie in it."""

    async def take_over(
        self, path: str, size: int, name: str, tags: Tags, *, snapshot: str, snapshot_tags: Tags
    ) -> tuple[Dataset, ...]:
        """Make the file at ``path`` the data of the new volume ``name``, with ``@snapshot``.

        ``size`` is the file's length in bytes.  The volume is one that will
        never be written.  The path stays, as another name of the volume's
        data: it must not be written any more, and may be unlinked.  Returns
        the volume, then its snapshot; both are durable.

        Raises AlreadyExists, NotFound (parent), ContentRefused (size), NoSpace.
        """


class CommandTexts(Protocol):
    """A pool's own commands for people to read; names are checked by others. Pure, and nothing is run."""

    def created(self, creations: Sequence[Creation]) -> Sequence[str]: ...
    def snapshotted(self, datasets: Sequence[Target], snapshot: str, tags: Tags) -> Sequence[str]: ...
    def destroyed(self, targets: Sequence[Target]) -> Sequence[str]: ...
    def rolled_back(self, snapshots: Sequence[Target], newer: Sequence[Target]) -> Sequence[str]: ...
    def resized(self, volume: Target, size: int) -> Sequence[str]: ...
    def copied(self, snapshot: Target, name: str) -> Sequence[str]:
        """A full copy of a volume's snapshot, as the volume ``name``."""


class PoolDriver(Protocol):
    """A pool.  See the module's docstring for what every driver promises."""

    @property
    def name(self) -> str:
        """The pool's name, the first component of every full name."""

    @property
    def intake(self) -> Intake | None:
        """None where a pool's volumes are no files."""

    async def close(self) -> None:
        """Release the pool. Idempotent."""

    # -- whose pool it is ---------------------------------------------------

    async def mark(self) -> Mark | None:
        """The mark on the pool's root, or None if it carries none."""

    async def set_mark(self, mark: Mark | None) -> None:
        """Write, replace or (None) take off the mark."""

    # -- looking ------------------------------------------------------------

    async def list(self) -> Sequence[Dataset]:
        """Everything in the pool, the root (name "") first, in the order of ``zfs list``:
        a parent before its children, a dataset's snapshots (oldest first)
        directly after it and before its children.
        """

    async def get(self, name: str) -> Dataset:
        """Raises NotFound."""

    async def existing(self, wanted: Sequence[str]) -> Sequence[Dataset]:
        """The rows of those of ``wanted`` that exist, in no particular order."""

    async def generation(self) -> int:
        """A number that differs from before when the pool may have changed by another hand,
        and more of it than :meth:`changes` tells: then ``list`` is due.

        Changes made through this driver need not count: their rows are known.
        Cheap: it is asked twice a second.
        """

    async def changes(self) -> Sequence[str]:
        """Names whose rows another hand may have changed (made, destroyed) since they were given out.

        Each is told once.  What was found out by :meth:`generation` counts.
        """

    def trouble(self) -> str:
        """Why nothing can be changed now, in one line; "" if it can. Never waits for the pool."""

    async def space(self) -> Space: ...

    def mountpoint(self, name: str) -> str:
        """The absolute path of a file system's own files, "" where there are none to be seen."""

    def device(self, name: str) -> str:
        """The absolute path at which a volume's content can be opened, stable for its life."""

    async def users(self, name: str) -> Sequence[str]:
        """Processes that have the volume open for writing, as ``pid 4242 qemu-system-x86``."""

    async def those_in_use(self, wanted: Sequence[str]) -> Sequence[str]:
        """Those of the volumes ``wanted`` that somebody has open for writing. One look for all of them."""

    # -- changing -----------------------------------------------------------

    async def create(self, creations: Sequence[Creation]) -> Sequence[Dataset]:
        """Make datasets, in order; parents must exist or come earlier in ``creations``.

        Raises AlreadyExists, NotFound (parent or origin), NotValid (the parent
        is no file system), InvalidArgument (size), NoSpace.
        """

    async def snapshot(self, volumes: Sequence[Target], snapshot: str, tags: Tags) -> Sequence[Dataset]:
        """Snapshot all of ``volumes`` (file systems too) as ``@snapshot`` at one instant.

        Raises AlreadyExists, NotFound, InUse where the driver cannot snapshot
        an open disk, NoSpace.
        """

    async def destroy(self, targets: Sequence[Target], *, force: bool = False) -> None:
        """Destroy exactly ``targets``; children, snapshots and clones must be among them.

        Raises NotFound (a target is gone, or is another), HasClones,
        Blocked (children that are no targets), Held, InUse (unless ``force``).
        """

    async def rollback(
        self, snapshots: Sequence[Target], *, destroy: Sequence[Target], operation: str, force: bool = False
    ) -> Sequence[Dataset]:
        """Set each snapshot's volume back to it, after destroying the newer snapshots.

        ``destroy`` must name every newer snapshot of those volumes, and may
        name further snapshots that go in the same step (of the file system
        that holds a guest's disks).  Each volume is tagged ``last=operation`` in the same step.  Returns the
        volumes as they are now.

        Raises NotFound, NewerSnapshots (one is not in ``destroy``), HasClones,
        Held, InUse (unless ``force``; where nothing can override, the error says so).
        """

    async def rename(self, target: Target, name: str) -> Sequence[Dataset]:
        """Give a dataset (its snapshots and children come along) another name.

        Returns the moved rows.  Raises NotFound, AlreadyExists.
        """

    async def resize(self, volume: Target, size: int) -> Dataset:
        """Set a volume's size in bytes. Raises NotFound, InUse (when shrinking), NoSpace."""

    async def retag(self, changes: Sequence[Retagging]) -> Sequence[Dataset]:
        """Replace the tags of datasets, all or none; their content is not touched. Raises NotFound."""

    def retag_commands(
        self, changes: Sequence[Retagging], *, parents: Sequence[NewFilesystem] = ()
    ) -> Sequence[str]:
        """What making ``parents`` and then :meth:`retag` do, as an administrator would type it."""

    @property
    def texts(self) -> "CommandTexts":
        """The other changes as an administrator would type them."""

    # -- streams ------------------------------------------------------------

    def send(
        self, snapshot: Target, *, base: Target | None = None, skip: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | memoryview]]:
        """The plain send stream of a volume's snapshot, in pieces of 256 KiB to 1 MiB.

        Full, or incremental from ``base``, an earlier snapshot of the same
        volume or the origin of it.  The same snapshot gives the same bytes
        every time; its first ``skip`` bytes are left out.  The snapshot cannot be
        destroyed while it is being sent.  A piece is valid until the next one
        is asked for.  Raises NotFound, NotValid.
        """

    def send_in_pipe(
        self, snapshot: Target, *, base: Target | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | memoryview | InPipe]]:
        """As :meth:`send`, for whom can move bytes out of a pipe; those pieces may be shorter."""

    async def send_bytes(self, snapshot: Target, *, base: Target | None = None) -> int:
        """How many bytes :meth:`send` gives in all.  Takes as long as sending. Raises as it does."""

    def receive_stream(
        self,
        name: str,
        tags: Tags,
        *,
        snapshot_tags: Tags,
        origin: Target | None = None,
        read_only: bool = False,
    ) -> AbstractAsyncContextManager[Receiver]:
        """A receiver of a volume's send stream, or a package of its snapshots, into the new volume ``name``.

        Its snapshots keep the sender's names, guids and creation times.  The
        stream is full; with ``origin`` it is incremental from that snapshot,
        and the volume becomes its clone.  ``read_only`` promises that the
        volume will never be written, so that it may share its blocks with its
        snapshot.  Raises AlreadyExists, NotFound (parent, origin).
        """

    def receive_onto(
        self, volume: Target, *, base: Target, snapshot_tags: Tags, operation: str, force: bool = False
    ) -> AbstractAsyncContextManager[Receiver]:
        """A receiver of an incremental send stream, or a package of them, onto a volume.

        ``base`` must be the volume's newest snapshot and what the stream is
        from, and the volume must have its content; ``force`` discards what was
        written since.  All snapshots appear at once, with the sender's names,
        guids and creation times; the volume then has the last one's content
        and is tagged ``last=operation`` in the same step.  ``finish`` gives
        the volume, then the snapshots that came.

        Raises, at the beginning or from ``finish``: NotFound, NotVolume,
        Blocked (another snapshot is the newest), Modified, InUse (both unless
        ``force``), AlreadyExists (a snapshot's name).
        """

    def receive_raw(
        self, name: str, tags: Tags, *, snapshot: str, snapshot_tags: Tags, read_only: bool = False
    ) -> AbstractAsyncContextManager[Receiver]:
        """A receiver of a raw disk image, into the new volume ``name`` with ``@snapshot``.

        The content's length becomes the volume's size and must be a nonzero
        multiple of 512 bytes.  Runs of zeros become holes.  ``read_only`` as in
        :meth:`receive_stream`.
        Raises AlreadyExists, NotFound (parent).
        """
