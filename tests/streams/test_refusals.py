"""What a stream may not say: each rule broken once, each refusal naming what is wrong."""

from pathlib import Path

import lz4.block  # type: ignore[import-untyped]  # lz4 ships no types
import pytest

from imagestore.errors import StreamError
from imagestore.streams.checker import Checker
from imagestore.streams.guard import ReceiveGuard
from imagestore.streams.snapshot import SnapshotInfo
from tests.streams import building as b
from tests.streams.building import BASE, BLANK_END, BLOCK, full, incremental, stream
from tests.streams.samples import apply

ONES = b"\x11" * BLOCK
TWO_63 = 1 << 63


def lz4_block(data: bytes = ONES) -> bytes:
    packed: bytes = lz4.block.compress(data, store_size=False)
    body = len(packed).to_bytes(4, "big") + packed
    return body + bytes(-len(body) % 512)


def check(data: bytes, base: SnapshotInfo | None = None, *, unpack: bool = False) -> list[SnapshotInfo]:
    checker = Checker(base=base, unpack=unpack)
    for _ in checker.feed(data):
        pass
    for _ in checker.finish():
        pass
    return checker.snapshots


def pass_all(guard: ReceiveGuard, data: bytes, passed: bytearray | None = None) -> None:
    for pieces in (guard.feed(data), guard.finish()):
        for piece in pieces:
            if passed is not None:
                passed += piece.data


def test_the_smallest_full_stream_is_accepted() -> None:
    (info,) = check(stream(full(b.write(0, ONES))))
    assert info == SnapshotInfo(
        name="pool/volume@snap",
        guid=b.GUID,
        volsize=b.VOLSIZE,
        volblocksize=BLOCK,
        creation_seconds=1_700_000_000,
    )


