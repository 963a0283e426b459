"""One wrong bit, one missing byte, one lying length: always a StreamError, never a snapshot."""

import tracemalloc
from pathlib import Path

import pytest

from imagestore.errors import StreamError
from imagestore.streams.checker import Checker
from imagestore.streams.snapshot import SnapshotInfo
from tests.streams import building as b
from tests.streams.building import BASE, BLOCK, full, incremental, positions, stream
from tests.streams.samples import load

ONES = b"\x11" * BLOCK

EVERY_RECORD = stream(
    [
        b.begin(features=["EMBED_DATA", "LZ4", "COMPRESSED"]),
        b.obj(),
        b.free(b.VOLSIZE, b.MASK),
        b.write(0, ONES),
        b.write(BLOCK, ONES),
        b.write(2 * BLOCK, ONES),
        b.embedded(3 * BLOCK, b"\0\0\0\x10" + bytes(range(16))),
        b.free(4 * BLOCK, BLOCK),
        *b.properties(),
        b.freeobjects(),
        b.end(),
    ]
)
"""All kinds of records that a volume's stream can have."""


def outcome(data: bytes | bytearray, base: SnapshotInfo | None = None) -> list[SnapshotInfo]:
    """The snapshots of a stream. Raises StreamError."""
    checker = Checker(base=base)
    drain(checker, data)
    return checker.snapshots


def drain(checker: Checker, data: bytes | bytearray) -> None:
    for groups in (checker.feed(data), checker.finish()):
        for _ in groups:
            pass


def test_the_undamaged_streams_are_right() -> None:
    assert len(outcome(EVERY_RECORD)) == 1
    assert len(outcome(load("v64k-R"))) == 3


@pytest.mark.parametrize("record", range(len(positions(EVERY_RECORD))))
def test_any_wrong_bit_of_a_header_is_noticed(record: int) -> None:
    start = positions(EVERY_RECORD)[record]
    for at in range(start, start + 312):
        for bit in (0, 3, 7):
            damaged = bytearray(EVERY_RECORD)
            damaged[at] ^= 1 << bit
            with pytest.raises(StreamError) as caught:
                outcome(damaged)
            assert "\n" not in str(caught.value)


def test_any_wrong_bit_of_a_payload_is_noticed() -> None:
    for at in range(positions(EVERY_RECORD)[3] + 312, positions(EVERY_RECORD)[9], 97):
        damaged = bytearray(EVERY_RECORD)
        damaged[at] ^= 0x10
        with pytest.raises(StreamError):
            outcome(damaged)


@pytest.mark.parametrize("name", ["v64k-R", "v8k-s1-c", "v8k-s1-p", "vz-s1-Lec"])
def test_sampled_wrong_bits_of_real_streams_are_noticed(name: str) -> None:
    data = load(name)
    step = len(data) // 24
    for at in range(13, len(data), step):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(StreamError):
            outcome(damaged)


@pytest.mark.parametrize("inside", [0, 1, 4, 311, 312, 313, 700])
def test_a_stream_cut_anywhere_is_no_snapshot(inside: int) -> None:
    for at in positions(EVERY_RECORD):
        cut = EVERY_RECORD[: at + inside]
        if len(cut) < len(EVERY_RECORD):
            with pytest.raises(StreamError):
                outcome(cut)


def test_a_package_cut_at_a_record_lands_only_what_was_whole() -> None:
    data = load("v64k-R")
    records = positions(data)
    ends = [at + 312 for at in records if data[at : at + 4] == b"\5\0\0\0"][1:]
    for at in records[1::7]:
        checker = Checker()
        with pytest.raises(StreamError, match="cut"):
            drain(checker, data[:at])
        assert len(checker.snapshots) == sum(end <= at for end in ends)


def test_a_wrong_stored_checksum_is_noticed_even_if_the_sender_went_on_from_it() -> None:
    records = full(*(b.write(at * BLOCK, ONES) for at in range(16)))
    lying = bytearray(stream(records))
    for at in positions(bytes(lying))[5:7]:
        damaged = bytearray(lying)
        damaged[at + 280] ^= 1
        state = (0, 0, 0, 0)
        for start in positions(bytes(lying))[1:]:
            state = b.fletcher4((0, 0, 0, 0), bytes(damaged[: start + 280]))
            if start > at:
                damaged[start + 280 : start + 312] = b"".join(x.to_bytes(8, "little") for x in state)
        with pytest.raises(StreamError, match="checksum mismatch: the bytes before record"):
            outcome(damaged)


