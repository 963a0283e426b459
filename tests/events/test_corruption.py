"""Damage that no crash explains is refused, never skipped: rows 3, 4, 5, 6, 8 of the fault table."""

import itertools
import random

import pytest

from imagestore.errors import Corrupt, JournalTooNew
from imagestore.events import frame as frames
from imagestore.events import recovery
from imagestore.events.segment import SegmentHeader, decode_header, encode_header, segment_name
from tests.events.disk import MemoryDisk
from tests.events.history import (
    DIRECTORY,
    NEW_JOURNAL,
    SMALL,
    events_on,
    frames_of,
    ours,
    record,
    recover,
    refusal,
)

ONE, TWO, THREE = (segment_name(number) for number in (1, 2, 3))


async def closed(operations: int, seed: int = 1) -> MemoryDisk:
    """A disk after a clean close; the last group is an empty one.  No checkpoints."""
    disk = MemoryDisk()
    await record(disk, range(operations), seed=seed)
    return without_checkpoints(disk)


def without_checkpoints(disk: MemoryDisk) -> MemoryDisk:
    return MemoryDisk(contents={n: data for n, data in disk.contents().items() if "checkpoint" not in n})


def changed(disk: MemoryDisk, name: str, offset: int, data: bytes) -> MemoryDisk:
    contents = disk.contents()
    old = contents[name]
    contents[name] = old[:offset] + data + old[offset + len(data) :]
    return MemoryDisk(contents=contents)


async def test_row_3_a_flipped_bit_at_every_byte_before_the_last_group_is_corruption() -> None:
    disk = await closed(2)
    data = disk.contents()[ONE]
    last = frames_of(disk)[-1]
    chance = random.Random(3)
    for offset in range(last[1]):
        damaged = changed(disk, ONE, offset, bytes([data[offset] ^ 1 << chance.randrange(8)]))
        text = refusal(damaged)
        assert text.startswith(("Corrupt", "JournalTooNew")), f"offset {offset}: {text!r}"
        assert damaged.contents().keys() == disk.contents().keys()


async def test_row_3_the_one_exception_is_the_last_group() -> None:
    disk = await closed(2)
    data = disk.contents()[ONE]
    *_, real, empty = frames_of(disk)
    for offset in range(empty[1], empty[2]):
        assert ours(recover(changed(disk, ONE, offset, bytes([data[offset] ^ 4])))) == ours(events_on(disk))
    unproven = changed(disk, ONE, empty[1], bytes(empty[2] - empty[1]))
    lost = recover(changed(unproven, ONE, real[1] + 90, b"\xff"))
    assert len(lost) == len(events_on(disk)) - 2


async def test_row_3_in_a_sealed_segment_every_group_is_proven() -> None:
    disk = await closed(8)
    last_of_first = [frame for frame in frames_of(disk) if frame[0] == 1][-1]
    data = disk.contents()[ONE]
    for offset in range(last_of_first[1], last_of_first[2], 5):
        assert refusal(changed(disk, ONE, offset, bytes([data[offset] ^ 0x10]))).startswith("Corrupt")


@pytest.mark.parametrize("size", [512, 4096])
async def test_row_4_a_zeroed_sector_in_the_synced_area_is_corruption(size: int) -> None:
    disk = await closed(12)
    last_number, last_offset, _, _ = frames_of(disk)[-1]
    for name, data in disk.contents().items():
        if not name.startswith("segment"):
            continue
        end = last_offset if name == segment_name(last_number) else len(data)
        for offset in range(0, end, size):
            if any(data[offset : min(offset + size, end)]):
                text = refusal(changed(disk, name, offset, bytes(min(size, end - offset))))
                assert text.startswith("Corrupt"), f"{name} at {offset}: {text!r}"


async def test_row_5_a_length_past_the_maximum_is_not_believed() -> None:
    huge = frames.HEADER.pack(frames.MAGIC, 0, 1 << 31, 0, 1, 1, 0, 1, 96, bytes(32))
    assert frames.decode_header(huge, 0) is None


async def test_row_6_a_duplicate_frame_is_corruption() -> None:
    disk = await closed(2)
    data = disk.contents()[ONE]
    found = frames_of(disk)
    for _, offset, end, _ in found:
        assert refusal(changed(disk, ONE, found[-1][2], data[offset:end])).startswith("Corrupt")


async def test_row_6_reordered_frames_are_corruption() -> None:
    disk = await closed(3)
    data = disk.contents()[ONE]
    found = frames_of(disk)
    for first, second in itertools.pairwise(found[:-1]):
        swapped = data[second[1] : second[2]] + data[first[1] : first[2]]
        assert refusal(changed(disk, ONE, first[1], swapped)).startswith("Corrupt")


async def test_row_6_a_foreign_frame_is_corruption_also_at_the_tail() -> None:
    disk = await closed(2)
    foreign = await closed(2, seed=2)
    theirs = foreign.contents()[ONE]
    found, other = frames_of(disk), frames_of(foreign)
    for place, source in zip(found, other, strict=True):
        piece = theirs[source[1] : source[2]]
        if len(piece) == place[2] - place[1]:
            assert refusal(changed(disk, ONE, place[1], piece)).startswith("Corrupt")
    tail = theirs[other[-1][1] : other[-1][2]]
    assert refusal(changed(disk, ONE, found[-1][2], tail)).startswith("Corrupt")