ACCEPTED: dict[str, list[b.Record]] = {
    "no content": full(),
    "a free to the end": full(b.free(b.VOLSIZE, b.MASK)),
    "a block with lz4": full(
        b.write(0, lz4_block(), logical=BLOCK, compression=15), features=["LZ4", "COMPRESSED"]
    ),
    "an embedded block": full(
        b.embedded(0, lz4_block(bytes(BLOCK))[:60], logical=BLOCK), features=["EMBED_DATA", "LZ4"]
    ),
    "large blocks": [
        b.begin(features=["LARGE_BLOCKS"]),
        b.obj(block=1 << 20),
        b.write(0, b"\x11" * (1 << 20)),
        *b.properties(1 << 20),
        b.end(),
    ],
    "one write over several blocks": full(b.write(0, ONES * 4)),
    "every accepted feature": full(features=[1, 16, 17, 19, 22, 23, 25, 26, 27, 28, 29]),
    "free objects from 0, which is no object": full(b.freeobjects(0, 1)),
    "a dedup flag on a block": full(b.write(0, ONES, flags=1)),
    "a volume whose size is no multiple of its blocks": full(
        b.write(16 * BLOCK, ONES), volsize=b.VOLSIZE + 512
    ),
    "a name without a pool": [b.begin(name=b"v@s"), *full()[1:]],
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_unusual_but_right_is_accepted(what: str) -> None:
    assert len(check(stream(ACCEPTED[what]))) == 1


def test_an_incremental_may_hold_nothing_at_all() -> None:
    (info,) = check(stream(incremental()), BASE)
    assert (info.volsize, info.volblocksize, info.from_guid) == (BASE.volsize, BLOCK, b.BASE_GUID)


def test_an_incremental_may_do_without_object_records() -> None:
    assert check(stream(incremental(b.write(0, ONES))), BASE)[0].volsize == BASE.volsize


REFUSED: dict[str, tuple[list[b.Record], str]] = {
    "deduplicated": (full(features=[0]), "dedup"),
    "spill": (full(features=[2]), "file systems"),
    "resuming": (full(features=[20]), "resumes"),
    "redacted": (full(features=[21]), "redacted"),
    "raw": (full(features=[24]), "encrypted"),
    "unknown feature": (full(features=[40]), "feature bit 40"),
    "file system": ([b.begin(kind=2), *full()[1:]], "file system"),
    "objset of no known type": ([b.begin(kind=7), *full()[1:]], "objset type 7"),
    "header type": ([b.begin(header_type=3), *full()[1:]], "header type 3"),
    "flags": ([b.begin(flags=0x100), *full()[1:]], "flags"),
    "guid 0": ([b.begin(toguid=0), *full()[1:]], "guid 0"),
    "its own base": ([b.begin(fromguid=b.GUID), *full()[1:]], "guid"),
    "clone of nothing": ([b.begin(flags=0xD), *full()[1:]], "origin"),
    "no name": ([b.begin(name=b""), *full()[1:]], "name of a snapshot"),
    "no snapshot": ([b.begin(name=b"pool/volume"), *full()[1:]], "name of a snapshot"),
    "two snapshots": ([b.begin(name=b"pool@a@b"), *full()[1:]], "name of a snapshot"),
    "an option as a name": ([b.begin(name=b"pool@\x1b[2J"), *full()[1:]], "name of a snapshot"),
    "endless name": ([b.begin(name=b"p@" + b"x" * 254), *full()[1:]], "name of a snapshot"),
    "payload": ([b.begin(payload=bytes(64)), *full()[1:]], "payload"),
    "incremental without a base": (incremental(), "incremental from the snapshot with guid"),
    "WRITE_BYREF": (full(b.other(6)), "WRITE_BYREF"),
    "SPILL": (full(b.other(7)), "SPILL"),
    "OBJECT_RANGE": (full(b.other(9)), "OBJECT_RANGE"),
    "REDACT": (full(b.other(10)), "REDACT"),
    "no record": (full(b.other(11)), "no record has type 11"),
    "BEGIN inside": (full(b.begin()), "BEGIN stands inside"),
    "object 3": (full(b.obj(3)), "object 3"),
    "object 1 twice": (full(b.obj()), "twice"),
    "object of another type": ([b.begin(), b.obj(kind=19), *full()[2:]], "type 19"),
    "bonus": ([b.begin(), b.obj(bonus=8), *full()[2:]], "bonus"),
    "raw bonus": ([b.begin(), b.obj(raw_bonus=8), *full()[2:]], "bonus"),
    "bonus type": ([b.begin(), b.obj(bonus_type=44), *full()[2:]], "bonus"),
    "object flags": ([b.begin(), b.obj(flags=1), *full()[2:]], "flags"),
    "many slots": ([b.begin(), b.obj(slots=2), *full()[2:]], "slot"),
    "raw object fields": ([b.begin(), b.obj(levels=2), *full()[2:]], "bonus, flags"),
    "block size 3072": ([b.begin(), b.obj(block=3072), *b.properties(), b.end()], "powers of two"),
    "block size 0": ([b.begin(), b.obj(block=0), *b.properties(), b.end()], "powers of two"),
    "block size 32 MiB": (
        [b.begin(features=["LARGE_BLOCKS"]), b.obj(block=1 << 25), *b.properties(), b.end()],
        "powers of two",
    ),
    "large block size without the feature": (
        [b.begin(), b.obj(block=1 << 20), *b.properties(1 << 20), b.end()],
        "LARGE_BLOCKS",
    ),
    "large write without the feature": (full(b.write(0, bytes(1 << 18))), "LARGE_BLOCKS"),
    "blocks of object 2": ([b.begin(), b.obj(), b.obj(2, kind=24, block=1024), b.end()], "blocks of 1024"),
    "write before its object": ([b.begin(), b.write(0, ONES), *full()[1:]], "before its OBJECT"),
    "write of another type": (full(b.write(0, ONES, kind=19)), "type 19"),
    "write to object 3": (full(b.write(0, ONES, number=3)), "object 3"),
    "raw write flags": (full(b.write(0, ONES, flags=2)), "raw"),
    "raw write mac": (full(b.write(0, ONES, mac=b"\1" * 16)), "raw"),
    "unaligned": (full(b.write(512, ONES)), "do not fit"),
    "half a block": (full(b.write(0, ONES[:2048])), "do not fit"),
    "descending": (full(b.write(BLOCK, ONES), b.write(0, ONES)), "ascend"),
    "the same block twice": (full(b.write(0, ONES), b.write(0, ONES)), "ascend"),
    "overlap": (full(b.write(0, ONES * 2), b.write(BLOCK, ONES)), "ascend"),
    "descending in a run": (
        full(*(b.write(at * BLOCK, ONES) for at in (0, 1, 2, 4, 3, 5))),
        "ascend",
    ),
    "beyond 2^63": (full(b.write(TWO_63 - BLOCK, ONES), b.write(TWO_63, ONES)), "2\\^63"),
    "beyond the volume": (full(b.write(b.VOLSIZE, ONES)), "data reach to byte"),
    "compressed without the feature": (
        full(b.write(0, lz4_block(), logical=BLOCK, compression=15)),
        "COMPRESSED",
    ),
    "zstd without the feature": (
        full(b.write(0, bytes(512), logical=BLOCK, compression=16), features=["COMPRESSED"]),
        "ZSTD",
    ),
    "compression 4": (
        full(b.write(0, bytes(512), logical=BLOCK, compression=4), features=["COMPRESSED"]),
        "compression 4",
    ),
    "compressed over other blocks": (
        full(b.write(0, lz4_block(), logical=2 * BLOCK, compression=15), features=["COMPRESSED", "LZ4"]),
        "do not fit",
    ),
    "embedded without the feature": (full(b.embedded(0, bytes(40))), "EMBED_DATA"),
    "embedded of another type": (full(b.embedded(0, bytes(40), etype=1), features=["EMBED_DATA"]), "type 1"),
    "embedded in a longer block": (
        full(b.embedded(0, bytes(40), length=2 * BLOCK), features=["EMBED_DATA"]),
        "in a block of",
    ),
    "embedded compression": (
        full(b.embedded(0, bytes(40), compression=4), features=["EMBED_DATA"]),
        "compression 4",
    ),
    "free beyond 2^63": (full(b.free(TWO_63, 512)), "2\\^63"),
    "free that overflows": (full(b.free(BLOCK, b.MASK - 1)), "2\\^63"),
    "free of object 3": (full(b.free(0, BLOCK, number=3)), "object 3"),
    "free of the size": ([*full()[:-2], b.free(0, 512, number=2), b.end()], "volume's size"),
    "free objects of a volume": (full(b.freeobjects(1, 5)), "volume's own objects"),
    "free all objects": (full(b.freeobjects(0, b.MASK)), "volume's own objects"),
    "free objects that overflow": (full(b.freeobjects(b.MASK, 2)), "no such end"),
    "object 1 after object 2": (full(*b.properties(), b.write(0, ONES)), "follows one of object 2"),
    "no object at all": ([b.begin(), b.end()], "without objects 1 and 2"),
    "no object 2": ([b.begin(), b.obj(), b.end()], "without objects 1 and 2"),
    "no size": ([b.begin(), b.obj(), b.obj(2, kind=24, block=512), b.end()], "without the volume's size"),
    "size 0": (full(volsize=0), "volume of 0 bytes"),
    "size 700": (full(volsize=700), "volume of 700 bytes"),
    "size over 2^63": (full(volsize=b.MASK & ~511), "volume of"),
    "fat zap": (
        [*full()[:3], b.write(0, b.zap(kind=0x8000000000000001), number=2, kind=24), b.end()],
        "micro-ZAP",
    ),
    "zap without size": (
        [*full()[:3], b.write(0, b.zap(name=b"other"), number=2, kind=24), b.end()],
        '"size"',
    ),
    "two blocks of object 2": (
        [*full()[:4], b.write(512, bytes(512), number=2, kind=24), b.end()],
        "one block",
    ),
    "guid of OBJECT": ([b.begin(), b.obj(toguid=5), *full()[2:]], "guid 5"),
    "guid of WRITE": (full(b.write(0, ONES, toguid=5)), "guid 5"),
    "guid of FREE": (full(b.free(0, BLOCK, toguid=5)), "guid 5"),
    "guid of FREEOBJECTS": (full(b.freeobjects(toguid=5)), "guid 5"),
    "guid of WRITE_EMBEDDED": (full(b.embedded(0, bytes(40), toguid=5), features=["EMBED_DATA"]), "guid 5"),
    "guid of END": ([*full()[:-1], b.end(toguid=5)], "guid 5"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_breaks_a_rule_is_refused_by_name(what: str) -> None:
    records, reason = REFUSED[what]
    with pytest.raises(StreamError, match=reason) as caught:
        check(stream(records))
    assert "\n" not in str(caught.value)
    assert "record" in str(caught.value)


def test_a_base_is_refused_for_a_full_stream() -> None:
    with pytest.raises(StreamError, match="the stream is full"):
        check(stream(full()), BASE)


def test_another_base_is_refused() -> None:
    with pytest.raises(StreamError, match="incremental from guid"):
        check(stream([b.begin(fromguid=7), b.end()]), BASE)


def test_an_incremental_may_not_change_the_block_size() -> None:
    records = incremental(b.obj(block=2 * BLOCK), b.write(0, ONES * 2))
    with pytest.raises(StreamError, match="block size changes from 4096 to 8192"):
        check(stream(records), BASE)


def test_a_chain_with_and_without_large_blocks_is_applied_to_files_and_kept_from_pools() -> None:
    base = SnapshotInfo(name="p/v@a", guid=b.BASE_GUID, volsize=4 << 20, volblocksize=1 << 20)
    data = stream(incremental(b.obj(block=1 << 17), b.write(0, b"\x22" * (1 << 17))))
    assert check(data, base)[0].volblocksize == 1 << 20
    guard = ReceiveGuard(base=base)
    with pytest.raises(StreamError, match="block size changes"):
        pass_all(guard, data)


@pytest.mark.parametrize("tail", [b"\0", bytes(312), b"x" * 5000, stream(full())])
def test_bytes_after_the_last_end_are_refused(tail: bytes) -> None:
    with pytest.raises(StreamError, match="follow the stream's last END"):
        check(stream(full(b.write(0, ONES))) + tail)


def test_bytes_after_a_packages_last_end_are_refused() -> None:
    with pytest.raises(StreamError, match="follow the stream's last END"):
        check(b.package(b"", stream(full())) + b"\0")


def test_an_empty_stream_is_cut() -> None:
    with pytest.raises(StreamError, match="cut"):
        check(b"")


def test_what_is_no_stream_is_called_that() -> None:
    with pytest.raises(StreamError, match="no send stream"):
        check(b"#!/bin/sh\n" + bytes(4000))


def test_a_stream_that_begins_in_the_middle_is_refused() -> None:
    with pytest.raises(StreamError, match="where BEGIN must"):
        check(stream(full())[312:])


def test_a_big_endian_stream_is_refused_by_name() -> None:
    data = bytearray(stream(full()))
    data[8:16] = data[8:16][::-1]
    with pytest.raises(StreamError, match="big-endian"):
        check(bytes(data))


PACKAGES: dict[str, tuple[bytes, str]] = {
    "no snapshot": (b.package(b""), "no snapshot"),
    "no final END": (b.package(b"", stream(full()))[:-312], "cut"),
    "final END with a guid": (
        b.package(b"", stream(full()))[:-312] + b.end()[0],
        "not blank",
    ),
    "a package in it": (b.package(b"", b.package(b"", stream(full()))), "package inside"),
    "streams of two volumes": (b.package(b"", stream(full()), stream(full())), "several datasets"),
    "a list that is none": (b.package(b"\x01\x01\0\0garbage!", stream(full())), "package"),
    "a native list": (b.package(bytes(16), stream(full())), "no XDR"),
    "a record between": (
        b.package(b"", stream(full()), b.free(0, 5)[0]),
        "where BEGIN must",
    ),
}


@pytest.mark.parametrize("what", PACKAGES)
def test_a_wrong_package_is_refused(what: str) -> None:
    data, reason = PACKAGES[what]
    with pytest.raises(StreamError, match=reason):
        check(data)


def test_a_damaged_package_header_is_noticed() -> None:
    data = bytearray(b.package(b"\x01\x01\0\0" + bytes(60), stream(full())))
    data[330] ^= 1
    with pytest.raises(StreamError, match="checksum mismatch"):
        check(bytes(data))


def test_streams_without_running_checksums_are_vouched_for_by_their_end(tmp_path: Path) -> None:
    records = full(b.write(0, ONES))
    data = stream(records, checksums=False)
    assert apply(tmp_path / "volume", data).volsize == b.VOLSIZE
    damaged = bytearray(data)
    damaged[312 * 3 + 5] ^= 1
    with pytest.raises(StreamError, match="checksum mismatch: END"):
        check(bytes(damaged))


def test_the_guard_wants_running_checksums() -> None:
    guard = ReceiveGuard()
    with pytest.raises(StreamError, match="no checksums"):
        pass_all(guard, stream(full(), checksums=False))


def test_the_guard_withholds_the_end_until_it_is_told_that_all_is_right() -> None:
    data = stream(full(b.write(0, ONES)))
    guard = ReceiveGuard()
    passed = b"".join(bytes(piece.data) for piece in guard.feed(data))
    assert data.startswith(passed)
    assert len(passed) <= len(data) - 312
    rest = b"".join(bytes(piece.data) for piece in guard.finish())
    assert passed + rest == data


def test_the_guard_gives_no_end_when_bytes_follow_it() -> None:
    data = stream(full(b.write(0, ONES)))
    guard = ReceiveGuard()
    passed = bytearray()
    with pytest.raises(StreamError, match="follow"):
        pass_all(guard, data + bytes(70_000), passed)
    assert bytes(passed) == data[:-312]


def test_the_guard_unpacks_blocks_to_see_that_they_can_be() -> None:
    broken = b.write(0, b"\xff" * 512, logical=BLOCK, compression=15)
    data = stream(full(broken, features=["LZ4", "COMPRESSED"]))
    assert check(data)
    guard = ReceiveGuard()
    with pytest.raises(StreamError, match="lz4 block"):
        pass_all(guard, data)


def test_a_blank_end_does_not_end_a_plain_stream() -> None:
    records = full()
    with pytest.raises(StreamError):
        check(stream([*records[:-1], BLANK_END]))
