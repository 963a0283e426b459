"""A reader of the journal written from journal/README.md alone.

It imports nothing of imagestore: whoever changes the bytes without changing the
specification breaks it.
"""

import hashlib
import json
import os
import struct
import zlib
from typing import Any


def blake(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def read_header(data: bytes) -> dict[str, Any] | None:
    """The frame header in ``data``, or None if it is not right."""
    if len(data) < 80 or data[:4] != b"IJFR" or zlib.crc32(data[8:80]) != struct.unpack("<I", data[4:8])[0]:
        return None
    length, crc, seq, count, zero, group, group_offset = struct.unpack("<IIQIIQQ", data[8:48])
    if length > 33_554_432 or zero:
        return None
    return {
        "length": length,
        "crc": crc,
        "seq": seq,
        "count": count,
        "group": group,
        "group_offset": group_offset,
        "previous": data[48:80],
    }


def read_journal(directory: str) -> tuple[list[dict[str, Any]], bytes]:
    """All events and the hash of the last frame.  Raises ValueError for a corrupt journal."""
    names = sorted(name for name in os.listdir(directory) if name.startswith("segment-") and len(name) == 18)
    events: list[dict[str, Any]] = []
    seq, group, previous, journal = 1, 0, b"", b""
    for number, name in enumerate(names, 1):
        with open(os.path.join(directory, name), "rb") as file:
            data = file.read()
        magic, _, oldest, uuid, claimed, first_seq, last_group, before, zero, crc = struct.unpack(
            "<8sII16sQQQ32sII", data[:96]
        )
        if magic != b"IMGJRNL\n" or zlib.crc32(data[:92]) != crc or oldest > 1 or zero or claimed != number:
            raise ValueError(f"{name}: bad header")
        if number == 1:
            journal, previous = uuid, blake(uuid)
        if (uuid, first_seq, last_group, before) != (journal, seq, group, previous):
            raise ValueError(f"{name}: does not follow")
        offset, group_offset = 96, 0
        while any(data[offset:]):
            header = read_header(data[offset : offset + 80])
            end = offset + 80 + (header["length"] if header else 0)
            padded = -(-end // 8) * 8
            body = data[offset + 80 : end]
            whole = header is not None and len(data) >= padded and zlib.crc32(body) == header["crc"]
            whole = whole and not any(data[end:padded])
            if header is None or not whole:
                later = (read_header(data[place : place + 80]) for place in range(offset + 8, len(data), 8))
                if number < len(names) or any(frame and frame["group_offset"] > offset for frame in later):
                    raise ValueError(f"{name}: corrupt at {offset}")
                return events, previous
            goes_on = (header["group"], header["group_offset"]) == (group, group_offset)
            begins = (header["group"], header["group_offset"]) == (group + 1, offset)
            if header["previous"] != previous or header["seq"] != seq or not (goes_on or begins):
                raise ValueError(f"{name}: does not follow at {offset}")
            batch = json.loads(body)
            if len(batch) != header["count"]:
                raise ValueError(f"{name}: wrong count at {offset}")
            events += batch
            seq += len(batch)
            group, group_offset = header["group"], header["group_offset"]
            previous = blake(data[offset:end])
            offset = padded
    return events, previous