async def test_row_6_a_whole_frame_left_out_is_corruption() -> None:
    disk = await closed(3)
    data = disk.contents()[ONE]
    found = frames_of(disk)
    for (_, offset, end, _), _ in itertools.pairwise(found):
        moved = data[end:].ljust(len(data) - offset, b"\0")
        assert refusal(changed(disk, ONE, offset, moved)).startswith("Corrupt")


@pytest.mark.parametrize("keep_checkpoints", [False, True])
async def test_row_8_a_missing_segment_is_refused_by_name(keep_checkpoints: bool) -> None:
    disk = MemoryDisk()
    await record(disk, range(20))
    contents = disk.contents() if keep_checkpoints else without_checkpoints(disk).contents()
    del contents[TWO]
    assert TWO in refusal(MemoryDisk(contents=contents))
    del contents[ONE]
    assert ONE in refusal(MemoryDisk(contents=contents))


async def test_row_8_a_renamed_or_doubled_segment_is_refused_by_name() -> None:
    disk = await closed(20)
    contents = disk.contents()
    last = max(name for name in contents if name.startswith("segment"))
    following = segment_name(int(last[-10:]) + 1)
    assert following in refusal(MemoryDisk(contents={**contents, following: contents[TWO]}))
    swapped = {**contents, ONE: contents[TWO], TWO: contents[ONE]}
    assert ONE in refusal(MemoryDisk(contents=swapped))


async def test_row_8_a_segment_of_another_journal_is_refused_by_name() -> None:
    disk, foreign = await closed(20), await closed(20, seed=2)
    contents = {**disk.contents(), TWO: foreign.contents()[TWO]}
    text = refusal(MemoryDisk(contents=contents))
    assert TWO in text
    assert "another journal" in text


async def test_row_8_stray_files_are_refused_by_their_names() -> None:
    disk = await closed(1)
    contents = {**disk.contents(), "README.md": b"", ".gitignore": b"", "segment-1": b"", "notes.txt": b""}
    text = refusal(MemoryDisk(contents=contents))
    assert "notes.txt, segment-1" in text
    assert "README" not in text


async def test_row_8_checkpoints_without_segments_are_refused() -> None:
    disk = MemoryDisk()
    await record(disk, range(2))
    contents = {name: data for name, data in disk.contents().items() if "checkpoint" in name}
    assert "checkpoint-" in refusal(MemoryDisk(contents=contents))


async def test_a_refusal_names_file_offset_seq_and_the_commands_to_run() -> None:
    disk = await closed(3)
    _, offset, _, _ = frames_of(disk)[2]
    text = refusal(changed(disk, ONE, offset + 100, b"\xff\xff"))
    assert f"{DIRECTORY}/{ONE} at offset {offset}, seq 3" in text
    assert f"imagestore journal verify --journal {DIRECTORY}" in text
    assert f"imagestore journal salvage --journal {DIRECTORY} --to NEW" in text


async def test_a_refused_journal_is_left_as_it_was() -> None:
    disk = await closed(3)
    damaged = changed(disk, ONE, 200, b"\xff")
    before = damaged.contents()
    assert refusal(damaged)
    assert damaged.contents() == before


async def test_a_read_error_is_damage_and_not_the_end() -> None:
    disk = await closed(20)
    disk.read_errors = {THREE}
    text = refusal(disk)
    assert text.startswith("Corrupt")
    assert THREE in text


async def test_a_newer_format_is_refused() -> None:
    disk = await closed(1)
    old = decode_header(disk.contents()[ONE])
    assert old is not None
    newer = SegmentHeader(
        version=9,
        oldest_reader=2,
        journal=old.journal,
        number=1,
        first_seq=1,
        last_group=0,
        previous=old.previous,
    )
    text = refusal(changed(disk, ONE, 0, encode_header(newer)))
    assert text.startswith("JournalTooNew")
    assert "format 9" in text


@pytest.mark.parametrize(
    "body",
    [
        b'[{"id":"x","seq":1,"time_ns":1,"event":{"event":"invented-later"}}]',
        b'[{"id":"x","seq":1,"time_ns":1,"event":{"event":"image-deleted","image":"a","why":"b"}}]',
        b'[{"id":"x","seq":1,"time_ns":1,"event":{"event":"image-deleted","image":"a"},"new":1}]',
    ],
)
async def test_an_unknown_event_or_field_is_refused(body: bytes) -> None:
    with pytest.raises(JournalTooNew, match=r"segment-0000000001 at offset 96, seq 1"):
        recovery.recover(one_frame(body), DIRECTORY, NEW_JOURNAL)


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'[{"id":"x","seq":9,"time_ns":1,"event":{"event":"image-failed","image":"a","reason":""}}]',
        b'[{"id":"x","seq":1,"time_ns":1,"event":{"event":"image-deleted","image":"a"}}]',
    ],
)
async def test_a_frame_whose_events_cannot_be_is_corruption(body: bytes) -> None:
    with pytest.raises(Corrupt, match=r"segment-0000000001 at offset 96, seq 1"):
        recovery.recover(one_frame(body), DIRECTORY, NEW_JOURNAL)


def one_frame(body: bytes) -> MemoryDisk:
    """A journal of one frame that claims to hold one event."""
    first = frames.first_hash(NEW_JOURNAL)
    header = SegmentHeader(journal=NEW_JOURNAL, number=1, first_seq=1, last_group=0, previous=first)
    data, _ = frames.encode_frame(body, seq=1, count=1, group=1, group_offset=96, previous=first)
    return MemoryDisk(contents={ONE: (encode_header(header) + data).ljust(SMALL.segment_bytes, b"\0")})
