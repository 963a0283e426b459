"""What every fuzzer of the streams shares: seeds, mutations, and what must hold of any bytes.

Whatever comes, it is applied whole or refused with an error that a caller
expects, the same in every cut; nothing else may happen.  Mutations work on
records, and seal them again most of the time: a fuzzer that only breaks
checksums never gets past them.
"""

import os
import random
import struct
import zlib
from collections.abc import Sequence
from functools import cache

from imagestore.errors import ContentRefused, NoSpace
from imagestore.streams.applier import StreamApplier
from imagestore.streams.content import Decoder
from imagestore.streams.guard import ReceiveGuard
from tests.streams import building as b
from tests.streams.building import BASE, BLOCK, Record
from tests.streams.packing import lz4_payload, lzjb_payload, zstd_payload

EXPECTED = (ContentRefused, NoSpace)
"""StreamError is a ContentRefused."""

MAX_STREAM_BYTES = 1 << 20
INTERESTING: tuple[int, ...] = (
    0,
    1,
    2,
    3,
    23,
    24,
    511,
    512,
    4096,
    1 << 16,
    1 << 17,
    1 << 24,
    1 << 31,
    1 << 32,
    1 << 62,
)
INTERESTING += ((1 << 63) - 512, (1 << 63) - 1, 1 << 63, (1 << 64) - 512, (1 << 64) - 1, b.GUID, b.BASE_GUID)

Outcome = tuple[str, ...]
"""``applied`` and the snapshots, or ``refused``."""


def _padded(payload: bytes) -> bytes:
    return payload + bytes(-len(payload) % 512)


@cache
def seeds() -> tuple[tuple[Record, ...], ...]:
    """Right streams, small, that have every kind of record and compression."""
    text = (b"seed of a fuzzer " * 300)[:BLOCK]
    packed = [
        (15, lz4_payload(text)),
        (16, zstd_payload(text)),
        (3, lzjb_payload(text)),
        (5, zlib.compress(text)),
        (14, bytes([255] * 21 + [127])),
    ]
    features = ["EMBED_DATA", "LZ4", "COMPRESSED", "ZSTD"]
    return (
        tuple(b.full(b.write(0, text), b.free(BLOCK, BLOCK), b.write(2 * BLOCK, bytes(BLOCK)))),
        tuple(b.full(*(b.write(at * BLOCK, text) for at in range(4)))),
        tuple(
            b.full(
                *(
                    b.write(at * BLOCK, _padded(payload), logical=BLOCK, compression=number)
                    for at, (number, payload) in enumerate(packed)
                ),
                b.embedded(8 * BLOCK, lz4_payload(bytes(BLOCK))[:100]),
                features=features,
            )
        ),
        tuple(b.incremental(b.obj(), b.free(0, BLOCK), b.write(BLOCK, text), b.free(b.VOLSIZE, b.MASK))),
        tuple(b.incremental(*(b.write(at * BLOCK, text) for at in (1, 2, 3, 7)), *b.properties(1 << 17))),
        (b.begin(), b.obj(block=512), *(b.write(at * 512, text[:512]) for at in range(8)), *b.full()[2:]),
    )


