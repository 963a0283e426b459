"""A download that goes on where it broke off.

Owns what is kept of a broken download: ``FILE.part``, the bytes, and
``FILE.part.etag``, what they are the beginning of.  Promises: a file of the
final name is the whole stream, on disk; what a connection that broke has
brought is not fetched again, in this run or the next, as long as the store
still has the very same stream; a stream without an ETag (a whole guest) leaves
nothing when it breaks.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
from msgspec import Struct

from imagestore.cli.progress import Report
from imagestore.client import Client, Stream
from imagestore.errors import AlreadyExists, BrokenOff, ImageStoreError, NotFound, StreamError

FRUITLESS_TRIES = 5
"""So often in a row a connection may break without having brought anything."""

FIRST_WAIT_SECONDS = 0.5
"""Before the first try again; twice as long before each further one that brings nothing."""

READ_BYTES = 1 << 20

sleep = time.sleep


class Wanted(Struct, frozen=True, kw_only=True):
    """What is downloaded, and from where."""

    server: str
    snapshot: str
    base: str = ""


class _Kept(Struct, frozen=True, kw_only=True):
    """What a part is the beginning of."""

    etag: str
    wanted: Wanted


class Sink:
    """Where a download goes.  ``position`` bytes of the stream called ``etag`` are there."""

    def __init__(self, position: int = 0, etag: str = "") -> None:
        self.position = position
        self.etag = etag

    def begin(self, stream: Stream) -> None:
        """The store begins at ``stream.first``. Raises BrokenOff when that is of no use."""
        if stream.first != self.position:
            raise BrokenOff("the snapshot was replaced by another while it was sent")
        self.etag = stream.etag

    def write(self, piece: memoryview) -> None:
        raise NotImplementedError


class Pipe(Sink):
    """A descriptor that takes each byte once."""

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file

    def write(self, piece: memoryview) -> None:
        write_all(self._file, piece)
        self.position += len(piece)


class Part(Sink):
    """A part file that is locked and open; begins anew when the store has something else."""

    def __init__(self, file: int, path: str, wanted: Wanted) -> None:
        super().__init__()
        self._file = file
        self._path = path
        self._wanted = wanted

    @property
    def label(self) -> str:
        return f"{self._path}.etag"

    def recall(self) -> None:
        """Take up what an earlier run has left, if it is of the same stream. Raises AlreadyExists."""
        try:
            with open(self.label, "rb") as label:
                kept = msgspec.json.decode(label.read(), type=_Kept)
        except (FileNotFoundError, msgspec.DecodeError):
            if os.fstat(self._file).st_size:
                raise AlreadyExists(
                    f"{self._path} exists already and is no download of ours",
                    detail="remove it, or write to another file",
                ) from None
            return
        if kept.wanted == self._wanted:
            self.etag = kept.etag
            self.position = os.fstat(self._file).st_size

    def begin(self, stream: Stream) -> None:
        self.etag = stream.etag
        if stream.first != self.position or stream.first == 0:
            self._rewind()
        with open(self.label, "wb") as label:
            label.write(msgspec.json.encode(_Kept(etag=self.etag, wanted=self._wanted)))

    def _rewind(self) -> None:
        # The label goes first: it must never vouch for other bytes.
        self.forget()
        os.ftruncate(self._file, 0)
        self.position = 0

    def write(self, piece: memoryview) -> None:
        os.lseek(self._file, self.position, os.SEEK_SET)
        write_all(self._file, piece)
        self.position += len(piece)

    def forget(self) -> None:
        """Nothing of this is to be gone on with."""
        with suppress(FileNotFoundError):
            os.unlink(self.label)


def fetch(client: Client, wanted: Wanted, sink: Sink, report: Report) -> None:
    """Bring the stream into ``sink``; a connection that breaks is made again, a bounded number of times.

    Raises:
        Unreachable: it was given up (BrokenOff, AnswerTimeout), or there is no store.
        What the store refuses with.
    """
    fruitless = 0
    begun = False
    while True:
        before = sink.position
        try:
            with client.download(
                wanted.snapshot, base=wanted.base, offset=sink.position, etag=sink.etag
            ) as stream:
                sink.begin(stream)
                begun = True
                before = sink.position
                for piece in stream:
                    sink.write(piece)
                    report("sending", sink.position, stream.size)
            return
        except ImageStoreError as problem:
            fruitless = 0 if sink.position > before else fruitless + 1
            if not problem.retryable or not begun or not sink.etag or fruitless >= FRUITLESS_TRIES:
                raise
            report("waiting", sink.position, None)
            sleep(FIRST_WAIT_SECONDS * 2 ** max(0, fruitless - 1))


def fetch_file(client: Client, wanted: Wanted, path: str, report: Report) -> None:
    """Download to the file ``path``, which appears, or is replaced, when all is there and synced.

    Raises:
        NotFound: the directory does not exist.
        AlreadyExists: ``path``.part is somebody else's file.
        BrokenOff: another process downloads to the same file; and as :func:`fetch`.
    """
    from imagestore.streams.landing import settle

    with _part(path, wanted) as part:
        part.recall()
        is_old = part.position > 0
        try:
            fetch(client, wanted, part, report)
            if is_old and not _is_whole(f"{path}.part", report):
                # Perhaps the machine lost what an earlier run had written.
                part.etag, part.position = "", 0
                fetch(client, wanted, part, report)
        except BaseException:
            if not part.etag or not part.position:
                part.forget()
                os.unlink(f"{path}.part")
            raise
        settle(f"{path}.part", path, overwrite=True)
        part.forget()


@contextmanager
def _part(path: str, wanted: Wanted) -> Iterator[Part]:
    """The part file of ``path``, ours alone."""
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise NotFound(f"{directory} is no directory")
    file = os.open(f"{path}.part", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BrokenOff(f"another process downloads to {path}") from None
        yield Part(file, f"{path}.part", wanted)
    finally:
        os.close(file)


def _is_whole(path: str, report: Report) -> bool:
    """Whether the file holds a stream from its first byte to its last."""
    from imagestore.streams.checker import Checker

    checker = Checker(any_base=True)
    done = 0
    try:
        with open(path, "rb", buffering=0) as stream:
            while piece := stream.read(READ_BYTES):
                for _ in checker.feed(piece):
                    pass
                done += len(piece)
                report("verifying", done, os.fstat(stream.fileno()).st_size)
        for _ in checker.finish():
            pass
    except StreamError:
        return False
    return True


def write_all(target: int, piece: memoryview) -> None:
    rest = piece
    while rest:
        rest = rest[os.write(target, rest) :]
