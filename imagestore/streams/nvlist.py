"""Name-value lists in XDR, as package headers carry them.

Decodes and encodes the few types that senders use; pairs of other types are
passed over.  Bounded: nesting, the number of pairs and every length are
checked before anything is taken.  Pure: bytes in, dictionaries out; what the
names mean is ``packages``'s.
"""

import struct
from typing import Final

from imagestore.errors import StreamError

NvValue = int | str | bool | tuple[int, ...] | None | dict[str, "NvValue"]
"""None stands for the type "boolean", which is there or not; bool for "boolean_value"."""
NvList = dict[str, NvValue]

MAX_PAIRS: Final = 1 << 18
MAX_DEPTH: Final = 16

_ENCODING = b"\x01\x01\x00\x00"
_BOOLEAN, _UINT64, _STRING, _UINT64_ARRAY, _NVLIST, _BOOLEAN_VALUE = 1, 8, 9, 16, 19, 21
_HEAD = struct.Struct(">iI")
_PAIR = struct.Struct(">II")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_LIST_END = bytes(8)
_LIST_DECODED_BYTES = 24


def decode(data: memoryview) -> NvList:
    """The list that ``data`` holds; zero padding may follow it.

    Raises:
        StreamError: it is no XDR name-value list, or not a whole one.
    """
    if len(data) < 4 or data[0] != 1:
        raise StreamError("the package's header is no XDR name-value list")
    reader = _Reader(data, 4)
    result = reader.nvlist(0)
    if any(data[reader.at :]):
        raise StreamError("bytes follow the package header's name-value list")
    return result


class _Reader:
    """Takes values from the front, never beyond the end."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self.at = at
        self._pairs = 0

    def _take(self, count: int) -> memoryview:
        if count > len(self._data) - self.at:
            raise StreamError(f"the package header's name-value list is cut at byte {self.at}")
        self.at += count
        return self._data[self.at - count : self.at]

    def _u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack(self._take(8))[0])

    def _text(self) -> str:
        length = self._u32()
        raw = bytes(self._take(length))
        self._take(-length % 4)
        return raw.decode("utf-8", "backslashreplace")

    def nvlist(self, depth: int) -> NvList:
        if depth > MAX_DEPTH:
            raise StreamError(f"the package header nests more than {MAX_DEPTH} lists")
        self._take(_HEAD.size)
        result: NvList = {}
        while True:
            begins = self.at
            encoded, decoded = _PAIR.unpack(self._take(_PAIR.size))
            if not encoded and not decoded:
                return result
            self._pairs += 1
            if self._pairs > MAX_PAIRS:
                raise StreamError(f"the package header holds more than {MAX_PAIRS} pairs")
            name = self._text()
            kind, count = self._u32(), self._u32()
            ends = begins + encoded
            if not self.at <= ends <= len(self._data):
                raise StreamError(f"pair {name[:80]!r} of the package header claims {encoded} bytes")
            if kind in {_BOOLEAN, _UINT64, _STRING, _UINT64_ARRAY, _NVLIST, _BOOLEAN_VALUE}:
                result[name] = self._value(kind, count, depth)
                if self.at != ends:
                    raise StreamError(f"pair {name[:80]!r} of the package header is not as long as it says")
            self.at = ends

    def _value(self, kind: int, count: int, depth: int) -> NvValue:
        match kind:
            case 8:
                return self._u64()
            case 9:
                return self._text()
            case 16:
                return struct.unpack(f">{count}Q", self._take(8 * count))
            case 19:
                return self.nvlist(depth + 1)
            case 21:
                return bool(self._u32())
            case _:
                return None


def encode(pairs: NvList) -> bytes:
    """The XDR form of ``pairs``, in their order; a multiple of 4 bytes."""
    return _ENCODING + _encode_list(pairs)


def _encode_list(pairs: NvList) -> bytes:
    return _HEAD.pack(0, 1) + b"".join(_encode_pair(name, value) for name, value in pairs.items()) + _LIST_END


def _encode_pair(name: str, value: NvValue) -> bytes:
    kind, count, packed, decoded_bytes = _encode_value(value)
    body = _encode_text(name) + _PAIR.pack(kind, count) + packed
    decoded = _aligned(16 + len(name.encode()) + 1) + decoded_bytes
    return _PAIR.pack(len(body) + _PAIR.size, decoded) + body


def _encode_value(value: NvValue) -> tuple[int, int, bytes, int]:
    """Type number, number of elements, packed value, and its size in a receiver's memory."""
    match value:
        case None:
            return _BOOLEAN, 0, b"", 0
        case bool():
            return _BOOLEAN_VALUE, 1, _U32.pack(value), 8
        case int():
            return _UINT64, 1, _U64.pack(value), 8
        case str():
            return _STRING, 1, _encode_text(value), _aligned(len(value.encode()) + 1)
        case tuple():
            return _UINT64_ARRAY, len(value), struct.pack(f">{len(value)}Q", *value), 8 * len(value)
        case dict():
            return _NVLIST, 1, _encode_list(value), _LIST_DECODED_BYTES


def _encode_text(text: str) -> bytes:
    raw = text.encode()
    return _U32.pack(len(raw)) + raw + bytes(-len(raw) % 4)


def _aligned(size: int) -> int:
    return (size + 7) & ~7
