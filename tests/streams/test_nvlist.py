"""Name-value lists: what senders write is read, what they could not have written is refused."""

import random

import pytest

from imagestore.errors import StreamError
from imagestore.streams import nvlist, packages, records
from imagestore.streams.decoding import decode
from tests.streams.samples import load

LIST: nvlist.NvList = {
    "tosnap": "s3",
    "not_recursive": None,
    "answer": 42,
    "yes": True,
    "many": (1, 2, (1 << 64) - 1),
    "inner": {"a": 1, "deeper": {"name": "größer"}},
    "": "",
}


def test_what_is_encoded_is_decoded() -> None:
    assert nvlist.decode(memoryview(nvlist.encode(LIST))) == LIST


def test_a_real_header_is_decoded_and_encodes_to_itself() -> None:
    data = load("v64k-R")
    payload = data[312 : 312 + int.from_bytes(data[4:8], "little")]
    decoded = nvlist.decode(memoryview(payload))
    assert decoded["tosnap"] == "s3"
    assert nvlist.encode(decoded) == payload


def test_a_real_header_names_its_snapshots() -> None:
    data = load("v8k-s1-p")
    begin = decode(memoryview(data), 0)
    assert isinstance(begin, records.Begin)
    header = packages.parse_header(begin, memoryview(data)[312 : 312 + begin.payload_bytes])
    assert header.snapshots == {17668411778908591973: "s1"}
    assert header.properties == {"compression": "15"}
    header.check_member(17668411778908591973)
    with pytest.raises(StreamError, match="does not list"):
        header.check_member(5)


def test_a_cut_list_is_refused_wherever_it_is_cut() -> None:
    data = nvlist.encode(LIST)
    for length in range(len(data) - 1):
        with pytest.raises(StreamError):
            nvlist.decode(memoryview(data[:length]))


def test_any_damage_is_refused_or_read_but_nothing_else() -> None:
    data = nvlist.encode(LIST)
    chance = random.Random(4)
    refused = 0
    for _ in range(3000):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(data))] = chance.randrange(256)
        try:
            nvlist.decode(memoryview(damaged))
        except StreamError:
            refused += 1
    assert refused > 500


def test_endless_nesting_is_refused() -> None:
    nested: nvlist.NvList = {}
    for _ in range(20):
        nested = {"a": nested}
    with pytest.raises(StreamError, match="nests"):
        nvlist.decode(memoryview(nvlist.encode(nested)))


def test_pairs_of_unknown_types_are_passed_over() -> None:
    data = bytearray(nvlist.encode({"odd": 7, "even": 8}))
    at = data.index(b"odd") + 4
    data[at : at + 4] = (17).to_bytes(4, "big")
    assert nvlist.decode(memoryview(data)) == {"even": 8}
