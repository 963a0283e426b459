"""The real streams of ``data/``: made by OpenZFS 2.1.11, with what they must become."""

import hashlib
import lzma
import os
from functools import cache
from pathlib import Path

import msgspec

from imagestore.streams.applier import StreamApplier
from imagestore.streams.snapshot import SnapshotInfo

DATA = Path(__file__).parent / "data"


class Sample(msgspec.Struct, frozen=True):
    """One line of the manifest."""

    name: str
    kind: str
    base: str
    volume: str
    snapshot: str
    sha256: str
    volsize: int
    volblocksize: int
    guid: str
    stream_bytes: int

    @property
    def is_refused(self) -> bool:
        return self.kind == "refuse"


SAMPLES = {
    sample.name: sample
    for line in (DATA / "manifest.jsonl").read_bytes().splitlines()
    for sample in [msgspec.json.decode(line, type=Sample)]
}
ACCEPTED = [name for name, sample in SAMPLES.items() if not sample.is_refused]
PLAIN_FULL = [name for name, sample in SAMPLES.items() if sample.kind == "full" and name != "v8k-s1-p"]


@cache
def load(name: str) -> bytes:
    """The stream's bytes."""
    return lzma.decompress((DATA / f"{name}.zs.xz").read_bytes())


def chain(name: str) -> list[str]:
    """The streams to apply, in order; the last is ``name``."""
    base = SAMPLES[name].base
    return [*(chain(base) if base else []), name]


def apply(path: Path, stream: bytes, base: SnapshotInfo | None = None, cut: int = 1 << 20) -> SnapshotInfo:
    """Apply a stream to the file at ``path`` (made if it is not there); its last snapshot."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        applier = StreamApplier(fd, base=base)
        for at in range(0, len(stream), cut):
            applier.feed(stream[at : at + cut])
        return applier.finish().snapshots[-1]
    finally:
        os.close(fd)


def apply_chain(path: Path, name: str) -> SnapshotInfo:
    """Apply ``name`` and all that it builds on."""
    info: SnapshotInfo | None = None
    for link in chain(name):
        info = apply(path, load(link), info)
    assert info is not None
    return info


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
