"""The map counts every byte once, whatever the volume's size, and draws what it counted."""

import random

from imagestore.streams.volume_map import BUCKETS, MapBuilder, draw


def test_every_byte_is_counted_once_however_large_the_volume() -> None:
    chance = random.Random(2)
    for reach in (1 << 16, 1 << 30, 1 << 62):
        builder = MapBuilder()
        total = 0
        for _ in range(200):
            start = chance.randrange(reach)
            length = chance.randrange(1, max(reach // 50, 2))
            builder.add_data(start, start + length)
            total += length
        assert sum(builder.build(0).data) == total


def test_buckets_hold_what_lies_in_them() -> None:
    builder = MapBuilder()
    builder.add_data(512 * 3 + 100, 512 * 6 + 5)
    builder.add_hole(512, 1024)
    picture = builder.build(512 * 8)
    assert picture.data == (0, 0, 0, 412, 512, 512, 5, 0)
    assert picture.holes == (0, 512, 0, 0, 0, 0, 0, 0)


def test_a_map_is_bounded() -> None:
    builder = MapBuilder()
    builder.add_data(0, 1 << 60)
    assert len(builder.build(1 << 61).data) <= BUCKETS


def test_the_picture_shows_data_holes_and_what_is_not_in_the_stream() -> None:
    builder = MapBuilder()
    builder.add_data(0, 1024)
    builder.add_data(1024, 1024 + 256)
    builder.add_hole(2048, 2560)
    assert draw(builder.build(4096), 8, ascii_only=True) == "##+ -   "
    assert draw(builder.build(4096), 4, lines=2, ascii_only=True) == "##+ \n-   "
    assert draw(builder.build(4096), 4, lines=1) == "█▒- "


def test_an_empty_map_can_be_drawn() -> None:
    assert draw(MapBuilder().build(0), 10).strip() == ""