class Mutator:
    """Draws streams from a source of chance, so that a seed gives the same streams again."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def stream(self) -> bytes:
        """A stream, more or less wrong."""
        chance = self._chance
        records = list(chance.choice(seeds()))
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3, 6])):
            self._mutate(records)
        sealed = b.stream([fitted(record) for record in records]) if chance.random() < 0.8 else raw(records)
        if chance.random() < 0.1:
            sealed = b.package(
                chance.choice([b"", chance.randbytes(40)]), *[sealed] * chance.choice([1, 1, 2])
            )
        data = bytearray(sealed)
        for _ in range(chance.choice([0, 0, 0, 0, 1, 2])):
            self._damage(data)
        return bytes(data[:MAX_STREAM_BYTES])

    def cuts(self) -> list[int]:
        """How long the pieces are in which it is fed; the last one is repeated."""
        return [*(self._chance.choice([1, 7, 312, 313, 5000, 1 << 20]) for _ in range(4)), 1 << 16]

    def _mutate(self, records: list[Record]) -> None:
        chance = self._chance
        at = chance.randrange(len(records)) if records else 0
        choice = chance.randrange(7)
        if not records or choice == 0:
            records.insert(at, chance.choice(chance.choice(seeds())))
        elif choice == 1:
            del records[at]
        elif choice == 2:
            other = chance.randrange(len(records))
            records[at], records[other] = records[other], records[at]
        elif choice == 3:
            header, payload = records[at]
            records[at] = header, self._changed(payload)
        else:
            header, payload = records[at]
            records[at] = self._field(header), payload

    def _field(self, header: bytes) -> bytes:
        """One field, at any place where some record has one, set to something."""
        changed = bytearray(header)
        at = self._chance.choice([0, 4, *range(8, 136, 4), self._chance.randrange(280)])
        code = self._chance.choice("BHIQ")
        value = self._chance.choice([*INTERESTING, self._chance.getrandbits(64)])
        if self._chance.random() < 0.3:
            value = struct.unpack_from("<Q", changed, at)[0] + self._chance.choice([-512, -1, 1, 512, BLOCK])
        struct.pack_into(f"<{code}", changed, at, value & ((1 << 8 * struct.calcsize(code)) - 1))
        return bytes(changed)

    def _changed(self, payload: bytes) -> bytes:
        changed = bytearray(payload)
        for _ in range(self._chance.randrange(1, 5)):
            if changed:
                changed[min(int(self._chance.expovariate(0.02)), len(changed) - 1)] = self._chance.randrange(
                    256
                )
        return bytes(changed)

    def _damage(self, data: bytearray) -> None:
        at = self._chance.randrange(len(data) + 1)
        match self._chance.randrange(4):
            case 0:
                del data[at:]
            case 1:
                data[at:at] = self._chance.randbytes(self._chance.choice([1, 8, 312]))
            case 2:
                del data[at : at + self._chance.choice([1, 4, 312])]
            case _:
                data[at : at + 1] = self._chance.randbytes(1)


def fitted(record: Record) -> Record:
    """The record with its payload as long as its header now says, if that is little, so that it is read."""
    header, payload = record
    (kind, size) = struct.unpack_from("<II", header)
    if kind == 3:
        (size,) = struct.unpack_from("<Q", header, 96 if header[50] else 32)
    elif kind == 8:
        (size,) = struct.unpack_from("<I", header, 52)
    if size > 1 << 17:
        return header, payload
    size = (size + 7) & ~7
    return header, payload[:size].ljust(size, b"\0")


def raw(records: Sequence[Record]) -> bytes:
    return b"".join(header + payload for header, payload in records)


def pieces(data: bytes, cuts: Sequence[int]) -> list[memoryview]:
    found = []
    at = 0
    for number in range(len(data) + 1):
        if at >= len(data):
            break
        size = cuts[min(number, len(cuts) - 1)]
        found.append(memoryview(data)[at : at + size])
        at += size
    return found


def is_incremental(data: bytes) -> bool:
    return len(data) >= 56 and any(data[48:56])


def apply_any(data: bytes, cuts: Sequence[int]) -> Outcome:
    """Apply to a file in memory, as the base has it if the stream is incremental."""
    fd = os.memfd_create("fuzz")
    try:
        base = BASE if is_incremental(data) else None
        if base is not None:
            os.pwrite(fd, b"\x33" * BLOCK * 3, 0)
            os.ftruncate(fd, base.volsize)
        applier = StreamApplier(fd, base=base)
        for piece in pieces(data, cuts):
            applier.feed(piece)
        applied = applier.finish()
        assert os.fstat(fd).st_size == applied.snapshots[-1].volsize
        return ("applied", *map(str, applied.snapshots))
    except EXPECTED:
        return ("refused",)
    finally:
        os.close(fd)


def guard_any(data: bytes, cuts: Sequence[int]) -> Outcome:
    """Pass through the guard: a beginning of what went in comes out, with END only if all is right."""
    guard = ReceiveGuard(base=BASE if is_incremental(data) else None)
    passed = bytearray()
    is_package = len(data) > 16 and data[16] & 3 == 2
    try:
        for piece in pieces(data, cuts):
            for out in guard.feed(piece):
                passed += out.data
        for out in guard.finish():
            passed += out.data
    except EXPECTED:
        assert is_package or (data.startswith(passed) and len(passed) <= len(data) - min(312, len(data)))
        return ("refused",)
    assert is_package or bytes(passed) == data
    return ("applied", *map(str, guard.snapshots))


def decode_any(data: bytes, cuts: Sequence[int]) -> Outcome:
    """Decode as a body of unknown kind."""
    decoder = Decoder()
    try:
        for piece in pieces(data, cuts):
            for _ in decoder.feed(piece):
                pass
        for _ in decoder.finish():
            pass
    except EXPECTED:
        return ("refused",)
    return ("applied", str(decoder.kind))


def one_case(mutator: Mutator) -> tuple[bytes, Outcome]:
    """Draw a stream and see that it does no harm; the guard lets nothing pass that is not applied."""
    data, cuts = mutator.stream(), mutator.cuts()
    outcome = apply_any(data, cuts)
    if cuts[0] == 7:
        assert apply_any(data, [1 << 20]) == outcome
    guarded = guard_any(data, [1 << 20])
    assert guarded in (outcome, ("refused",))
    if cuts[1] == 7:
        decode_any(data, cuts)
    return data, outcome