def test_a_wrong_end_sum_is_noticed_even_under_a_right_running_checksum() -> None:
    data = bytearray(stream(full(b.write(0, ONES))))
    end = len(data) - 312
    data[end + 8] ^= 1
    state = b.fletcher4((0, 0, 0, 0), bytes(data[: end + 280]))
    data[end + 280 :] = b"".join(x.to_bytes(8, "little") for x in state)
    with pytest.raises(StreamError, match="checksum mismatch: END"):
        outcome(data)


LIES = {
    "BEGIN payload of 4 GiB": ([(b.begin()[0][:4] + b"\xff\xff\xff\xff" + b.begin()[0][8:], b"")], "BEGIN"),
    "BEGIN payload over the limit": (
        [(b.begin()[0][:4] + (1 << 24 | 8).to_bytes(4, "little") + b.begin()[0][8:], b"")],
        "at most",
    ),
    "WRITE of 2^63": (full(b.write(0, b"", logical=1 << 63)), "block has 512 to"),
    "WRITE of 2^64-1": (full(b.write(0, b"", logical=b.MASK)), "block has 512 to"),
    "WRITE of 16 MiB + 512": (full(b.write(0, b"", logical=(16 << 20) + 512)), "block has 512 to"),
    "WRITE of 0": (full(b.write(0, b"", logical=0)), "block has 512 to"),
    "WRITE of 777": (full(b.write(0, b"", logical=777)), "block has 512 to"),
    "compressed to 2^63": (
        full(b.write(0, b"", logical=BLOCK, compression=15, compressed=1 << 63)),
        "compressed to",
    ),
    "compressed to more": (
        full(b.write(0, b"", logical=BLOCK, compression=15, compressed=2 * BLOCK)),
        "compressed to",
    ),
    "compressed to nothing": (
        full(b.write(0, b"", logical=BLOCK, compression=15, compressed=0)),
        "compressed to",
    ),
    "compressed size of a plain block": (full(b.write(0, ONES, compressed=512)), "without being compressed"),
    "embedded of 2^32-1": (full(b.embedded(0, bytes(40), psize=0xFFFFFFFF)), "stored bytes"),
    "embedded of 113": (full(b.embedded(0, bytes(120), psize=113)), "stored bytes"),
    "embedded of 0": (full(b.embedded(0, b"", psize=0)), "stored bytes"),
    "payload length of a WRITE": (
        full((b.write(0, ONES)[0][:4] + b"\0\0\0\1" + b.write(0, ONES)[0][8:], ONES)),
        "only BEGIN may have one",
    ),
}


@pytest.mark.parametrize("what", LIES)
def test_a_lying_length_is_refused_without_a_large_allocation(what: str) -> None:
    records, reason = LIES[what]
    data = stream(records) + bytes(2000)
    outcome(EVERY_RECORD)
    tracemalloc.start()
    with pytest.raises(StreamError, match=reason):
        outcome(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "records",
    [
        full(b.write(0, ONES, logical=1 << 24)),
        [
            (
                b.begin(header_type=2)[0][:4]
                + (1 << 24).to_bytes(4, "little")
                + b.begin(header_type=2)[0][8:],
                b"",
            )
        ],
    ],
    ids=["WRITE", "BEGIN"],
)
def test_a_length_within_the_limit_that_never_comes_is_not_allocated(records: list[b.Record]) -> None:
    data = stream(records) + bytes(1000)
    outcome(EVERY_RECORD)
    tracemalloc.start()
    with pytest.raises(StreamError, match="cut"):
        outcome(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_block_of_16_mib_is_read_within_bounds() -> None:
    block = bytes(range(256)) * (1 << 16)
    data = stream(
        [
            b.begin(features=["LARGE_BLOCKS"]),
            b.obj(block=1 << 24),
            b.write(0, block),
            *b.properties(1 << 24),
            b.end(),
        ]
    )
    outcome(EVERY_RECORD)
    tracemalloc.start()
    assert outcome(data)[0].volblocksize == 1 << 24
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48 << 20


def test_an_offset_that_no_file_can_reach_is_a_stream_error(tmp_path: Path) -> None:
    from tests.streams.samples import apply

    target = tmp_path / "volume"
    with pytest.raises(StreamError):
        apply(target, stream(full(b.write((1 << 63) - BLOCK, ONES), volsize=1 << 63)))


def test_a_damaged_incremental_is_noticed() -> None:
    data = bytearray(stream(incremental(b.write(0, ONES))))
    data[700] ^= 1
    with pytest.raises(StreamError, match="checksum mismatch"):
        outcome(data, BASE)
