"""The checksum by matrix products is the checksum by its definition."""

import random

import numpy as np
import pytest

from imagestore.streams import fletcher4
from imagestore.streams.sealing import RecordBuffer, Sealer
from tests.streams import building
from tests.streams.building import BLOCK, full, positions, stream

START = (1 << 63 | 5, 7, (1 << 64) - 1, 11)


def words_of(data: bytes) -> fletcher4.Words:
    return np.frombuffer(data, dtype=np.uint32)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 127, 128, 1000, 65536, 65537, 131072 + 70])
@pytest.mark.parametrize("content", ["chance", "ones", "zeros"])
def test_any_length_and_content_is_as_defined(count: int, content: str) -> None:
    data = {
        "chance": random.Random(count).randbytes(4 * count),
        "ones": b"\xff" * (4 * count),
        "zeros": bytes(4 * count),
    }[content]
    computed = fletcher4.Fletcher4().advance(START, words_of(data))
    assert computed == building.fletcher4(START, data)


def test_states_at_any_position_are_as_defined() -> None:
    chance = random.Random(1)
    data = chance.randbytes(4 * 3000)
    at = [0, 1, 63, 64, 65, 128, 2999, 3000, *(chance.randrange(3001) for _ in range(40))]
    states = fletcher4.Fletcher4().states_at(START, words_of(data), np.array(at))
    for position, state in zip(at, states.tolist(), strict=True):
        assert tuple(state) == building.fletcher4(START, data[: 4 * position])


def test_sealed_records_carry_the_defined_checksums() -> None:
    records = full(*(building.write(at * BLOCK, bytes([at + 1]) * BLOCK) for at in range(6)))
    sealer = Sealer()
    begin, _ = records[0]
    sealer.cover(np.frombuffer(begin, dtype=np.uint8))
    sealed = bytearray(begin)
    buffer = RecordBuffer(1 << 16, sealer)
    for number, (header, payload) in enumerate(records[1:-1]):
        buffer.append(header, payload)
        if number % 3 == 0:
            sealed += buffer.take()
    sealed += buffer.take()
    right = stream(records)
    assert bytes(sealed) == right[: positions(right)[-1]]
