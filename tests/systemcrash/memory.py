"""What the clients know, kept where no crash of their machine reaches.

The directory is the host's, shared with the machine and not cached in it: a
record that was written is there when the machine is killed.  Records follow
one another, each with its length and checksum; the last whole one counts.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import msgspec
from msgspec import Struct

from tests.crash.imagebook import ImageBook, ImageState, Kind
from tests.crash.model import Dataset
from tests.crash.workload import Statistics, Worker, Write

_HEAD = struct.Struct("<II")


class Client(Struct, frozen=True, kw_only=True):
    """One client's part; see :class:`tests.crash.workload.Worker`."""

    model: dict[str, Dataset]
    pending: tuple[str, dict[str, Dataset]] | None
    writing: Write | None
    history: tuple[str, ...]
    taken: int
    token: int


class Known(Struct, frozen=True, kw_only=True):
    clients: tuple[Client, ...]
    possible: dict[str, tuple[ImageState, ...]]
    images_under_way: tuple[tuple[str, Kind], ...]
    calls: int
    acknowledged: int
    refused: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Known)


def known_by(workers: Sequence[Worker], images: ImageBook, statistics: Statistics) -> Known:
    return Known(
        clients=tuple(
            Client(
                model=dict(worker.model),
                pending=(worker.pending[0], dict(worker.pending[1])) if worker.pending is not None else None,
                writing=worker.writing,
                history=tuple(worker.history),
                taken=worker.choices.taken,
                token=worker.token,
            )
            for worker in workers
        ),
        possible={image: tuple(states) for image, states in images.possible.items()},
        images_under_way=tuple(images.under_way),
        calls=statistics.calls,
        acknowledged=statistics.acknowledged,
        refused=statistics.refused,
    )


def give_back(known: Known, workers: Sequence[Worker], images: ImageBook, statistics: Statistics) -> None:
    """Make the clients what they were when the machine crashed: what was under way was cut off."""
    for client, worker in zip(known.clients, workers, strict=True):
        worker.model = client.model
        worker.history = set(client.history)
        worker.choices.taken, worker.token = client.taken, client.token
        if client.pending is not None:
            worker.cut_off, worker.after_cut = client.pending
            worker.history |= set(worker.after_cut)
        worker.writing = client.writing
    images.possible = {image: set(states) for image, states in known.possible.items()}
    for image, kind in known.images_under_way:
        images.cut_off(images.begin(image, kind))
    statistics.calls, statistics.acknowledged = known.calls, known.acknowledged
    statistics.refused = known.refused


class Memory:
    """The file of records."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def last(self) -> Known | None:
        """The last whole record."""
        if not self._path.exists():
            return None
        data, place, found = self._path.read_bytes(), 0, None
        while place + _HEAD.size <= len(data):
            length, checksum = _HEAD.unpack_from(data, place)
            body = data[place + _HEAD.size : place + _HEAD.size + length]
            if len(body) < length or crc32(body) != checksum:
                break
            found = body
            place += _HEAD.size + length
        return _decoder.decode(found) if found is not None else None

    def begin(self, known: Known) -> None:
        """Forget all records but this one."""
        new = self._path.with_suffix(".new")
        new.write_bytes(_record(known))
        new.replace(self._path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def keep(self, known: Known) -> None:
        os.write(self._file, _record(known))


def _record(known: Known) -> bytes:
    body = _encoder.encode(known)
    return _HEAD.pack(len(body), crc32(body)) + body
