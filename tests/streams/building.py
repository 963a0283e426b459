"""Builds send streams record by record, right or wrong, independently of the writer.

Its Fletcher-4 is the definition, four running sums, and its layouts are written
out here again, so that a mistake in ``imagestore.streams`` is not repeated.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate

from imagestore.streams.snapshot import SnapshotInfo

GUID = 0x1122334455667788
BASE_GUID = 0x99AABBCCDDEEFF01
BLOCK = 4096
VOLSIZE = 16 * BLOCK
MASK = (1 << 64) - 1
FEATURES = {"EMBED_DATA": 16, "LZ4": 17, "LARGE_BLOCKS": 19, "COMPRESSED": 22, "ZSTD": 25}

BASE = SnapshotInfo(name="pool/volume@base", guid=BASE_GUID, volsize=VOLSIZE, volblocksize=BLOCK)

Record = tuple[bytes, bytes]
"""Header without checksum, and payload."""


def fletcher4(state: tuple[int, int, int, int], data: bytes) -> tuple[int, int, int, int]:
    sums: Iterable[int] = struct.unpack(f"<{len(data) // 4}I", data)
    after = []
    for start in state:
        sums = list(accumulate(sums, initial=start))
        after.append(sums[-1] & MASK)
        del sums[0]
    a, b, c, d = after
    return a, b, c, d


def _header(kind: int, *fields: tuple[int, str, int | bytes], payload_bytes: int = 0) -> bytes:
    """312 bytes with ``fields`` (offset, struct code, value)."""
    header = bytearray(312)
    struct.pack_into("<II", header, 0, kind, payload_bytes)
    for at, code, value in fields:
        struct.pack_into(f"<{code}", header, at, value)
    return bytes(header)


def begin(
    *,
    toguid: int = GUID,
    fromguid: int = 0,
    features: Sequence[str | int] = (),
    kind: int = 3,
    flags: int = 0xC,
    name: bytes = b"pool/volume@snap",
    header_type: int = 1,
    payload: bytes = b"",
    creation: int = 1_700_000_000,
) -> Record:
    bits = sum(1 << (FEATURES[name] if isinstance(name, str) else name) for name in features)
    header = _header(
        0,
        (8, "Q", 0x2F5BACBAC),
        (16, "Q", header_type | bits << 2),
        (24, "Q", creation),
        (32, "I", kind),
        (36, "I", flags),
        (40, "Q", toguid),
        (48, "Q", fromguid),
        (56, f"{len(name)}s", name),
        payload_bytes=len(payload),
    )
    return header, payload


def obj(number: int = 1, *, kind: int = 23, block: int = BLOCK, toguid: int = GUID, **fields: int) -> Record:
    places = {"bonus_type": (20, "I"), "bonus": (28, "I"), "slots": (34, "B"), "flags": (35, "B")}
    places |= {"raw_bonus": (36, "I"), "levels": (49, "B")}
    extra = [(*places[name], value) for name, value in fields.items()]
    return (
        _header(
            1, (8, "Q", number), (16, "I", kind), (24, "I", block), (34, "B", 1), (40, "Q", toguid), *extra
        ),
        b"",
    )


def write(
    offset: int,
    payload: bytes,
    *,
    number: int = 1,
    kind: int = 23,
    logical: int | None = None,
    compression: int = 0,
    compressed: int | None = None,
    toguid: int = GUID,
    flags: int = 0,
    mac: bytes = b"",
) -> Record:
    if compressed is None:
        compressed = len(payload) if compression else 0
    return (
        _header(
            3,
            (8, "Q", number),
            (16, "I", kind),
            (24, "Q", offset),
            (32, "Q", len(payload) if logical is None else logical),
            (40, "Q", toguid),
            (48, "B", 7),
            (49, "B", flags),
            (50, "B", compression),
            (56, "Q", 0xABCDEF),
            (96, "Q", compressed),
            (124, "16s", mac),
        ),
        payload,
    )


def embedded(
    offset: int, stored: bytes, *, logical: int = BLOCK, compression: int = 15, number: int = 1, **fields: int
) -> Record:
    places = {"length": (24, "Q"), "etype": (41, "B"), "psize": (52, "I"), "toguid": (32, "Q")}
    values = {"length": logical, "etype": 0, "psize": len(stored), "toguid": GUID} | fields
    extra = [(*places[name], value) for name, value in values.items()]
    header = _header(
        8, (8, "Q", number), (16, "Q", offset), (40, "B", compression), (48, "I", logical), *extra
    )
    return header, stored + bytes(-len(stored) % 8)


def free(offset: int, length: int, *, number: int = 1, toguid: int = GUID) -> Record:
    return _header(4, (8, "Q", number), (16, "Q", offset), (24, "Q", length), (32, "Q", toguid)), b""


def freeobjects(first: int = 3, count: int = 29, *, toguid: int = GUID) -> Record:
    return _header(2, (8, "Q", first), (16, "Q", count), (24, "Q", toguid)), b""


def end(*, toguid: int = GUID) -> Record:
    """END; :func:`stream` fills in its own sum."""
    return _header(5, (40, "Q", toguid)), b""


def other(kind: int) -> Record:
    """A record of a kind that is refused."""
    return _header(kind, (8, "Q", 1)), b""


BLANK_END: Record = (_header(5), b"")


def zap(volsize: int = VOLSIZE, *, name: bytes = b"size", kind: int = 0x8000000000000003) -> bytes:
    packed = struct.pack("<QQQ40xQIH50s", kind, 77, 0, volsize, 0, 0, name)
    return packed.ljust(512, b"\0")


def properties(volsize: int = VOLSIZE) -> list[Record]:
    """Object 2, as a sender gives it."""
    return [obj(2, kind=24, block=512), write(0, zap(volsize), number=2, kind=24)]


def full(*content: Record, features: Sequence[str | int] = (), volsize: int = VOLSIZE) -> list[Record]:
    """A whole full stream around the records of object 1."""
    return [begin(features=features), obj(), *content, *properties(volsize), freeobjects(), end()]


def incremental(*content: Record, features: Sequence[str | int] = ()) -> list[Record]:
    return [begin(fromguid=BASE_GUID, features=features), *content, end()]


def stream(records: Sequence[Record], *, checksums: bool = True) -> bytes:
    """The bytes of one plain stream, checksums and END's sum filled in."""
    state = (0, 0, 0, 0)
    out = bytearray()
    for number, (header, payload) in enumerate(records):
        head = bytearray(header)
        if head[0] == 5 and any(head[4:]):
            struct.pack_into("<4Q", head, 8, *state)
        if number:
            state = fletcher4(state, bytes(head[:280]))
            if checksums:
                struct.pack_into("<4Q", head, 280, *state)
            state = fletcher4(state, bytes(head[280:]))
        else:
            state = fletcher4(state, bytes(head))
        state = fletcher4(state, payload)
        out += head + payload
    return bytes(out)


def package(payload: bytes, *streams: bytes, name: bytes = b"pool/volume@snap") -> bytes:
    """Plain streams in a package whose header carries ``payload``."""
    header, _ = begin(toguid=0, kind=0, flags=0, name=name, header_type=2, payload=payload, creation=0)
    tail = bytearray(BLANK_END[0])
    struct.pack_into("<4Q", tail, 8, *fletcher4((0, 0, 0, 0), header + payload))
    return header + payload + bytes(tail) + b"".join(streams) + BLANK_END[0]


def positions(data: bytes) -> list[int]:
    """Where each record of a well-formed stream begins."""
    found = []
    at = 0
    while at < len(data):
        found.append(at)
        (kind, payload_bytes) = struct.unpack_from("<II", data, at)
        if kind == 3:
            (size,) = struct.unpack_from("<Q", data, at + (96 if data[at + 50] else 32))
        elif kind == 8:
            (size,) = struct.unpack_from("<I", data, at + 52)
        else:
            size = payload_bytes
        at += 312 + (size + 7 & ~7 if kind else size)
    return found
